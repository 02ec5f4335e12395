"""A disk or server that does not answer says nothing of the data: that is an error, not damage."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from pathlib import Path
from typing import Self

from marsretrieval.errors import DataError

# What the name or the content of a file may cause: the same again, however often it is tried.
_LASTING = frozenset(
    {None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}
    | {errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.EOVERFLOW}
)


def is_failing(error: BaseException) -> bool:
    """Whether an error comes of the disk, server or system below a file (EIO, ESTALE, too many
    open files) and may be gone the next time."""
    return isinstance(error, OSError) and error.errno not in _LASTING


def unanswered(path: Path | str, error: OSError) -> DataError:
    return DataError(
        f"{path}: cannot be read ({error.strerror or error})",
        remedy="Nothing is known to be wrong with its content. Check the disk or server that it "
        "is on, then run the same command again.",
    )


def regular_size(path: Path, limit: int) -> int:
    """Return the size of a regular file.

    Args:
        path: File, or a link to one.
        limit: Largest size in bytes.

    Returns:
        Size in bytes.

    Raises:
        ValueError: If it is missing, longer than `limit`, or a pipe, device or folder, which may
            give bytes without end or none at all.
        DataError: If the disk or server does not answer.
    """
    try:
        status = path.stat()
    except OSError as error:
        if is_failing(error):
            raise unanswered(path, error) from error
        raise ValueError(f"cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file (a pipe, device, socket or folder)")
    if status.st_size > limit:
        raise ValueError(f"{status.st_size:,} bytes, more than {limit:,}")
    return status.st_size


def read_regular(path: Path, limit: int) -> bytes:
    """Read a regular file of limited size.

    Args:
        path: File, or a link to one.
        limit: Largest size in bytes.

    Returns:
        The content.

    Raises:
        ValueError: As `regular_size`, or if the file cannot be read.
        DataError: If the disk or server does not answer.
    """
    regular_size(path, limit)
    try:
        return path.read_bytes()
    except OSError as error:
        if is_failing(error):
            raise unanswered(path, error) from error
        raise ValueError(f"cannot be read ({error.strerror})") from error


class SourceFile:
    """A file opened for reading, as `tarfile.open` takes it. Its own errors are raised as
    DataError, apart from those of whoever makes sense of the bytes; one that is not there is a
    FileNotFoundError.

    No read is longer than the file: a damaged header may ask for more than there is memory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb")
            self.size = os.fstat(self._file.fileno()).st_size
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unanswered(path, error) from error

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self._file.tell())
        try:
            return self._file.read(left if size < 0 else min(size, left))
        except OSError as error:
            raise unanswered(self._path, error) from error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = (0, self._file.tell(), self.size)[whence]
        if base + offset < 0:
            raise tarfile.ReadError("a header points to before the start")
        try:
            return self._file.seek(min(base + offset, self.size))
        except OSError as error:
            raise unanswered(self._path, error) from error

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
