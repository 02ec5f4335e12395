"""Read and write the Arrow IPC file of a shard."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marsretrieval.embeddings.manifest import (
    SCHEMA_VERSION,
    Dtype,
    Entry,
    entry_path,
    finished_entry,
    read_error,
    read_manifest,
    vectors_path,
    write_entry,
)
from marsretrieval.errors import StoreError, StoreMismatchError
from marsretrieval.geo import wrap_lon
from marsretrieval.io import atomic_path, is_damage, locked, sha256_file
from marsretrieval.text import pluralize

Floats = npt.NDArray[np.float64]

VALID = "valid"  # the optional column


@dataclass(frozen=True, slots=True)
class Item:
    """Metadata of one image or text.

    Attributes:
        id: Id, unique in the store.
        source: File or member that contains the item.
        content: First 16 bytes of the SHA-256 of the encoded image or the text.
        lon: Longitude of the centre, degrees.
        lat: Latitude of the centre, degrees.
        width_deg: Extent in longitude, degrees.
        height_deg: Extent in latitude, degrees.
        valid: Fraction of the image with data, 0 to 1.
    """

    id: str
    source: str
    content: bytes
    lon: float | None = None
    lat: float | None = None
    width_deg: float | None = None
    height_deg: float | None = None
    valid: float | None = None


class Block:
    """Memory-mapped rows of one shard.

    Attributes:
        start: Row number, in the store, of the first row.
        dimension: Vector dimension.
    """

    def __init__(self, batch: pa.RecordBatch, start: int, dimension: int) -> None:
        """Wrap the rows of a shard.

        Args:
            batch: Rows of the shard.
            start: Row number, in the store, of the first row.
            dimension: Vector dimension.
        """
        self.start = start
        self.dimension = dimension
        self._batch = batch

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    @property
    def ids(self) -> list[str]:
        """Ids of the rows."""
        ids: list[str] = self._batch.column("id").to_pylist()
        return ids

    @property
    def sources(self) -> list[str]:
        """File or member that contains each item."""
        sources: list[str] = self._batch.column("source").to_pylist()
        return sources

    @property
    def contents(self) -> list[bytes]:
        """Content hash of each item, 16 bytes."""
        contents: list[bytes] = self._batch.column("content").to_pylist()
        return contents

    @property
    def lon(self) -> Floats:
        """(n,) degrees of the centre, -180 <= lon < 180; NaN where unknown."""
        return self._floats("lon")

    @property
    def lat(self) -> Floats:
        """(n,) degrees of the centre; NaN where unknown."""
        return self._floats("lat")

    @property
    def width_deg(self) -> Floats:
        """(n,) extent in longitude; NaN where unknown."""
        return self._floats("width_deg")

    @property
    def height_deg(self) -> Floats:
        """(n,) extent in latitude; NaN where unknown."""
        return self._floats("height_deg")

    @property
    def valid(self) -> Floats:
        """(n,) fraction of each tile with data, 0 to 1; NaN where unknown."""
        if VALID not in self._batch.schema.names:
            return np.full(len(self), np.nan)
        return self._floats(VALID)

    @property
    def vectors(self) -> npt.NDArray[Any]:
        """(n, dimension) float16 or float32, read-only, not copied."""
        column = self._batch.column("vector")
        values = column.values.slice(column.offset * self.dimension, len(self) * self.dimension)
        return _array_values(values).reshape(len(self), self.dimension)

    @property
    def batch(self) -> pa.RecordBatch:
        """The rows as Arrow data."""
        return self._batch

    def renumbered(self, start: int) -> Block:
        """Return the same rows with another first row number.

        Args:
            start: Row number of the first row.

        Returns:
            The block.
        """
        return Block(self._batch, start, self.dimension)

    def column(self, name: str) -> pa.Array:
        """Return a column.

        Args:
            name: Name of the column.

        Returns:
            The Arrow array.
        """
        return self._batch.column(name)

    def texts(self, name: str, rows: npt.NDArray[np.int64]) -> list[str]:
        """Return the values of a text column at some rows.

        Args:
            name: Name of the column.
            rows: Row numbers within the block, int64.

        Returns:
            The texts, in the order of `rows`.
        """
        # Arrow imports pandas to convert a numpy array.
        buffer = pa.py_buffer(np.ascontiguousarray(rows))
        indexes = pa.Array.from_buffers(pa.int64(), len(rows), [None, buffer])
        values: list[str] = self.column(name).take(indexes).to_pylist()
        return values

    def _floats(self, name: str) -> Floats:
        column = self._batch.column(name)
        values = _array_values(column).astype(np.float64)
        if column.null_count:
            bits = np.frombuffer(column.buffers()[0], dtype=np.uint8)
            validity = np.unpackbits(bits, count=column.offset + len(column), bitorder="little")
            values[validity[column.offset :] == 0] = np.nan
        return values


def _array_values(values: pa.Array) -> npt.NDArray[Any]:
    """View the values of an Arrow array without a copy; null values are arbitrary.

    The conversion of pyarrow itself imports pandas.
    """
    dtype = np.dtype(values.type.to_pandas_dtype())
    if not len(values):
        return np.frombuffer(b"", dtype)
    return np.frombuffer(
        values.buffers()[1], dtype, count=len(values), offset=values.offset * dtype.itemsize
    )


@cache
def schema(dimension: int, dtype: Dtype, *, valid: bool = False) -> pa.Schema:
    """Return the columns of a shard, as docs/STORE.md specifies them.

    Args:
        dimension: Vector dimension.
        dtype: Vector dtype.
        valid: Include the optional column `valid`.

    Returns:
        The Arrow schema.
    """
    shares = [pa.field(VALID, pa.float32())] if valid else []
    number = pa.float16() if dtype == "float16" else pa.float32()
    vector = pa.list_(pa.field("item", number, nullable=False), dimension)
    return pa.schema(
        [
            pa.field("id", pa.utf8(), nullable=False),
            pa.field("lon", pa.float64()),
            pa.field("lat", pa.float64()),
            pa.field("width_deg", pa.float32()),
            pa.field("height_deg", pa.float32()),
            *shares,
            pa.field("source", pa.utf8(), nullable=False),
            pa.field("content", pa.binary(16), nullable=False),
            pa.field("vector", vector, nullable=False),
        ],
        metadata={"marsretrieval.store": str(SCHEMA_VERSION)},
    )


def write_shard(
    store: Path, entry: Entry, items: Sequence[Item], vectors: npt.NDArray[Any], dtype: Dtype
) -> Entry:
    """Write the vectors of a shard, then its entry, which marks the shard as finished.

    If another process has finished the shard meanwhile, its files are kept.

    Args:
        store: Folder of the store.
        entry: Entry of the shard, without rows, size and checksum.
        items: Metadata of the n rows.
        vectors: Array of shape (n, dimension).
        dtype: Vector dtype.

    Returns:
        The entry of the finished shard.

    Raises:
        OutputError: If a file cannot be written.
        StoreMismatchError: If another process has replaced the store.
        StoreError: If the store was removed.
    """
    valid = any(item.valid is not None for item in items)
    columns = schema(vectors.shape[1], dtype, valid=valid)
    batch = pa.record_batch(_arrays(items, vectors, columns), schema=columns)
    path = vectors_path(store, entry.shard)
    try:
        with ExitStack() as stack:
            with atomic_path(path) as temporary:
                with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, columns) as out:
                    out.write_batch(batch)
                size, checksum = temporary.stat().st_size, sha256_file(temporary)
                # If two processes embed the same shard, vectors and entry must be of one of them.
                stack.enter_context(locked(path.parent))
                if read_manifest(store).made_by != entry.made_by:
                    raise StoreMismatchError(
                        f"{store}: replaced by another store during this run",
                        remedy="Another process uses this folder with --force. Use one folder "
                        "per process.",
                    )
                existing_entry = finished_entry(
                    store, entry.made_by, entry.shard, entry.fingerprint
                )
                if existing_entry is not None:
                    raise _FinishedElsewhereError(existing_entry)
                # The old entry does not describe the new vectors.
                entry_path(store, entry.shard).unlink(missing_ok=True)
            written = replace(entry, rows=len(items), bytes=size, sha256=checksum)
            write_entry(store, written)
    except _FinishedElsewhereError as elsewhere:
        return elsewhere.entry
    return written


class _FinishedElsewhereError(Exception):
    def __init__(self, entry: Entry) -> None:
        self.entry = entry


def open_block(store: Path, entry: Entry, start: int, dimension: int, dtype: Dtype) -> Block:
    """Memory-map a shard.

    Args:
        store: Folder of the store.
        entry: Entry of the shard.
        start: Row number, in the store, of the first row.
        dimension: Vector dimension.
        dtype: Vector dtype.

    Returns:
        The rows of the shard.

    Raises:
        StoreError: If the file is missing or does not match the entry. Names the file.
    """
    path = vectors_path(store, entry.shard)
    remedy = "Run the command that created the store again: only this shard is computed."
    try:
        size = path.stat().st_size
    except OSError as error:
        if not is_damage(error):
            raise read_error(path, error) from error
        raise StoreError(f"{path}: missing", remedy=remedy) from error
    if size != entry.bytes:
        raise StoreError(f"{path}: {size} bytes, expected {entry.bytes}", remedy=remedy)
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and not is_damage(error):
            raise read_error(path, error) from error
        raise StoreError(f"{path}: not readable as Arrow IPC ({error})", remedy=remedy) from error
    expected = schema(dimension, dtype, valid=VALID in reader.schema.names)
    if not reader.schema.equals(expected):
        raise StoreError(f"{path}: its columns are not those of the store", remedy=remedy)
    if len(batches) != 1 or batches[0].num_rows != entry.rows:
        rows = sum(batch.num_rows for batch in batches)
        raise StoreError(f"{path}: {pluralize(rows, 'row')}, expected {entry.rows}", remedy=remedy)
    return Block(batches[0], start, dimension)


def _arrays(items: Sequence[Item], vectors: npt.NDArray[Any], columns: pa.Schema) -> list[pa.Array]:
    kind = columns.field("vector").type
    flat = np.ascontiguousarray(vectors, dtype=kind.value_type.to_pandas_dtype()).reshape(-1)
    lon = [None if item.lon is None else float(wrap_lon(item.lon)) for item in items]
    values = {
        "id": [item.id for item in items],
        "lon": lon,
        "lat": [item.lat for item in items],
        "width_deg": [item.width_deg for item in items],
        "height_deg": [item.height_deg for item in items],
        VALID: [item.valid for item in items],
        "source": [item.source for item in items],
        "content": [item.content for item in items],
    }
    arrays = [
        pa.array(values[name], columns.field(name).type)
        for name in columns.names
        if name != "vector"
    ]
    return [*arrays, pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind)]
