"""WebDataset tars: ``key.png`` beside ``key.json`` or ``key.txt``, streamed."""

from __future__ import annotations

import io
import lzma
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Self, cast

from marsretrieval.datasets.base import Record, Shard, Skipped, escape, is_utf8, skip_unless_utf8
from marsretrieval.datasets.folder import class_of
from marsretrieval.datasets.georeference import is_world_file, read_georeference, read_world_file
from marsretrieval.datasets.images import EXTENSIONS, MAX_BYTES
from marsretrieval.datasets.listing import file_fingerprint, is_side_file
from marsretrieval.datasets.position_fields import Position
from marsretrieval.datasets.sidecar import MAX_ANNOTATION_BYTES, annotation, locate
from marsretrieval.datasets.source_file import SourceFile
from marsretrieval.errors import DataError
from marsretrieval.geo import parse_quad_name
from marsretrieval.io import sha256_json

# OSError is what the decompressors raise; errors of the file itself come as DataError.
_DAMAGE = (
    tarfile.TarError, OSError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError,
)  # fmt: skip
_LONG_HEADERS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip
_MAX_HEADER_BYTES = 2**20  # names and attributes of real members take some hundred bytes
# An image does not shrink so far in a compressed or sparse tar, unless it is there to fill memory.
_EXPANSION, _SMALL = 200, 2**26
_NAMED = 5  # members of no use, in messages


@dataclass(frozen=True)
class WebDatasetSource:
    """One shard a tar. An item is the run of neighbouring members with one key, as the
    WebDataset convention has it: the key is the path up to the first dot of its last part. That
    last part is the id. Where several keys of the source share it, the whole key is the id, and
    where several tars hold that key, the name of the tar precedes it: a dataset has the same ids
    whichever tar is read first.

    Without a label beside it, an image in a folder is labelled by the folder, if there are several.
    """

    name: str
    files: tuple[Path, ...]
    kind: str = "webdataset"
    # Filled on demand, and sent along to other processes: listing the keys means reading headers.
    _keys: dict[str, _Keys] = field(default_factory=dict, repr=False, compare=False)

    def shards(self) -> Sequence[Shard]:
        prints = [file_fingerprint(path) for path in self.files]
        keys = self._keys_of(prints)
        return [
            Shard(_shard_name(path), keys.fingerprint(_shard_name(path), print_), None)
            for path, print_ in zip(self.files, prints, strict=True)
        ]

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        path = next((path for path in self.files if _shard_name(path) == shard.name), None)
        if path is None:
            raise DataError(f"{self.name}: holds no tar '{shard.name}'")
        keys = self._keys_of([file_fingerprint(each) for each in self.files])
        seen: set[str] = set()
        for group in _groups(path, images=images):
            if isinstance(group, Skipped):
                yield skip_unless_utf8(group)
                continue
            group.id = keys.ids.get(shard.name, {}).get(group.key, group.id)
            item = group.item(path, seen, by_class=keys.by_class)
            if isinstance(item, Record):
                seen.add(group.key)
            yield skip_unless_utf8(item)
            yield from map(skip_unless_utf8, group.left_out(path))

    def _keys_of(self, fingerprints: Sequence[str]) -> _Keys:
        version = sha256_json(fingerprints)
        if version not in self._keys:
            self._keys[version] = _Keys.of(self.files, fingerprints)
        return self._keys[version]


@dataclass(frozen=True, slots=True)
class _Keys:
    """How the keys of all tars become ids: `ids` has, by shard and key, those that are longer than
    the last part of their key; `by_class` says that the folders of the keys are labels."""

    ids: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    by_class: bool = False

    @classmethod
    def of(cls, files: Sequence[Path], fingerprints: Sequence[str]) -> Self:
        names = [_shard_name(path) for path in files]
        # Tiles of quads are named by their positions, so that no two share a name.
        if all(map(parse_quad_name, names)) or not files:
            return cls()
        with ThreadPoolExecutor(min(8, len(files))) as pool:
            keys = list(pool.map(_keys_or_none, files, fingerprints))
        if len(keys) == 1 and not any("/" in key for key in keys[0]):
            return cls()
        lasts = Counter(_last(key) for part in keys for key in part)
        wholes = Counter(key for part in keys for key in part)
        ids = {
            name: {
                key: key if wholes[key] == 1 else f"{name}/{key}"
                for key in part
                if lasts[_last(key)] > 1
            }
            for name, part in zip(names, keys, strict=True)
        }
        classes = {class_of(PurePosixPath(key).parts[:-1]) for key in wholes}
        return cls(
            {name: part for name, part in ids.items() if part},
            None not in classes and len(classes) > 1,
        )

    def fingerprint(self, shard: str, content: str) -> str:
        """Of a shard: that of its content, unless other tars have a say in its ids."""
        ids = self.ids.get(shard)
        return content if not ids else f"{content}-{sha256_json(sorted(ids.items()))[:16]}"


def _keys_or_none(path: Path, fingerprint: str) -> tuple[str, ...]:
    try:
        return _image_keys(path, fingerprint)
    except (DataError, OSError):
        return ()  # reading the shard says what is wrong


@lru_cache(maxsize=8192)
def _image_keys(path: Path, fingerprint: str) -> tuple[str, ...]:
    """Keys of the images of a tar, from its headers; kept for as long as the file is the same."""
    groups = _groups(path, images=False, annotations=False)
    names = (group.key for group in groups if isinstance(group, _Group) and group.image_name)
    return tuple(dict.fromkeys(names))


def _last(key: str) -> str:
    return key.rpartition("/")[2]


def _shard_name(path: Path) -> str:
    name = path.stem if path.suffix.lower() == ".tar" else path.name
    return name if is_utf8(name) else escape(name).replace("\\", "%")


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
    id: str = ""

    def __post_init__(self) -> None:
        self.id = _last(self.key)

    def left_out(self, path: Path) -> Iterator[Skipped]:
        """Members that are in the way of the item, or of no use to it."""
        for problem in self.problems:
            yield Skipped(self.id, f"{path}:{self.key}", problem)

    def item(self, path: Path, seen: set[str], *, by_class: bool) -> Record | Skipped:
        source = escape(f"{path}:{self.image_name or self.key}")
        if self.image_name is None:
            return Skipped(self.id, source, self._without_image(seen))
        if self.key in seen:
            return Skipped(self.id, source, "the same key stands in this tar before")
        place, found = locate(self.key, annotation(self.json, self.text), self._georeference)
        return Record(
            id=self.id,
            data=self.image,
            source=source,
            caption=found.caption,
            original_caption=found.original_caption,
            label=found.label
            or (class_of(PurePosixPath(self.key).parts[:-1]) if by_class else None),
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
            return (
                f"no image among its members ({', '.join(self.others) or 'left out'}){self._rule()}"
            )
        if self.key in seen:
            return "an annotation apart from its image: the members of a key must be neighbours"
        return f"an annotation without an image{self._rule()}"

    def _rule(self) -> str:
        """Explain the key rule where a further dot hides the extension of an image."""
        for name in self.others:
            path = PurePosixPath(name)
            extension = path.name.partition(".")[2]
            if path.suffix.lower() in EXTENSIONS:
                return (
                    f": in a WebDataset, all after the first dot of a name is its extension, here "
                    f"'.{extension}'. Replace the other dots, or extract the tar into a folder"
                )
        return ""


class _Header(tarfile.TarInfo):
    """Member header whose name and extended attributes are of a size that fits into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _LONG_HEADERS and header.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(
                f"a member's name or attributes have {header.size:,} bytes, more than "
                f"{_MAX_HEADER_BYTES:,}"
            )
        return header


def _groups(path: Path, *, images: bool, annotations: bool = True) -> Iterator[_Group | Skipped]:
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
            with tarfile.open(fileobj=cast(IO[bytes], file), tarinfo=_Header) as tar:
                for member in _members(tar):
                    name = PurePosixPath(member.name)
                    if member.isdir() or name.name.startswith("."):
                        continue
                    if is_side_file(name) and not _is_annotation(name.suffix.lower()):
                        continue
                    stem, _, extension = name.name.partition(".")
                    key = str(name.with_name(stem))
                    if current is not None and current.key != key:
                        yield current
                        current = None
                    current = current or _Group(key)
                    suffix = f".{extension.lower()}"
                    if annotations or suffix in EXTENSIONS:
                        largest = max(_SMALL, _EXPANSION * file.size)
                        _take(tar, member, current, suffix, images=images, largest=largest)
                damage = _after_the_last(tar)
    except _DAMAGE as error:
        # The item begun may lack members, or the end of one.
        lost = f", from '{current.id}' on" if current is not None else ""
        words = " ".join(str(error).split())
        yield _because(whole, f"the tar cannot be read to its end{lost} ({words})")
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


def _is_annotation(suffix: str) -> bool:
    return suffix in (".json", ".txt", ".prj") or is_world_file(suffix)


def _take(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    group: _Group,
    suffix: str,
    *,
    images: bool,
    largest: int,
) -> None:
    """Put a member into its group; `largest` is what may be in a tar of this size."""
    limit = MAX_BYTES if suffix in EXTENSIONS else MAX_ANNOTATION_BYTES
    if suffix not in EXTENSIONS and not _is_annotation(suffix):
        if len(group.others) < _NAMED:
            group.others.append(member.name)
    elif not member.isfile():
        group.problems.append(f"{member.name} is a link or device, not a file")
    elif member.size > limit:
        group.problems.append(f"{member.name} holds {member.size:,} bytes, more than {limit:,}")
    elif member.size > largest:
        group.problems.append(
            f"{member.name} holds {member.size:,} bytes, over {_EXPANSION} times as much as its tar"
        )
    elif suffix == ".json":
        group.json = _content(tar, member)
    elif suffix == ".txt":
        group.text = _content(tar, member)
    elif suffix == ".prj":
        group.projection = _content(tar, member)
    elif is_world_file(suffix):
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


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write (name, data) members in the given order, with time 0 and owner 0.

    Not atomic: give it a path from `files.atomic_path`, or one inside a staging folder.
    """
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
