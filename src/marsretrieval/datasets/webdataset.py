"""WebDataset tars: ``key.png`` with ``key.json`` or ``key.txt``."""

from __future__ import annotations

import io
import lzma
import sys
import tarfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Self, cast

from marsretrieval.datasets.base import (
    Record,
    RepeatedKey,
    Shard,
    Skipped,
    escape,
    is_utf8,
    skip_unless_utf8,
)
from marsretrieval.datasets.images import EXTENSIONS, MAX_BYTES
from marsretrieval.datasets.listing import (
    WORLD_FILE_SUFFIXES,
    SourceFile,
    file_fingerprint,
    is_side_file,
    is_tiff,
    regular_size,
)
from marsretrieval.datasets.sidecar import (
    MAX_ANNOTATION_BYTES,
    class_from_folders,
    locate_image,
    parse_annotation,
)
from marsretrieval.errors import DataError
from marsretrieval.geo.sphere import parse_quad_name
from marsretrieval.io import sha256_json

if TYPE_CHECKING:
    from marsretrieval.datasets.position_fields import Position

# Decompressors raise OSError; I/O failures of the file are raised as DataError.
_TAR_ERRORS = (
    tarfile.TarError, OSError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError,
)  # fmt: skip
_LONG_HEADERS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip
_MAX_HEADER_BYTES = 2**20  # real names and attributes have some hundred bytes
# Larger members of a compressed or sparse tar are rejected as decompression bombs.
_MAX_EXPANSION, _SMALL = 200, 2**26
_MAX_LISTED = 5  # unused members in messages


@dataclass(frozen=True)
class WebDatasetSource:
    """Images in WebDataset tars, one shard per tar.

    An item is a run of consecutive members with one key. By the WebDataset convention, the key is
    the path up to the first dot of its last part. That last part is the id. If several keys of the
    source share it, the whole key is the id; if several tars hold that key, it is prefixed with the
    name of the tar. Ids do not depend on which tar is read first.

    An image without a label gets the name of its folder as the label if the images of the source
    lie in several folders.

    Attributes:
        name: The path as the user gave it.
        files: Tars.
        kind: Layout.
    """

    name: str
    files: tuple[Path, ...]
    kind: str = "webdataset"
    # Ids of the last listing by its fingerprint; pickled, since they need the headers of all tars.
    _id_cache: dict[str, _ItemIds] = field(default_factory=dict, repr=False, compare=False)

    def shards(self) -> Sequence[Shard]:
        """List one shard per tar."""
        fingerprints = [file_fingerprint(path) for path in self.files]
        keys = self._item_ids(fingerprints)
        return [
            Shard(_shard_name(path), keys.fingerprint(_shard_name(path), fingerprint), None)
            for path, fingerprint in zip(self.files, fingerprints, strict=True)
        ]

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        """Stream the items of a tar.

        Args:
            shard: One of `shards()`.
            images: Read the encoded images; if False, `data` is empty.

        Yields:
            A Record per image; a Skipped for unused members, and for a tar that is damaged.

        Raises:
            DataError: If the disk or server does not respond.
        """
        path = next((path for path in self.files if _shard_name(path) == shard.name), None)
        if path is None:
            raise DataError(f"{self.name}: holds no tar '{shard.name}'")
        keys = self._ids_of(shard, path)
        read_keys: set[str] = set()
        for group in _iter_groups(path, images=images):
            if isinstance(group, Skipped):
                yield skip_unless_utf8(group)
                continue
            group.id = keys.ids.get(shard.name, {}).get(group.key, group.id)
            item = group.item(path, read_keys, by_class=keys.by_class)
            if isinstance(item, Record):
                read_keys.add(group.key)
            yield skip_unless_utf8(item)
            yield from map(skip_unless_utf8, group.left_out(path))

    def _ids_of(self, shard: Shard, path: Path) -> _ItemIds:
        """Return the ids that the shard was listed with; compute them if its tar has changed."""
        for keys in list(self._id_cache.values()):
            if keys.fingerprint(shard.name, file_fingerprint(path)) == shard.fingerprint:
                return keys
        return self._item_ids([file_fingerprint(file) for file in self.files])

    def _item_ids(self, fingerprints: Sequence[str]) -> _ItemIds:
        version = sha256_json(fingerprints)
        keys = self._id_cache.get(version)
        if keys is None:
            keys = _ItemIds.from_tars(self.files, fingerprints)
            self._id_cache.clear()
            self._id_cache[version] = keys
        return keys


def write_tar(path: str | Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write a tar with time 0 and owner 0. Not atomic.

    Args:
        path: File to write, from `io.atomic_path` or inside a staging folder.
        members: Name and data of each member, in order.
    """
    path = Path(path)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def read_members(path: Path, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Read members of a tar by name, in one pass that ends when all are read.

    Args:
        path: A tar, compressed or not.
        names: Names as in `Record.source` after the colon.

    Yields:
        Name and content of each member that is a regular file of at most `MAX_BYTES`; of a
        repeated name the first.

    Raises:
        ValueError: If the tar is missing, not a regular file or damaged.
        DataError: If the disk or server does not respond.
    """
    missing = set(names)
    regular_size(path, sys.maxsize)
    try:
        with (
            SourceFile(path) as file,
            tarfile.open(fileobj=cast("IO[bytes]", file), tarinfo=_LimitedTarInfo) as tar,
        ):
            for member in _iter_members(tar):
                name = escape(member.name)
                limit = min(MAX_BYTES, max(_SMALL, _MAX_EXPANSION * file.size))
                if name in missing and member.isfile() and member.size <= limit:
                    missing.discard(name)
                    yield name, _read_member(tar, member)
                if not missing:
                    return
    except _TAR_ERRORS as error:
        raise ValueError(f"the tar cannot be read ({' '.join(str(error).split())})") from error


@dataclass(frozen=True, slots=True)
class _ItemIds:
    """Ids of the items of all tars.

    Attributes:
        ids: By shard and key, the ids that are longer than the last part of their key.
        by_class: Folders in the keys are labels.
    """

    ids: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    by_class: bool = False

    @classmethod
    def from_tars(cls, files: Sequence[Path], fingerprints: Sequence[str]) -> Self:
        names = [_shard_name(path) for path in files]
        # Tiles of quads are named by their positions, so that names are unique.
        if all(map(parse_quad_name, names)) or not files:
            return cls()
        with ThreadPoolExecutor(min(8, len(files))) as pool:
            keys = list(pool.map(_image_keys_or_empty, files, fingerprints))
        if len(keys) == 1 and not any("/" in key for key in keys[0]):
            return cls()
        base_counts = Counter(_base_name(key) for tar_keys in keys for key in tar_keys)
        key_counts = Counter(key for tar_keys in keys for key in tar_keys)
        ids = {
            name: {
                key: key if key_counts[key] == 1 else f"{name}/{key}"
                for key in tar_keys
                if base_counts[_base_name(key)] > 1
            }
            for name, tar_keys in zip(names, keys, strict=True)
        }
        classes = {class_from_folders(PurePosixPath(key).parts[:-1]) for key in key_counts}
        return cls(
            {name: tar_keys for name, tar_keys in ids.items() if tar_keys},
            None not in classes and len(classes) > 1,
        )

    def fingerprint(self, shard: str, content: str) -> str:
        """Combine a shard's fingerprint with the ids that depend on other tars."""
        ids = self.ids.get(shard)
        return content if not ids else f"{content}-{sha256_json(sorted(ids.items()))[:16]}"


def _image_keys_or_empty(path: Path, fingerprint: str) -> tuple[str, ...]:
    try:
        return _image_keys(path, fingerprint)
    except (DataError, OSError):
        return ()  # the error is reported when the shard is read


@lru_cache(maxsize=8192)
def _image_keys(path: Path, fingerprint: str) -> tuple[str, ...]:
    """Read the keys of a tar's images from its headers; cached until the file changes."""
    groups = _iter_groups(path, images=False, annotations=False)
    names = (group.key for group in groups if isinstance(group, _MemberGroup) and group.image_name)
    return tuple(dict.fromkeys(names))


def _base_name(key: str) -> str:
    return key.rpartition("/")[2]


def _shard_name(path: Path) -> str:
    name = path.stem if path.suffix.lower() == ".tar" else path.name
    return name if is_utf8(name) else escape(name).replace("\\", "%")


@dataclass
class _MemberGroup:
    """The members of one key."""

    key: str
    image_name: str | None = None
    image: bytes = b""
    json: bytes | None = None
    text: bytes | None = None
    world: bytes | None = None
    projection: bytes | None = None
    problems: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    id: str = ""

    def __post_init__(self) -> None:
        self.id = _base_name(self.key)

    def left_out(self, path: Path) -> Iterator[Skipped]:
        """Yield the members that cannot be part of the item."""
        for problem in self.problems:
            yield Skipped(self.id, f"{path}:{self.key}", problem)
        for name in self.repeated:
            reason = f"a second image with the same key: {name}"
            yield RepeatedKey(self.id, f"{path}:{self.key}", reason)

    def item(self, path: Path, read_keys: set[str], *, by_class: bool) -> Record | Skipped:
        source = escape(f"{path}:{self.image_name or self.key}")
        if self.image_name is None:
            return Skipped(self.id, source, self._describe_missing_image(read_keys))
        if self.key in read_keys:
            return RepeatedKey(self.id, source, "the same key occurs earlier in this tar")
        location, annotation = locate_image(
            self.key, parse_annotation(self.json, self.text), self._georeference
        )
        return Record(
            id=self.id,
            data=self.image,
            source=source,
            caption=annotation.caption,
            original_caption=annotation.original_caption,
            label=annotation.label
            or (class_from_folders(PurePosixPath(self.key).parts[:-1]) if by_class else None),
            lon=location.lon,
            lat=location.lat,
            width_deg=location.width_deg,
            height_deg=location.height_deg,
            valid=annotation.valid,
            warnings=annotation.warnings(self.id, source),
        )

    def _georeference(self) -> Position | None:
        """Read the georeference of the image, or its world file. Raises ValueError."""
        if not self.image or (self.world is None and not is_tiff(self.image)):
            return None
        from marsretrieval.datasets.georeference import read_georeference, read_world_file

        position = read_georeference(self.image)
        if position is None and self.world is not None:
            position = read_world_file(self.world, self.image, self.projection)
        return position

    def _describe_missing_image(self, read_keys: set[str]) -> str:
        if self.json is None and self.text is None:
            members = ", ".join(self.others) or "left out"
            return f"no image among its members ({members}){self._explain_dots()}"
        if self.key in read_keys:
            return "an annotation apart from its image: members with one key must be consecutive"
        return f"an annotation without an image{self._explain_dots()}"

    def _explain_dots(self) -> str:
        """Explain the key rule if a second dot in the name hides an image's extension."""
        for name in self.others:
            path = PurePosixPath(name)
            extension = path.name.partition(".")[2]
            if path.suffix.lower() in EXTENSIONS:
                return (
                    f": in a WebDataset, everything after the first dot of a name is the "
                    "extension, here "
                    f"'.{extension}'. Replace the other dots, or extract the tar into a folder"
                )
        return ""


class _LimitedTarInfo(tarfile.TarInfo):
    """Member header that limits the size of names and extended attributes."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _LONG_HEADERS and header.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(
                f"a member's name or attributes have {header.size:,} bytes, more than "
                f"{_MAX_HEADER_BYTES:,}"
            )
        return header


def _iter_groups(
    path: Path, *, images: bool, annotations: bool = True
) -> Iterator[_MemberGroup | Skipped]:
    """Read a tar from front to back; damage ends it with a Skipped for the tar.

    Raises DataError if the file cannot be read.
    """
    tar_item = Skipped(_shard_name(path), str(path), "")
    current: _MemberGroup | None = None
    try:
        with SourceFile(path) as file:
            if file.size == 0:
                yield _with_reason(tar_item, "an empty file, not a tar")
                return
            with tarfile.open(fileobj=cast("IO[bytes]", file), tarinfo=_LimitedTarInfo) as tar:
                for member in _iter_members(tar):
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
                    current = current or _MemberGroup(key)
                    suffix = f".{extension.lower()}"
                    if annotations or suffix in EXTENSIONS:
                        max_bytes = max(_SMALL, _MAX_EXPANSION * file.size)
                        _add_member(
                            tar, member, current, suffix, images=images, max_bytes=max_bytes
                        )
                damage = _check_end(tar)
    except _TAR_ERRORS as error:
        # The current item may be incomplete.
        affected = f", from '{current.id}' on" if current is not None else ""
        message = " ".join(str(error).split())
        yield _with_reason(tar_item, f"the tar cannot be read to its end{affected} ({message})")
        return
    if current is not None:
        yield current
    if damage is not None:
        yield _with_reason(tar_item, damage)


def _iter_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        # tarfile keeps all members, which takes gigabytes for large tars.
        tar.members.clear()  # type: ignore[attr-defined]
        yield member


def _with_reason(item: Skipped, reason: str) -> Skipped:
    return Skipped(item.id, item.source, reason)


def _is_annotation(suffix: str) -> bool:
    return suffix in (".json", ".txt", ".prj") or suffix.lower() in WORLD_FILE_SUFFIXES


def _add_member(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    group: _MemberGroup,
    suffix: str,
    *,
    images: bool,
    max_bytes: int,
) -> None:
    """Add a member to its group; members above `max_bytes` are rejected."""
    limit = MAX_BYTES if suffix in EXTENSIONS else MAX_ANNOTATION_BYTES
    if suffix not in EXTENSIONS and not _is_annotation(suffix):
        if len(group.others) < _MAX_LISTED:
            group.others.append(member.name)
    elif not member.isfile():
        group.problems.append(f"{member.name} is a link or device, not a file")
    elif member.size > limit:
        group.problems.append(f"{member.name} holds {member.size:,} bytes, more than {limit:,}")
    elif member.size > max_bytes:
        group.problems.append(
            f"{member.name} holds {member.size:,} bytes, "
            f"over {_MAX_EXPANSION} times as much as its tar"
        )
    elif suffix == ".json":
        group.json = _read_member(tar, member)
    elif suffix == ".txt":
        group.text = _read_member(tar, member)
    elif suffix == ".prj":
        group.projection = _read_member(tar, member)
    elif suffix.lower() in WORLD_FILE_SUFFIXES:
        group.world = _read_member(tar, member)
    elif group.image_name is not None:
        group.repeated.append(member.name)
    else:
        data = _read_member(tar, member) if images else b""
        group.image_name, group.image = member.name, data


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    data = file.read() if file is not None else b""
    if len(data) != member.size:
        raise tarfile.ReadError(f"{member.name}: {len(data)} of {member.size} bytes")
    return data


def _check_end(tar: tarfile.TarFile) -> str | None:
    """Describe damage after the last member, where only zeros are valid.

    `tarfile` treats a missing end mark or a damaged member as the end.
    """
    file = tar.fileobj
    if file is None:
        return None
    file.seek(tar.offset)
    block = file.read(tarfile.BLOCKSIZE)
    if not block:
        return "the tar has no end marker: it is truncated or unfinished"
    while block:
        if any(block):
            return (
                f"the tar is damaged after byte {tar.offset:,}, or two tars are concatenated: the "
                "rest is not read"
            )
        block = file.read(1 << 16)
    return None
