"""A row of a Parquet table as an item."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval.datasets._captions import from_fields, locate
from marsretrieval.datasets._georeference import read_georeference
from marsretrieval.datasets._images import MAX_BYTES
from marsretrieval.datasets._position_fields import POSITION_FIELDS
from marsretrieval.datasets._protocol import Record, Skipped
from marsretrieval.datasets._source_file import is_failing, unanswered
from marsretrieval.errors import TableError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Columns"]

_IDS = ("image_id", "id", "key")  # the first that there is
_CAPTIONS = ("refined_caption", "ori_caption", "caption")
_NUMBERS = ("lon", "lat")
_PLACE = (*POSITION_FIELDS, "valid")


@dataclass(frozen=True, slots=True)
class Columns:
    """Those of a table that are read: `image` (a struct of bytes and path, binary, or a path),
    and any of label, image_id or id or key, refined_caption, ori_caption, caption, valid and the
    fields of a position."""

    path: Path
    names: tuple[str, ...]
    id: str | None
    label_names: tuple[str, ...] | None

    @classmethod
    def of(cls, path: Path, schema: pa.Schema) -> Columns:
        """Raises TableError naming the column that is missing or of another type."""
        _check_types(path, schema)
        identity = next((name for name in _IDS if name in schema.names), None)
        known = {"image", "label", *_PLACE, *_CAPTIONS, identity}
        names = tuple(name for name in schema.names if name in known)
        return cls(path, names, identity, _label_names(path, schema))

    def wanted(self, *, images: bool) -> list[str]:
        return [name for name in self.names if images or name != "image"]

    def item(self, number: int, row: Mapping[str, Any], *, images: bool) -> Record | Skipped:
        """`number` counts over all files, and is the id where there is no other."""
        told = row.get(self.id) if self.id else None
        key = str(number if told is None else told)
        source = f"{self.path}:row {number}"
        try:
            image = _encoded(row.get("image"), self.path.parent) if images else b""
            found = from_fields({name: row.get(name) for name in (*_CAPTIONS, *_PLACE)})
            place, found = locate(key, found, lambda: read_georeference(image) if image else None)
            return Record(
                id=key,
                data=image,
                source=source,
                caption=found.caption,
                original_caption=found.original_caption,
                label=self._label(row.get("label")),
                lon=place.lon,
                lat=place.lat,
                width_deg=place.width_deg,
                height_deg=place.height_deg,
                valid=found.valid,
                warnings=found.warnings(key, source),
            )
        except ValueError as error:
            return Skipped(key, source, str(error))

    def _label(self, value: Any) -> str | None:
        if value is None:
            return None
        if isinstance(value, str) or self.label_names is None:
            return str(value)
        if not 0 <= value < len(self.label_names):
            raise ValueError(f"label {value} is none of the dataset's {len(self.label_names)}")
        return self.label_names[int(value)]


def _encoded(value: Any, folder: Path) -> bytes:
    """The bytes, or those of the file beside the table. Raises ValueError saying why not."""
    if isinstance(value, bytes):
        value = {"bytes": value}
    elif isinstance(value, str):
        value = {"path": value}
    content, path = (value or {}).get("bytes"), (value or {}).get("path")
    if content:
        return bytes(content)
    if not path:
        raise ValueError("no image in this row")
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"its image lies outside of the dataset's folder: {path}")
    file = folder / str(path)
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"its image has {size:,} bytes, more than {MAX_BYTES:,}")
        return file.read_bytes()
    except OSError as error:
        if is_failing(error):
            raise unanswered(file, error) from error
        raise ValueError(f"its image {path} cannot be read ({error.strerror})") from error


def _check_types(path: Path, schema: pa.Schema) -> None:
    import pyarrow.types as kinds

    if "image" not in schema.names:
        raise TableError(
            f"{path}: no column 'image' (there are {', '.join(schema.names) or 'none'})",
            remedy="Images are expected as Hugging Face writes them: a struct of bytes and path.",
        )

    def text(kind: pa.DataType) -> bool:
        if kinds.is_dictionary(kind):
            kind = kind.value_type
        return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_null(kind))

    def image(kind: pa.DataType) -> bool:
        if kinds.is_struct(kind):
            return {"bytes", "path"} & {each.name for each in kind} != set()
        return text(kind) or bool(kinds.is_binary(kind) or kinds.is_large_binary(kind))

    def number(kind: pa.DataType) -> bool:
        return bool(kinds.is_floating(kind) or kinds.is_integer(kind) or kinds.is_null(kind))

    expected = {"image": (image, "a struct of bytes and path, or binary")}
    expected["label"] = (lambda kind: text(kind) or kinds.is_integer(kind), "text or ClassLabel")
    expected |= dict.fromkeys(_CAPTIONS, (text, "text"))
    expected |= dict.fromkeys(_NUMBERS, (number, "degrees"))
    for name, (fits, words) in expected.items():
        if name in schema.names and not fits(schema.field(name).type):
            raise TableError(
                f"{path}: column '{name}' is {schema.field(name).type}, expected {words}",
                remedy="Rename or convert it.",
            )


def _label_names(path: Path, schema: pa.Schema) -> tuple[str, ...] | None:
    """Of the ClassLabel, as the datasets library keeps them in the schema's metadata."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return None
    try:
        names = json.loads(metadata)["info"]["features"].get("label", {}).get("names")
        return None if names is None else tuple(str(name) for name in names)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(
            f"{path}: its Hugging Face metadata cannot be read",
            remedy="Write it again with the datasets library, or with labels as text.",
        ) from error
