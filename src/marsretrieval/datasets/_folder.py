"""Images in a folder: plain, or one sub-folder a class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from marsretrieval.datasets._captions import Annotation, annotation, locate
from marsretrieval.datasets._georeference import (
    is_world_file,
    read_georeference,
    read_world_file,
    world_file_suffixes,
)
from marsretrieval.datasets._images import EXTENSIONS, MAX_BYTES
from marsretrieval.datasets._listing import files_below, files_fingerprint
from marsretrieval.datasets._places import Position
from marsretrieval.datasets._protocol import Record, Shard, Skipped
from marsretrieval.datasets._source_file import is_failing, unanswered

__all__ = ["FolderSource"]

_PER_SHARD = 512
_SIDECARS = frozenset(
    {".json", ".txt", ".csv", ".md", ".xml", ".yaml", ".yml", ".html"}
    | {".prj"}  # beside world files
)
_MAX_SIDECAR = 2**26  # bytes


@dataclass(frozen=True)
class FolderSource:
    """Every image below `root`, in the order of its path. The id is the path below `root` without
    its extension; with `by_class`, the label is the name of the first folder below `root`.

    A .json or .txt beside an image annotates it, as in a WebDataset; a world file says where it
    lies.
    """

    name: str
    root: Path
    by_class: bool = False
    files: tuple[Path, ...] = field(default=(), repr=False)
    again: frozenset[Path] = field(default=frozenset(), repr=False)  # of an id that others have

    @classmethod
    def of(cls, root: Path, *, by_class: bool) -> FolderSource:
        files = [path for path in files_below(root) if not _is_sidecar(path)]
        first: dict[Path, Path] = {}
        for path in files:
            if path.suffix.lower() in EXTENSIONS:
                first.setdefault(path.with_suffix(""), path)
        again = (
            path
            for path in files
            if path.suffix.lower() in EXTENSIONS and first[path.with_suffix("")] != path
        )
        return cls(str(root), root, by_class, tuple(files), frozenset(again))

    @property
    def kind(self) -> str:
        return "classes" if self.by_class else "folder"

    def shards(self) -> Sequence[Shard]:
        return [
            Shard(f"{start // _PER_SHARD:06d}", files_fingerprint(part), len(part))
            for start in range(0, len(self.files), _PER_SHARD)
            for part in [self.files[start : start + _PER_SHARD]]
        ]

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        start = int(shard.name) * _PER_SHARD
        for path in self.files[start : start + _PER_SHARD]:
            yield self._item(path, images=images)

    def _item(self, path: Path, *, images: bool) -> Record | Skipped:
        below = path.relative_to(self.root)
        key = below.with_suffix("").as_posix()
        if path.suffix.lower() not in EXTENSIONS:
            return Skipped(key, str(path), f"no image by its extension '{path.suffix}'")
        if path in self.again:
            return Skipped(key, str(path), "the same key has an image of another format")
        try:
            size = path.stat().st_size
            if size > MAX_BYTES:
                return Skipped(key, str(path), f"{size:,} bytes, more than {MAX_BYTES:,}")
            data = path.read_bytes() if images else b""
        except OSError as error:
            if is_failing(error):
                raise unanswered(path, error) from error
            return Skipped(key, str(path), f"cannot be read ({error.strerror})")
        place, found = locate(
            path.stem, _beside(path), lambda: _georeference(path, data) if images else None
        )
        return Record(
            id=key,
            data=data,
            source=str(path),
            caption=found.caption,
            original_caption=found.original_caption,
            label=below.parts[0] if self.by_class and len(below.parts) > 1 else found.label,
            lon=place.lon,
            lat=place.lat,
            width_deg=place.width_deg,
            height_deg=place.height_deg,
            valid=found.valid,
            warnings=found.warnings(key, str(path)),
        )


def _is_sidecar(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in _SIDECARS or is_world_file(suffix)


def _beside(path: Path) -> Annotation:
    try:
        return annotation(_content(path, ".json"), _content(path, ".txt"))
    except OSError as error:
        if is_failing(error):
            raise unanswered(path, error) from error
        reason = f"its annotation cannot be read ({error.strerror})"
        return Annotation(problems=(("annotation", reason),))


def _georeference(path: Path, data: bytes) -> Position | None:
    """What the image holds itself, else the world file beside it. Raises ValueError."""
    position = read_georeference(data)
    if position is not None:
        return position
    try:
        for suffix in world_file_suffixes(path.suffix):
            text = _content(path, suffix)
            if text is not None:
                return read_world_file(text, data, _content(path, ".prj"))
    except OSError as error:
        if is_failing(error):
            raise unanswered(path, error) from error
        raise ValueError(f"its world file cannot be read ({error.strerror})") from error
    return None


def _content(path: Path, suffix: str) -> bytes | None:
    for name in (suffix, suffix.upper()):
        beside = path.with_suffix(name)
        if beside.is_file():
            if beside.stat().st_size > _MAX_SIDECAR:
                raise OSError(0, f"more than {_MAX_SIDECAR:,} bytes")
            return beside.read_bytes()
    return None
