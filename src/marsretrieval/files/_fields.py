"""Kinds of values in our own JSON files, checked before anything relies on them."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from marsretrieval.errors import DataError

_LARGEST = 2**62  # of an integer: sums and arrays of 64 bits can hold it
_WORDS = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false",
    type(None): "null",
}  # fmt: skip

T = TypeVar("T")


def from_json(cls: type[T], value: object, *, source: Path | str, at: str = "") -> T:
    """Make a dataclass of a JSON object, each field of the kind that its annotation says.

    Args:
        cls: The dataclass; nested ones are made too, sequences become tuples where it says so.
        value: What was parsed.
        source: File that the value comes from, for messages.
        at: Name of the field that holds the value, for messages.

    Raises:
        DataError: Naming file and field, if a field is missing, unknown, or of another kind.
    """
    names = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    value = _object(value, source, at)
    unknown = sorted(value.keys() - names.keys())
    if unknown:
        raise DataError(f"{source}: unknown field '{_join(at, unknown[0])}'")
    hints = _hints(cls)  # type: ignore[arg-type]
    made = {}
    for name, field in names.items():
        if name in value:
            made[name] = convert(value[name], hints[name], source=source, at=_join(at, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise DataError(f"{source}: has no '{_join(at, name)}'")
    return cls(**made)


def check_fields(
    value: object,
    kinds: Mapping[str, Any],
    *,
    source: Path | str,
    at: str = "",
    optional: bool = False,
) -> None:
    """Raise DataError unless the fields of a JSON object are of the kinds given.

    Args:
        value: What was parsed; fields that `kinds` does not name may be anything.
        kinds: Name of a field to its annotation, or to `kinds` of the object that it is.
        source: File that the value comes from, for messages.
        at: Name of the field that holds the value, for messages.
        optional: Whether fields may be missing.
    """
    value = _object(value, source, at)
    for name, kind in kinds.items():
        here = _join(at, name)
        if name not in value:
            if optional:
                continue
            raise DataError(f"{source}: has no '{here}'")
        if isinstance(kind, Mapping):
            check_fields(value[name], kind, source=source, at=here, optional=optional)
        else:
            convert(value[name], kind, source=source, at=here)


def convert(value: Any, kind: Any, *, source: Path | str, at: str) -> Any:
    """A JSON value as an annotation says. Raises DataError naming file and field."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        kinds = [each for each in arguments if each is not type(None)]
        for number, one in enumerate(kinds, 1):
            try:
                return convert(value, one, source=source, at=at)
            except DataError:
                if number == len(kinds):
                    raise
    if origin is Literal:
        if value in arguments and type(value) in {type(each) for each in arguments}:
            return value
        raise _wrong(value, " or ".join(map(repr, arguments)), source, at)
    if dataclasses.is_dataclass(kind):
        return from_json(kind, value, source=source, at=at)  # type: ignore[arg-type]
    plain = origin or kind
    if isinstance(plain, type) and issubclass(plain, Mapping):
        made = _object(value, source, at)
        if len(arguments) == 2 and arguments[1] is not Any:
            return {
                key: convert(item, arguments[1], source=source, at=_join(at, key))
                for key, item in made.items()
            }
        return made
    if isinstance(plain, type) and issubclass(plain, Sequence) and plain is not str:
        if not isinstance(value, list):
            raise _wrong(value, "a list", source, at)
        if not arguments:
            return tuple(value) if plain is tuple else value
        if plain is tuple and arguments[-1] is not Ellipsis:
            if len(value) != len(arguments):
                raise _wrong(value, f"a list of {len(arguments)}", source, at)
            kinds = list(arguments)
        else:
            kinds = [arguments[0]] * len(value)
        items = [
            convert(item, one, source=source, at=f"{at}[{number}]")
            for number, (item, one) in enumerate(zip(value, kinds, strict=True))
        ]
        return tuple(items) if plain is tuple else items
    right = (
        isinstance(value, (int, float)) and not isinstance(value, bool) if kind is float
        else isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST
        if kind is int
        else isinstance(value, kind)
    )  # fmt: skip
    if not right:
        raise _wrong(value, _WORDS.get(kind, str(kind)), source, at)
    return value


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _object(value: object, source: Path | str, at: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if not at:
        raise DataError(f"{source}: not a JSON object")
    raise _wrong(value, "an object", source, at)


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _wrong(value: object, kind: str, source: Path | str, at: str) -> DataError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:48]}..."
    return DataError(f"{source}: '{at}' must be {kind}, not {shown}")
