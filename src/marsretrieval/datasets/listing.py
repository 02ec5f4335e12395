"""Files of datasets: listings in a fixed order, fingerprints, reading, disk space and locks.

A disk or server that does not respond raises DataError. Damaged content is reported as a problem
of the item.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePath
from typing import Self

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
# Classic and BigTIFF in both byte orders.
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_IMAGE_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
)
_SIGNATURES = (
    (b"PAR1", "a Parquet file"),
    (b"PK\x03\x04", "a zip file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"%PDF", "a PDF file"),
    (b"PDS_VERSION_ID", "a PDS image"),
    (b"ODL_VERSION_ID", "a PDS image"),
    (b"Object = IsisCube", "an ISIS cube"),
    (b"SQLite format 3", "a database or GeoPackage"),
    (b"\x89HDF", "an HDF5 or NetCDF file"),
)
_TABLE_SUFFIXES = frozenset({".csv", ".tsv"})
# Errors caused by the file's name or type, which a retry does not change.
_PERMANENT_ERRNOS = frozenset(
    {None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}
    | {errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.EOVERFLOW}
)


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


def is_tiff(data: bytes) -> bool:
    """Check for the signature of a TIFF or BigTIFF.

    Args:
        data: At least the first 4 bytes of a file.

    Returns:
        True if the file is a TIFF.
    """
    return data[:4] in _TIFF_SIGNATURES


def image_format(head: bytes) -> str | None:
    """Find the format of an image that is no georeferenced raster by its first bytes.

    Args:
        head: The first bytes of a file, at least 16 if it has as many.

    Returns:
        JPEG, PNG, GIF, BMP, WebP, or None.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return next((name for start, name in _IMAGE_SIGNATURES if head.startswith(start)), None)


def describe_content(path: str | PurePath, head: bytes) -> str:
    """Describe what a file is by its first bytes and its extension, for messages.

    Args:
        path: Path or name of the file.
        head: Its first bytes, at least 16 if it has as many.

    Returns:
        A noun phrase with its article, such as `a table`.
    """
    suffix = PurePath(path).suffix.lower()
    image = image_format(head)
    if image is not None:
        return f"a {image} image without georeference"
    for signature, description in _SIGNATURES:
        if head.startswith(signature):
            return description
    if suffix == ".tar":
        return "a tar archive"
    if any(byte < 32 and byte not in b"\t\n\r\f" for byte in head):
        return "a file of an unknown format"
    if suffix in _TABLE_SUFFIXES:
        return "a table"
    return "a JSON file" if head.lstrip()[:1] in (b"{", b"[") else "a text file"


def is_io_failure(error: BaseException) -> bool:
    """Check for a failure of the disk, server or system (EIO, ESTALE, too many open files).

    Args:
        error: Any exception.

    Returns:
        True if reading again may succeed.
    """
    return isinstance(error, OSError) and error.errno not in _PERMANENT_ERRNOS


def unreachable_error(path: Path | str, error: OSError) -> DataError:
    """Convert an I/O failure to a DataError that asks to run the command again.

    Args:
        path: The file.
        error: The failure.

    Returns:
        The error to raise.
    """
    return DataError(
        f"{path}: cannot be read ({error.strerror or error})",
        remedy="The file may be intact. Check its disk or server, then run the same command again.",
    )


def regular_size(path: Path, limit: int) -> int:
    """Return the size of a regular file.

    Args:
        path: File, or a link to one.
        limit: Largest size in bytes.

    Returns:
        Size in bytes.

    Raises:
        ValueError: If the file is missing, longer than `limit`, or a pipe, device or folder, which
            may never end or never return data.
        DataError: If the disk or server does not respond.
    """
    try:
        status = path.stat()
    except OSError as error:
        if is_io_failure(error):
            raise unreachable_error(path, error) from error
        raise ValueError(f"cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file (a pipe, device, socket or folder)")
    if status.st_size > limit:
        raise ValueError(f"{status.st_size:,} bytes, more than {limit:,}")
    return status.st_size


def read_regular(path: str | Path, limit: int) -> bytes:
    """Read a regular file of limited size.

    Args:
        path: File, or a link to one.
        limit: Largest size in bytes.

    Returns:
        The content.

    Raises:
        ValueError: As `regular_size`, or if the file cannot be read.
        DataError: If the disk or server does not respond.
    """
    path = Path(path)
    regular_size(path, limit)
    try:
        return path.read_bytes()
    except OSError as error:
        if is_io_failure(error):
            raise unreachable_error(path, error) from error
        raise ValueError(f"cannot be read ({error.strerror})") from error


def resolve_inside(folder: Path, name: str) -> Path:
    """Resolve the path of an image that a table or metadata file names.

    Args:
        folder: Folder of the table.
        name: Path, relative or absolute, with slashes or backslashes.

    Returns:
        Absolute path inside the folder; the file may be missing.

    Raises:
        ValueError: If the path leads out of the folder.
    """
    root = folder.absolute()
    names = dict.fromkeys((name, name.replace("\\", "/")))
    files = [Path(os.path.normpath(root / text)) for text in names]
    inside = [file for file in files if file.is_relative_to(os.path.normpath(root))]
    if not inside:
        raise ValueError(f"its image is outside the dataset's folder: {name}")
    return next((file for file in inside if os.path.lexists(file)), inside[-1])


class SourceFile:
    """A file object for `tarfile.open` that raises DataError for I/O failures.

    A missing file raises FileNotFoundError. Reads are limited to the size of the file, since a
    damaged header may request more bytes than fit into memory.

    Attributes:
        size: Size in bytes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb")
            self.size = os.fstat(self._file.fileno()).st_size
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unreachable_error(path, error) from error

    def read(self, size: int = -1) -> bytes:
        """Read bytes from the current offset.

        Args:
            size: Largest number of bytes; negative: all that remain.

        Returns:
            The bytes.

        Raises:
            DataError: If the disk or server does not respond.
        """
        remaining = max(0, self.size - self._file.tell())
        try:
            return self._file.read(remaining if size < 0 else min(size, remaining))
        except OSError as error:
            raise unreachable_error(self._path, error) from error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset, at most to the end of the file.

        Args:
            offset: Bytes relative to `whence`.
            whence: `os.SEEK_SET`, `os.SEEK_CUR` or `os.SEEK_END`.

        Returns:
            The new offset.

        Raises:
            tarfile.ReadError: If the offset is before the start.
            DataError: If the disk or server does not respond.
        """
        base = (0, self._file.tell(), self.size)[whence]
        if base + offset < 0:
            raise tarfile.ReadError("a header points to before the start")
        try:
            return self._file.seek(min(base + offset, self.size))
        except OSError as error:
            raise unreachable_error(self._path, error) from error

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Return that the position can be changed."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
