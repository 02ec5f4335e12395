"""Parquet datasets as Hugging Face writes them.

An `image` column holds the encoded images, and the schema's metadata the names of the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from marsretrieval.datasets.base import Record, Shard, Skipped, escape, skip_unless_utf8
from marsretrieval.datasets.images import MAX_BYTES
from marsretrieval.datasets.listing import (
    file_fingerprint,
    is_tiff,
    read_regular,
    resolve_inside,
    unreachable_error,
)
from marsretrieval.datasets.position_fields import POSITION_FIELDS
from marsretrieval.datasets.sidecar import (
    CAPTION_ALIAS,
    CAPTION_FIELDS,
    MAX_ANNOTATION_BYTES,
    Annotation,
    Problem,
    annotation_from_fields,
    locate_image,
)
from marsretrieval.errors import DataError, TableError
from marsretrieval.io import parse_json

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from marsretrieval.datasets.position_fields import Position

T = TypeVar("T")

_ID_COLUMNS = ("image_id", "id", "key")  # in order of preference
_LOCATION_FIELDS = (*POSITION_FIELDS, "valid")
_NO_LABEL = -1  # missing value of a ClassLabel in the datasets library
_PER_SHARD = 512
_BATCH_ROWS = 32  # rows held in memory, at most _BYTES_AT_A_TIME
_BYTES_AT_A_TIME = 2**28
# Encoded images hardly compress; columns above both limits are rejected as bombs.
_MAX_EXPANSION, _SMALL = 200, 2**26


@dataclass(frozen=True, slots=True)
class ImageColumns:
    """The columns of a table that are read.

    These are `image` (a struct of bytes and path, binary, or a path) and, if present, label, one
    of image_id, id and key, refined_caption, ori_caption, caption, valid and the fields of a
    position. Without a column of captions, `text` holds them, as in datasets on the Hugging Face
    Hub. Only `image` must have a certain type. Other values are converted if nothing is lost
    by that, else they become a warning of their record.

    Attributes:
        path: The file.
        names: Columns to read.
        id: Column of ids; None if there is none.
        label_names: Names of a ClassLabel's numbers.
        label_problem: Why the names of the labels cannot be read.
        by_path: The column of images holds paths.
        image: Column of images; `file_name` in the metadata of an image folder.
    """

    path: Path
    names: tuple[str, ...]
    id: str | None
    label_names: tuple[str, ...] | None
    label_problem: str | None = None
    by_path: bool = False
    image: str = "image"

    @classmethod
    def from_schema(cls, path: Path, schema: pa.Schema, *, image: str = "image") -> ImageColumns:
        """Select the columns of a table.

        Args:
            path: The file.
            schema: Its schema.
            image: Column of images.

        Returns:
            The columns to read.

        Raises:
            TableError: If the column of images is missing or of an unsupported type, or a column
                occurs twice.
        """
        id_column = next((name for name in _ID_COLUMNS if name in schema.names), None)
        captions = CAPTION_FIELDS if set(CAPTION_FIELDS) & {*schema.names} else (CAPTION_ALIAS,)
        readable = {image, "label", *_LOCATION_FIELDS, *captions, id_column}
        for name in schema.names:
            if name in readable and schema.names.count(name) > 1:
                raise TableError(
                    f"{path}: the column '{name}' appears twice", remedy="Rename or remove one."
                )
        _check_image_column(path, schema, image)
        names = tuple(name for name in schema.names if name in readable)
        label_names, problem = None, None
        try:
            label_names = _read_label_names(schema)
        except ValueError as error:
            problem = str(error)
        by_path = _is_text(schema.field(image).type)
        return cls(path, names, id_column, label_names, problem, by_path, image)

    def selected(self, *, images: bool) -> list[str]:
        """Return the columns to read.

        Args:
            images: Include the column of images.

        Returns:
            Names of columns.
        """
        return [name for name in self.names if images or name != self.image]

    def to_item(self, number: int, row: Mapping[str, Any], *, images: bool) -> Record | Skipped:
        """Convert a row to a record.

        Args:
            number: Number of the row, counted over all files; the id if there is no column of ids.
            row: Values by column, texts as bytes.
            images: Read the encoded image; if False, `data` is empty.

        Returns:
            The record, or a Skipped if the id or image cannot be read.
        """
        value = row.get(self.id) if self.id else None
        source = f"{escape(str(self.path))}:row {number}"
        try:
            key = str(number if value is None else _decode_id(value))
        except ValueError:
            key = bytes(value or b"").decode("utf-8", "backslashreplace")
            return Skipped(key, source, f"its {self.id} is not UTF-8")
        image = {"path": row.get(self.image)} if self.by_path else row.get(self.image)
        try:
            data = _read_image(image, self.path.parent) if images else b""
        except ValueError as error:
            return skip_unless_utf8(Skipped(key, source, str(error)))
        annotation = self.to_annotation(row)
        location, annotation = locate_image(key, annotation, lambda: _read_georeference(data))
        return skip_unless_utf8(
            Record(
                id=key,
                data=data,
                source=source,
                caption=annotation.caption,
                original_caption=annotation.original_caption,
                label=annotation.label,
                lon=location.lon,
                lat=location.lat,
                width_deg=location.width_deg,
                height_deg=location.height_deg,
                valid=annotation.valid,
                warnings=annotation.warnings(key, source),
            )
        )

    def to_annotation(self, row: Mapping[str, Any]) -> Annotation:
        """Convert a row to an annotation.

        Args:
            row: Values by column, texts as bytes.

        Returns:
            The annotation; parts that cannot be used are listed in its problems.
        """
        problems: list[Problem] = []

        def attempt(read: Callable[[], T], default: T) -> T:
            try:
                return read()
            except ValueError as error:
                problems.append(("annotation", str(error)))
                return default

        captions: dict[str, Any] = attempt(lambda: _decode_captions(row), {})
        label = attempt(lambda: self._label(row.get("label")), None)
        annotation = annotation_from_fields(
            {**captions, **{name: _decode_value(row.get(name)) for name in _LOCATION_FIELDS}}
        )
        return replace(annotation, label=label, problems=(*problems, *annotation.problems))

    def _label(self, value: Any) -> str | None:
        """Convert a value to a class name, None if it is missing. Raises ValueError."""
        if isinstance(value, bytes):
            return _decode_text("label", value)
        if isinstance(value, float | Decimal):
            if value != value:
                return None
            if value != int(value):
                raise ValueError(f"label {value} is neither text nor a whole number")
            value = int(value)
        if value is None or value == _NO_LABEL:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(
                f"column 'label' holds {_describe_type(value)}, expected text or ClassLabel"
            )
        if self.label_problem is not None:
            raise ValueError(self.label_problem)
        if self.label_names is None:
            return str(value)
        if not 0 <= value < len(self.label_names):
            raise ValueError(f"label {value} is none of the dataset's {len(self.label_names)}")
        return self.label_names[value]


def iter_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Convert a batch to dictionaries.

    Texts stay bytes, so that one invalid UTF-8 string does not affect the other rows.

    Args:
        batch: Rows of a table.

    Yields:
        One dictionary per row.
    """
    columns = {name: _to_values(batch.column(name)) for name in batch.schema.names}
    for number in range(batch.num_rows):
        yield {name: values[number] for name, values in columns.items()}


def _to_values(array: Any) -> list[Any]:
    import pyarrow as pa
    import pyarrow.types as kinds

    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _to_values(array.storage)
    if kinds.is_dictionary(kind):
        return _to_values(array.dictionary_decode())
    if kinds.is_struct(kind):
        parts = {
            field.name: _to_values(part) for field, part in zip(kind, array.flatten(), strict=True)
        }
        present = array.is_valid().to_pylist()
        return [
            {name: part[number] for name, part in parts.items()} if is_valid else None
            for number, is_valid in enumerate(present)
        ]
    if kinds.is_string(kind):
        array = array.cast(pa.binary())
    elif kinds.is_large_string(kind):
        array = array.cast(pa.large_binary())
    elif kinds.is_string_view(kind):
        array = array.cast(pa.binary_view())
    values: list[Any] = array.to_pylist()
    return values


def _decode_id(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _describe_type(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"a {type(value).__name__}"


def _decode_text(name: str, value: Any) -> str | None:
    """Decode a text value. Raises ValueError for other types and invalid UTF-8."""
    if value is None:
        return None
    if not isinstance(value, bytes):
        raise ValueError(f"column '{name}' holds {_describe_type(value)}, expected text")
    if len(value) > MAX_ANNOTATION_BYTES:
        raise ValueError(f"{name} has {len(value):,} bytes, more than {MAX_ANNOTATION_BYTES:,}")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 ({error.reason})") from error


def _decode_captions(row: Mapping[str, Any]) -> dict[str, Any]:
    """Decode the caption columns; structs become dictionaries, as in the JSON of a WebDataset."""
    names = (CAPTION_ALIAS,) if CAPTION_ALIAS in row else CAPTION_FIELDS
    return {
        "caption" if name == CAPTION_ALIAS else name: {
            key: _decode_text(name, value)
            for key, value in row[name].items()
            if key in CAPTION_FIELDS
        }
        if isinstance(row.get(name), dict)
        else _decode_text(name, row.get(name))
        for name in names
    }


def _decode_value(value: Any) -> Any:
    """Convert bytes to text and decimals to floats, also inside lists and structs."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace").strip() or None
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [_decode_value(part) for part in value]
    if isinstance(value, dict):
        return {name: _decode_value(part) for name, part in value.items()}
    return value


def _read_georeference(data: bytes) -> Position | None:
    if not is_tiff(data):
        return None
    from marsretrieval.datasets.georeference import read_georeference

    return read_georeference(data)


def _read_image(value: Any, folder: Path) -> bytes:
    """Return the encoded image, or read the file it names. Raises ValueError."""
    if isinstance(value, bytes):
        value = {"bytes": value}
    content, path = (value or {}).get("bytes"), (value or {}).get("path")
    if content:
        return bytes(content)
    if not path:
        raise ValueError("no image in this row")
    if not isinstance(path, bytes):
        raise ValueError(f"no image in this row, and its path is {_describe_type(path)}, not text")
    name = path.decode()
    file = resolve_inside(folder, name)
    try:
        return read_regular(file, MAX_BYTES)
    except ValueError as error:
        raise ValueError(f"its image {name} {error}") from error


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as kinds

    if kinds.is_dictionary(kind):
        kind = kind.value_type
    tests = (kinds.is_string, kinds.is_large_string, kinds.is_string_view, kinds.is_null)
    return any(test(kind) for test in tests)


def _check_image_column(path: Path, schema: pa.Schema, image: str) -> None:
    import pyarrow.types as kinds

    if image not in schema.names:
        raise TableError(
            f"{path}: no column '{image}' (columns: {', '.join(schema.names) or 'none'})",
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

    kind = schema.field(image).type
    if kinds.is_struct(kind):
        parts = {field.name: field.type for field in kind}
        names = parts.keys() & {"bytes", "path"}
        is_supported = bool(names)
        is_supported = is_supported and ("bytes" not in parts or binary(parts["bytes"]))
        is_supported = is_supported and (
            "path" not in parts or _is_text(parts["path"]) or names == {"bytes", "path"}
        )
    else:
        is_supported = _is_text(kind) or binary(kind)
    if not is_supported:
        raise TableError(
            f"{path}: column '{image}' is {kind}, expected a struct of bytes and path, or binary",
            remedy="Rename or convert it.",
        )


def _read_label_names(schema: pa.Schema) -> tuple[str, ...] | None:
    """Read the ClassLabel names from the schema's metadata, written by the datasets library.

    Raises ValueError if the metadata cannot be read.
    """
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return None
    try:
        schema_info = parse_json(metadata, source="metadata", strict=False)
        names = schema_info["info"]["features"].get("label", {}).get("names")
        return None if names is None else tuple(str(name) for name in names)
    except (DataError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            "the table's Hugging Face metadata cannot be read, so numeric labels have no class "
            "names"
        ) from error


@dataclass(frozen=True, slots=True)
class _RowGroups:
    """Consecutive row groups of one file."""

    file: int
    groups: tuple[int, ...]
    first_row: int  # counted over all files
    rows: int

    @property
    def name(self) -> str:
        return f"{self.file:04d}-{self.groups[0]:05d}"


@dataclass(frozen=True)
class ParquetSource:
    """Images in Parquet files.

    A shard is one row group, or several small ones of one file with up to 512 rows. Without a
    column of ids the row number over all files is the id, as in the published code.

    Attributes:
        name: The path as the user gave it.
        files: Parquet files.
        kind: Layout.
    """

    name: str
    files: tuple[Path, ...]
    kind: str = "parquet"

    def shards(self) -> Sequence[Shard]:
        """List shards of one or more row groups."""
        fingerprints = [file_fingerprint(path) for path in self.files]
        return [
            Shard(
                part.name,
                f"{fingerprints[part.file]}-{part.groups[0]}-{part.groups[-1]}",
                part.rows,
            )
            for part in self._row_groups()
        ]

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        """Stream the rows of a shard.

        Args:
            shard: One of `shards()`.
            images: Read the encoded images; if False, `data` is empty.

        Yields:
            A Record per row, or a Skipped for a row or row group that cannot be read.

        Raises:
            DataError: If the file is not Parquet, or the disk or server does not respond.
        """
        part = next((part for part in self._row_groups() if part.name == shard.name), None)
        if part is None:
            raise DataError(f"{self.name}: holds no rows '{shard.name}'")
        path = self.files[part.file]
        file = open_parquet(path)
        columns = ImageColumns.from_schema(path, file.schema_arrow)
        start = part.first_row
        for group in part.groups:
            row, end = start, start + file.metadata.row_group(group).num_rows
            for fields in _iter_row_group(file, group, columns.selected(images=images)):
                if isinstance(fields, OSError) and fields.errno is not None:
                    raise unreachable_error(path, fields) from fields
                if isinstance(fields, Exception):
                    source = f"{escape(str(path))}:rows {row} to {end - 1}"
                    yield Skipped(shard.name, source, f"cannot be read ({fields})")
                    break
                yield columns.to_item(row, fields, images=images)
                row += 1
            start = end

    def _row_groups(self) -> list[_RowGroups]:
        parts = []
        row = 0
        for number, path in enumerate(self.files):
            groups: list[int] = []
            start = row
            for group, rows in enumerate(_row_group_sizes(path, file_fingerprint(path))):
                if groups and row - start + rows > _PER_SHARD:
                    parts.append(_RowGroups(number, tuple(groups), start, row - start))
                    groups, start = [], row
                groups.append(group)
                row += rows
            if row > start:
                parts.append(_RowGroups(number, tuple(groups), start, row - start))
        return parts


def _iter_row_group(
    file: pq.ParquetFile, group: int, columns: list[str]
) -> Iterator[Mapping[str, Any] | Exception]:
    """Yield the rows of a row group as dictionaries, then the error that ended them, if any."""
    import pyarrow as pa

    rows = file.metadata.row_group(group).num_rows
    if not columns:
        yield from ({} for _ in range(rows))
        return
    try:
        at_a_time = _rows_per_batch(file, group, columns)
        for batch in file.iter_batches(at_a_time, row_groups=[group], columns=columns):
            yield from iter_rows(batch)
    except (pa.ArrowException, OSError, ValueError) as error:
        yield error


def _rows_per_batch(file: pq.ParquetFile, group: int, columns: list[str]) -> int:
    """Compute how many rows fit into memory if one row holds all bytes of the row group.

    Raises ValueError for a column with an implausible compression ratio.
    """
    metadata = file.metadata.row_group(group)
    total = 0
    for number in range(metadata.num_columns):
        chunk = metadata.column(number)
        name = chunk.path_in_schema.split(".")[0]
        if name not in columns:
            continue
        size, compressed = chunk.total_uncompressed_size, chunk.total_compressed_size
        total += size
        if name == "image":
            is_excessive = size > _MAX_EXPANSION * compressed
        else:
            is_excessive = size > metadata.num_rows * MAX_ANNOTATION_BYTES
        if is_excessive and size > _SMALL:
            raise ValueError(
                f"its column '{name}' expands from {compressed:,} bytes to {size:,}: "
                "an implausible compression ratio"
                if name == "image"
                else f"its column '{name}' has {size:,} bytes in {metadata.num_rows:,} rows"
            )
    if "image" not in columns:
        return _BATCH_ROWS
    return max(1, min(_BATCH_ROWS, _BYTES_AT_A_TIME // max(1, total)))


@lru_cache(maxsize=4096)
def _row_group_sizes(path: Path, fingerprint: str) -> tuple[int, ...]:
    """Return the rows of each row group; cached until the file changes."""
    metadata = open_parquet(path).metadata
    return tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file that checks its pages when they are read.

    Args:
        path: The file.

    Returns:
        The opened file.

    Raises:
        DataError: If it is not Parquet, or the disk or server does not respond.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreachable_error(path, error) from error
        raise DataError(
            f"{path}: not a readable Parquet file ({error})", remedy="Fetch or write it again."
        ) from error
