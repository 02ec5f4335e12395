"""Images in a folder: plain, or one sub-folder a class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from marsretrieval.datasets._captions import (
    MAX_ANNOTATION_BYTES,
    Annotation,
    Problem,
    annotation,
    locate,
)
from marsretrieval.datasets._georeference import (
    read_georeference,
    read_world_file,
    world_file_suffixes,
)
from marsretrieval.datasets._images import EXTENSIONS, MAX_BYTES
from marsretrieval.datasets._labels import LabelTables, class_of, read_label_tables
from marsretrieval.datasets._listing import files_below, files_fingerprint, is_side_file
from marsretrieval.datasets._places import Position
from marsretrieval.datasets._protocol import Record, Shard, Skipped
from marsretrieval.datasets._source_file import (
    read_regular,
    regular_size,
)
from marsretrieval.datasets._utf8 import escape, skip_unless_utf8

_PER_SHARD = 512


@dataclass(frozen=True)
class FolderSource:
    """Every image below `root`, in the order of its path. The id is the path below `root` without
    its extension.

    With `class_folders`, the label is the name of the first folder below `root` that is no split
    (train, test, val ...). A table ``labels*.txt`` goes before that, see `read_label_tables`.
    A .json or .txt beside an image annotates it, as in a WebDataset; a world file says where it
    lies.
    """

    name: str
    root: Path
    by_class: bool = False
    files: tuple[Path, ...] = field(default=(), repr=False)
    again: frozenset[Path] = field(default=frozenset(), repr=False)  # of an id that others have
    class_folders: bool = False
    tables: LabelTables = field(default=LabelTables(), repr=False)

    @classmethod
    def of(cls, root: Path, *, by_class: bool, class_folders: bool) -> FolderSource:
        everything = files_below(root)
        files = [path for path in everything if not is_side_file(path)]
        images = [path for path in files if path.suffix.lower() in EXTENSIONS]
        first: dict[Path, Path] = {}
        for path in images:
            first.setdefault(path.with_suffix(""), path)
        again = frozenset(path for path in images if first[path.with_suffix("")] != path)
        tables = read_label_tables(root, everything, images)
        name = escape(str(root))
        return cls(name, root, by_class, tuple(files), again, class_folders, tables)

    @property
    def kind(self) -> str:
        return "classes" if self.by_class else "folder"

    def shards(self) -> Sequence[Shard]:
        return [
            Shard(f"{start // _PER_SHARD:06d}", files_fingerprint(part, root=self.root), len(part))
            for start in range(0, len(self.files), _PER_SHARD)
            for part in [self.files[start : start + _PER_SHARD]]
        ]

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        start = int(shard.name) * _PER_SHARD
        for path in self.files[start : start + _PER_SHARD]:
            yield skip_unless_utf8(self._item(path, images=images))
        if not images and start + _PER_SHARD >= len(self.files):
            yield from map(skip_unless_utf8, self.tables.problems)

    def _item(self, path: Path, *, images: bool) -> Record | Skipped:
        below = path.relative_to(self.root)
        key = below.with_suffix("").as_posix()
        source = escape(str(path))
        if path.suffix.lower() not in EXTENSIONS:
            return Skipped(key, source, f"no image by its extension '{path.suffix}'")
        if path in self.again:
            return Skipped(key, source, "the same key has an image of another format")
        try:
            if images:
                data = read_regular(path, MAX_BYTES)
            else:
                regular_size(path, MAX_BYTES)
                data = b""
        except ValueError as error:
            return Skipped(key, source, str(error))
        found = _beside(path)
        if path in self.tables.conflicts:
            conflict: Problem = ("annotation", self.tables.conflicts[path])
            found = replace(found, problems=(*found.problems, conflict))
        place, found = locate(
            path.stem, found, lambda: _georeference(path, data) if images else None
        )
        return Record(
            id=key,
            data=data,
            source=source,
            caption=found.caption,
            original_caption=found.original_caption,
            label=self._label(path, below.parts[:-1], found.label),
            lon=place.lon,
            lat=place.lat,
            width_deg=place.width_deg,
            height_deg=place.height_deg,
            valid=found.valid,
            warnings=found.warnings(key, source),
        )

    def _label(self, path: Path, folders: Sequence[str], sidecar: str | None) -> str | None:
        if path in self.tables.conflicts:
            return None
        folder = class_of(folders) if self.class_folders else None
        return self.tables.labels.get(path) or folder or sidecar


def _beside(path: Path) -> Annotation:
    try:
        return annotation(_content(path, ".json"), _content(path, ".txt"))
    except ValueError as error:
        reason = f"its annotation cannot be read ({error})"
        return Annotation(problems=(("annotation", reason),))


def _georeference(path: Path, data: bytes) -> Position | None:
    """What the image holds itself, else the world file beside it. Raises ValueError."""
    position = read_georeference(data)
    if position is not None:
        return position
    for suffix in world_file_suffixes(path.suffix):
        text = _content(path, suffix)
        if text is not None:
            return read_world_file(text, data, _content(path, ".prj"))
    return None


def _content(path: Path, suffix: str) -> bytes | None:
    """Content of the file beside an image; None without one. Raises ValueError, DataError."""
    for name in (suffix, suffix.upper()):
        beside = path.with_suffix(name)
        if beside.is_file():
            return read_regular(beside, MAX_ANNOTATION_BYTES)
    return None
