"""Every error that a user can cause or meet.

MarsRetrievalError            exit code 1: the request was right, but it could not be done
├── UsageError                exit code 2: the request itself is wrong
│   ├── UnknownNameError      a model, task or class that does not exist, with "did you mean"
│   └── ModalityError         a vision-only model asked for text
├── DataError                 an input file is missing, damaged or not what it should be
│   ├── DatasetNotFoundError
│   ├── ImageError            one image cannot be decoded
│   └── TableError            wrong columns or values in a table
├── ModelLoadError            weights missing, unexpected or unreadable
├── MissingDependencyError    an optional library is not installed
├── StoreError                an embedding store is damaged or unreadable
│   └── StoreMismatchError    it was made by another model or from other data
└── OutputError               the result cannot be written

MarsRetrievalWarning          something was done in another way than it should have been
└── TruncatedTextWarning      a text is longer than the model reads
"""

from __future__ import annotations

import difflib
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path


class MarsRetrievalError(Exception):
    """Base of all errors shown to users: a line saying what is wrong, and one with the remedy."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


class MarsRetrievalWarning(UserWarning):
    """Base of all warnings shown to users."""


class TruncatedTextWarning(MarsRetrievalWarning):
    """A text is longer than the context length of the model, and its end has no effect."""


_MAX_LISTED = 40  # names that a message holds at most


class UsageError(MarsRetrievalError):
    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is not in a list, with the nearest ones that are."""

    def __init__(
        self, kind: str, name: str, known_names: Iterable[str], *, remedy: str | None = None
    ):
        names = sorted(known_names)
        near = [option for option in names if name.lower() in option.lower()][:3]
        near = near or difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
        if near:
            hint = f"Did you mean {' or '.join(near)}?"
        elif len(names) <= _MAX_LISTED:
            hint = f"Known: {', '.join(names)}."
        else:
            hint = f"None of the {len(names)} known names is near it."
        super().__init__(f"unknown {kind} '{name}'", remedy=" ".join(filter(None, [hint, remedy])))


class ModalityError(UsageError):
    pass


class DataError(MarsRetrievalError):
    pass


class DatasetNotFoundError(DataError):
    pass


class ImageError(DataError):
    pass


class TableError(DataError):
    pass


class ModelLoadError(MarsRetrievalError):
    pass


class MissingDependencyError(MarsRetrievalError):
    def __init__(self, package: str, extra: str, *, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs {package}, which is not installed",
            remedy=f"pip install 'marsretrieval[{extra}]'",
        )


class StoreError(MarsRetrievalError):
    pass


class StoreMismatchError(StoreError):
    pass


class OutputError(MarsRetrievalError):
    pass


def describe_exception(error: BaseException) -> str:
    """Describe an exception in one line, with the line of the user's code that raised it.

    Args:
        error: An exception that was raised.

    Returns:
        Class and message of the exception, and file and number of the innermost line outside of
        installed packages and the standard library, if there is one.
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
    """Whether a smaller batch may help. By name, since torch need not be installed."""
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
