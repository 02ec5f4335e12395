"""JSON files, the types of what they hold, and fingerprints of plain data."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from typing_extensions import TypedDict

from marsretrieval.errors import DataError, MarsRetrievalError
from marsretrieval.files._atomic import atomic_path

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

_BINARY, _CLOEXEC = getattr(os, "O_BINARY", 0), getattr(os, "O_CLOEXEC", 0)
_JSON_BYTES = 64 * 2**20  # of our own files, which are far smaller
_JSON_DEPTH = 100
_DIGITS = 300  # of an integer: any float can hold it


class JsonObject(TypedDict, total=False):
    """Base of the JSON objects that may have other keys than those declared."""

    __pydantic_config__ = {"extra": "allow"}  # type: ignore[misc]  # noqa: RUF012


class Constraint:
    """Condition on a value beyond its type, as metadata of an `Annotated` type.

    Args:
        conditions: Those of pydantic's schema of the type: ge, le, min_length, pattern, ...
    """

    def __init__(self, **conditions: Any) -> None:
        self._conditions = conditions

    def __get_pydantic_core_schema__(
        self, kind: Any, handler: Callable[[Any], dict[str, Any]]
    ) -> dict[str, Any]:
        return handler(kind) | self._conditions


Int64 = Annotated[int, Constraint(ge=-(2**62), le=2**62)]  # sums of two have 64 bits, too


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


def from_json(
    kind: type[T],
    value: object,
    *,
    source: Path | str,
    error: type[MarsRetrievalError] = DataError,
    remedy: str | None = None,
) -> T:
    """Make an instance of a type from parsed JSON, without conversions from one kind to another.

    Args:
        kind: Dataclass, which has no other fields than those declared, or `JsonObject`.
        value: What was parsed.
        source: File that the value comes from, for messages.
        error: Class of the error to raise.
        remedy: Remedy of that error.

    Returns:
        The instance; lists become tuples or sets where its annotations say so.

    Raises:
        MarsRetrievalError: Of class `error`, naming file and field, if a field is missing,
            unknown or of another kind.
    """
    from pydantic import ValidationError
    from pydantic_core import to_json

    try:
        text = to_json([value], inf_nan_mode="constants")
        made: T = _adapter(kind).validate_json(text, strict=True)[0]  # type: ignore[arg-type]
        return made
    except ValidationError as failure:
        detail = failure.errors(include_url=False)[0]
        (_, *location), got = detail["loc"], repr(detail["input"])
        name = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in location)[1:]
        if not name:
            message = "not a JSON object"
        elif detail["type"] == "missing":
            message = f"missing field '{name}'"
        elif detail["type"] == "unexpected_keyword_argument":
            message = f"unknown field '{name}'"
        else:
            got = got if len(got) <= 60 else f"{got[:48]}..."
            message = f"'{name}' is {got}: {detail['msg']}"
        raise error(f"{source}: {message}", remedy=remedy) from failure


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of the canonical JSON text (sorted keys, no spaces): a fingerprint of plain data."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _adapter(kind: Any) -> TypeAdapter[list[Any]]:
    from pydantic import TypeAdapter

    # In a list, for a configuration cannot be given to a dataclass from outside.
    return TypeAdapter(list[kind], config={"extra": "forbid"})


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
