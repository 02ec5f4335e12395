"""Pairs into WebDataset tars that are the same, byte for byte, whenever they are made."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marsretrieval.datasets.download._cache import Fetched
from marsretrieval.datasets.download._pairs import Pair
from marsretrieval.files import atomic_path, sha256_file, sha256_json
from marsretrieval.progress import NO_PROGRESS, Progress

__all__ = ["SHARD_ROWS", "PackedPair", "pack"]

SHARD_ROWS = 250  # rows of the table, so that a row found later changes one tar only


@dataclass(frozen=True, slots=True)
class PackedPair:
    pair: Pair
    fetched: Fetched

    def annotation(self) -> dict[str, Any]:
        """The JSON beside the image: both captions, and where the image came from."""
        return {
            "key": self.pair.key,
            "row": self.pair.row,
            "refined_caption": self.pair.refined_caption,
            "ori_caption": self.pair.original_caption,
            "image_url": self.pair.url,
            "resolved_url": self.fetched.resolved_url,
            "recovery_method": self.fetched.method,
            "content_sha256": self.fetched.sha256,
            "image_format": self.fetched.format,
            "width": self.fetched.width,
            "height": self.fetched.height,
            "file_size": self.fetched.size,
        }


def pack(
    pairs: Sequence[PackedPair],
    folder: Path,
    *,
    render: Callable[[Fetched], tuple[str, bytes]],
    parameters: Mapping[str, Any],
    earlier: Sequence[Mapping[str, Any]] = (),
    progress: Progress = NO_PROGRESS,
) -> list[dict[str, Any]]:
    """Write `<number>.tar` for each SHARD_ROWS rows of the table; return their records.

    `render` gives the extension and the bytes that are stored of an image; it is described by
    `parameters`, so that a tar made otherwise is made anew.
    A tar that `earlier` records with the same content, and that is still whole, is kept. Those
    of `earlier` that are no longer wanted are removed.
    """
    shards: dict[str, list[PackedPair]] = {}
    for packed in pairs:
        shards.setdefault(f"{packed.pair.row // SHARD_ROWS:05d}.tar", []).append(packed)
    before = {str(record["path"]): record for record in earlier}
    records = []
    with progress.start("pack", len(pairs), "images") as bar:
        for name, members in sorted(shards.items()):
            annotations = [member.annotation() for member in members]
            content = sha256_json([dict(parameters), annotations])
            record = before.get(name)
            if record is None or record.get("content") != content or _changed(folder, record):
                with atomic_path(folder / name) as temporary:
                    _write(temporary, members, render)
                record = {
                    "path": name,
                    "size": (folder / name).stat().st_size,
                    "sha256": sha256_file(folder / name),
                    "content": content,
                    "rows": len(members),
                }
            records.append(dict(record))
            bar.advance(len(members))
    for name in before.keys() - shards.keys():
        if name.endswith(".tar"):
            (folder / name).unlink(missing_ok=True)
    return records


def _changed(folder: Path, record: Mapping[str, Any]) -> bool:
    path = folder / str(record["path"])
    return not path.is_file() or sha256_file(path) != record["sha256"]


def _write(
    path: Path, members: Sequence[PackedPair], render: Callable[[Fetched], tuple[str, bytes]]
) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member in members:
            extension, data = render(member.fetched)
            text = json.dumps(member.annotation(), sort_keys=True, ensure_ascii=False, indent=1)
            _add(tar, f"{member.pair.name}.{extension}", data)
            _add(tar, f"{member.pair.name}.json", text.encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # owner 0, time 0: nothing of this machine or hour
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
