"""Hashes of the code and the files that a model is made of."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
from collections.abc import Mapping
from pathlib import Path
from types import CodeType
from typing import Any

from marsretrieval.io import sha256_file

_IGNORED_ATTRIBUTES = {
    "__dict__",
    "__weakref__",
    "__doc__",
    "__module__",
    "__firstlineno__",
    "__qualname__",
}


def source_sha256(target: Any) -> str | None:
    """Hash the source file of a class, a function or an object.

    Args:
        target: Class, function that returns an encoder, or encoder.

    Returns:
        SHA-256 of the file, or of the compiled code if there is no file (a notebook). None if there
        is neither.
    """
    code = target if inspect.isclass(target) or inspect.isroutine(target) else type(target)
    try:
        return sha256_file(Path(inspect.getfile(code)))
    except (OSError, TypeError):
        return code_sha256(code)


def code_sha256(target: Any) -> str | None:
    """Hash the compiled code and plain attributes of a class or a function.

    Args:
        target: Class or function, for example of a notebook.

    Returns:
        SHA-256. None if there is no Python code.
    """
    lines: list[str] = []
    if inspect.isclass(target):
        for base in target.__mro__[:-1]:
            for name, value in sorted(vars(base).items()):
                if name not in _IGNORED_ATTRIBUTES:
                    lines.append(f"{base.__name__}.{name} {_describe(value)}")
    elif hasattr(target, "__code__"):
        lines.append(_describe(target))
    if not lines:
        return None
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def file_stats(path: Path) -> list[list[Any]]:
    """List name, size and time of a file, or of all files of a folder.

    Args:
        path: A file or a folder.

    Returns:
        ``[absolute name, bytes, nanoseconds]`` per file, sorted by name.
    """
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(str(file.resolve()), file.stat()) for file in files if file.is_file()]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def _describe(value: Any) -> str:
    """Return a text that changes with the code of a function or the value of an attribute."""
    for name in ("__func__", "fget", "func", "__wrapped__"):
        inner = getattr(value, name, None)
        if callable(inner):
            return _describe(inner)
    code = getattr(value, "__code__", None)
    if isinstance(code, CodeType):
        defaults = (getattr(value, "__defaults__", None), getattr(value, "__kwdefaults__", None))
        return f"{_describe_code(code)} {_value_repr(defaults)}"
    return _value_repr(value)


def _describe_code(code: CodeType) -> str:
    constants = [
        _describe_code(constant) if isinstance(constant, CodeType) else _value_repr(constant)
        for constant in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def _value_repr(value: Any) -> str:
    if isinstance(value, (frozenset, set)):
        return repr(sorted(map(repr, value)))
    if isinstance(value, Mapping):
        return repr([(repr(key), _value_repr(item)) for key, item in value.items()])
    if isinstance(value, (list, tuple)):
        return repr([_value_repr(item) for item in value])
    if isinstance(value, (str, bytes, int, float, complex, bool, type(None))):
        return repr(value)
    return type(value).__qualname__  # an object's repr may contain its address


def module_sha256(module: str) -> str | None:
    try:
        spec = importlib.util.find_spec(module)
        return sha256_file(Path(spec.origin)) if spec is not None and spec.origin else None
    except (ImportError, OSError, ValueError, AttributeError):
        return None
