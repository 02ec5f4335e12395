"""A row of a table of images (Parquet or Arrow) as an item."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from marsretrieval.datasets._captions import MAX_ANNOTATION_BYTES, Problem, from_fields, locate
from marsretrieval.datasets._georeference import read_georeference
from marsretrieval.datasets._images import MAX_BYTES
from marsretrieval.datasets._places import POSITION_FIELDS
from marsretrieval.datasets._protocol import Record, Skipped
from marsretrieval.datasets._source_file import read_regular
from marsretrieval.datasets._utf8 import escape, skip_unless_utf8
from marsretrieval.errors import DataError, TableError
from marsretrieval.files import parse_json

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

_IDS = ("image_id", "id", "key")  # the first that there is
_CAPTIONS = ("refined_caption", "ori_caption", "caption")
_PLACE = (*POSITION_FIELDS, "valid")
_NO_LABEL = -1  # of a ClassLabel, in the datasets library


@dataclass(frozen=True, slots=True)
class Columns:
    """Those of a table that are read: `image` (a struct of bytes and path, binary, or a path),
    and any of label, image_id or id or key, refined_caption, ori_caption, caption, valid and the
    fields of a position.

    Only `image` has to be of a certain type. Other values are converted where nothing is lost, and
    are a warning of their record where that cannot be.
    """

    path: Path
    names: tuple[str, ...]
    id: str | None
    label_names: tuple[str, ...] | None
    label_problem: str | None = None  # why numbers have no names
    by_path: bool = False  # `image` holds paths

    @classmethod
    def of(cls, path: Path, schema: pa.Schema) -> Columns:
        """Raises TableError where the column `image` is missing or of another type."""
        identity = next((name for name in _IDS if name in schema.names), None)
        known = {"image", "label", *_PLACE, *_CAPTIONS, identity}
        for name in schema.names:
            if name in known and schema.names.count(name) > 1:
                raise TableError(
                    f"{path}: the column '{name}' comes twice", remedy="Rename or remove one."
                )
        _require_images(path, schema)
        names = tuple(name for name in schema.names if name in known)
        label_names, problem = None, None
        try:
            label_names = _label_names(schema)
        except ValueError as error:
            problem = str(error)
        by_path = _is_text(schema.field("image").type)
        return cls(path, names, identity, label_names, problem, by_path)

    def wanted(self, *, images: bool) -> list[str]:
        return [name for name in self.names if images or name != "image"]

    def item(self, number: int, row: Mapping[str, Any], *, images: bool) -> Record | Skipped:
        """`number` counts over all files, and is the id where there is no other."""
        value = row.get(self.id) if self.id else None
        source = f"{escape(str(self.path))}:row {number}"
        try:
            key = str(number if value is None else _identity(value))
        except ValueError:
            key = bytes(value or b"").decode("utf-8", "backslashreplace")
            return Skipped(key, source, f"its {self.id} is not UTF-8")
        problems: list[Problem] = []

        def attempt(read: Callable[[], T], otherwise: T) -> T:
            try:
                return read()
            except ValueError as error:
                problems.append(("annotation", str(error)))
                return otherwise

        captions: dict[str, Any] = attempt(lambda: _captions(row), {})
        label = attempt(lambda: self._label(row.get("label")), None)
        image = {"path": row.get("image")} if self.by_path else row.get("image")
        try:
            data = _encoded(image, self.path.parent) if images else b""
        except ValueError as error:
            return skip_unless_utf8(Skipped(key, source, str(error)))
        found = from_fields({**captions, **{name: _decoded(row.get(name)) for name in _PLACE}})
        found = replace(found, problems=(*problems, *found.problems))
        place, found = locate(key, found, lambda: read_georeference(data) if data else None)
        return skip_unless_utf8(
            Record(
                id=key,
                data=data,
                source=source,
                caption=found.caption,
                original_caption=found.original_caption,
                label=label,
                lon=place.lon,
                lat=place.lat,
                width_deg=place.width_deg,
                height_deg=place.height_deg,
                valid=found.valid,
                warnings=found.warnings(key, source),
            )
        )

    def _label(self, value: Any) -> str | None:
        """Name of a class; None where there is none. Raises ValueError."""
        if isinstance(value, bytes):
            return _text("label", value)
        if isinstance(value, float | Decimal):
            if value != value:
                return None
            if value != int(value):
                raise ValueError(f"label {value} is neither text nor a whole number")
            value = int(value)
        if value is None or value == _NO_LABEL:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"column 'label' holds {_kind(value)}, expected text or ClassLabel")
        if self.label_problem is not None:
            raise ValueError(self.label_problem)
        if self.label_names is None:
            return str(value)
        if not 0 <= value < len(self.label_names):
            raise ValueError(f"label {value} is none of the dataset's {len(self.label_names)}")
        return self.label_names[value]


def rows_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Convert a batch to dictionaries, texts as bytes: one that is no UTF-8 must not stop others.

    Args:
        batch: Rows of a table.

    Yields:
        One dictionary per row.
    """
    columns = {name: _values(batch.column(name)) for name in batch.schema.names}
    for number in range(batch.num_rows):
        yield {name: values[number] for name, values in columns.items()}


def _values(array: Any) -> list[Any]:
    import pyarrow as pa
    import pyarrow.types as kinds

    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _values(array.storage)
    if kinds.is_dictionary(kind):
        return _values(array.dictionary_decode())
    if kinds.is_struct(kind):
        parts = {
            field.name: _values(part) for field, part in zip(kind, array.flatten(), strict=True)
        }
        present = array.is_valid().to_pylist()
        return [
            {name: part[number] for name, part in parts.items()} if there else None
            for number, there in enumerate(present)
        ]
    if kinds.is_string(kind):
        array = array.cast(pa.binary())
    elif kinds.is_large_string(kind):
        array = array.cast(pa.large_binary())
    elif kinds.is_string_view(kind):
        array = array.cast(pa.binary_view())
    values: list[Any] = array.to_pylist()
    return values


def _identity(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"a {type(value).__name__}"


def _text(name: str, value: Any) -> str | None:
    """Raises ValueError where a value is no text."""
    if value is None:
        return None
    if not isinstance(value, bytes):
        raise ValueError(f"column '{name}' holds {_kind(value)}, expected text")
    if len(value) > MAX_ANNOTATION_BYTES:
        raise ValueError(f"{name} has {len(value):,} bytes, more than {MAX_ANNOTATION_BYTES:,}")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 ({error.reason})") from error


def _captions(row: Mapping[str, Any]) -> dict[str, Any]:
    """Texts of the caption columns; a struct as it stands in the JSON of a WebDataset."""
    return {
        name: {key: _text(name, value) for key, value in row[name].items() if key in _CAPTIONS}
        if isinstance(row.get(name), dict)
        else _text(name, row.get(name))
        for name in _CAPTIONS
    }


def _decoded(value: Any) -> Any:
    """Text for bytes and floats for decimals, also in lists and structs."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace").strip() or None
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [_decoded(part) for part in value]
    if isinstance(value, dict):
        return {name: _decoded(part) for name, part in value.items()}
    return value


def _encoded(value: Any, folder: Path) -> bytes:
    """The bytes, or those of the file beside the table. Raises ValueError saying why not."""
    if isinstance(value, bytes):
        value = {"bytes": value}
    content, path = (value or {}).get("bytes"), (value or {}).get("path")
    if content:
        return bytes(content)
    if not path:
        raise ValueError("no image in this row")
    if not isinstance(path, bytes):
        raise ValueError(f"no image in this row, and its path is {_kind(path)}, not text")
    name = path.decode()
    file = _inside(folder, name)
    try:
        return read_regular(file, MAX_BYTES)
    except ValueError as error:
        raise ValueError(f"its image {name} {error}") from error


def _inside(folder: Path, name: str) -> Path:
    """The file of a path, which may be absolute or have backslashes, but not lead elsewhere."""
    root = folder.absolute()
    names = dict.fromkeys((name, name.replace("\\", "/")))
    files = [Path(os.path.normpath(root / text)) for text in names]
    inside = [file for file in files if file.is_relative_to(os.path.normpath(root))]
    if not inside:
        raise ValueError(f"its image lies outside of the dataset's folder: {name}")
    return next((file for file in inside if os.path.lexists(file)), inside[-1])


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as kinds

    if kinds.is_dictionary(kind):
        kind = kind.value_type
    tests = (kinds.is_string, kinds.is_large_string, kinds.is_string_view, kinds.is_null)
    return any(test(kind) for test in tests)


def _require_images(path: Path, schema: pa.Schema) -> None:
    import pyarrow.types as kinds

    if "image" not in schema.names:
        raise TableError(
            f"{path}: no column 'image' (there are {', '.join(schema.names) or 'none'})",
            remedy="Images are expected as Hugging Face writes them: a struct of bytes and path.",
        )

    def binary(kind: pa.DataType) -> bool:
        if kinds.is_dictionary(kind):
            kind = kind.value_type
        tests = (
            kinds.is_binary, kinds.is_large_binary, kinds.is_binary_view,
            kinds.is_fixed_size_binary, kinds.is_null,
        )  # fmt: skip
        return any(test(kind) for test in tests)

    kind = schema.field("image").type
    if kinds.is_struct(kind):
        parts = {field.name: field.type for field in kind}
        known = parts.keys() & {"bytes", "path"}
        fits = bool(known)
        fits = fits and ("bytes" not in parts or binary(parts["bytes"]))
        fits = fits and (
            "path" not in parts or _is_text(parts["path"]) or known == {"bytes", "path"}
        )
    else:
        fits = _is_text(kind) or binary(kind)
    if not fits:
        raise TableError(
            f"{path}: column 'image' is {kind}, expected a struct of bytes and path, or binary",
            remedy="Rename or convert it.",
        )


def _label_names(schema: pa.Schema) -> tuple[str, ...] | None:
    """Of the ClassLabel, as the datasets library keeps them in the schema's metadata. Raises
    ValueError where that cannot be read."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return None
    try:
        facts = parse_json(metadata, source="metadata", strict=False)
        names = facts["info"]["features"].get("label", {}).get("names")
        return None if names is None else tuple(str(name) for name in names)
    except (DataError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            "the table's Hugging Face metadata cannot be read, so that its numbers have no names"
        ) from error
