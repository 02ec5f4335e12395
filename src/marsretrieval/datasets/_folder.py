"""Images in a folder: plain, or one sub-folder a class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from marsretrieval.datasets._captions import Annotation, annotation
from marsretrieval.datasets._images import EXTENSIONS, MAX_BYTES
from marsretrieval.datasets._listing import files_below, files_fingerprint
from marsretrieval.datasets._places import place_of
from marsretrieval.datasets._protocol import Record, Shard, Skipped
from marsretrieval.datasets._source_file import is_failing, unanswered

__all__ = ["FolderSource"]

_PER_SHARD = 512
_SIDECARS = frozenset(
    {".json", ".txt", ".csv", ".md", ".xml", ".yaml", ".yml", ".html"}
    | {".pgw", ".jgw", ".tfw", ".wld", ".prj"}  # world files, which lie beside maps
)


@dataclass(frozen=True)
class FolderSource:
    """Every image below `root`, in the order of its path. The id is the path below `root` without
    its extension; with `by_class`, the label is the name of the first folder below `root`.

    A .json or .txt beside an image annotates it, as in a WebDataset.
    """

    name: str
    root: Path
    by_class: bool = False
    files: tuple[Path, ...] = field(default=(), repr=False)
    again: frozenset[Path] = field(default=frozenset(), repr=False)  # of an id that others have

    @classmethod
    def of(cls, root: Path, *, by_class: bool) -> FolderSource:
        files = [path for path in files_below(root) if path.suffix.lower() not in _SIDECARS]
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
        try:
            found = _beside(path)
            place = place_of(path.stem, found.bounds, found.centre)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and is_failing(error):
                raise unanswered(path, error) from error
            return Skipped(key, str(path), f"its annotation cannot be read ({error})")
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
        )


def _beside(path: Path) -> Annotation:
    def content(suffix: str) -> bytes | None:
        beside = path.with_suffix(suffix)
        return beside.read_bytes() if beside.is_file() else None

    return annotation(content(".json"), content(".txt"))
