"""Finding a model by name and loading it: built-in, installed by a plugin, or a user's class."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from marsretrieval.encoders._plugin import record_of_class, record_of_target
from marsretrieval.encoders._protocol import Encoder
from marsretrieval.encoders._record import LoadOptions, ModelRecord
from marsretrieval.errors import ModelLoadError, UnknownNameError

__all__ = ["all_records", "find", "load"]

_GROUP = "marsretrieval.encoders"


@cache
def all_records() -> tuple[ModelRecord, ...]:
    """Every model of the entry points, built-in ones first, then by id.

    A plugin that cannot be imported is named on stderr and left out; the others go on.
    """
    points = sorted(
        entry_points(group=_GROUP), key=lambda each: (each.name != "builtin", each.name)
    )
    found: dict[str, ModelRecord] = {}
    for point in points:
        try:
            records = _records(point)
        except Exception as error:  # a plugin may raise anything at import
            print(f"warning: plugin '{point.name}' ({point.value}): {error}", file=sys.stderr)
            continue
        for record in records:
            found.setdefault(record.id, record)
    return tuple(found.values())


def find(name: str) -> ModelRecord:
    """A model by its id, by the name the paper gives it, or a class as ``module:Class``.

    Raises UnknownNameError with the nearest names.
    """
    if ":" in name:
        return record_of_target(name)
    for record in all_records():
        if name.lower() in (record.id.lower(), record.name.lower()):
            return record
    raise UnknownNameError(
        "model",
        name,
        [record.id for record in all_records()],
        remedy="Your own class goes as package.module:Class.",
    )


def load(model: str | ModelRecord, options: LoadOptions | None = None) -> Encoder:
    """Load a model by name or record. Raises ModelLoadError, or what its loader raises."""
    record = find(model) if isinstance(model, str) else model
    module, _, function = record.loader.partition(":")
    try:
        loader: Callable[[ModelRecord, LoadOptions], Encoder]
        loader = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ModelLoadError(
            f"{record.id}: its loader {record.loader} is not there ({error})"
        ) from error
    return loader(record, options or LoadOptions())


def _records(point: EntryPoint) -> list[ModelRecord]:
    """What an entry point stands for: a function giving records, or an encoder class."""
    target: Any = point.load()
    if isinstance(target, type) and hasattr(target, "encode_images"):
        return [record_of_class(target, point.name, point.value)]
    return list(target())
