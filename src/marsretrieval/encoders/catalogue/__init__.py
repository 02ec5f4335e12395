"""The built-in models as data: one TOML file each, named by the model's id."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from marsretrieval.encoders._record import ModelRecord
from marsretrieval.errors import DataError
from marsretrieval.files import from_json

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
    if "id" in value:
        raise DataError(f"{path}: unknown field 'id'", remedy="The name of the file is the id.")
    value = {"id": path.stem, **dict.fromkeys(_MAY_BE_UNKNOWN), **value}
    record = from_json(ModelRecord, value, source=path)
    if "image" not in record.modalities:
        raise DataError(f"{path}: 'modalities' is {value['modalities']}: 'image' is missing")
    return record
