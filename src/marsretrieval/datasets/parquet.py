"""Parquet as Hugging Face writes it: an image column, ClassLabel names in the metadata."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from marsretrieval.datasets.base import Record, Shard, Skipped, escape, skip_unless_utf8
from marsretrieval.datasets.georeference import read_georeference
from marsretrieval.datasets.images import MAX_BYTES
from marsretrieval.datasets.listing import file_fingerprint, visible
from marsretrieval.datasets.position_fields import POSITION_FIELDS
from marsretrieval.datasets.sidecar import MAX_ANNOTATION_BYTES, Problem, from_fields, locate
from marsretrieval.datasets.source_file import read_regular, unanswered
from marsretrieval.errors import DataError, TableError
from marsretrieval.io import parse_json

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

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


_PER_SHARD = 512
_AT_A_TIME = 32  # rows in memory, images and all, and of these at most so many bytes
_BYTES_AT_A_TIME = 2**28
# Encoded images hardly shrink in Parquet; beyond this they are there to fill memory.
_EXPANSION, _SMALL = 200, 2**26


@dataclass(frozen=True, slots=True)
class _Part:
    """Neighbouring row groups of one file."""

    file: int
    groups: tuple[int, ...]
    first_row: int  # counted over all files
    rows: int

    @property
    def name(self) -> str:
        return f"{self.file:04d}-{self.groups[0]:05d}"


@dataclass(frozen=True)
class ParquetSource:
    """One shard a row group, or several small ones of one file, up to 512 rows. Without a column
    of ids the row number over all files is the id, as in the published code."""

    name: str
    files: tuple[Path, ...]
    kind: str = "parquet"

    def shards(self) -> Sequence[Shard]:
        prints = [file_fingerprint(path) for path in self.files]
        return [
            Shard(part.name, f"{prints[part.file]}-{part.groups[0]}-{part.groups[-1]}", part.rows)
            for part in self._parts()
        ]

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        part = next((part for part in self._parts() if part.name == shard.name), None)
        if part is None:
            raise DataError(f"{self.name}: holds no rows '{shard.name}'")
        path = self.files[part.file]
        file = _open(path)
        columns = Columns.of(path, file.schema_arrow)
        start = part.first_row
        for group in part.groups:
            row, end = start, start + file.metadata.row_group(group).num_rows
            for fields in _rows(file, group, columns.wanted(images=images)):
                if isinstance(fields, OSError) and fields.errno is not None:
                    raise unanswered(path, fields) from fields
                if isinstance(fields, Exception):
                    source = f"{escape(str(path))}:rows {row} to {end - 1}"
                    yield Skipped(shard.name, source, f"cannot be read ({fields})")
                    break
                yield columns.item(row, fields, images=images)
                row += 1
            start = end

    def _parts(self) -> list[_Part]:
        parts = []
        row = 0
        for number, path in enumerate(self.files):
            groups: list[int] = []
            start = row
            for group, rows in enumerate(_group_rows(path, file_fingerprint(path))):
                if groups and row - start + rows > _PER_SHARD:
                    parts.append(_Part(number, tuple(groups), start, row - start))
                    groups, start = [], row
                groups.append(group)
                row += rows
            if row > start:
                parts.append(_Part(number, tuple(groups), start, row - start))
        return parts


def _rows(
    file: pq.ParquetFile, group: int, columns: list[str]
) -> Iterator[Mapping[str, Any] | Exception]:
    """Rows of a row group as dictionaries, and the error that ended them early, if any."""
    import pyarrow as pa

    rows = file.metadata.row_group(group).num_rows
    if not columns:
        yield from ({} for _ in range(rows))
        return
    try:
        at_a_time = _rows_at_a_time(file, group, columns)
        for batch in file.iter_batches(at_a_time, row_groups=[group], columns=columns):
            yield from rows_of(batch)
    except (pa.ArrowException, OSError, ValueError) as error:
        yield error


def _rows_at_a_time(file: pq.ParquetFile, group: int, columns: list[str]) -> int:
    """How many rows fit into memory, should a single one hold all bytes of the row group.

    Raises ValueError where a column expands as no real one does.
    """
    metadata = file.metadata.row_group(group)
    total = 0
    for number in range(metadata.num_columns):
        chunk = metadata.column(number)
        name = chunk.path_in_schema.split(".")[0]
        if name not in columns:
            continue
        size, stored = chunk.total_uncompressed_size, chunk.total_compressed_size
        total += size
        if name == "image":
            refused = size > _EXPANSION * stored
        else:
            refused = size > metadata.num_rows * MAX_ANNOTATION_BYTES
        if refused and size > _SMALL:
            raise ValueError(
                f"its column '{name}' expands from {stored:,} bytes to {size:,}: no real data do"
                if name == "image"
                else f"its column '{name}' has {size:,} bytes in {metadata.num_rows:,} rows"
            )
    if "image" not in columns:
        return _AT_A_TIME
    return max(1, min(_AT_A_TIME, _BYTES_AT_A_TIME // max(1, total)))


@lru_cache(maxsize=4096)
def _group_rows(path: Path, fingerprint: str) -> tuple[int, ...]:
    """Rows of each row group; kept for as long as the file stays the same."""
    metadata = _open(path).metadata
    return tuple(metadata.row_group(each).num_rows for each in range(metadata.num_row_groups))


def _open(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unanswered(path, error) from error
        raise DataError(
            f"{path}: not a readable Parquet file ({error})", remedy="Fetch or write it again."
        ) from error


_STATE = "state.json"


@dataclass(frozen=True)
class ArrowSource:
    """One shard per 512 rows of a file. Without a column of ids the row number over all files is
    the id, as for Parquet."""

    name: str
    files: tuple[Path, ...]
    kind: str = "arrow"

    def shards(self) -> Sequence[Shard]:
        return [
            Shard(f"{number:04d}-{start // _PER_SHARD:05d}", f"{print_}-{start}", rows)
            for number, path in enumerate(self.files)
            for print_ in [file_fingerprint(path)]
            for start, rows in _parts(_row_count(path, print_))
        ]

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        number, part = map(int, shard.name.split("-"))
        if number >= len(self.files):
            raise DataError(f"{self.name}: holds no rows '{shard.name}'")
        path = self.files[number]
        before = sum(_row_count(file, file_fingerprint(file)) for file in self.files[:number])
        start, end = part * _PER_SHARD, (part + 1) * _PER_SHARD
        with _open_stream(path) as reader:
            columns = Columns.of(path, reader.schema)
            wanted = columns.wanted(images=images)
            row = 0
            for batch in reader:
                first, last = max(start, row), min(end, row + batch.num_rows)
                for begin in range(first, last, _AT_A_TIME):
                    few = batch.slice(begin - row, min(_AT_A_TIME, last - begin)).select(wanted)
                    rows = rows_of(few) if wanted else ({} for _ in range(few.num_rows))
                    for offset, fields in enumerate(rows):
                        yield columns.item(before + begin + offset, fields, images=images)
                row += batch.num_rows
                if row >= end:
                    return


def saved_files(folder: Path) -> tuple[Path, ...]:
    """List the Arrow files of a saved dataset, or of all its splits.

    Args:
        folder: Any folder.

    Returns:
        The files in the order of their paths; none where the folder is of another kind.
    """
    folders = [folder, *(entry for entry in visible(folder) if entry.is_dir())]
    return tuple(
        path
        for place in folders
        if (place / _STATE).is_file()
        for path in visible(place)
        if path.suffix == ".arrow" and path.is_file()
    )


def _parts(rows: int) -> list[tuple[int, int]]:
    """(first row, number of rows) of each shard of a file."""
    return [(start, min(_PER_SHARD, rows - start)) for start in range(0, rows, _PER_SHARD)]


@lru_cache(maxsize=4096)
def _row_count(path: Path, fingerprint: str) -> int:
    """Rows of a file; kept for as long as it stays the same. The images are not touched."""
    with _open_stream(path) as reader:
        return sum(batch.num_rows for batch in reader)


@contextmanager
def _open_stream(path: Path) -> Iterator[pa.RecordBatchStreamReader]:
    """Map a file into memory. Raises DataError naming it, where it ends or is damaged too."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
            yield reader
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unanswered(path, error) from error
        raise DataError(
            f"{escape(str(path))}: not a readable Arrow stream ({error})",
            remedy="Save the dataset again, or write it as Parquet: ds.to_parquet('set.parquet').",
        ) from error
