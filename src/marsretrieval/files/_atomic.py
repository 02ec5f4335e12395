"""Atomic writes, locks, and what killed processes leave behind."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from marsretrieval.errors import DataError, OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
_LONGEST = 200  # bytes of a name that its temporary name repeats
_TEMPORARY = re.compile(r"\.(.+)\.([0-9a-f]{8}|[0-9a-f]{16})\.tmp", re.DOTALL)
_MOST_FOLDERS = 1000
_STALE_SECONDS = 3600.0

_seen_folders: dict[str, dict[str, list[str]]] = {}  # left-overs by folder, then by stem


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block succeeds, fsync and rename it there.

    Raises OutputError when the folder cannot be written or the disk is full, DataError when
    another file fails within the block. On any error, Ctrl-C included, the temporary file is
    removed and an earlier `path` is left as it was. What a killed process left of the same file
    is removed first.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(_left_overs(path))
        temporary, handle = _make_temporary(path)
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
        os.close(handle)


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield a new hidden folder in `parent`, removed in the end with all that it holds.

    Args:
        parent: An existing folder.
        name: What it is for, part of its name.

    Raises:
        OutputError: If it cannot be made.
    """
    target = parent / name
    try:
        remove_stale(_left_overs(target))
        folder = parent / _temporary_name(target)
        folder.mkdir()
    except OSError as error:
        raise _output_error(target, error) from error
    try:
        with ExitStack() as lock:
            with suppress(OSError):
                lock.enter_context(locked(folder))
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(place: Path, *, wait: bool = True, shared: bool = False) -> Iterator[bool]:
    """Hold the lock of a file or folder: one process at a time, or all those that share it. It
    dies with its process, however that ends.

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
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(handle, kind | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:
            held = False
        yield held
    finally:
        os.close(handle)


def remove_stale(paths: Iterable[Path]) -> None:
    """Remove temporary files and folders that killed processes left behind.

    Those of this machine go when their lock is free, for a lock dies with its process. Those of
    another machine, or without a lock, go when nobody has touched them for an hour.
    """
    for path in paths:
        with suppress(OSError):
            old = time.time() - path.lstat().st_mtime > _STALE_SECONDS
            match = _TEMPORARY.fullmatch(path.name)
            ours = match is not None and match[2].startswith(_host()) and fcntl is not None
            if path.is_symlink() or not (old or ours):
                continue
            with locked(path, wait=False) as held:
                if not (held or old):
                    continue
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


def make_folder(path: Path) -> Path:
    """Create `path` if needed and prove that it can be written. Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise _output_error(path, error) from error
    return path


def _make_temporary(path: Path) -> tuple[Path, int]:
    """A new file beside `path`, locked as long as the descriptor is open: a free lock says that
    its process is dead."""
    while True:
        temporary = path.with_name(_temporary_name(path))
        handle = os.open(temporary, _NEW, 0o666)
        if fcntl is None:
            return temporary, handle
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return temporary, handle
        os.close(handle)  # taken for a dead one's, before it was locked


def _temporary_name(path: Path) -> str:
    return f".{_temporary_stem(path)}.{_host()}{secrets.token_hex(4)}.tmp"


def _temporary_stem(path: Path) -> str:
    name = path.name
    if len(name.encode(errors="replace")) <= _LONGEST:
        return name
    return hashlib.sha256(name.encode(errors="replace")).hexdigest()[:32]


@cache
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _left_overs(path: Path) -> list[Path]:
    """Temporary files of `path` that were in its folder when this process first wrote there."""
    folder = path.parent
    key = str(folder.absolute())
    if key not in _seen_folders:
        found: dict[str, list[str]] = {}
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                match = _TEMPORARY.fullmatch(entry.name)
                if match:
                    found.setdefault(match[1], []).append(entry.name)
        if len(_seen_folders) >= _MOST_FOLDERS:
            _seen_folders.clear()
        _seen_folders[key] = found
    return [folder / name for name in _seen_folders[key].pop(_temporary_stem(path), [])]


def _output_error(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error})",
        remedy="Check that the folder exists, is yours and has free space, or choose another.",
    )
