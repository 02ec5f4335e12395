"""Captions and positions out of the JSON or text that lies beside an image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

__all__ = ["Annotation", "from_json", "from_text"]


@dataclass(frozen=True, slots=True)
class Annotation:
    caption: str | None = None
    original_caption: str | None = None
    label: str | None = None
    bounds: tuple[float, float, float, float] | None = None  # west, south, east, north
    centre: tuple[float, float] | None = None  # lon, lat


def from_text(data: bytes) -> Annotation:
    """A .txt beside an image is its caption. Raises ValueError when it is not UTF-8."""
    return Annotation(caption=data.decode("utf-8-sig").strip() or None)


def from_json(data: bytes) -> Annotation:
    """The caption JSON of a WebDataset, or a tile's position.

    `refined_caption` and `ori_caption` may stand in the object, or inside `caption`, which may be
    an object, a string that holds one, or plain words. Raises ValueError when it is not an object.
    """
    value = json.loads(data.decode("utf-8-sig"))
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {type(value).__name__}, not an object")
    inner, plain = _caption_field(value.get("caption"))
    refined = _text(value.get("refined_caption")) or _text(inner.get("refined_caption"))
    original = _text(value.get("ori_caption")) or _text(inner.get("ori_caption"))
    return Annotation(
        caption=refined or plain or _text(inner.get("caption")) or original,
        original_caption=original,
        label=_text(value.get("label")),
        bounds=_numbers(value.get("bounds"), 4),
        centre=_numbers(value.get("center"), 2),
    )


def _caption_field(value: Any) -> tuple[dict[str, Any], str | None]:
    if isinstance(value, dict):
        return value, None
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError:
            return {}, _text(value)
        return (parsed, None) if isinstance(parsed, dict) else ({}, _text(value))
    return {}, _text(value)


def _text(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _numbers(value: Any, count: int) -> Any:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != count:
        raise ValueError(f"{count} numbers expected, found {value!r}")
    return tuple(float(item) for item in value)
