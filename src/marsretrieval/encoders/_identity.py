"""Identity of a model before it is loaded: hashes of source code, stats of model folders."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from types import CodeType
from typing import Any

from marsretrieval.encoders._plugin_encoder import static_fingerprint
from marsretrieval.encoders._record import LoadOptions, ModelRecord
from marsretrieval.files import sha256_file

_PACKAGE = __name__.partition(".")[0]


def model_identity(record: ModelRecord, options: LoadOptions) -> dict[str, Any]:
    """Describe what decides a model's vectors, as far as it can be seen without loading it.

    The hash of the source file and the class's own `fingerprint` for ``module:Class``, the hash
    of the loader's file for models of plugins, and names, sizes and times of the files of a model
    folder. Modules that the class imports are not seen, nor are weights that it loads by itself.

    Args:
        record: The model.
        options: How it is loaded; its checkpoint is described by the stats of its files.

    Returns:
        A JSON-ready mapping; empty where id, revision and options say everything.
    """
    identity: dict[str, Any] = {}
    if record.family == "plugin" and "target" in record.settings:
        from marsretrieval.encoders._plugin import import_target

        target = import_target(record.settings["target"])
        identity["source_sha256"] = source_sha256(target)
        fingerprint = static_fingerprint(target)
        if fingerprint is not None:
            identity["fingerprint"] = json.loads(json.dumps(fingerprint, default=repr))
    else:
        module = record.loader.partition(":")[0]
        if module.partition(".")[0] != _PACKAGE:
            identity["loader_sha256"] = _module_sha256(module)
    if record.family == "sentence-transformers" and Path(record.repository).is_dir():
        identity["folder"] = file_stats(Path(record.repository))
    if options.checkpoint is not None:
        identity["checkpoint"] = file_stats(options.checkpoint)
    return identity


def source_sha256(target: Any) -> str | None:
    """Hash the source file of a class, a function or an object.

    Args:
        target: A class, a function that makes an encoder, or an encoder.

    Returns:
        The SHA-256 of the file; of the compiled code where there is no file (a notebook); None
        where there is neither.
    """
    code = target if inspect.isclass(target) or inspect.isroutine(target) else type(target)
    try:
        return sha256_file(Path(inspect.getfile(code)))
    except (OSError, TypeError):
        return code_sha256(code)


def code_sha256(target: Any) -> str | None:
    """Hash the compiled code and plain attributes of a class or a function.

    Args:
        target: A class or a function, such as one defined in a notebook.

    Returns:
        SHA-256, or None for what has no Python code.
    """
    lines: list[str] = []
    if inspect.isclass(target):
        for base in target.__mro__[:-1]:
            for name, value in sorted(vars(base).items()):
                if name not in _NOISE:
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


_NOISE = {"__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__qualname__"}


def _describe(value: Any) -> str:
    """A text that changes with the code of a function or the value of an attribute."""
    for name in ("__func__", "fget", "func", "__wrapped__"):
        inner = getattr(value, name, None)
        if callable(inner):
            return _describe(inner)
    code = getattr(value, "__code__", None)
    if isinstance(code, CodeType):
        defaults = (getattr(value, "__defaults__", None), getattr(value, "__kwdefaults__", None))
        return f"{_describe_code(code)} {_plain(defaults)}"
    return _plain(value)


def _describe_code(code: CodeType) -> str:
    constants = [
        _describe_code(constant) if isinstance(constant, CodeType) else _plain(constant)
        for constant in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def _plain(value: Any) -> str:
    if isinstance(value, (frozenset, set)):
        return repr(sorted(map(repr, value)))
    if isinstance(value, Mapping):
        return repr([(repr(key), _plain(item)) for key, item in value.items()])
    if isinstance(value, (list, tuple)):
        return repr([_plain(item) for item in value])
    if isinstance(value, (str, bytes, int, float, complex, bool, type(None))):
        return repr(value)
    return type(value).__qualname__  # an object's repr may hold its address


def _module_sha256(module: str) -> str | None:
    try:
        spec = importlib.util.find_spec(module)
        return sha256_file(Path(spec.origin)) if spec is not None and spec.origin else None
    except (ImportError, OSError, ValueError, AttributeError):
        return None
