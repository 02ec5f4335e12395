"""Convert arguments of Python functions, and raise UsageError for those of a wrong type."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from marsretrieval.errors import UsageError


def as_path(value: Any, name: str) -> Path:
    """Convert to a path.

    Args:
        value: A text or an `os.PathLike`.
        name: Name of the argument in messages.

    Returns:
        The path.

    Raises:
        UsageError: If the value is of another type, empty, or holds a null character.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise UsageError(f"{name} is {value!r}, not a path", remedy="Give a text or a Path.")
    if not text or "\0" in text:
        what = "an empty path" if not text else "a path with a null character"
        raise UsageError(f"{name} is {what}", remedy="Give the path of a file or folder.")
    return Path(text)


def as_optional_path(value: Any, name: str) -> Path | None:
    """Convert to a path, as `as_path`, and keep None.

    Args:
        value: A text, an `os.PathLike` or None.
        name: Name of the argument in messages.

    Returns:
        The path, or None.

    Raises:
        UsageError: If the value is not a path.
    """
    return None if value is None else as_path(value, name)


def as_paths(value: Any, name: str) -> list[Path]:
    """Convert one path or several to a list.

    Args:
        value: A path as of `as_path`, or several.
        name: Name of the argument in messages.

    Returns:
        The paths.

    Raises:
        UsageError: If a value is not a path.
    """
    if isinstance(value, str | bytes | os.PathLike) or not hasattr(value, "__iter__"):
        return [as_path(value, name)]
    return [as_path(item, name) for item in value]


def as_int(value: Any, name: str) -> int:
    """Convert to int, also numpy integers and floats without a fraction.

    Args:
        value: A number.
        name: Name of the argument in messages.

    Returns:
        The number.

    Raises:
        UsageError: If the value is not a whole number.
    """
    try:
        if int(value) == value:
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UsageError(f"{name} is {value!r}, not a whole number")


def as_optional_int(value: Any, name: str) -> int | None:
    """Convert to int, as `as_int`, and keep None.

    Args:
        value: A number or None.
        name: Name of the argument in messages.

    Returns:
        The number, or None.

    Raises:
        UsageError: If the value is not a whole number.
    """
    return None if value is None else as_int(value, name)


def as_float(value: Any, name: str) -> float:
    """Convert to float, also numpy scalars.

    Args:
        value: A number.
        name: Name of the argument in messages.

    Returns:
        The number.

    Raises:
        UsageError: If the value is not a number.
    """
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{name} is {value!r}, not a number") from error
