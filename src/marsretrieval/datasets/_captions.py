"""Captions, labels and positions out of the JSON or text that lies beside an image."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from marsretrieval.datasets._utf8 import escape, is_utf8
from marsretrieval.errors import DataError
from marsretrieval.files import parse_json

__all__ = ["MAX_ANNOTATION_BYTES", "Annotation", "annotation", "from_fields"]

# Of one image; the JSON of a real one has some kilobytes.
MAX_ANNOTATION_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Annotation:
    caption: str | None = None
    original_caption: str | None = None
    label: str | None = None
    bounds: tuple[float, ...] | None = None  # west, south, east, north
    centre: tuple[float, ...] | None = None  # lon, lat


def annotation(fields: bytes | None, text: bytes | None) -> Annotation:
    """Of an image with a .json and a .txt beside it; the text is the caption where the JSON has
    none.

    Raises ValueError saying what cannot be read.
    """
    found = Annotation() if fields is None else _from_json(fields)
    if found.caption is None and text is not None:
        return replace(found, caption=_text(text.decode("utf-8-sig")))
    return found


def from_fields(fields: Mapping[str, Any]) -> Annotation:
    """The caption JSON of a WebDataset, a tile's position, or a row of a table.

    `refined_caption` and `ori_caption` may stand in the object, or inside `caption`, which may be
    an object, a string that holds one, or plain words. Raises ValueError for a field of another
    kind than expected.
    """
    inner, plain = _caption_field(fields.get("caption"))
    refined = _text(fields.get("refined_caption")) or _text(inner.get("refined_caption"))
    original = _text(fields.get("ori_caption")) or _text(inner.get("ori_caption"))
    label = fields.get("label")
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    return Annotation(
        caption=refined or plain or _text(inner.get("caption")) or original,
        original_caption=original,
        label=_text(label),
        bounds=_numbers(fields, "bounds", 4),
        centre=_numbers(fields, "center", 2),
    )


def _from_json(data: bytes) -> Annotation:
    try:
        value = parse_json(data, source="its JSON", strict=False)
    except DataError as error:
        raise ValueError(error.message) from error
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {type(value).__name__}, not an object")
    return from_fields(value)


def _caption_field(value: Any) -> tuple[Mapping[str, Any], str | None]:
    if isinstance(value, Mapping):
        return value, None
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            parsed = parse_json(value, source="caption", strict=False)
        except DataError:
            return {}, _text(value)
        return (parsed, None) if isinstance(parsed, dict) else ({}, _text(value))
    return {}, _text(value)


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"text expected, found {value!r:.60}")
    if value is not None and not is_utf8(value):
        raise ValueError(f"a lone surrogate in the text '{escape(value):.60}'")
    return value.strip() or None if value is not None else None


def _numbers(fields: Mapping[str, Any], name: str, count: int) -> tuple[float, ...] | None:
    value = fields.get(name)
    if value is None:
        return None
    numbers = value if isinstance(value, list) else []
    if len(numbers) != count or not all(map(_is_number, numbers)):
        raise ValueError(f"{name} should be {count} numbers, found {value!r:.60}")
    return tuple(float(each) for each in numbers)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max  # false for NaN
    )
