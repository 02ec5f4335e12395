"""Folder listings in a fixed order, file fingerprints, disk space and folder locks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePath

from marsretrieval.datasets.base import escape
from marsretrieval.errors import DataError, OutputError, UsageError
from marsretrieval.io import locked, sha256_json

# Files that operating systems, GIS programs and people store beside images.
_SIDE_NAMES = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "license", "readme", "makefile"}
)
WORLD_FILE_SUFFIXES = frozenset(
    {".pgw", ".jgw", ".tfw", ".wpw", ".bpw", ".gfw", ".j2w", ".wld"}
    | {".pngw", ".jpgw", ".jpegw", ".tifw", ".tiffw", ".webpw", ".bmpw", ".gifw", ".jp2w", ".jfifw"}
)
_SIDE_SUFFIXES = WORLD_FILE_SUFFIXES | frozenset(
    {".json", ".txt", ".csv", ".tsv", ".md", ".rst", ".xml", ".yaml", ".yml", ".html", ".pdf"}
    | {".ini", ".log", ".py", ".ipynb", ".sh", ".bib"}
    | {".tfwx", ".pgwx", ".jgwx"}  # world files that are not read
    | {".prj", ".ovr", ".aux", ".rrd", ".msk", ".hdr", ".lbl"}  # of GDAL, ENVI and PDS
    | {".qml", ".qmd", ".qgs", ".qgz", ".qlr", ".sld", ".lyr"}  # of QGIS and ArcGIS
    | {".gpkg", ".gpkg-wal", ".gpkg-shm", ".geojson", ".kml", ".kmz"}
    | {".shp", ".shx", ".dbf", ".cpg", ".qix", ".sbn", ".sbx", ".idx", ".sha256", ".md5"}
)
_RESERVED_BYTES = 64 * 2**20  # disk space that stays free


def list_visible(folder: Path) -> list[Path]:
    """List the entries of a folder, without hidden ones.

    Args:
        folder: Folder to list.

    Returns:
        Paths sorted by name.

    Raises:
        DataError: If the folder cannot be listed.
    """
    return [folder / entry.name for entry in _scan_folder(folder)]


def is_side_file(path: PurePath) -> bool:
    """Check for files that commonly accompany images and are ignored by the readers.

    Args:
        path: File in a folder or member of an archive.

    Returns:
        True for annotations, world files, styles, vector layers, thumbnail databases and notes.
    """
    return path.name.lower() in _SIDE_NAMES or path.suffix.lower() in _SIDE_SUFFIXES


def files_below(root: Path) -> list[Path]:
    """List all files of a folder at any depth, without hidden ones.

    Links are followed, except into a folder that contains them. Broken links, pipes and devices
    are listed; the error is reported when they are read.

    Args:
        root: Folder to list.

    Returns:
        Files in the order of their paths.

    Raises:
        DataError: If a folder cannot be listed.
    """
    return list(_iter_files(root, frozenset()))


def _iter_files(folder: Path, parent_ids: frozenset[tuple[int, int]]) -> Iterator[Path]:
    stat = folder.stat()
    folder_id = (stat.st_dev, stat.st_ino)
    if folder_id in parent_ids:
        return
    for entry in _scan_folder(folder):
        if entry.is_dir():
            yield from _iter_files(folder / entry.name, parent_ids | {folder_id})
        else:
            yield folder / entry.name


def _scan_folder(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as iterator:
            entries = [entry for entry in iterator if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"{escape(str(folder))}: cannot be listed ({error.strerror})",
            remedy="Check its permissions.",
        ) from error
    return sorted(entries, key=lambda entry: entry.name)


def file_fingerprint(path: Path) -> str:
    """Compute a fingerprint from the name, size and modification time of a file.

    Args:
        path: The file.

    Returns:
        SHA-256 in hex.
    """
    return files_fingerprint([path])


def files_fingerprint(paths: Iterable[Path], *, root: Path | None = None) -> str:
    """Compute a fingerprint from the names, sizes and modification times of files.

    Args:
        paths: Files, in a fixed order.
        root: Folder that names are relative to, so that renaming a subfolder changes the
            fingerprint; None: use only the last part of each path.

    Returns:
        SHA-256 in hex.
    """
    return sha256_json([[_file_state(path, root) for path in paths]])


def _file_state(path: Path, root: Path | None) -> list[str | int | None]:
    """Return name, size and modification time; the last two are None for a missing file."""
    name = escape(path.name if root is None else path.relative_to(root).as_posix())
    try:
        stat = path.stat()
    except OSError:
        return [name, None, None]
    return [name, stat.st_size, stat.st_mtime_ns]


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk of a folder, which need not exist yet.

    Args:
        folder: The folder.

    Returns:
        Free bytes.
    """
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def check_space(folder: Path, needed: int) -> None:
    """Check that a disk has enough free space, with a reserve of 64 MiB.

    Args:
        folder: Folder to write to, which need not exist yet.
        needed: Bytes to write.

    Raises:
        OutputError: If there is too little free space.
    """
    free = free_bytes(folder)
    if needed and free < needed + _RESERVED_BYTES:
        raise OutputError(
            f"{folder}: {readable_bytes(needed)} needed, {readable_bytes(free)} free",
            remedy="Free some space, or choose a folder on another disk with --out.",
        )


def readable_bytes(count: int) -> str:
    """Format a size in a suitable unit: 758 MB, 3.2 GB, 6.2 TB.

    Args:
        count: Size in bytes.

    Returns:
        Number and unit.
    """
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB" if value < 1000 else f"{value / 1000:.1f} TB"


@contextmanager
def only_one(folder: Path, alternative: str) -> Iterator[None]:
    """Hold a folder's exclusive lock, so that two runs do not write to the same files.

    Args:
        folder: An existing folder.
        alternative: Alternative to waiting, for the message.

    Raises:
        UsageError: If another run holds the lock.
    """
    with ExitStack() as lock:
        try:
            lock.enter_context(locked(folder, wait=False))
        except BlockingIOError as error:
            raise UsageError(
                f"{folder}: another run is downloading into this folder",
                remedy=f"Wait for it, or {alternative}.",
            ) from error
        yield


@contextmanager
def only_alike(folder: Path, key: str, alternative: str) -> Iterator[None]:
    """Let several runs write to one folder at once if all have the same settings.

    Args:
        folder: An existing folder.
        key: Identifies the settings; part of a file name.
        alternative: Alternative to waiting, for the message.

    Raises:
        UsageError: If a run with other settings is active.
    """
    own_lock = folder / f".writing-{key}.lock"
    with ExitStack() as lock:
        with locked(folder):
            for lock_file in folder.glob(".writing-*.lock"):
                if lock_file != own_lock and not _remove_if_unlocked(lock_file):
                    raise UsageError(
                        f"{folder}: another run with other options is writing into this folder",
                        remedy=f"Wait for it, or {alternative}.",
                    )
            own_lock.touch()
            lock.enter_context(locked(own_lock, shared=True))
        try:
            yield
        finally:
            lock.close()
            with suppress(OSError), locked(folder):
                _remove_if_unlocked(own_lock)


def _remove_if_unlocked(path: Path) -> bool:
    """Remove a lock file unless a run holds it; return False if one does."""
    try:
        with locked(path, wait=False):
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass
    return True
