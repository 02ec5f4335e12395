"""The plugin door: any class with `encode_images` becomes an Encoder."""

from __future__ import annotations

import importlib
import inspect
import linecache
import sys
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from marsretrieval.encoders._plugin_encoder import (
    PluginEncoder,
    modalities_of,
    parameters_of,
)
from marsretrieval.encoders._protocol import Encoder
from marsretrieval.encoders._record import LoadOptions, ModelRecord
from marsretrieval.errors import ModelLoadError, UsageError, describe_exception
from marsretrieval.files import sha256_file

FAMILY = "plugin"
_OPTIONS = ("device", "dtype", "checkpoint", "prompts", "offline")
_CHANGE_VECTORS = ("checkpoint", "dtype", "prompts")
_REMEDY = "An encoder has encode_images(images) -> (n, d), and encode_texts(texts) if it reads."


def record_of_target(target: str) -> ModelRecord:
    """A record for ``package.module:Class``, importable from here or from the current folder.

    Raises UsageError when it cannot be imported or is no encoder.
    """
    return record_of(import_target(target), target, target)


def record_of(found: Any, name: str, target: str) -> ModelRecord:
    """A record for a class, for a function that makes an encoder, or for an encoder itself.

    Raises UsageError when it is none of these.
    """
    if not hasattr(found, "encode_images"):
        if not _is_function(found):
            raise UsageError(f"model '{target}' has no encode_images", remedy=_REMEDY)
        _require_factory(found, target)
    return ModelRecord.uncatalogued(
        name,
        name=name,
        family=FAMILY,
        loader=f"{__name__}:load",
        repository=target,
        modalities=modalities_of(_made_by(found)),
        settings={"target": target},
    )


def load(record: ModelRecord, options: LoadOptions) -> Encoder:
    """Make the user's object and wrap it. Its class is called with the arguments among `device`,
    `dtype`, `checkpoint`, `prompts` and `offline` that it names.

    Raises UsageError when an option is given that would change the vectors and that it does not
    take, ModelLoadError when it fails or gives what no encoder may.
    """
    found = import_target(record.settings["target"])
    names = parameters_of(found)
    _require_taken(record, options, names)
    offered: dict[str, Any] = {name: getattr(options, name) for name in _OPTIONS if name in names}
    if offered.get("device") == "auto":
        offered["device"] = _best_device()
    try:
        inner = found(**offered) if isinstance(found, type) or _is_function(found) else found
    except (Exception, SystemExit) as error:  # a user's constructor may raise anything
        raise ModelLoadError(
            f"{record.id}: its constructor failed ({describe_exception(error)})"
        ) from error
    if not hasattr(inner, "encode_images"):
        raise ModelLoadError(
            f"{record.id} made a {type(inner).__name__}, which has no encode_images",
            remedy=_REMEDY,
        )
    return PluginEncoder(record, inner, offered)


def _best_device() -> str:
    """What `auto` stands for: torch, which a class most likely hands it to, knows no such word."""
    try:
        from marsretrieval.encoders._torch import choose_device
    except ImportError:
        return "cpu"
    return str(choose_device("auto"))


def _is_function(found: Any) -> bool:
    return inspect.isfunction(found) or inspect.ismethod(found)


def _require_factory(function: Any, target: str) -> None:
    """Refuse a function that does not look like one that makes an encoder; it is not called.

    It takes no arguments, or one of the known options, or says that it returns an encoder; every
    other argument has a default.
    """
    parameters = inspect.signature(function).parameters.values()
    required = [
        one.name
        for one in parameters
        if one.default is one.empty
        and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        and one.name not in _OPTIONS
    ]
    offered = not parameters or any(one.name in _OPTIONS for one in parameters)
    if required or not (offered or _made_by(function) is not None):
        what = f"needs an argument '{required[0]}'" if required else "makes no encoder"
        raise UsageError(
            f"model '{target}' is a function that {what}",
            remedy=f"Let it take arguments among {', '.join(_OPTIONS)} and return an encoder.",
        )


def _made_by(found: Any) -> Any:
    """The class that a function says it returns; None where it says nothing."""
    if not _is_function(found):
        return found
    try:
        made = get_type_hints(found).get("return")
    except Exception:  # an annotation may name what is not imported
        return None
    return made if hasattr(made, "encode_images") else None


def _require_taken(record: ModelRecord, options: LoadOptions, names: frozenset[str]) -> None:
    """An option that changes vectors must not be dropped in silence."""
    plain = LoadOptions()
    for name in _CHANGE_VECTORS:
        if getattr(options, name) != getattr(plain, name) and name not in names:
            raise UsageError(
                f"{record.id} does not take --{name}",
                remedy=f"Give its constructor an argument named {name}, or leave the option out.",
            )


def require_options(record: ModelRecord, options: LoadOptions) -> None:
    """Check, without loading, that the class takes the options that change vectors.

    Args:
        record: A record whose settings name a target.
        options: The options it would be loaded with.

    Raises:
        UsageError: If it does not take one of them, or cannot be imported.
    """
    _require_taken(record, options, parameters_of(import_target(record.settings["target"])))


def import_target(target: str) -> Any:
    """Import what ``package.module:Class`` names, also from the current folder.

    A module whose file has changed since this process imported it is imported anew.

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
            remedy="Give it as package.module:Class; rename a file of yours that has such a name.",
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: a file that happens to lie here hides no installed library
    try:
        return reduce(getattr, name.split("."), _import_current(module))
    except (Exception, SystemExit) as error:  # a user's module may raise anything at import
        raise UsageError(
            f"model '{target}' cannot be imported ({type(error).__name__}: {error})",
            remedy="Give it as package.module:Class, importable from the current folder.",
        ) from error


_SOURCES: dict[str, tuple[ModuleType, str]] = {}  # modules imported here, and their files' hashes


def _import_current(name: str) -> ModuleType:
    importlib.invalidate_caches()
    module = importlib.import_module(name)
    source = _source_of(module)
    known = _SOURCES.get(name)
    if known is not None and known[0] is module and source != known[1] and name != "__main__":
        linecache.checkcache()
        module = importlib.reload(module)
    _SOURCES[name] = (module, source)
    return module


def _source_of(module: ModuleType) -> str:
    """The hash of a module's file; empty where it has none, or none that can be read."""
    try:
        return sha256_file(Path(str(module.__file__)))
    except (AttributeError, OSError):
        return ""
