"""One door to every layout: look at a path and choose its reader."""

from __future__ import annotations

from pathlib import Path

from marsretrieval.datasets._folder import FolderSource
from marsretrieval.datasets._images import EXTENSIONS
from marsretrieval.datasets._listing import visible
from marsretrieval.datasets._parquet import ParquetSource
from marsretrieval.datasets._protocol import ImageSource
from marsretrieval.datasets._webdataset import WebDatasetSource
from marsretrieval.errors import DataError, DatasetNotFoundError

__all__ = ["open_images"]

_TARS = (".tar", ".tar.gz", ".tgz")


def open_images(path: Path) -> ImageSource:
    """The images at `path`: a .tar or .parquet file, or a folder of tars, of Parquet files (there
    or in its data/), of class folders, or of images at any depth.

    Raises DatasetNotFoundError when there is nothing, DataError when it is of no known layout.
    """
    if not path.exists():
        raise DatasetNotFoundError(f"{path}: no such file or folder")
    if path.is_file():
        return _file(path)
    for folder in (path, path / "data"):
        if folder.is_dir():
            entries = visible(folder)
            tars = tuple(entry for entry in entries if _is_tar(entry))
            tables = tuple(entry for entry in entries if entry.suffix == ".parquet")
            if tars and tables:
                raise DataError(
                    f"{folder}: holds both tars and Parquet files",
                    remedy="Name one of them, or put them into folders of their own.",
                )
            if tars:
                return WebDatasetSource(str(path), tars)
            if tables:
                return ParquetSource(str(path), tables)
    return _folder(path)


def _file(path: Path) -> ImageSource:
    if _is_tar(path):
        return WebDatasetSource(str(path), (path,))
    if path.suffix == ".parquet":
        return ParquetSource(str(path), (path,))
    raise DataError(
        f"{path}: neither a .tar nor a .parquet file",
        remedy="Name a folder of images, of tars or of Parquet files.",
    )


def _folder(path: Path) -> FolderSource:
    entries = visible(path)
    here = any(entry.suffix.lower() in EXTENSIONS for entry in entries)
    below = [entry for entry in entries if entry.is_dir()]
    source = FolderSource.of(path, by_class=bool(below) and not here and _has_images(below))
    if not any(file.suffix.lower() in EXTENSIONS for file in source.files):
        found = ", ".join(sorted({entry.suffix or f"{entry.name}/" for entry in entries})[:5])
        raise DatasetNotFoundError(
            f"{path}: no images, tars or Parquet files (found: {found or 'nothing'})",
            remedy="Name the folder that holds them.",
        )
    return source


def _has_images(folders: list[Path]) -> bool:
    return any(
        entry.suffix.lower() in EXTENSIONS for folder in folders for entry in visible(folder)
    )


def _is_tar(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(_TARS)
