"""Import user-defined models and identify their code.

Hashes of source files and compiled code decide whether cached vectors are still valid.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import linecache
import sys
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from marsretrieval.errors import UsageError
from marsretrieval.io import sha256_file, sha256_json

if TYPE_CHECKING:
    from marsretrieval.encoders.base import LoadOptions, ModelSpec

_PACKAGE = __name__.partition(".")[0]
_IGNORED_ATTRIBUTES = {
    "__dict__",
    "__weakref__",
    "__doc__",
    "__module__",
    "__firstlineno__",
    "__qualname__",
}
# Modules imported by import_target, and the hashes of their files.
_IMPORTED_SOURCES: dict[str, tuple[ModuleType, str]] = {}


def import_target(target: str) -> Any:
    """Import ``package.module:Class``, also from the current folder.

    A module whose file has changed since this process imported it is imported again.

    Args:
        target: ``package.module:Class``.

    Returns:
        The class, function or object.

    Raises:
        UsageError: If it cannot be imported.
    """
    module, _, name = target.partition(":")
    if module.split(".")[0] in sys.stdlib_module_names:
        raise UsageError(
            f"model '{target}' is part of Python's standard library, which has no encoders",
            remedy="Give it as package.module:Class; rename your module if it has such a name.",
        )
    current_folder = str(Path.cwd())
    if current_folder not in sys.path:
        # Last, so that a file in the folder does not hide an installed library.
        sys.path.append(current_folder)
    try:
        return reduce(getattr, name.split("."), _import_current(module))
    except (Exception, SystemExit) as error:  # a user's module may raise anything at import
        raise UsageError(
            f"model '{target}' cannot be imported ({type(error).__name__}: {error})",
            remedy="Give it as package.module:Class, importable from the current folder.",
        ) from error


def model_identity(spec: ModelSpec, options: LoadOptions) -> dict[str, Any]:
    """Describe what determines a model's vectors, as far as known without loading it.

    Covers the source file and the `fingerprint` of a ``module:Class``, the file of a plugin's
    loader, and names, sizes and times of the files of a model folder. Does not cover modules that
    the class imports, nor weights that it loads by itself.

    Args:
        spec: The model.
        options: Load options. A checkpoint is described by the stats of its files.

    Returns:
        A JSON-ready mapping. Empty if id, revision and options determine the vectors.
    """
    identity: dict[str, Any] = {}
    if spec.family == "plugin" and "target" in spec.settings:
        target = import_target(spec.settings["target"])
        identity["source_sha256"] = source_sha256(target)
        fingerprint = static_fingerprint(target)
        if fingerprint is not None:
            identity["fingerprint"] = json.loads(json.dumps(fingerprint, default=repr))
    else:
        module = spec.loader.partition(":")[0]
        if module.partition(".")[0] != _PACKAGE:
            identity["loader_sha256"] = _module_sha256(module)
    if spec.library in ("st", "hf") and Path(spec.repository).is_dir():
        identity["folder"] = file_stats(Path(spec.repository))
    if options.checkpoint is not None:
        identity["checkpoint"] = file_stats(options.checkpoint)
    return identity


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


def variant(spec: ModelSpec, options: LoadOptions) -> str:
    """Build the folder name of a model's results: its id and every non-default option.

    Args:
        spec: Spec of the model.
        options: Options for loading it.

    Returns:
        The name.
    """
    parts = [spec.id.replace(":", "-").replace("/", "-")]
    if options.prompts != "paper":
        parts.append(options.prompts)
    if options.dtype != "auto":
        parts.append(options.dtype)
    if options.checkpoint is not None:
        stats = sha256_json(file_stats(options.checkpoint))
        parts.append(f"{options.checkpoint.stem}-{stats[:8]}")
    return "+".join(parts)


def static_fingerprint(target: Any) -> Mapping[str, Any] | None:
    """Return the fingerprint of a target if it can be read without loading the model.

    Args:
        target: Class, function or object.

    Returns:
        The mapping. None if there is none, or if only a loaded encoder has it.
    """
    fingerprint = getattr(target, "fingerprint", None)
    if callable(fingerprint) and not inspect.isclass(target):
        fingerprint = fingerprint()
    return fingerprint if isinstance(fingerprint, Mapping) else None


def _import_current(name: str) -> ModuleType:
    importlib.invalidate_caches()
    module = importlib.import_module(name)
    source = _source_of(module)
    imported = _IMPORTED_SOURCES.get(name)
    if (
        imported is not None
        and imported[0] is module
        and source != imported[1]
        and name != "__main__"
    ):
        linecache.checkcache()
        module = importlib.reload(module)
    _IMPORTED_SOURCES[name] = (module, source)
    return module


def _source_of(module: ModuleType) -> str:
    """Return the hash of a module's file. Empty if there is no readable file."""
    try:
        return sha256_file(Path(str(module.__file__)))
    except (AttributeError, OSError):
        return ""


def _module_sha256(module: str) -> str | None:
    try:
        spec = importlib.util.find_spec(module)
        return sha256_file(Path(spec.origin)) if spec is not None and spec.origin else None
    except (ImportError, OSError, ValueError, AttributeError):
        return None


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
