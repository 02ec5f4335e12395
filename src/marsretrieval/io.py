"""Input and output: atomic writes, locks, strict JSON parsing and checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from typing_extensions import TypedDict

from marsretrieval.errors import DataError, MarsRetrievalError, OutputError
from marsretrieval.text import suggest_path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

_BINARY, _CLOEXEC = getattr(os, "O_BINARY", 0), getattr(os, "O_CLOEXEC", 0)

# Errors caused by the disk, permissions or the process, not by the contents of the file.
_NOT_DAMAGE = {
    errno.EACCES, errno.EPERM, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOSPC,
    errno.EROFS, errno.EBUSY, errno.EINTR, errno.EAGAIN, errno.ETIMEDOUT, errno.ENOTCONN,
    *(getattr(errno, name, errno.EIO) for name in ("ESTALE", "EDQUOT", "EREMOTEIO")),
}  # fmt: skip
_OUTPUT_REMEDY = "Check that the folder exists, is yours and has free space, or choose another."
_OUTPUT_REMEDIES = {
    errno.EISDIR: "It is a folder: name a file.",
    errno.EINVAL: "It is a device or pipe: name a regular file.",
    errno.ENOTDIR: "It is a file, or below a file: name a path below a folder.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}
_NEW_FILE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
_MAX_STEM_BYTES = 200  # longer names are hashed in temporary names
_TEMPORARY = re.compile(r"\.(.+)\.([0-9a-f]{8}|[0-9a-f]{16})\.tmp", re.DOTALL)
_MAX_FOLDERS = 1000
_STALE_SECONDS = 3600.0

_stale_by_folder: dict[str, dict[str, list[str]]] = {}  # temporary files by folder, then by stem
_MAX_JSON_BYTES = 64 * 2**20  # far more than the files of this package need
_MAX_JSON_DEPTH = 100
_JSON_REMEDY = "Check that it is the right file; if it is, write, copy or download it again."
_MAX_DIGITS = 300  # of an integer, so that it fits into a float


def is_damage(error: BaseException) -> bool:
    """Distinguish damaged file contents from failures of the disk, permissions or memory.

    Args:
        error: Exception raised while reading.

    Returns:
        False if the error, or one of its causes, is a failing disk (EIO), a missing permission
        (EACCES), a lack of memory or descriptors (ENOMEM, EMFILE), and the like.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            return False
        if isinstance(cause, OSError) and cause.errno in _NOT_DAMAGE:
            return False
        cause = cause.__cause__ or cause.__context__
    return True


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to a file; if the block succeeds, sync and rename it.

    On any error, Ctrl-C included, the temporary file is removed and an existing file is left
    unchanged. Temporary files of killed processes are removed first.

    Args:
        path: File to write; its folder is created.

    Yields:
        Path of an empty temporary file.

    Raises:
        OutputError: If the folder cannot be written or the disk is full.
        DataError: If another file cannot be read within the block.
    """
    try:
        _check_target(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(_stale_files(path))
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
    """Create a hidden temporary folder, removed with its contents at the end of the block.

    Args:
        parent: An existing folder.
        name: Part of its name.

    Yields:
        The folder.

    Raises:
        OutputError: If it cannot be created.
    """
    target = parent / name
    try:
        remove_stale(_stale_files(target))
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
def locked(path: Path, *, wait: bool = True, shared: bool = False) -> Iterator[bool]:
    """Hold an exclusive or shared lock on a file or folder, which ends with the process.

    Args:
        path: Existing file or folder.
        wait: Whether to wait while another process holds the lock.
        shared: Whether other processes may hold a shared lock at the same time.

    Yields:
        False if locks are not supported (Windows, some network file systems).

    Raises:
        BlockingIOError: If another process holds the lock and `wait` is False.
        OSError: If `path` cannot be opened.
    """
    if fcntl is None:
        yield False
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
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
    """Remove temporary files and folders of killed processes.

    Those of this machine are removed if their lock is free, because a lock ends with its
    process. Others are removed if they have not been modified for an hour.

    Args:
        paths: Temporary files and folders.
    """
    for path in paths:
        with suppress(OSError):
            is_old = time.time() - path.lstat().st_mtime > _STALE_SECONDS
            match = _TEMPORARY.fullmatch(path.name)
            is_local = match is not None and match[2].startswith(_host()) and fcntl is not None
            if path.is_symlink() or not (is_old or is_local):
                continue
            with locked(path, wait=False) as is_held:
                if not (is_held or is_old):
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def check_output(path: Path) -> None:
    """Check before long work that a file can be written; leave nothing behind.

    Args:
        path: File that will be written.

    Raises:
        OutputError: If it is a folder or a device, or its nearest existing parent is not writable.
    """
    try:
        _check_target(path)
        _check_parent(path)
    except OSError as error:
        raise _output_error(path, error) from error


def check_output_folder(path: Path) -> None:
    """Check before long work that a folder exists or can be created; leave nothing behind.

    Args:
        path: Folder that will be written to.

    Raises:
        OutputError: If it is a file, or its nearest existing parent is not writable.
    """
    try:
        if not path.exists():
            _check_parent(path)
        elif not path.is_dir():
            raise _os_error(errno.ENOTDIR)
    except OSError as error:
        raise _output_error(path, error) from error


def make_folder(path: Path) -> Path:
    """Create a folder if needed and check that it is writable; return it.

    Raises:
        OutputError: If it cannot be created or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise _output_error(path, error) from error
    return path


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """Create a folder if needed, and remove it after the block if it was created and is empty.

    Args:
        path: The folder; its missing parents are treated alike.

    Yields:
        `path`.

    Raises:
        OutputError: If it cannot be created or written.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield make_folder(path)
    finally:
        with suppress(OSError):  # a folder that is not empty
            for folder in missing:
                folder.rmdir()


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def _check_target(path: Path) -> None:
    """Raise OSError if a path exists and is no regular file, which a rename would replace."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise _os_error(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL)


def _check_parent(path: Path) -> None:
    """Raise OSError if the nearest existing parent of a path accepts no file."""
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise _os_error(errno.ENOTDIR)
    with tempfile.TemporaryFile(dir=parent):
        pass


def _make_temporary(path: Path) -> tuple[Path, int]:
    """Create a temporary file, locked while the descriptor is open."""
    while True:
        temporary = path.with_name(_temporary_name(path))
        handle = os.open(temporary, _NEW_FILE_FLAGS, 0o666)
        if fcntl is None:
            return temporary, handle
        with suppress(OSError):  # the file system has no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return temporary, handle
        os.close(handle)  # removed as stale by another process before it was locked


def _temporary_name(path: Path) -> str:
    return f".{_temporary_stem(path)}.{_host()}{secrets.token_hex(4)}.tmp"


def _temporary_stem(path: Path) -> str:
    name = path.name
    if len(name.encode(errors="replace")) <= _MAX_STEM_BYTES:
        return name
    return hashlib.sha256(name.encode(errors="replace")).hexdigest()[:32]


@cache
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _stale_files(path: Path) -> list[Path]:
    """Return temporary files of `path` that existed when this process first wrote to its folder."""
    folder = path.parent
    key = str(folder.absolute())
    if key not in _stale_by_folder:
        names_by_stem: dict[str, list[str]] = {}
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                match = _TEMPORARY.fullmatch(entry.name)
                if match:
                    names_by_stem.setdefault(match[1], []).append(entry.name)
        if len(_stale_by_folder) >= _MAX_FOLDERS:
            _stale_by_folder.clear()
        _stale_by_folder[key] = names_by_stem
    return [folder / name for name in _stale_by_folder[key].pop(_temporary_stem(path), [])]


def _output_error(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error})",
        remedy=_OUTPUT_REMEDIES.get(error.errno or 0, _OUTPUT_REMEDY),
    )


class JsonObject(TypedDict, total=False):
    """Base of JSON objects that may have undeclared keys."""

    __pydantic_config__ = {"extra": "allow"}  # type: ignore[misc]  # noqa: RUF012


class Constraint:
    """Condition on a value beyond its type, as metadata of an `Annotated` type.

    Args:
        **conditions: Keywords of pydantic's schema of the type: ge, le, min_length, pattern, ...
    """

    def __init__(self, **conditions: Any) -> None:
        self._conditions = conditions

    def __get_pydantic_core_schema__(
        self, kind: Any, handler: Callable[[Any], dict[str, Any]]
    ) -> dict[str, Any]:
        return handler(kind) | self._conditions


Int64 = Annotated[int, Constraint(ge=-(2**62), le=2**62)]  # so that a sum of two fits into 64 bits


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically.

    Args:
        path: File to write.
        value: JSON-serializable data.

    Raises:
        ValueError: If the data contain NaN or infinity.
        OutputError: If the file cannot be written.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, *, limit: int = _MAX_JSON_BYTES, strict: bool = True) -> Any:
    """Parse a JSON file.

    Args:
        path: File in UTF-8.
        limit: Largest accepted size in bytes.
        strict: As in `parse_json`.

    Returns:
        The parsed value.

    Raises:
        DataError: If it is missing, unreadable, larger than `limit`, or rejected by `parse_json`.
    """
    try:
        with open(_open_regular(path), "rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file", remedy=suggest_path(path)) from error
    except IsADirectoryError as error:
        raise DataError(
            f"{path}: a folder, not a JSON file", remedy="Name a file in it."
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON ({error})", remedy=_JSON_REMEDY) from error
    if len(data) > limit:
        raise DataError(f"{path}: longer than the limit of {limit:,} bytes", remedy=_JSON_REMEDY)
    return parse_json(data, source=path, strict=strict)


def parse_json(data: bytes | str, *, source: Path | str, strict: bool = True) -> Any:
    """Parse JSON and reject values that could crash the code that uses them.

    Args:
        data: The text, or its bytes in UTF-8.
        source: File that it comes from, for messages.
        strict: Reject NaN, Infinity and duplicate keys. Annotations of datasets made by other
            programs may have them.

    Returns:
        The parsed value.

    Raises:
        DataError: If it is not JSON, is nested deeper than 100 levels, or holds an integer of more
            than 300 digits or a number too large for a float.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        value = json.loads(
            text,
            parse_int=_parse_int,
            parse_float=_parse_float if strict else None,
            parse_constant=_refuse_constant if strict else None,
            object_pairs_hook=_unique_keys if strict else None,
        )
        if "\\ud" in text.casefold():  # a lone surrogate cannot be encoded as UTF-8
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise DataError(
            f"{source}: not readable as JSON (nested too deep)", remedy=_JSON_REMEDY
        ) from error
    except ValueError as error:  # includes UnicodeDecodeError
        raise DataError(f"{source}: not readable as JSON ({error})", remedy=_JSON_REMEDY) from error
    level = [value]
    for _ in range(_MAX_JSON_DEPTH):
        level = [
            child
            for parent in level
            if isinstance(parent, (list, dict))
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (list, dict))
        ]
        if not level:
            return value
    raise DataError(
        f"{source}: not readable as JSON (nested deeper than {_MAX_JSON_DEPTH} levels)",
        remedy=_JSON_REMEDY,
    )


def from_json(
    kind: type[T],
    value: object,
    *,
    source: Path | str,
    error: type[MarsRetrievalError] = DataError,
    remedy: str | None = None,
) -> T:
    """Make an instance of a type from parsed JSON, without type conversions.

    Args:
        kind: Dataclass, which rejects undeclared fields, or `JsonObject`.
        value: Parsed JSON.
        source: File that the value comes from, for messages.
        error: Class of the error to raise.
        remedy: Remedy of that error.

    Returns:
        The instance; lists become tuples or sets according to its annotations.

    Raises:
        MarsRetrievalError: Of class `error`, naming file and field, if a field is missing,
            unknown or of another type.
    """
    from pydantic import ValidationError
    from pydantic_core import to_json

    try:
        text = to_json([value], inf_nan_mode="constants")
        instance: T = _adapter(kind).validate_json(text, strict=True)[0]  # type: ignore[arg-type]
        return instance
    except ValidationError as failure:
        detail = failure.errors(include_url=False)[0]
        (_, *location), value_text = detail["loc"], repr(detail["input"])
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)[
            1:
        ]
        if not name:
            message = "not a JSON object"
        elif detail["type"] == "missing":
            message = f"missing field '{name}'"
        elif detail["type"] == "unexpected_keyword_argument":
            message = f"unknown field '{name}'"
        else:
            value_text = value_text if len(value_text) <= 60 else f"{value_text[:48]}..."
            message = f"'{name}' is {value_text}: {detail['msg']}"
        raise error(f"{source}: {message}", remedy=remedy) from failure


def sha256_file(path: Path) -> str:
    """Compute the SHA-256 of a file.

    Returns:
        Hexadecimal digest.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Compute the SHA-256 of the canonical JSON text (sorted keys, no spaces) of plain data.

    Returns:
        Hexadecimal digest.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _adapter(kind: Any) -> TypeAdapter[list[Any]]:
    from pydantic import TypeAdapter

    # A list, because pydantic accepts no configuration for a dataclass itself.
    return TypeAdapter(list[kind], config={"extra": "forbid"})


def _open_regular(path: Path) -> int:
    """Open a file for reading; never block on a named pipe."""
    name = str(path)
    handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY | _CLOEXEC)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return handle
    if stat.S_ISDIR(mode):
        os.close(handle)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if name.startswith(("/dev/fd/", "/dev/stdin", "/proc/")):  # process substitution: <(command)
        os.set_blocking(handle, True)
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "not a regular file", name)


def _parse_int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"an integer of {len(text):,} digits")
    return int(text)


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} comes twice")
    return value
