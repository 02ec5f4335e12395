"""Exceptions and warnings shown to users, and conversions of arguments that raise them.

MarsRetrievalError            exit code 1: the request is valid, but it failed
├── UsageError                exit code 2: the request is invalid
│   ├── UnknownNameError      unknown model, task or class, with the nearest names
│   └── ModalityError         a vision-only model was asked for text
├── DataError                 an input file is missing, damaged or invalid
│   ├── DatasetNotFoundError
│   ├── ImageError            an image cannot be decoded
│   └── TableError            wrong columns or values in a table
├── ModelLoadError            weights are missing, unexpected or unreadable
├── MissingDependencyError    an optional library is not installed
├── StoreError                an embedding store is damaged or unreadable
│   └── StoreMismatchError    the store belongs to another model or dataset
└── OutputError               the result cannot be written

MarsRetrievalWarning          the work continues, but not as requested
├── MissingImagesWarning      images of hits cannot be read
└── TruncatedTextWarning      a text exceeds the context length of the model
"""

from __future__ import annotations

import difflib
import os
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class MarsRetrievalError(Exception):
    """Base of all errors shown to users.

    Attributes:
        message: What is wrong.
        remedy: What to do about it; None if there is no advice.
        exit_code: Exit code of the command line.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


class MarsRetrievalWarning(UserWarning):
    """Base of all warnings shown to users."""


class MissingImagesWarning(MarsRetrievalWarning):
    """Images of hits cannot be read; the page or sheet shows the reasons instead."""


class TruncatedTextWarning(MarsRetrievalWarning):
    """A text exceeds the context length of the model, and its end has no effect."""


_MAX_LISTED = 40  # names in a message


class UsageError(MarsRetrievalError):
    """The request is invalid; exit code 2."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name is not in a list; the message suggests the nearest names.

    Args:
        kind: What the name stands for: model, task, ...
        name: The unknown name.
        known_names: Names that exist.
        remedy: Advice after the suggestion.
        similar: Names to suggest, if the caller has found them.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        known_names: Iterable[str],
        *,
        remedy: str | None = None,
        similar: Sequence[str] = (),
    ):
        names = sorted(known_names)
        near: list[str] = []
        if name.strip():
            near = (
                list(similar)
                or [option for option in names if name.lower() in option.lower()][:3]
                or difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
            )
        if near:
            hint = f"Did you mean {' or '.join(near)}?"
        elif len(names) <= _MAX_LISTED:
            hint = f"Known: {', '.join(names)}."
        else:
            hint = f"None of the {len(names)} known names is similar."
        super().__init__(f"unknown {kind} '{name}'", remedy=" ".join(filter(None, [hint, remedy])))


class ModalityError(UsageError):
    """A vision-only model was asked for text."""


class DataError(MarsRetrievalError):
    """An input file is missing, damaged or invalid."""


class DatasetNotFoundError(DataError):
    """A dataset, or a file of one, does not exist."""


class ImageError(DataError):
    """An image cannot be decoded."""


class TableError(DataError):
    """A table has wrong columns or values."""


class ModelLoadError(MarsRetrievalError):
    """The weights of a model are missing, unexpected or unreadable."""


class MissingDependencyError(MarsRetrievalError):
    """An optional library is not installed.

    Args:
        package: Name of the library.
        extra: Extra of marsretrieval that installs it.
        needed_for: What needs it, the subject of the message.
    """

    def __init__(self, package: str, extra: str, *, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs {package}, which is not installed",
            remedy=f"pip install 'marsretrieval[{extra}]'",
        )


class StoreError(MarsRetrievalError):
    """An embedding store is damaged or unreadable."""


class StoreMismatchError(StoreError):
    """A store belongs to another model or dataset."""


class OutputError(MarsRetrievalError):
    """A result cannot be written."""


def describe_exception(error: BaseException) -> str:
    """Describe an exception in one line, with the line of the user's code that raised it.

    Args:
        error: An exception that was raised.

    Returns:
        Class and message of the exception, and file and line number of the innermost frame
        outside of installed packages and the standard library, if there is one.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_installed(frame.filename)]
    text = " ".join(str(error).split())
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    last_frame = (own or list(frames))[-1:]
    return line + "".join(
        f", at {Path(frame.filename).name}:{frame.lineno}" for frame in last_frame
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Check whether a smaller batch may help; torch need not be installed.

    Args:
        error: An exception raised by an encoder.

    Returns:
        True for MemoryError and the out-of-memory errors of torch.
    """
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "out of memory" in str(error).lower())
    )


def _is_installed(filename: str) -> bool:
    parts = Path(filename).parts
    own = str(Path(__file__).parent)
    return (
        "site-packages" in parts
        or "dist-packages" in parts
        or filename.startswith((own, sysconfig.get_path("stdlib"), "<frozen"))
    )


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


def as_optional(convert: Callable[[Any, str], T], value: Any, name: str) -> T | None:
    """Convert a value with one of the functions above, and keep None.

    Args:
        convert: The function, such as `as_path`.
        value: A value that it accepts, or None.
        name: Name of the argument in messages.

    Returns:
        The converted value, or None.

    Raises:
        UsageError: If the value cannot be converted.
    """
    return None if value is None else convert(value, name)
