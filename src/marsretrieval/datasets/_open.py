"""One door to every layout: look at a path and choose its reader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from marsretrieval.datasets._arrow import ArrowSource, saved_files
from marsretrieval.datasets._folder import FolderSource
from marsretrieval.datasets._images import EXTENSIONS
from marsretrieval.datasets._labels import is_split
from marsretrieval.datasets._listing import visible
from marsretrieval.datasets._parquet import ParquetSource
from marsretrieval.datasets._protocol import ImageSource
from marsretrieval.datasets._utf8 import escape, is_utf8
from marsretrieval.datasets._webdataset import WebDatasetSource
from marsretrieval.errors import DataError, DatasetNotFoundError

_TARS = (".tar", ".tar.gz", ".tgz")


def open_images(path: Path) -> ImageSource:
    """The images at `path`: a .tar or .parquet file, or a folder of tars, of Parquet files (there
    or in its data/), of class folders, or of images at any depth, or one that `save_to_disk` wrote.

    Raises DatasetNotFoundError when there is nothing, DataError when it is of no known layout, or
    of several at once.
    """
    path = Path(path)
    if not is_utf8(str(path)):
        raise DataError(f"{escape(str(path))}: its name is not UTF-8", remedy="Rename it.")
    if not path.exists():
        raise DatasetNotFoundError(f"{path}: no such file or folder")
    if path.is_file():
        return _file(path)
    saved = saved_files(path)
    if saved:
        return ArrowSource(str(path), saved)
    for folder in (path, path / "data"):
        if folder.is_dir():
            entries = visible(folder)
            tars = tuple(entry for entry in entries if _is_tar(entry))
            tables = tuple(entry for entry in entries if _is_table(entry))
            _refuse_mixed(folder, tars, tables, [entry for entry in entries if _is_image(entry)])
            if tars:
                return WebDatasetSource(str(path), tars)
            if tables:
                return ParquetSource(str(path), tables)
    return _folder(path)


def _refuse_mixed(folder: Path, *parts: Sequence[Path]) -> None:
    tars, tables, images = parts
    kinds = (("tars", tars), ("Parquet files", tables), ("images", images))
    found = [f"{len(files)} {words}" for words, files in kinds if files]
    if len(found) > 1 and (tars or tables):
        first = (tars or tables)[0]
        raise DataError(
            f"{folder}: holds {' and '.join(found)}",
            remedy=f"Name the one that is meant ({first}), or put each kind in its own folder.",
        )


def _file(path: Path) -> ImageSource:
    if _is_tar(path):
        return WebDatasetSource(str(path), (path,))
    if _is_table(path):
        return ParquetSource(str(path), (path,))
    raise DataError(
        f"{path}: neither a .tar nor a .parquet file",
        remedy="Name a folder of images, of tars or of Parquet files, or a dataset's own folder "
        "if it was written by save_to_disk.",
    )


def _folder(path: Path) -> FolderSource:
    entries = visible(path)
    here = any(map(_is_image, entries))
    below = [] if here else [entry for entry in entries if entry.is_dir()]
    by_class = any(map(_holds_images, below))
    splits = [folder for folder in below if is_split(folder.name)]
    in_splits = (entry for folder in splits for entry in visible(folder) if entry.is_dir())
    class_folders = by_class or any(map(_holds_images, in_splits))
    source = FolderSource.of(path, by_class=by_class, class_folders=class_folders)
    if not any(map(_is_image, source.files)):
        raise DatasetNotFoundError(
            f"{path}: no images, tars or Parquet files (found: {_some(entries) or 'nothing'})",
            remedy=_where(path, source.files),
        )
    return source


def _some(entries: list[Path]) -> str:
    kinds = {f"{entry.name}/" if entry.is_dir() else entry.suffix or entry.name: None
             for entry in entries}  # fmt: skip
    return escape(", ".join(list(kinds)[:5])) + (", ..." if len(kinds) > 5 else "")


def _where(path: Path, files: Sequence[Path]) -> str:
    """The folder further down that holds what was looked for."""
    if any(entry.suffix == ".arrow" for entry in visible(path)):
        return "Write the dataset as Parquet: ds.to_parquet('set.parquet'), and name that file."
    for file in files:
        if file.parent != path and (_is_tar(file) or _is_table(file)):
            return f"Name the folder that holds them: {file.parent}"
    return "Name the folder that holds them."


def _holds_images(folder: Path) -> bool:
    return any(map(_is_image, visible(folder)))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS


def _is_table(path: Path) -> bool:
    return path.suffix.lower() == ".parquet" and path.is_file()


def _is_tar(path: Path) -> bool:
    return path.name.lower().endswith(_TARS) and path.is_file()
