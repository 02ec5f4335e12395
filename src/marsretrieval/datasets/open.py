"""Detect the layout of a path and open it with the matching reader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from marsretrieval.datasets.base import (
    ImageSource,
    Record,
    RepeatedKey,
    Shard,
    Skipped,
    escape,
    is_utf8,
)
from marsretrieval.datasets.images import EXTENSIONS
from marsretrieval.datasets.listing import list_visible
from marsretrieval.errors import DataError, DatasetNotFoundError, UsageError
from marsretrieval.geo.sphere import tile_corner
from marsretrieval.text import suggest_path

if TYPE_CHECKING:
    from marsretrieval.datasets.folder import FolderSource

_STATE_FILE = "state.json"  # in a folder written by Dataset.save_to_disk
_TARS = (".tar", ".tar.gz", ".tgz")
_PAIRS = (".csv", ".tsv")  # tables of image paths and captions


def open_images(path: str | Path) -> ImageSource:
    """Open the images at a path.

    Args:
        path: A .tar or .parquet file; a table (.csv, .tsv) of image paths and captions; a folder
            of tars, of Parquet files (also in its `data` folder), of class folders, or of images
            at any depth, with or without metadata files; or a folder written by `save_to_disk`.

    Returns:
        The reader of that layout.

    Raises:
        DatasetNotFoundError: If the path is missing or has no images.
        DataError: If the layout is unknown, or several layouts are mixed.
    """
    path = Path(path)
    if not is_utf8(str(path)):
        raise DataError(f"{escape(str(path))}: its name is not UTF-8", remedy="Rename it.")
    if not path.exists():
        raise DatasetNotFoundError(f"{path}: no such file or folder", remedy=suggest_path(path))
    if path.is_file():
        return _open_file(path)
    saved = _find_arrow_files(path)
    if saved:
        from marsretrieval.datasets.arrow import ArrowSource

        return ArrowSource(str(path), saved)
    for folder in (path, path / "data"):
        if folder.is_dir():
            entries = list_visible(folder)
            tars = tuple(entry for entry in entries if _is_tar(entry))
            tables = tuple(entry for entry in entries if _is_table(entry))
            if not tars and len(tables) == 1 and _is_metadata(tables[0]):
                tables = ()  # the metadata of an image folder
            _refuse_mixed(folder, tars, tables, [entry for entry in entries if _is_image(entry)])
            if tars or tables:
                return _open_archives(path, tars, tables)
    return _open_folder(path)


def is_dataset_file(path: Path) -> bool:
    """Check that a path is a file in one of the layouts, judged by its extension.

    Args:
        path: Path of a dataset.

    Returns:
        True for a tar, a Parquet file, or a table of image paths and captions.
    """
    return _is_tar(path) or _is_table(path) or _is_pairs(path)


def _find_arrow_files(folder: Path) -> tuple[Path, ...]:
    """List the Arrow files of a dataset written by `save_to_disk`, or of all its splits."""
    folders = [folder, *(entry for entry in list_visible(folder) if entry.is_dir())]
    return tuple(
        path
        for subfolder in folders
        if (subfolder / _STATE_FILE).is_file()
        for path in list_visible(subfolder)
        if path.suffix == ".arrow" and path.is_file()
    )


def _refuse_mixed(folder: Path, *parts: Sequence[Path]) -> None:
    tars, tables, images = parts
    kinds = (("tars", tars), ("Parquet files", tables), ("images", images))
    contents = [f"{len(files)} {words}" for words, files in kinds if files]
    if len(contents) > 1 and (tars or tables):
        first = (tars or tables)[0]
        raise DataError(
            f"{folder}: holds {' and '.join(contents)}",
            remedy=f"Give one of them ({first}), or put them in separate folders.",
        )


def _open_file(path: Path) -> ImageSource:
    if _is_tar(path):
        return _open_archives(path, (path,), ())
    if _is_table(path):
        return _open_archives(path, (), (path,))
    if _is_pairs(path):
        from marsretrieval.datasets.folder import FolderSource

        return FolderSource.from_pairs(path)
    raise DataError(
        f"{path}: neither a .tar nor a .parquet, .csv or .tsv file",
        remedy="Name a folder of images, of tars or of Parquet files, or a dataset's own folder "
        "if it was written by save_to_disk.",
    )


def _open_archives(path: Path, tars: tuple[Path, ...], tables: tuple[Path, ...]) -> ImageSource:
    if tars:
        from marsretrieval.datasets.webdataset import WebDatasetSource

        return WebDatasetSource(str(path), tars)
    from marsretrieval.datasets.parquet import ParquetSource

    return ParquetSource(str(path), tables)


def _open_folder(path: Path) -> FolderSource:
    from marsretrieval.datasets.folder import FolderSource
    from marsretrieval.datasets.sidecar import is_split

    entries = list_visible(path)
    has_images = any(map(_is_image, entries))
    subfolders = [] if has_images else [entry for entry in entries if entry.is_dir()]
    by_class = any(map(_holds_images, subfolders))
    splits = [folder for folder in subfolders if is_split(folder.name)]
    in_splits = (entry for folder in splits for entry in list_visible(folder) if entry.is_dir())
    class_folders = by_class or any(map(_holds_images, in_splits))
    source = FolderSource.from_folder(path, by_class=by_class, class_folders=class_folders)
    if not any(map(_is_image, source.files)):
        contents = _summarize_entries(entries) or "nothing"
        raise DatasetNotFoundError(
            f"{path}: no images, tars or Parquet files (contents: {contents})",
            remedy=_suggest_path(path, source.files),
        )
    return source


def _summarize_entries(entries: list[Path]) -> str:
    kinds = {f"{entry.name}/" if entry.is_dir() else entry.suffix or entry.name: None
             for entry in entries}  # fmt: skip
    return escape(", ".join(list(kinds)[:5])) + (", ..." if len(kinds) > 5 else "")


def _suggest_path(path: Path, files: Sequence[Path]) -> str:
    """Return a remedy: the subfolder that has tars or Parquet files, if any."""
    if any(entry.suffix == ".arrow" for entry in list_visible(path)):
        return "Write the dataset as Parquet: ds.to_parquet('set.parquet'), and name that file."
    for file in files:
        if file.parent != path and (_is_tar(file) or _is_table(file)):
            return f"Name the folder that holds them: {file.parent}"
    return "Name the folder that holds them."


def _holds_images(folder: Path) -> bool:
    return any(map(_is_image, list_visible(folder)))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS


def _is_table(path: Path) -> bool:
    return path.suffix.lower() == ".parquet" and path.is_file()


def _is_metadata(path: Path) -> bool:
    if path.name != "metadata.parquet":
        return False
    from marsretrieval.datasets.metadata import is_table_of_images

    return not is_table_of_images(path)


def _is_pairs(path: Path) -> bool:
    return path.suffix.lower() in _PAIRS and path.is_file()


def _is_tar(path: Path) -> bool:
    return path.name.lower().endswith(_TARS) and path.is_file()


@dataclass(frozen=True)
class CombinedSource:
    """Several sources, one after the other.

    The first keeps its ids and shard names, so that its store can be extended. Ids of the others
    are prefixed with the name of their source ("north/0001"), except tile names, which are
    positions.

    Attributes:
        sources: The combined sources.
        labels: Prefix of each source; empty for the first.
    """

    sources: tuple[ImageSource, ...]
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """All paths as the user gave them."""
        return ", ".join(source.name for source in self.sources)

    @property
    def kind(self) -> str:
        """The kind shared by all sources, or `mixed`."""
        kinds = {source.kind for source in self.sources}
        return kinds.pop() if len(kinds) == 1 else "mixed"

    def shards(self) -> Sequence[Shard]:
        """List the shards of all sources; names after the first source are prefixed."""
        return [
            replace(shard, name=f"{label}+{shard.name}" if label else shard.name)
            for source, label in zip(self.sources, self.labels, strict=True)
            for shard in source.shards()
        ]

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        """Stream the items of a shard, with the prefixed ids.

        Args:
            shard: One of `shards()`.
            images: Read the encoded images; if False, `data` is empty.

        Yields:
            A Record per item, or a Skipped.

        Raises:
            DataError: If a file of the shard cannot be read.
        """
        label = max(
            (label for label in self.labels if label and shard.name.startswith(f"{label}+")),
            key=len,
            default="",
        )
        source = self.sources[self.labels.index(label)]
        inner = replace(shard, name=shard.name.removeprefix(f"{label}+") if label else shard.name)
        for item in source.read(inner, images=images):
            is_named = not label or tile_corner(item.id) is not None
            yield item if is_named else replace(item, id=f"{label}/{item.id}")


def open_sources(paths: Sequence[str | Path]) -> ImageSource:
    """Open one or more image sources as one.

    Args:
        paths: Files or folders that `open_images` can read, at least one.

    Returns:
        The source of one path, or a CombinedSource.

    Raises:
        UsageError: If there is no path, or a path is given twice or lies within another.
        DatasetNotFoundError: If there are no images at a path.
        DataError: If a path has an unknown layout.
    """
    if not paths:
        raise UsageError("no images to open", remedy="Give at least one file or folder.")
    resolved = [Path(path).resolve() for path in paths]
    for number, path in enumerate(resolved):
        for other in range(len(resolved)):
            if other != number and (path.is_relative_to(resolved[other])):
                problem = "given twice" if path == resolved[other] else f"inside {paths[other]}"
                raise UsageError(
                    f"--images {paths[number]}: {problem}", remedy="Give every image once."
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
    """Return the first path components of a folder's own images, which are used in their ids."""
    from marsretrieval.datasets.folder import FolderSource

    if not isinstance(source, FolderSource):
        return set()
    return {file.relative_to(source.root).parts[0] for file in source.files}


def read_annotations(source: ImageSource) -> tuple[list[Record], list[Skipped]]:
    """Read all annotations of a source, without images.

    Args:
        source: An image source.

    Returns:
        Records with empty `data`, and the items left out. Of several records with one id the first
        is used, the others are left out.

    Raises:
        DataError: If the source cannot be read.
    """
    records: dict[str, Record] = {}
    skipped: list[Skipped] = []
    for shard in source.shards():
        for item in source.read(shard, images=False):
            if isinstance(item, Skipped):
                skipped.append(item)
            elif item.id in records:
                before = records[item.id].source
                skipped.append(RepeatedKey(item.id, item.source, f"the same key as {before}"))
            else:
                records[item.id] = item
    return list(records.values()), skipped
