"""Images in a folder: plain, or one sub-folder a class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from marsretrieval import geo
from marsretrieval.datasets._captions import Annotation, from_json, from_text
from marsretrieval.datasets._images import EXTENSIONS
from marsretrieval.datasets._listing import files_fingerprint
from marsretrieval.datasets._protocol import Record, Shard, Skipped

__all__ = ["FolderSource"]

_PER_SHARD = 512
_SIDECARS = frozenset({".json", ".txt", ".csv", ".md", ".xml", ".yaml", ".yml", ".html"})


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

    @classmethod
    def of(cls, root: Path, *, by_class: bool) -> FolderSource:
        paths = (path for path in root.rglob("*") if path.is_file())
        files = sorted(
            path
            for path in paths
            if not any(part.startswith(".") for part in path.relative_to(root).parts)
            and path.suffix.lower() not in _SIDECARS
        )
        return cls(str(root), root, by_class, tuple(files))

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
        key = str(below.with_suffix("").as_posix())
        if path.suffix.lower() not in EXTENSIONS:
            return Skipped(key, str(path), f"no image by its extension '{path.suffix}'")
        try:
            found = _beside(path)
            data = path.read_bytes() if images else b""
        except (OSError, ValueError) as error:
            return Skipped(key, str(path), f"cannot be read ({error})")
        corner = geo.tile_corner(path.stem)
        half = geo.TILE_DEG / 2
        return Record(
            id=key,
            data=data,
            source=str(path),
            caption=found.caption,
            original_caption=found.original_caption,
            label=below.parts[0] if self.by_class and len(below.parts) > 1 else found.label,
            lon=corner[0] + half if corner else None,
            lat=corner[1] + half if corner else None,
            width_deg=geo.TILE_DEG if corner else None,
            height_deg=geo.TILE_DEG if corner else None,
        )


def _beside(path: Path) -> Annotation:
    for suffix, parse in ((".json", from_json), (".txt", from_text)):
        beside = path.with_suffix(suffix)
        if beside.exists():
            return parse(beside.read_bytes())
    return Annotation()
