"""JSON files, and fingerprints of plain data."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from marsretrieval.errors import DataError
from marsretrieval.files._atomic import atomic_path

_BINARY, _CLOEXEC = getattr(os, "O_BINARY", 0), getattr(os, "O_CLOEXEC", 0)
_JSON_BYTES = 64 * 2**20  # of our own files, which are far smaller
_JSON_DEPTH = 100
_DIGITS = 300  # of an integer: any float can hold it


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused (ValueError)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, *, limit: int = _JSON_BYTES, strict: bool = True) -> Any:
    """Parse a JSON file.

    Args:
        path: File in UTF-8.
        limit: Most bytes that it may have.
        strict: As `parse_json`.

    Raises:
        DataError: If it is missing, unreadable, longer than `limit`, or as `parse_json`.
    """
    try:
        with open(_open_regular(path), "rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder, not a JSON file") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON ({error})") from error
    if len(data) > limit:
        raise DataError(f"{path}: longer than the {limit:,} bytes that such a file may have")
    return parse_json(data, source=path, strict=strict)


def parse_json(data: bytes | str, *, source: Path | str, strict: bool = True) -> Any:
    """Parse JSON so that nothing in it can harm whoever reads the value.

    Args:
        data: The text, or its bytes in UTF-8.
        source: File that it comes from, for messages.
        strict: Refuse NaN, Infinity and keys that an object has twice. Annotations of datasets
            made by other programs may have them.

    Raises:
        DataError: If it is not JSON; nested deeper than 100 levels; holds an integer of more than
            300 digits or a number that is too large for a float.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        value = json.loads(
            text,
            parse_int=_parse_int,
            parse_float=_parse_float if strict else None,
            parse_constant=_refuse_constant if strict else None,
            object_pairs_hook=_unique if strict else None,
        )
        if "\\ud" in text.casefold():  # half a character would fail wherever it is written
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise DataError(f"{source}: not readable as JSON (nested too deep)") from error
    except ValueError as error:  # of text that is not UTF-8, too
        raise DataError(f"{source}: not readable as JSON ({error})") from error
    level = [value]
    for _ in range(_JSON_DEPTH):
        level = [
            child
            for parent in level
            if isinstance(parent, (list, dict))
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (list, dict))
        ]
        if not level:
            return value
    raise DataError(f"{source}: not readable as JSON (nested deeper than {_JSON_DEPTH} levels)")


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of the canonical JSON text (sorted keys, no spaces): a fingerprint of plain data."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _open_regular(path: Path) -> int:
    """Open for reading, without waiting for whoever may never write to a named pipe."""
    name = str(path)
    handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY | _CLOEXEC)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return handle
    if stat.S_ISDIR(mode):
        os.close(handle)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if name.startswith(("/dev/fd/", "/dev/stdin", "/proc/")):  # of the shell: <(command)
        os.set_blocking(handle, True)
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "not a regular file", name)


def _parse_int(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"an integer of {len(text):,} digits")
    return int(text)


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} comes twice")
    return value
