"""Annotations of images: captions, labels and positions from annotation files or table rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from marsretrieval.datasets.base import ItemWarning, escape, is_utf8
from marsretrieval.datasets.position_fields import (
    NO_LOCATION,
    Position,
    TileLocation,
    parse_finite,
    parse_position,
    resolve_location,
    unwrap_feature,
)
from marsretrieval.errors import DataError
from marsretrieval.io import parse_json

# Limit per image; published annotations have a few kilobytes.
MAX_ANNOTATION_BYTES = 2**24

# Fields of captions in a row, and the one that holds them if a table has none of these.
CAPTION_FIELDS = ("refined_caption", "ori_caption", "caption")
CAPTION_ALIAS = "text"

# Metadata files of an image folder (Hugging Face).
METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

# Names of dataset splits, which are not classes.
_SPLIT_NAMES = frozenset(
    {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}
    | {"trainval", "train_val", "holdout"}
)

Problem = tuple[Literal["annotation", "position"], str]


@dataclass(frozen=True, slots=True)
class Annotation:
    """Annotation of an image.

    Attributes:
        caption: Caption; the refined one if there are two.
        original_caption: Caption before refinement.
        label: Class name.
        position: Position, not validated.
        valid: Fraction of the tile that has data, 0 to 1.
        problems: Kind and description of each part that cannot be used.
    """

    caption: str | None = None
    original_caption: str | None = None
    label: str | None = None
    position: Position = field(default_factory=Position)
    valid: float | None = None
    problems: tuple[Problem, ...] = ()

    def with_fallback(self, other: Annotation) -> Annotation:
        """Fill in the parts that are missing from another annotation of the same image.

        Args:
            other: Annotation used for missing parts.

        Returns:
            The combined annotation, with the problems of both.
        """
        return Annotation(
            caption=self.caption or other.caption,
            original_caption=self.original_caption or other.original_caption,
            label=self.label or other.label,
            position=self.position or other.position,
            valid=other.valid if self.valid is None else self.valid,
            problems=(*self.problems, *other.problems),
        )

    def warnings(self, key: str, source: str) -> tuple[ItemWarning, ...]:
        """Convert the problems to warnings.

        Args:
            key: Id of the item.
            source: File or archive member.

        Returns:
            One warning per problem.
        """
        return tuple(
            ItemWarning(key, source, kind, escape(reason)) for kind, reason in self.problems
        )


@dataclass(frozen=True, slots=True)
class Metadata:
    """Annotations of images by metadata files.

    Attributes:
        files: Metadata files.
        annotations: Path of an image to its annotation. The image may be missing.
        sources: Path of an image to the file and row that name it, for messages.
    """

    files: tuple[Path, ...] = ()
    annotations: Mapping[Path, Annotation] = field(default_factory=dict)
    sources: Mapping[Path, str] = field(default_factory=dict)


def parse_annotation(fields: bytes | None, text: bytes | None) -> Annotation:
    """Parse the annotation files of an image.

    Args:
        fields: Content of the .json file beside it.
        text: Content of the .txt file beside it, used as the caption if the JSON has none.

    Returns:
        The annotation; parts that cannot be used are listed in its problems.
    """
    annotation = Annotation() if fields is None else _annotation_from_json(fields)
    if annotation.caption is not None or text is None:
        return annotation
    try:
        return replace(annotation, caption=_parse_text(text.decode("utf-8-sig")))
    except ValueError as error:
        problem: Problem = ("annotation", f"its text cannot be read ({error})")
        return replace(annotation, problems=(*annotation.problems, problem))


def annotation_from_fields(fields: Mapping[str, Any]) -> Annotation:
    """Parse the caption JSON of a WebDataset, a tile's position, or a table row.

    Args:
        fields: `refined_caption` and `ori_caption`, in the object or inside `caption`, which may
            be an object, a string that holds one, or plain text; `label`; `valid`; the fields
            of `parse_position`. A GeoJSON Feature has them among its properties.

    Returns:
        The annotation; parts that cannot be used are listed in its problems.
    """
    problems: list[Problem] = []

    def attempt(read: Callable[[], Any], kind: Literal["annotation", "position"]) -> Any:
        try:
            return read()
        except ValueError as error:
            problems.append((kind, str(error)))
            return None

    fields = attempt(lambda: unwrap_feature(fields), "position") or {}
    inner, plain = attempt(lambda: _parse_caption(fields.get("caption")), "annotation") or (
        {},
        None,
    )
    if isinstance(fields.get("caption"), list) and plain is not None:
        count = len(fields["caption"])
        problems.append(("annotation", f"{count} captions in a list: the first is used"))

    def text_of(holder: Mapping[str, Any], name: str) -> str | None:
        text: str | None = attempt(lambda: _parse_text(holder.get(name), name), "annotation")
        return text

    refined = text_of(fields, "refined_caption") or text_of(inner, "refined_caption")
    original = text_of(fields, "ori_caption") or text_of(inner, "ori_caption")
    position = attempt(lambda: parse_position(fields), "position") or Position()
    return Annotation(
        caption=refined or plain or text_of(inner, "caption") or original,
        original_caption=original,
        label=attempt(lambda: _parse_label(fields.get("label")), "annotation"),
        position=position,
        valid=attempt(lambda: _parse_share(fields.get("valid")), "annotation"),
        problems=tuple(problems),
    )


def locate_image(
    key: str,
    annotation: Annotation,
    georeference: Callable[[], Position | None] = lambda: None,
) -> tuple[TileLocation, Annotation]:
    """Determine the location of an image.

    The first of these is used: position in the annotation, georeference, tile name.

    Args:
        key: Name of the item.
        annotation: Its annotation.
        georeference: Reads the position from the image file; called only if needed.

    Returns:
        The location, `NO_LOCATION` if positions contradict each other or cannot be read; and the
        annotation, with that problem added.
    """
    if any(kind == "position" for kind, _ in annotation.problems):
        return NO_LOCATION, annotation
    position: Position | None = annotation.position
    try:
        if not position:
            position = georeference()
        if not position:
            return resolve_location(key), annotation
        return resolve_location(key, position.bounds, position.centre, position.size), annotation
    except ValueError as error:
        from marsretrieval.datasets.georeference import MissingRasterioError

        with_problem = replace(
            annotation, problems=(*annotation.problems, ("position", str(error)))
        )
        return resolve_location(key) if isinstance(
            error, MissingRasterioError
        ) else NO_LOCATION, with_problem


def is_split(name: str) -> bool:
    """Check for the name of a dataset split (train, test, val ...).

    Args:
        name: Name of a folder.

    Returns:
        True if it is a split's name, in any case.
    """
    return name.lower() in _SPLIT_NAMES


def class_from_folders(folders: Sequence[str]) -> str | None:
    """Return the class that the folders above an image state.

    Args:
        folders: Names of the folders from the root of the dataset down to the image.

    Returns:
        The first folder that is not a split; None if there is none.
    """
    return next((name for name in folders if not is_split(name)), None)


def _annotation_from_json(data: bytes) -> Annotation:
    try:
        value = parse_json(data, source="its JSON", strict=False)
    except DataError as error:
        reason = error.message.replace("its JSON: not readable as JSON", "its JSON cannot be read")
        return Annotation(problems=(("annotation", reason),))
    if not isinstance(value, dict):
        kind = type(value).__name__
        return Annotation(problems=(("annotation", f"its JSON is a {kind}, not an object"),))
    return annotation_from_fields(value)


def _parse_caption(value: Any) -> tuple[Mapping[str, Any], str | None]:
    if isinstance(value, Mapping):
        return value, None
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return {}, next((text for text in map(_parse_text, value) if text), None)
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            parsed = parse_json(value, source="caption", strict=False)
        except DataError:
            return {}, _parse_text(value)
        return (parsed, None) if isinstance(parsed, dict) else ({}, _parse_text(value))
    return {}, _parse_text(value, "caption")


def _parse_text(value: Any, name: str = "text") -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} should be text, not {value!r:.60}")
    if value is not None and not is_utf8(value):
        raise ValueError(f"a lone surrogate in the text '{escape(value):.60}'")
    return value.strip() or None if value is not None else None


def _parse_label(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value:d}" if abs(value) < 10**18 else None
    return _parse_text(value, "label")


def _parse_share(value: Any) -> float | None:
    if value is None or value != value:
        return None
    share = None if isinstance(value, str) else parse_finite(value)
    if share is None or not 0 <= share <= 1:
        raise ValueError(f"valid should be a share from 0 to 1, not {value!r:.60}")
    return share
