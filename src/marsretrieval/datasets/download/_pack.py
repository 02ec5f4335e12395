"""Pairs into WebDataset tars that are the same, byte for byte, whenever they are made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marsretrieval.datasets._tar import write_tar
from marsretrieval.datasets.download._cache import Fetched
from marsretrieval.datasets.download._pairs import Pair
from marsretrieval.files import atomic_path, confined, sha256_file, sha256_json
from marsretrieval.progress import NO_PROGRESS, Progress

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
                    write_tar(temporary, _members(members, render))
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
            confined(folder, name, nested=False).unlink(missing_ok=True)
    return records


def _changed(folder: Path, record: Mapping[str, Any]) -> bool:
    path = confined(folder, record["path"])
    return not path.is_file() or sha256_file(path) != record["sha256"]


def _members(
    pairs: Sequence[PackedPair], render: Callable[[Fetched], tuple[str, bytes]]
) -> Iterator[tuple[str, bytes]]:
    for packed in pairs:
        extension, data = render(packed.fetched)
        text = json.dumps(packed.annotation(), sort_keys=True, ensure_ascii=False, indent=1)
        yield f"{packed.pair.name}.{extension}", data
        yield f"{packed.pair.name}.json", text.encode()
