"""The built-in models as data: one TOML file each, named by the model's id."""

from __future__ import annotations

import tomllib
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
    return [read_record(path) for path in sorted(_FOLDER.glob("*.toml"))]


def read_record(path: Path) -> ModelRecord:
    """One TOML file as a ModelRecord; a key left out is unknown where it may be.

    Raises DataError naming the file and the key.
    """
    try:
        value: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: not readable as TOML ({error})") from error
    value = {"id": path.stem, **dict.fromkeys(_MAY_BE_UNKNOWN), **value}
    if "modalities" in value:
        value["modalities"] = frozenset(value["modalities"])
    known = {field.name for field in fields(ModelRecord)}
    needed = {
        field.name
        for field in fields(ModelRecord)
        if field.default is MISSING and field.default_factory is MISSING
    }
    if surplus := sorted(value.keys() - known):
        raise DataError(f"{path}: unknown key {', '.join(surplus)}")
    if lacking := sorted(needed - value.keys()):
        raise DataError(f"{path}: key {', '.join(lacking)} is missing")
    return ModelRecord(**value)
