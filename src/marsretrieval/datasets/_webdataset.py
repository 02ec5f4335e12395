"""WebDataset tars: ``key.png`` beside ``key.json`` or ``key.txt``, streamed."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, cast

from marsretrieval.datasets._captions import annotation, locate
from marsretrieval.datasets._georeference import is_world_file, read_georeference, read_world_file
from marsretrieval.datasets._images import EXTENSIONS, MAX_BYTES
from marsretrieval.datasets._listing import file_fingerprint
from marsretrieval.datasets._places import Position
from marsretrieval.datasets._protocol import Record, Shard, Skipped
from marsretrieval.datasets._source_file import SourceFile
from marsretrieval.errors import DataError

__all__ = ["WebDatasetSource"]

# OSError is what the decompressors raise; errors of the file itself come as DataError.
_DAMAGE = (
    tarfile.TarError, OSError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError,
)  # fmt: skip


@dataclass(frozen=True)
class WebDatasetSource:
    """One shard a tar. An item is the run of neighbouring members with one key, as the
    WebDataset convention has it: the key is the path up to the first dot of its last part. That
    last part is the id."""

    name: str
    files: tuple[Path, ...]
    kind: str = "webdataset"

    def shards(self) -> Sequence[Shard]:
        return [Shard(_shard_name(path), file_fingerprint(path), None) for path in self.files]

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        path = next((path for path in self.files if _shard_name(path) == shard.name), None)
        if path is None:
            raise DataError(f"{self.name}: holds no tar '{shard.name}'")
        seen: set[str] = set()
        for group in _groups(path, images=images):
            item = group if isinstance(group, Skipped) else group.item(path, seen)
            if isinstance(item, Record):
                seen.add(item.id)
            yield item
            if not isinstance(group, Skipped):
                yield from group.left_out(path)


def _shard_name(path: Path) -> str:
    return path.stem if path.suffix.lower() == ".tar" else path.name


@dataclass
class _Group:
    """The members of one key."""

    key: str
    image_name: str | None = None
    image: bytes = b""
    json: bytes | None = None
    text: bytes | None = None
    world: bytes | None = None
    projection: bytes | None = None
    problems: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return PurePosixPath(self.key).name

    def left_out(self, path: Path) -> Iterator[Skipped]:
        """Members that are in the way of the item, or of no use to it."""
        for problem in self.problems:
            yield Skipped(self.id, f"{path}:{self.key}", problem)

    def item(self, path: Path, seen: set[str]) -> Record | Skipped:
        source = f"{path}:{self.image_name or self.key}"
        if self.image_name is None:
            return Skipped(self.id, source, self._without_image(seen))
        if self.id in seen:
            return Skipped(self.id, source, "the same key stands in this tar before")
        place, found = locate(self.key, annotation(self.json, self.text), self._georeference)
        return Record(
            id=self.id,
            data=self.image,
            source=source,
            caption=found.caption,
            original_caption=found.original_caption,
            label=found.label,
            lon=place.lon,
            lat=place.lat,
            width_deg=place.width_deg,
            height_deg=place.height_deg,
            valid=found.valid,
            warnings=found.warnings(self.id, source),
        )

    def _georeference(self) -> Position | None:
        """What the image holds itself, else the world file beside it. Raises ValueError."""
        if not self.image:
            return None
        position = read_georeference(self.image)
        if position is None and self.world is not None:
            position = read_world_file(self.world, self.image, self.projection)
        return position

    def _without_image(self, seen: set[str]) -> str:
        if self.json is None and self.text is None:
            return f"no image among its members ({', '.join(self.others) or 'left out'})"
        if self.id in seen:
            return "an annotation apart from its image: the members of a key must be neighbours"
        return "an annotation without an image"


def _groups(path: Path, *, images: bool) -> Iterator[_Group | Skipped]:
    """Read a tar from front to back; what is damaged ends it with a Skipped for the tar.

    Raises DataError when the file cannot be read: that is no damage.
    """
    whole = Skipped(_shard_name(path), str(path), "")
    current: _Group | None = None
    try:
        with SourceFile(path) as file:
            if file.size == 0:
                yield _because(whole, "an empty file, not a tar")
                return
            with tarfile.open(fileobj=cast(IO[bytes], file)) as tar:
                for member in _members(tar):
                    name = PurePosixPath(member.name)
                    if member.isdir() or name.name.startswith("."):
                        continue
                    stem, _, extension = name.name.partition(".")
                    key = str(name.with_name(stem))
                    if current is not None and current.key != key:
                        yield current
                        current = None
                    current = current or _Group(key)
                    _take(tar, member, current, f".{extension.lower()}", images=images)
                damage = _after_the_last(tar)
    except _DAMAGE as error:
        # The item begun may lack members, or the end of one.
        lost = f", from '{current.id}' on" if current is not None else ""
        yield _because(whole, f"the tar cannot be read to its end{lost} ({error})")
        return
    if current is not None:
        yield current
    if damage is not None:
        yield _because(whole, damage)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        # The library keeps them all: gigabytes for a planet in one tar.
        tar.members.clear()  # type: ignore[attr-defined]
        yield member


def _because(item: Skipped, reason: str) -> Skipped:
    return Skipped(item.id, item.source, reason)


def _take(
    tar: tarfile.TarFile, member: tarfile.TarInfo, group: _Group, suffix: str, *, images: bool
) -> None:
    """Put a member into its group."""
    world = is_world_file(suffix)
    if suffix not in EXTENSIONS and suffix not in (".json", ".txt", ".prj") and not world:
        group.others.append(member.name)
    elif not member.isfile():
        group.problems.append(f"{member.name} is a link or device, not a file")
    elif member.size > MAX_BYTES:
        group.problems.append(f"{member.name} holds {member.size:,} bytes, more than {MAX_BYTES:,}")
    elif suffix == ".json":
        group.json = _content(tar, member)
    elif suffix == ".txt":
        group.text = _content(tar, member)
    elif suffix == ".prj":
        group.projection = _content(tar, member)
    elif world:
        group.world = _content(tar, member)
    elif group.image_name is not None:
        group.problems.append(f"a second image under one key: {member.name}")
    else:
        data = _content(tar, member) if images else b""
        group.image_name, group.image = member.name, data


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    data = file.read() if file is not None else b""
    if len(data) != member.size:
        raise tarfile.ReadError(f"{member.name}: {len(data)} of {member.size} bytes")
    return data


def _after_the_last(tar: tarfile.TarFile) -> str | None:
    """What is wrong behind the last member. Only zeros may follow it; the library takes a tar
    without them, and a damaged member, for the end as well."""
    file = tar.fileobj
    if file is None:
        return None
    file.seek(tar.offset)
    mark = file.read(tarfile.BLOCKSIZE)
    if not mark:
        return "the tar has no end mark: it was cut between two members, or never finished"
    while mark:
        if any(mark):
            return (
                f"the tar is damaged behind byte {tar.offset:,}, or two are joined: what follows "
                "is not read"
            )
        mark = file.read(1 << 16)
    return None
