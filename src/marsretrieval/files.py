"""Files that are either whole or not there: atomic writes, checksums, probes for writability."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from marsretrieval.errors import DataError, OutputError

__all__ = [
    "atomic_path",
    "check_output",
    "locked",
    "make_folder",
    "read_json",
    "remove_stale",
    "sha256_file",
    "sha256_json",
    "write_json",
]

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_STALE_SECONDS = 3600.0


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block succeeds, fsync and rename it there.

    Raises OutputError when the folder cannot be written or the disk is full, DataError when
    another file fails within the block. On any error, Ctrl-C included, the temporary file is
    removed and an earlier `path` is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.open("xb").close()
    except OSError as error:
        raise _output_error(path, error) from error
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename is not None and temporary.name not in str(error.filename):
            raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error
        raise _output_error(path, error) from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def locked(place: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a file or folder: one process at a time. It dies with its process, however
    that ends.

    Yields False where there are no such locks (Windows, some network file systems). Raises
    BlockingIOError where another process holds it, unless told to `wait`; OSError when `place`
    cannot be opened.
    """
    if fcntl is None:
        yield False
        return
    handle = os.open(place, os.O_RDONLY if place.is_dir() else os.O_RDWR)
    try:
        held = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:
            held = False
        yield held
    finally:
        os.close(handle)


def remove_stale(paths: Iterable[Path]) -> None:
    """Remove files and folders that nobody has touched for an hour: temporary ones, left behind
    by processes that were killed."""
    for path in paths:
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def check_output(path: Path) -> None:
    """Raise OutputError where a file at `path` plainly cannot be written: before long work, not
    after it. Makes nothing; a full disk is found by the writing alone."""
    try:
        above = next(each for each in path.absolute().parents if each.exists())
        if path.is_dir():
            wrong = errno.EISDIR
        elif not above.is_dir():
            wrong = errno.ENOTDIR
        elif not os.access(above, os.W_OK | os.X_OK):
            wrong = errno.EACCES
        else:
            return
        raise OSError(wrong, os.strerror(wrong))
    except OSError as error:
        raise _output_error(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused (ValueError)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises DataError naming the file when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder, not a JSON file") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not readable as JSON ({error})") from error


def make_folder(path: Path) -> Path:
    """Create `path` if needed and prove that it can be written. Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise _output_error(path, error) from error
    return path


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of the canonical JSON text (sorted keys, no spaces): a fingerprint of plain data."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _output_error(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error})",
        remedy="Check that the folder exists, is yours and has free space, or choose another.",
    )
