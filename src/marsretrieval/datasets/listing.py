"""Files of a folder in a fixed order, and fingerprints that move when they may have changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePath

from marsretrieval.datasets.base import escape
from marsretrieval.errors import DataError, OutputError, UsageError
from marsretrieval.io import locked, sha256_json

# Files that lie beside images and are none: what operating systems, GIS programs and people leave.
_SIDE_NAMES = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "license", "readme", "makefile"}
)
_SIDE_SUFFIXES = frozenset(
    {".json", ".txt", ".csv", ".tsv", ".md", ".rst", ".xml", ".yaml", ".yml", ".html", ".pdf"}
    | {".ini", ".log", ".py", ".ipynb", ".sh", ".bib"}
    | {".pgw", ".jgw", ".tfw", ".wld", ".j2w", ".bpw", ".gfw", ".wpw"}  # world files
    | {".pngw", ".jpgw", ".tifw", ".tfwx", ".pgwx", ".jgwx", ".jp2w", ".jpegw", ".tiffw"}
    | {".prj", ".ovr", ".aux", ".rrd", ".msk", ".hdr", ".lbl"}  # of GDAL, ENVI and PDS
    | {".qml", ".qmd", ".qgs", ".qgz", ".qlr", ".sld", ".lyr"}  # of QGIS and ArcGIS
    | {".gpkg", ".gpkg-wal", ".gpkg-shm", ".geojson", ".kml", ".kmz"}
    | {".shp", ".shx", ".dbf", ".cpg", ".qix", ".sbn", ".sbx", ".idx", ".sha256", ".md5"}
)


def visible(folder: Path) -> list[Path]:
    """Entries of a folder, sorted by name, hidden ones left out. Raises DataError naming it."""
    return [folder / entry.name for entry in _entries(folder)]


def is_side_file(path: PurePath) -> bool:
    """Return whether a file is one that commonly lies beside images, to be passed over.

    Args:
        path: File in a folder or member of an archive.

    Returns:
        True for annotations, world files, styles, vector layers, thumbnails' databases and notes.
    """
    return path.name.lower() in _SIDE_NAMES or path.suffix.lower() in _SIDE_SUFFIXES


def files_below(root: Path) -> list[Path]:
    """All files of a folder at any depth, in the order of their paths, hidden ones left out.

    Links are followed, but not from a folder into one that holds it. A link to nowhere, a pipe or
    a device is listed: reading it says what is wrong. Raises DataError naming a folder that cannot
    be listed.
    """
    return list(_walk(root, frozenset()))


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    stat = folder.stat()
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        return
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _walk(folder / entry.name, above | {here})
        else:
            yield folder / entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"{escape(str(folder))}: cannot be listed ({error.strerror})",
            remedy="Check who may read it.",
        ) from error
    return sorted(entries, key=lambda entry: entry.name)


def file_fingerprint(path: Path) -> str:
    """From size and modification time: cheap, and moves whenever the file is written."""
    return files_fingerprint([path])


def files_fingerprint(paths: Iterable[Path], *, root: Path | None = None) -> str:
    """Compute a fingerprint from the names, sizes and modification times of files.

    Args:
        paths: Files, in a fixed order.
        root: Folder that the names are relative to, so that a renamed folder in between counts as
            a change; None: the last part of each path is its name.

    Returns:
        SHA-256 in hex.
    """
    return sha256_json([[_facts(path, root) for path in paths]])


def _facts(path: Path, root: Path | None) -> list[str | int | None]:
    """Name, size and time; a file that is gone by now has neither."""
    name = escape(path.name if root is None else path.relative_to(root).as_posix())
    try:
        stat = path.stat()
    except OSError:
        return [name, None, None]
    return [name, stat.st_size, stat.st_mtime_ns]


_SPARE = 64 * 2**20


def free_bytes(folder: Path) -> int:
    """Free space where `folder` is or will be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def check_space(folder: Path, needed: int) -> None:
    """Raises OutputError unless `needed` bytes, and some to spare, fit where `folder` lies."""
    free = free_bytes(folder)
    if needed and free < needed + _SPARE:
        raise OutputError(
            f"{folder}: {readable_bytes(needed)} are needed there, {readable_bytes(free)} are free",
            remedy="Free some space, or choose a folder on another disk with --out.",
        )


def readable_bytes(count: int) -> str:
    """In the unit that reads best: 758 MB, 3.2 GB, 6.2 TB."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB" if value < 1000 else f"{value / 1000:.1f} TB"


@contextmanager
def only_one(folder: Path, otherwise: str) -> Iterator[None]:
    """Hold a folder's lock, so that two runs do not write to the same files.

    Args:
        folder: An existing folder.
        otherwise: What to do but wait.

    Raises:
        UsageError: If another run holds the lock.
    """
    with ExitStack() as lock:
        try:
            lock.enter_context(locked(folder, wait=False))
        except BlockingIOError as error:
            raise UsageError(
                f"{folder}: another run fetches into this folder",
                remedy=f"Wait for it, or {otherwise}.",
            ) from error
        yield


@contextmanager
def only_alike(folder: Path, key: str, otherwise: str) -> Iterator[None]:
    """Let several runs write to one folder at once, as long as all have the same settings.

    Args:
        folder: An existing folder.
        key: Stands for the settings, part of a file name.
        otherwise: What to do but wait.

    Raises:
        UsageError: If a run with other settings is under way there.
    """
    mine = folder / f".writing-{key}.lock"
    with ExitStack() as lock:
        with locked(folder):
            for other in folder.glob(".writing-*.lock"):
                if other != mine and not _unused(other):
                    raise UsageError(
                        f"{folder}: another run with other options writes into this folder",
                        remedy=f"Wait for it, or {otherwise}.",
                    )
            mine.touch()
            lock.enter_context(locked(mine, shared=True))
        try:
            yield
        finally:
            lock.close()
            with suppress(OSError), locked(folder):
                _unused(mine)


def _unused(path: Path) -> bool:
    """Whether no run holds this lock file, which is then removed."""
    try:
        with locked(path, wait=False):
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass
    return True
