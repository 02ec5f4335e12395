"""The built-in models as data: one TOML file each, named by the model's id."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from marsretrieval.encoders._record import ModelRecord
from marsretrieval.errors import DataError

__all__ = ["read_record", "records"]

_FOLDER = Path(__file__).parent
_MAY_BE_UNKNOWN = ("revision", "image_size", "parameters", "context_length")


def records() -> list[ModelRecord]:
    """All built-in models, by id."""
    found = [read_record(path) for path in _FOLDER.glob("*.toml")]
    return sorted(found, key=lambda record: record.id)


def read_record(path: Path) -> ModelRecord:
    """One TOML file as a ModelRecord; a key left out is unknown where it may be.

    Raises DataError naming the file and the key.
    """
    try:
        value: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: not readable as TOML ({error})") from error
    needed = {
        field.name
        for field in fields(ModelRecord)
        if field.default is MISSING and field.default_factory is MISSING
    } - {"id", *_MAY_BE_UNKNOWN}
    if surplus := sorted(value.keys() - _RULES.keys()):
        raise DataError(f"{path}: unknown key {', '.join(surplus)}")
    if lacking := sorted(needed - value.keys()):
        raise DataError(f"{path}: key {', '.join(lacking)} is missing")
    for key, found in value.items():
        wanted, holds = _RULES[key]
        if not holds(found):
            raise DataError(f"{path}: {key} is {found!r}", remedy=f"It must be {wanted}.")
    if "modalities" in value:
        value["modalities"] = frozenset(value["modalities"])
    return ModelRecord(**{"id": path.stem, **dict.fromkeys(_MAY_BE_UNKNOWN), **value})


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_commit(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 40 and not set(value) - set("0123456789abcdef")


def _is_loader(value: Any) -> bool:
    return isinstance(value, str) and all(value.partition(":")[::2])


def _are_modalities(value: Any) -> bool:
    return isinstance(value, list) and set(map(str, value)) in ({"image"}, {"image", "text"})


_RULES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("name", "family", "repository", "licence", "tried"), ("a text", _is_name)),
    **dict.fromkeys(("paper", "code", "notes"), ("a text", _is_text)),
    **dict.fromkeys(
        ("image_size", "dimension", "parameters", "context_length"),
        ("a whole number above 0", _is_count),
    ),
    "revision": ("a whole commit hash of 40 digits", _is_commit),
    "loader": ("package.module:function", _is_loader),
    "modalities": ('["image"] or ["image", "text"]', _are_modalities),
    "gated": ("true or false", lambda value: isinstance(value, bool)),
    "settings": ("a table", lambda value: isinstance(value, dict)),
}
