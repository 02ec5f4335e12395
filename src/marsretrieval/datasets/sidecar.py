"""Captions, labels and positions from the JSON or text beside an image, or from a table row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from marsretrieval.datasets.base import ItemWarning, escape, is_utf8
from marsretrieval.datasets.georeference import MissingRasterioError
from marsretrieval.datasets.position_fields import (
    NOWHERE,
    Place,
    Position,
    number_of,
    place_of,
    position_of,
    unwrap_feature,
)
from marsretrieval.errors import DataError
from marsretrieval.io import parse_json

# Of one image; the JSON of a real one has some kilobytes.
MAX_ANNOTATION_BYTES = 2**24

Problem = tuple[Literal["annotation", "position"], str]


@dataclass(frozen=True, slots=True)
class Annotation:
    """What an image's annotation states; `problems` are its parts that cannot be used."""

    caption: str | None = None
    original_caption: str | None = None
    label: str | None = None
    position: Position = field(default_factory=Position)
    valid: float | None = None  # share of the tile with data
    problems: tuple[Problem, ...] = ()

    def warnings(self, key: str, source: str) -> tuple[ItemWarning, ...]:
        """The problems as warnings of the item `key`."""
        return tuple(
            ItemWarning(key, source, kind, escape(reason)) for kind, reason in self.problems
        )


def annotation(fields: bytes | None, text: bytes | None) -> Annotation:
    """Read the annotation of an image.

    Args:
        fields: Content of the .json beside it.
        text: Content of the .txt beside it, the caption where the JSON has none.

    Returns:
        What can be used; what cannot is among its problems.
    """
    found = Annotation() if fields is None else _from_json(fields)
    if found.caption is not None or text is None:
        return found
    try:
        return replace(found, caption=_text(text.decode("utf-8-sig")))
    except ValueError as error:
        problem: Problem = ("annotation", f"its text cannot be read ({error})")
        return replace(found, problems=(*found.problems, problem))


def from_fields(fields: Mapping[str, Any]) -> Annotation:
    """Read the caption JSON of a WebDataset, a tile's position, or a row of a table.

    Args:
        fields: `refined_caption` and `ori_caption`, in the object or inside `caption`, which may
            be an object, a string that holds one, or plain words; `label`; `valid`; the fields
            of `position_of`. A GeoJSON Feature has them among its properties.

    Returns:
        What can be used; what cannot is among its problems.
    """
    problems: list[Problem] = []

    def tolerant(read: Callable[[], Any], kind: Literal["annotation", "position"]) -> Any:
        try:
            return read()
        except ValueError as error:
            problems.append((kind, str(error)))
            return None

    fields = tolerant(lambda: unwrap_feature(fields), "position") or {}
    inner, plain = tolerant(lambda: _caption_field(fields.get("caption")), "annotation") or (
        {},
        None,
    )
    if isinstance(fields.get("caption"), list) and plain is not None:
        count = len(fields["caption"])
        problems.append(("annotation", f"{count} captions in a list: the first is used"))

    def text_of(holder: Mapping[str, Any], name: str) -> str | None:
        text: str | None = tolerant(lambda: _text(holder.get(name), name), "annotation")
        return text

    refined = text_of(fields, "refined_caption") or text_of(inner, "refined_caption")
    original = text_of(fields, "ori_caption") or text_of(inner, "ori_caption")
    position = tolerant(lambda: position_of(fields), "position") or Position()
    return Annotation(
        caption=refined or plain or text_of(inner, "caption") or original,
        original_caption=original,
        label=tolerant(lambda: _label(fields.get("label")), "annotation"),
        position=position,
        valid=tolerant(lambda: _share(fields.get("valid")), "annotation"),
        problems=tuple(problems),
    )


def locate(
    key: str,
    found: Annotation,
    georeference: Callable[[], Position | None] = lambda: None,
) -> tuple[Place, Annotation]:
    """Decide where an image lies: by its annotation, else its georeference, else its name.

    Args:
        key: Name of the item.
        found: Its annotation.
        georeference: Reads the position that the image file carries; called if needed.

    Returns:
        The place, `NOWHERE` where positions contradict each other or cannot be read; and the
        annotation, with that as a problem.
    """
    if any(kind == "position" for kind, _ in found.problems):
        return NOWHERE, found
    position: Position | None = found.position
    try:
        if not position:
            position = georeference()
        if not position:
            return place_of(key), found
        return place_of(key, position.bounds, position.centre, position.size), found
    except ValueError as error:
        told = replace(found, problems=(*found.problems, ("position", str(error))))
        return place_of(key) if isinstance(error, MissingRasterioError) else NOWHERE, told


def _from_json(data: bytes) -> Annotation:
    try:
        value = parse_json(data, source="its JSON", strict=False)
    except DataError as error:
        reason = error.message.replace("its JSON: not readable as JSON", "its JSON cannot be read")
        return Annotation(problems=(("annotation", reason),))
    if not isinstance(value, dict):
        kind = type(value).__name__
        return Annotation(problems=(("annotation", f"its JSON is a {kind}, not an object"),))
    return from_fields(value)


def _caption_field(value: Any) -> tuple[Mapping[str, Any], str | None]:
    if isinstance(value, Mapping):
        return value, None
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return {}, next((text for text in map(_text, value) if text), None)
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            parsed = parse_json(value, source="caption", strict=False)
        except DataError:
            return {}, _text(value)
        return (parsed, None) if isinstance(parsed, dict) else ({}, _text(value))
    return {}, _text(value, "caption")


def _text(value: Any, name: str = "text") -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} should be text, not {value!r:.60}")
    if value is not None and not is_utf8(value):
        raise ValueError(f"a lone surrogate in the text '{escape(value):.60}'")
    return value.strip() or None if value is not None else None


def _label(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value:d}" if abs(value) < 10**18 else None
    return _text(value, "label")


def _share(value: Any) -> float | None:
    if value is None or value != value:
        return None
    share = None if isinstance(value, str) else number_of(value)
    if share is None or not 0 <= share <= 1:
        raise ValueError(f"valid should be a share from 0 to 1, not {value!r:.60}")
    return share
