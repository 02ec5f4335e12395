"""Find and load models by name: built-in, installed by a plugin, or a user's class."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import logging
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from marsretrieval.encoders.base import LIBRARIES, PLUGIN_FAMILY, Encoder, LoadOptions, ModelSpec
from marsretrieval.encoders.torch_imports import guard_torchvision
from marsretrieval.errors import (
    DataError,
    MarsRetrievalError,
    MissingDependencyError,
    ModelLoadError,
    UnknownNameError,
    UsageError,
    describe_exception,
)
from marsretrieval.io import from_json
from marsretrieval.system import let_interrupts_end_waits

_LOG = logging.getLogger(__name__)
_GROUP = "marsretrieval.encoders"

# ``st:<name>``: any model of a library, by the library's own name.
_LIBRARIES = {"st": ("sentence-transformers", "marsretrieval.encoders.sentence_transformers:load")}
_MTEB = "mteb"  # ``mteb:<name>``: a model of MTEB's registry
_BUILTIN = "builtin"
_PACKAGE = "marsretrieval.encoders."
_HELD: dict[tuple[str, LoadOptions], Encoder] = {}  # loaded already, returned by `load`
_ORIGINS: WeakKeyDictionary[Any, tuple[ModelSpec, LoadOptions]] = WeakKeyDictionary()
_CONFIG_FOLDER = Path(__file__).parent / "model_configs"
_OPTIONAL_KEYS = ("revision", "image_size", "parameters", "context_length")


@cache
def all_specs() -> tuple[ModelSpec, ...]:
    """List the models of all entry points, built-in ones first, then by id.

    A plugin that cannot be imported, and a model whose id is taken, are reported on stderr and
    skipped.

    Returns:
        The specs.
    """
    guard_torchvision()
    points = sorted(
        entry_points(group=_GROUP), key=lambda entry: (entry.name != _BUILTIN, entry.name)
    )
    specs: dict[str, ModelSpec] = {}
    for point in points:
        try:
            new_specs = _specs_of_entry_point(point)
        except Exception as error:  # a plugin may raise anything at import
            _warn(point, str(getattr(error, "message", error)) or type(error).__name__)
            continue
        for spec in new_specs:
            if spec.id in specs:
                _warn(point, f"model '{spec.id}' is already registered")
            else:
                specs[spec.id] = spec
    return tuple(specs.values())


def find(name: str) -> ModelSpec:
    """Find a model by name.

    Args:
        name: Id, name in the paper or repository of a registered model; a class as
            ``module:Class``; or a model of a library: ``oc:ARCHITECTURE[/PRETRAINED]`` (open_clip),
            ``hf:<repository or folder>[@REVISION]`` (transformers), ``timm:NAME``,
            ``st:<name or folder>`` (sentence-transformers) or ``mteb:NAME`` (MTEB's registry).
            Case is ignored, and ``_`` equals ``-``.

    Returns:
        The spec.

    Raises:
        UnknownNameError: If there is no such model. Suggests similar names.
        UsageError: If a class cannot be imported or is not an encoder.
    """
    if not isinstance(name, str):
        raise UsageError(
            f"{name!r} is not the name of a model", remedy="List the names: marsretrieval models"
        )
    guard_torchvision()
    library, _, rest = name.partition(":")
    if library in _LIBRARIES and rest:
        family, loader = _LIBRARIES[library]
        return ModelSpec.unregistered(name, name=rest, family=family, loader=loader)
    if library == _MTEB and rest:
        from marsretrieval.encoders.mteb import spec_from_mteb

        return spec_from_mteb(rest)
    if library in LIBRARIES and rest:
        from marsretrieval.encoders.library_names import spec_from_library

        return spec_from_library(library, rest)
    if ":" in name:
        from marsretrieval.encoders.custom import spec_from_target

        _require_target(name)
        return spec_from_target(name)
    for spec in all_specs():
        if _normalize_name(name) in map(_normalize_name, (spec.id, spec.name, spec.repository)):
            return spec
    from marsretrieval.encoders.library_names import names_like

    ids = [spec.id for spec in all_specs()]
    raise UnknownNameError(
        "model",
        name,
        ids,
        similar=names_like(name, ids),
        remedy="A repository of the hub: hf:NAMESPACE/NAME; your own class: package.module:Class.",
    )


def _require_target(name: str) -> None:
    """Raise UsageError if a name with a colon can be neither a class nor a library's model."""
    prefix, _, rest = name.partition(":")
    prefixes = (*LIBRARIES, *_LIBRARIES, _MTEB)
    if prefix in prefixes:  # and nothing after the colon
        raise UsageError(
            f"model '{name}' has no name after '{prefix}:'",
            remedy=f"Give {prefix}:NAME; see docs/MODELS.md.",
        )
    if not all(part.isidentifier() for part in (*prefix.split("."), *rest.split("."))):
        near = difflib.get_close_matches(prefix.lower(), prefixes, n=1)
        hint = f"Did you mean {near[0]}:{rest}? " if near else ""
        raise UsageError(
            f"unknown prefix '{prefix}:' in model '{name}'",
            remedy=f"{hint}Prefixes: {', '.join(f'{scheme}:' for scheme in prefixes)}; your own "
            "class: package.module:Class.",
        )


def load(model: str | ModelSpec, options: LoadOptions | None = None) -> Encoder:
    """Load a model by name or spec.

    Args:
        model: A name, as for `find`, or a spec.
        options: Device, precision, checkpoint and prompts.

    Returns:
        The encoder, ready to embed.

    Raises:
        ModelLoadError: If its loader fails.
        MissingDependencyError: If a library is not installed.
    """
    guard_torchvision()
    spec = find(model) if isinstance(model, str) else model
    module, _, function = spec.loader.partition(":")
    try:
        loader: Callable[[ModelSpec, LoadOptions], Encoder]
        loader = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        lacking = getattr(error, "name", None) or ""
        if isinstance(error, ModuleNotFoundError) and not module.startswith(lacking.split(".")[0]):
            raise MissingDependencyError(
                lacking, "models", needed_for=f"loading {spec.id}"
            ) from error
        raise ModelLoadError(
            f"{spec.id}: its loader {spec.loader} cannot be imported ({error})"
        ) from error
    options = options or LoadOptions()
    if (spec.id, options) in _HELD:
        return _HELD[spec.id, options]
    with _code_guard(spec, options):
        try:
            encoder = loader(spec, options)
        except MarsRetrievalError:
            raise
        except Exception as error:  # of a library, for example an unsupported precision
            raise ModelLoadError(
                f"{spec.id}: loading it failed ({describe_exception(error)})",
                remedy="Try --dtype float32 and --device cpu, or another checkpoint.",
            ) from error
        finally:
            let_interrupts_end_waits()
    if options.prompts != "paper" and _lacks_presets(spec):
        _LOG.warning(
            "%s: --prompts %s has no effect: the model has no prompt presets",
            spec.id,
            options.prompts,
        )
    with contextlib.suppress(TypeError):  # an object of a plugin without weak references
        _ORIGINS[encoder] = (spec, options)
    return encoder


def origin_of(encoder: Any) -> tuple[ModelSpec, LoadOptions] | None:
    """Return the spec and the options that `load` made an encoder from; None for other objects."""
    try:
        return _ORIGINS.get(encoder)
    except TypeError:  # not hashable, or without weak references
        return None


@contextlib.contextmanager
def hold(encoders: Mapping[tuple[str, LoadOptions], Encoder]) -> Iterator[None]:
    """Let `load` return encoders that are loaded already, while the context is open.

    Args:
        encoders: Id and options to encoder.
    """
    _HELD.update(encoders)
    try:
        yield
    finally:
        for key in encoders:
            _HELD.pop(key, None)


def records() -> list[ModelSpec]:
    """List the specs of all built-in models, by id.

    Returns:
        The specs.
    """
    specs = [read_spec(path) for path in _CONFIG_FOLDER.glob("*.toml")]
    return sorted(specs, key=lambda spec: spec.id)


def read_spec(path: Path) -> ModelSpec:
    """Read the TOML file of a model.

    Args:
        path: File in `model_configs/`. Optional keys may be missing.

    Returns:
        The spec.

    Raises:
        DataError: If the file is invalid. Names the file and the key.
    """
    try:
        value: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(
            f"{path}: not readable as TOML ({error})", remedy="Correct the syntax of the file."
        ) from error
    if "id" in value:
        raise DataError(f"{path}: unknown field 'id'", remedy="The name of the file is the id.")
    value = {"id": path.stem, **dict.fromkeys(_OPTIONAL_KEYS), **value}
    spec = from_json(ModelSpec, value, source=path)
    if "image" not in spec.modalities:
        raise DataError(
            f"{path}: 'modalities' is {value['modalities']}: 'image' is missing",
            remedy="Add image to the modalities.",
        )
    return spec


def _code_guard(spec: ModelSpec, options: LoadOptions) -> contextlib.AbstractContextManager[None]:
    """Refuse code in the files of a model. Does not apply to a user's own class."""
    ours = spec.loader.startswith(_PACKAGE) and spec.family != PLUGIN_FAMILY
    if options.trust_remote_code or not ours:
        return contextlib.nullcontext()
    from marsretrieval.encoders.remote_code import no_remote_code

    return no_remote_code()


def _lacks_presets(spec: ModelSpec) -> bool:
    """Whether no prompts of a built-in loader depend on the preset; False for a user's code."""
    ours = spec.loader.startswith(_PACKAGE) and spec.family != PLUGIN_FAMILY
    return ours and not spec.settings.get("prompts")


def _normalize_name(name: str) -> str:
    return name.lower().replace("_", "-")


def _specs_of_entry_point(point: EntryPoint) -> list[ModelSpec]:
    """Load the specs of an entry point.

    It names a function without arguments that returns specs, or an encoder: a class, an object, or
    a function that creates it and accepts at least one option.
    """
    target: Any = point.load()
    gives_specs = inspect.isfunction(target) and not inspect.signature(target).parameters
    result = target() if gives_specs else target
    if not gives_specs or hasattr(result, "encode_images"):
        from marsretrieval.encoders.custom import spec_from_object

        return [spec_from_object(target, point.name, point.value)]
    specs = list(result)
    if strange := [spec for spec in specs if not isinstance(spec, ModelSpec)]:
        raise TypeError(f"returns a {type(strange[0]).__name__} where a ModelSpec is expected")
    return specs


def _warn(point: EntryPoint, text: str) -> None:
    _LOG.warning("plugin '%s' (%s): %s", point.name, point.value, text)
