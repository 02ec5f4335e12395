"""Read source files so that I/O failures differ from damaged data.

A disk or server that does not respond raises DataError. Damaged content is reported as a problem
of the item.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from pathlib import Path
from typing import Self

from marsretrieval.errors import DataError

# Errors caused by the file's name or type, which a retry does not change.
_PERMANENT_ERRNOS = frozenset(
    {None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}
    | {errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.EOVERFLOW}
)


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
