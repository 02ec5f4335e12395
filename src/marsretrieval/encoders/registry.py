"""Finding a model by name and loading it: built-in, installed by a plugin, or a user's class."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from marsretrieval.encoders.base import Encoder, LoadOptions, ModelSpec
from marsretrieval.encoders.custom import FAMILY, record_of, record_of_target
from marsretrieval.encoders.torch_imports import guard_torchvision
from marsretrieval.errors import (
    DataError,
    MarsRetrievalError,
    MissingDependencyError,
    ModelLoadError,
    UnknownNameError,
    describe_exception,
)
from marsretrieval.io import from_json

_GROUP = "marsretrieval.encoders"
# ``st:<name>``: any model of a library, by the library's own name for it.
_LIBRARIES = {"st": ("sentence-transformers", "marsretrieval.encoders.sentence_transformers:load")}
_MTEB = "mteb"  # ``mteb:<name>``, whose registry says what a model is
_BUILTIN = "builtin"
_PACKAGE = "marsretrieval.encoders."
_HELD: dict[tuple[str, LoadOptions], Encoder] = {}  # loaded already, returned by `load`
_ORIGINS: WeakKeyDictionary[Any, tuple[ModelSpec, LoadOptions]] = WeakKeyDictionary()


@cache
def all_specs() -> tuple[ModelSpec, ...]:
    """Every model of the entry points, built-in ones first, then by id.

    A plugin that cannot be imported is named on stderr and left out, as is a model whose id is
    taken; the others go on.
    """
    guard_torchvision()
    points = sorted(entry_points(group=_GROUP), key=lambda each: (each.name != _BUILTIN, each.name))
    found: dict[str, ModelSpec] = {}
    for point in points:
        try:
            records = _records(point)
        except Exception as error:  # a plugin may raise anything at import
            _warn(point, str(getattr(error, "message", error)) or type(error).__name__)
            continue
        for record in records:
            if record.id in found:
                _warn(point, f"model '{record.id}' is there already")
            else:
                found[record.id] = record
    return tuple(found.values())


def find(name: str) -> ModelSpec:
    """A model by its id, by the name the paper gives it, by its repository, a class as
    ``module:Class``, a model of sentence-transformers as ``st:<name or folder>``, or one of MTEB's
    registry as ``mteb:<name>``. Capitals do not count, nor does ``_`` for ``-``.

    Raises UnknownNameError with the nearest names.
    """
    guard_torchvision()
    library, _, rest = name.partition(":")
    if library in _LIBRARIES and rest:
        family, loader = _LIBRARIES[library]
        return ModelSpec.uncatalogued(name, name=rest, family=family, loader=loader)
    if library == _MTEB and rest:
        from marsretrieval.encoders.mteb import record as record_of_mteb

        return record_of_mteb(rest)
    if ":" in name:
        return record_of_target(name)
    for record in all_specs():
        if _key(name) in map(_key, (record.id, record.name, record.repository)):
            return record
    raise UnknownNameError(
        "model",
        name,
        [record.id for record in all_specs()],
        remedy="Your own class goes as package.module:Class.",
    )


def load(model: str | ModelSpec, options: LoadOptions | None = None) -> Encoder:
    """Load a model by name or record.

    Args:
        model: A name, as for `find`, or a record.
        options: Device, precision, checkpoint and prompts.

    Returns:
        The encoder, ready to embed.

    Raises:
        ModelLoadError: If its loader fails, in whatever way.
        MissingDependencyError: If a library is not installed.
    """
    guard_torchvision()
    record = find(model) if isinstance(model, str) else model
    module, _, function = record.loader.partition(":")
    try:
        loader: Callable[[ModelSpec, LoadOptions], Encoder]
        loader = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        lacking = getattr(error, "name", None) or ""
        if isinstance(error, ModuleNotFoundError) and not module.startswith(lacking.split(".")[0]):
            raise MissingDependencyError(
                lacking, "models", needed_for=f"loading {record.id}"
            ) from error
        raise ModelLoadError(
            f"{record.id}: its loader {record.loader} is not there ({error})"
        ) from error
    options = options or LoadOptions()
    if (record.id, options) in _HELD:
        return _HELD[record.id, options]
    with _code_guard(record, options):
        try:
            encoder = loader(record, options)
        except MarsRetrievalError:
            raise
        except Exception as error:  # of a library, such as a precision that a layer lacks
            raise ModelLoadError(
                f"{record.id}: loading it failed ({describe_exception(error)})",
                remedy="Try --dtype float32 and --device cpu, or another checkpoint.",
            ) from error
    with contextlib.suppress(TypeError):  # an object of a plugin without weak references
        _ORIGINS[encoder] = (record, options)
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


def _code_guard(record: ModelSpec, options: LoadOptions) -> contextlib.AbstractContextManager[None]:
    """Refuse code in the files of a model. A user's own class decides for itself."""
    ours = record.loader.startswith(_PACKAGE) and record.family != FAMILY
    if options.trust_remote_code or not ours:
        return contextlib.nullcontext()
    from marsretrieval.encoders.remote_code import no_remote_code

    return no_remote_code()


def _key(name: str) -> str:
    return name.lower().replace("_", "-")


def _records(point: EntryPoint) -> list[ModelSpec]:
    """What an entry point stands for: a function of no arguments that gives records, or an
    encoder: its class, an object, or a function that makes it and names at least one option."""
    target: Any = point.load()
    if not inspect.isfunction(target) or inspect.signature(target).parameters:
        return [record_of(target, point.name, point.value)]
    given = target()
    if hasattr(given, "encode_images"):
        return [record_of(target, point.name, point.value)]
    records = list(given)
    if strange := [each for each in records if not isinstance(each, ModelSpec)]:
        raise TypeError(f"gives a {type(strange[0]).__name__} where a ModelSpec is expected")
    return records


def _warn(point: EntryPoint, text: str) -> None:
    print(f"warning: plugin '{point.name}' ({point.value}): {text}", file=sys.stderr)


_FOLDER = Path(__file__).parent / "model_configs"
_MAY_BE_UNKNOWN = ("revision", "image_size", "parameters", "context_length")


def records() -> list[ModelSpec]:
    """All built-in models, by id."""
    found = [read_record(path) for path in _FOLDER.glob("*.toml")]
    return sorted(found, key=lambda record: record.id)


def read_record(path: Path) -> ModelSpec:
    """One TOML file as a ModelSpec; a key left out is unknown where it may be.

    Raises DataError naming the file and the key.
    """
    try:
        value: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: not readable as TOML ({error})") from error
    if "id" in value:
        raise DataError(f"{path}: unknown field 'id'", remedy="The name of the file is the id.")
    value = {"id": path.stem, **dict.fromkeys(_MAY_BE_UNKNOWN), **value}
    record = from_json(ModelSpec, value, source=path)
    if "image" not in record.modalities:
        raise DataError(f"{path}: 'modalities' is {value['modalities']}: 'image' is missing")
    return record
