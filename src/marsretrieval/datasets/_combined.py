"""Several image sources as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from marsretrieval import geo
from marsretrieval.datasets._folder import FolderSource
from marsretrieval.datasets._open import open_images
from marsretrieval.datasets._protocol import ImageSource, Record, Shard, Skipped
from marsretrieval.errors import UsageError


@dataclass(frozen=True)
class CombinedSource:
    """Sources one after the other.

    The first keeps its ids and the names of its shards, so that a store of it alone can grow. The
    ids of the others get the name of their source in front ("north/0001"), unless they are names
    of tiles, which are positions.
    """

    sources: tuple[ImageSource, ...]
    labels: tuple[str, ...]  # "" for the first

    @property
    def name(self) -> str:
        """All paths as they were given."""
        return ", ".join(source.name for source in self.sources)

    @property
    def kind(self) -> str:
        """The kind of all sources, or `mixed`."""
        kinds = {source.kind for source in self.sources}
        return kinds.pop() if len(kinds) == 1 else "mixed"

    def shards(self) -> Sequence[Shard]:
        """The shards of all sources, those of the first under their own names."""
        return [
            replace(shard, name=f"{label}+{shard.name}" if label else shard.name)
            for source, label in zip(self.sources, self.labels, strict=True)
            for shard in source.shards()
        ]

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        """Stream the items of a shard, with ids that tell the sources apart."""
        label = max(
            (label for label in self.labels if label and shard.name.startswith(f"{label}+")),
            key=len,
            default="",
        )
        source = self.sources[self.labels.index(label)]
        inner = replace(shard, name=shard.name.removeprefix(f"{label}+") if label else shard.name)
        for item in source.read(inner, images=images):
            is_named = not label or geo.tile_corner(item.id) is not None
            yield item if is_named else replace(item, id=f"{label}/{item.id}")


def open_sources(paths: Sequence[Path]) -> ImageSource:
    """Open one or more image sources as one.

    Args:
        paths: Files or folders as `open_images` reads them, at least one.

    Returns:
        The source of one path, or a CombinedSource.

    Raises:
        UsageError: If a path is given twice, or lies within another.
        DatasetNotFoundError: If there are no images at a path.
        DataError: If a path has an unknown layout.
    """
    resolved = [path.resolve() for path in paths]
    for number, path in enumerate(resolved):
        for other in range(len(resolved)):
            if other != number and (path.is_relative_to(resolved[other])):
                what = "given twice" if path == resolved[other] else f"a part of {paths[other]}"
                raise UsageError(
                    f"--images {paths[number]}: {what}", remedy="Give every image once."
                )
    sources = tuple(open_images(path) for path in paths)
    if len(sources) == 1:
        return sources[0]
    used = _top_folders(sources[0])
    labels = [""]
    for path in resolved[1:]:
        name = path.name.partition(".")[0].encode("utf-8", "backslashreplace").decode()
        base = name or "images"
        label, number = base, 2
        while label in used:
            label, number = f"{base}-{number}", number + 1
        used.add(label)
        labels.append(label)
    return CombinedSource(sources, tuple(labels))


def _top_folders(source: ImageSource) -> set[str]:
    """First parts of ids that a folder's own images have."""
    if not isinstance(source, FolderSource):
        return set()
    return {file.relative_to(source.root).parts[0] for file in source.files}
