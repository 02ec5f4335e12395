"""WebDataset tars: ``key.png`` beside ``key.json`` or ``key.txt``, streamed."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from marsretrieval import geo
from marsretrieval.datasets._captions import Annotation, from_json, from_text
from marsretrieval.datasets._images import EXTENSIONS
from marsretrieval.datasets._listing import file_fingerprint
from marsretrieval.datasets._protocol import Record, Shard, Skipped

__all__ = ["WebDatasetSource"]


@dataclass(frozen=True)
class WebDatasetSource:
    """One shard a tar. An item is the run of neighbouring members with one key, as the
    WebDataset convention has it: the key is the path up to the first dot of its last part."""

    name: str
    files: tuple[Path, ...]
    kind: str = "webdataset"

    def shards(self) -> Sequence[Shard]:
        return [Shard(path.stem, file_fingerprint(path), None) for path in self.files]

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        path = next(path for path in self.files if path.stem == shard.name)
        seen: set[str] = set()
        for group in _groups(path, images=images):
            if isinstance(group, Skipped):
                yield group
                continue
            source = f"{path}:{group.image_name or group.key}"
            if group.key in seen:
                yield Skipped(group.key, source, "the same key stands in this tar before")
                continue
            seen.add(group.key)
            yield from group.items(source)


@dataclass
class _Group:
    """The members of one key."""

    key: str
    image_name: str | None = None
    image: bytes = b""
    json: bytes | None = None
    text: bytes | None = None
    surplus: str | None = None

    def items(self, source: str) -> Iterator[Record | Skipped]:
        if self.surplus:
            yield Skipped(self.key, source, f"a second image under one key: {self.surplus}")
        try:
            found = _annotation(self.json, self.text)
        except ValueError as error:
            yield Skipped(self.key, source, f"its annotation cannot be read ({error})")
            return
        if self.image_name is None:
            yield Skipped(self.key, source, "an annotation without an image")
            return
        lon, lat, width, height = _position(self.key, found)
        yield Record(
            id=PurePosixPath(self.key).name,
            data=self.image,
            source=source,
            caption=found.caption,
            original_caption=found.original_caption,
            label=found.label,
            lon=lon,
            lat=lat,
            width_deg=width,
            height_deg=height,
        )


def _annotation(json: bytes | None, text: bytes | None) -> Annotation:
    if json is not None:
        found = from_json(json)
        if found.caption is None and text is not None:
            return replace(found, caption=from_text(text).caption)
        return found
    return from_text(text) if text is not None else Annotation()


def _position(
    key: str, found: Annotation
) -> tuple[float | None, float | None, float | None, float | None]:
    """Centre and extent in degrees: from the JSON, else from a published tile name."""
    if found.bounds is not None:
        west, south, east, north = found.bounds
        lon, lat = found.centre or ((west + east) / 2, (south + north) / 2)
        return lon, lat, east - west, north - south
    if found.centre is not None:
        return *found.centre, None, None
    corner = geo.tile_corner(PurePosixPath(key).name)
    if corner is None:
        return None, None, None, None
    lon, lat = corner
    half = geo.TILE_DEG / 2
    return lon + half, lat + half, geo.TILE_DEG, geo.TILE_DEG


def _groups(path: Path, *, images: bool) -> Iterator[_Group | Skipped]:
    """Read a tar from front to back; what is damaged ends it with a Skipped for the tar."""
    current: _Group | None = None
    try:
        if path.stat().st_size == 0:
            yield Skipped(path.stem, str(path), "an empty file, not a tar")
            return
        with tarfile.open(path) as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if not member.isfile() or name.name.startswith("."):
                    continue
                stem, _, extension = name.name.partition(".")
                key, suffix = str(name.with_name(stem)), f".{extension.lower()}"
                if current is not None and current.key != key:
                    yield current
                    current = None
                current = current or _Group(key)
                if suffix in EXTENSIONS:
                    if current.image_name is not None:
                        current.surplus = member.name
                        continue
                    data = _content(tar, member) if images else b""
                    current.image_name, current.image = member.name, data
                elif suffix == ".json":
                    current.json = _content(tar, member)
                elif suffix == ".txt":
                    current.text = _content(tar, member)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        # The last group may lack members: it is part of the damage.
        yield Skipped(path.stem, str(path), f"the tar cannot be read to its end ({error})")
        return
    if current is not None:
        yield current
    if path.suffix == ".tar" and not _has_end_mark(path):
        reason = "the tar has no end mark: it was cut between two members, or never finished"
        yield Skipped(path.stem, str(path), reason)


def _has_end_mark(path: Path) -> bool:
    """A tar ends in blocks of zeros; one cut at a block boundary reads without any other error."""
    with path.open("rb") as file:
        file.seek(-tarfile.BLOCKSIZE, 2)
        return not any(file.read())


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    data = file.read() if file is not None else b""
    if len(data) != member.size:
        raise tarfile.ReadError(f"{member.name}: {len(data)} of {member.size} bytes")
    return data
