"""The search index and its file format.

An index holds the rows of a store, sorted by position and quantized, in memory-mapped files.
"""

from __future__ import annotations

import builtins
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Required, Self

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError, StoreError
from marsretrieval.io import (
    Constraint,
    Int64,
    JsonObject,
    from_json,
    is_damage,
    read_json,
)
from marsretrieval.text import confined

if TYPE_CHECKING:
    from marsretrieval.embeddings import Columns

Ends = npt.NDArray[np.int64]

FORMAT = 2  # an index of another format is rebuilt
HEADER = "header.json"
BANDS = 180  # one degree of latitude each, from the south; NO_BAND for rows without a position
NO_BAND = BANDS

_BLOCK_ROWS = 4096

_ROWS = ("rows",)
_ARRAY_AXES = {
    **dict.fromkeys(
        ("scale", "along", "error", "row_of", "lon", "lat", "width_deg", "height_deg", "valid",
         "id_ends", "source_of"), _ROWS,
    ),
    "plane": ("rows", "dimension"),
    "stored": ("rows", "dimension"),
    "mean": ("dimension",),
    "starts": ("bands",),
    "source_ends": ("sources",),
}  # fmt: skip

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


class TextsWriter:
    """Write strings to one file, back to back; `ends` holds their end offsets."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._ends: list[Ends] = [np.empty(0, np.int64)]
        self._length = 0

    def add(self, texts: Sequence[str]) -> None:
        """Append strings.

        Args:
            texts: The strings.
        """
        encoded = [text.encode() for text in texts]
        ends = self._length + np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        self._ends.append(ends)
        self._length += sum(map(len, encoded))
        self._file.write(b"".join(encoded))

    @property
    def ends(self) -> Ends:
        """End offset of each string in bytes, shape (n,)."""
        return np.concatenate(self._ends)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


class Texts:
    """Read strings by number from a memory-mapped file."""

    def __init__(self, path: Path, ends: Ends) -> None:
        self._ends = ends
        self._bytes: builtins.bytes | mmap.mmap = b""
        if len(ends) and ends[-1]:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def take(self, numbers: npt.NDArray[np.int64]) -> list[str]:
        """Read strings by number.

        Args:
            numbers: int64 array of shape (n,).

        Returns:
            n strings in the order of `numbers`.

        Raises:
            IndexError: If a number is out of range.
            UnicodeDecodeError: If the file is damaged.
        """
        ends = self._ends[numbers].tolist()
        begins = np.where(numbers > 0, self._ends[np.maximum(numbers, 1) - 1], 0).tolist()
        return [self._bytes[a:b].decode() for a, b in zip(begins, ends, strict=True)]

    def find(self, text: str) -> int:
        """Find the first occurrence of a whole string.

        Args:
            text: The string.

        Returns:
            Its number, or -1.
        """
        encoded = text.encode()
        if not encoded:
            return -1
        offset = self._bytes.find(encoded)
        while offset >= 0:
            number = int(np.searchsorted(self._ends, offset, side="right"))
            begin = int(self._ends[number - 1]) if number else 0
            if begin == offset and self._ends[number] == offset + len(encoded):
                return number
            offset = self._bytes.find(encoded, offset + 1)
        return -1


class _Limits(JsonObject):
    radius: float
    norm: float
    rest: float
    askew: float


class IndexFile(JsonObject, total=False):
    """A file of an index; array files have a shape and a dtype."""

    bytes: Required[Int64]
    sha256: str
    shape: list[Int64]
    dtype: Literal["int8", "int64", "float16", "float32", "float64"]


class Header(JsonObject):
    """The header of an index."""

    format: Int64
    fingerprint: str
    rows: Annotated[int, Constraint(ge=0, lt=2**40)]
    dimension: Annotated[int, Constraint(gt=0, le=2**20)]
    limits: _Limits
    files: dict[str, IndexFile]


def band_of(lat: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the latitude band of each position.

    Args:
        lat: Latitudes in degrees, shape (n,).

    Returns:
        int64 array of shape (n,): bands of one degree from the south; NO_BAND for NaN.
    """
    values = np.asarray(lat, dtype=np.float64)
    finite = np.isfinite(values)
    bands = np.clip(np.floor(np.where(finite, values, 0.0) + 90.0), 0, BANDS - 1)
    return np.where(finite, bands, NO_BAND).astype(np.int64)


@dataclass(slots=True)
class IndexBlock:
    """Consecutive rows of the store, read from the index; implements `search.VectorBlock`.

    Attributes:
        start: First row.
        vectors: float16 or float32 array of shape (n, dim).
        lon: Longitudes of the centres in degrees, shape (n,); NaN if unknown.
        lat: Latitudes of the centres in degrees, shape (n,); NaN if unknown.
    """

    start: int
    vectors: npt.NDArray[Any]
    lon: Floats
    lat: Floats

    def __len__(self) -> int:
        return len(self.vectors)


class SearchIndex:
    """All rows of a store, sorted by latitude band, then longitude, in memory-mapped files.

    Methods take and return rows as numbered in the store. The arrays below are sorted; a position
    in them is called an index row.

    Attributes:
        codes: int8 array of shape (n, dim), see `search/quantization.py`.
        scale: float32 array of shape (n,).
        axis_component: float32 array of shape (n,).
        error: float32 array of shape (n,).
        mean: float32 array of shape (dim,) that was subtracted before quantization.
        stored: float16 or float32 array of shape (n, dim), the vectors of the store.
        row_of: int64 array of shape (n,), the store row of each index row.
        lon: Longitudes of the centres in degrees, shape (n,); NaN if unknown.
        lat: Latitudes of the centres in degrees, shape (n,); NaN if unknown.
        width_deg: Widths in degrees of longitude, shape (n,); NaN if unknown.
        height_deg: Heights in degrees, shape (n,); NaN if unknown.
        starts: int64 array of shape (BANDS + 2,), first index row of each band.
    """

    def __init__(self, folder: Path, store: Path) -> None:
        """Open an index.

        Args:
            folder: The index folder.
            store: The store folder.

        Raises:
            StoreError: If a file is missing or its length differs from the header.
        """
        from marsretrieval.search.quantization import Limits

        self.path = folder
        self.store = store
        header = _header(folder)
        self.header = header
        self.fingerprint = header["fingerprint"]
        self.rows = header["rows"]
        self.dimension = header["dimension"]
        limits = header["limits"]
        self.limits = Limits(limits["radius"], limits["norm"], limits["rest"], limits["askew"])
        self.codes: npt.NDArray[np.int8] = self._array("plane")
        self.scale: npt.NDArray[np.float32] = self._array("scale")
        self.axis_component: npt.NDArray[np.float32] = self._array("along")
        self.error: npt.NDArray[np.float32] = self._array("error")
        self.stored: npt.NDArray[Any] = self._array("stored")
        self.row_of: npt.NDArray[np.int64] = self._array("row_of")
        self.lon: Floats = self._array("lon")
        self.lat: Floats = self._array("lat")
        self.width_deg: npt.NDArray[np.float32] = self._array("width_deg")
        self.height_deg: npt.NDArray[np.float32] = self._array("height_deg")
        # Only for stores with shares of data.
        self._valid = self._array("valid") if "valid.npy" in header["files"] else None
        self.starts: npt.NDArray[np.int64] = self._array("starts")
        self.mean: npt.NDArray[np.float32] = self._array("mean")
        # Opened here because another process may replace this folder when the store has grown.
        self._ids = Texts(folder / "ids.txt", self._array("id_ends"))
        self._sources = Texts(folder / "sources.txt", self._array("source_ends"))
        self._source_of: Rows = self._array("source_of")

    @property
    def bytes(self) -> int:
        """Size on disk in bytes."""
        return sum(entry["bytes"] for entry in self.header["files"].values())

    @cached_property
    def index_row_of(self) -> Rows:
        """The index row of each store row, shape (n,)."""
        return self.by_row(np.arange(self.rows))

    def by_row(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Reorder values from index rows to store rows.

        Args:
            values: Array of shape (n,), one value per index row.

        Returns:
            Array of shape (n,), one value per store row.

        Raises:
            StoreError: If the index is damaged.
        """
        result = np.empty_like(values)
        with self._check_damage():
            result[self.row_of] = values
        return result

    def ids(self, rows: npt.ArrayLike) -> list[str]:
        """Return the ids of rows.

        Args:
            rows: n store rows, or one.

        Returns:
            n ids in the order of `rows`.

        Raises:
            StoreError: If the index is damaged.
        """
        with self._check_damage():
            return self._ids.take(np.atleast_1d(np.asarray(rows, dtype=np.int64)))

    def find(self, name: str) -> int:
        """Return the first row with an id.

        Args:
            name: The id.

        Returns:
            The store row, or -1.

        Raises:
            StoreError: If the index is damaged.
        """
        with self._check_damage():
            return self._ids.find(name)

    def vectors(self, rows: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return copies of stored vectors.

        Args:
            rows: n store rows.

        Returns:
            float16 or float32 array of shape (n, dim), in the order of `rows`.
        """
        stored_vectors: npt.NDArray[Any] = self.stored[
            self.index_row_of[np.asarray(rows, dtype=np.int64)]
        ]
        return stored_vectors

    def take(self, rows: npt.ArrayLike) -> Columns:
        """Return ids, positions, extents and sources of rows.

        Args:
            rows: n store rows, or one.

        Returns:
            Columns of length n, in the order of `rows`.

        Raises:
            StoreError: If the index is damaged.
        """
        from marsretrieval.embeddings import Columns

        row_numbers = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        with self._check_damage():
            index_rows = self.index_row_of[row_numbers]
            return Columns(
                ids=self.ids(row_numbers),
                lon=self.lon[index_rows],
                lat=self.lat[index_rows],
                width_deg=self.width_deg[index_rows].astype(np.float64),
                height_deg=self.height_deg[index_rows].astype(np.float64),
                sources=self._sources.take(self._source_of[row_numbers]),
            )

    def positions(self) -> Floats:
        """Return longitude and latitude of all centres in degrees, (rows, 2); NaN if unknown."""
        return np.column_stack([self.by_row(self.lon), self.by_row(self.lat)])

    def extents(self) -> Floats:
        """Return width and height of all tiles in degrees, shape (rows, 2); NaN if unknown."""
        sides = [
            self.by_row(values).astype(np.float64) for values in (self.width_deg, self.height_deg)
        ]
        return np.column_stack(sides)

    def valid(self) -> Floats:
        """Return the share of each tile with data, 0 to 1, shape (rows,); NaN if unknown."""
        if self._valid is None:
            return np.full(self.rows, np.nan)
        values: Floats = self.by_row(self._valid).astype(np.float64)
        return values

    def blocks(self) -> Iterator[IndexBlock]:
        """Iterate over all rows in the store's order."""
        for start in range(0, self.rows, _BLOCK_ROWS):
            index_rows = self.index_row_of[start : start + _BLOCK_ROWS]
            yield IndexBlock(
                start, self.stored[index_rows], self.lon[index_rows], self.lat[index_rows]
            )

    @contextmanager
    def _check_damage(self) -> Iterator[None]:
        """Raise StoreError if the index files are corrupt."""
        try:
            yield
        except (IndexError, UnicodeDecodeError) as error:
            raise StoreError(
                f"{self.path}: the search index is damaged",
                remedy=f"marsretrieval store verify {self.store} removes it, and the next search "
                "builds it again.",
            ) from error

    def _array(self, name: str) -> npt.NDArray[Any]:
        path = self.path / f"{name}.npy"
        entry = self.header["files"][path.name]
        shape = tuple(entry["shape"])
        if 0 in shape:
            return np.empty(shape, dtype=entry["dtype"])
        try:
            array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, SyntaxError, EOFError, OSError) as error:
            raise StoreError(f"{path}: not readable as an array ({error})") from error
        if array.shape != shape or array.dtype.name != entry["dtype"]:
            raise StoreError(f"{path}: not the array that was written")
        return np.asarray(array)


def _header(folder: Path) -> Header:
    path = folder / HEADER
    try:
        value = read_json(path)
        if isinstance(value, dict) and value.get("format", FORMAT) != FORMAT:
            raise StoreError(f"{path}: format {value['format']}, this version reads {FORMAT}")
        header = from_json(Header, value, source=path)
        for name in header["files"]:
            confined(folder, name, nested=False, source=path)
        sizes = {"rows": header["rows"], "dimension": header["dimension"], "bands": BANDS + 2}
        for name, axes in _ARRAY_AXES.items():
            field = f"files.{name}.npy"
            file = header["files"].get(f"{name}.npy")
            if file is None and name == "valid":  # only for stores with shares of data
                continue
            if file is None or not {"shape", "dtype"} <= file.keys():
                raise DataError(f"{path}: missing field '{field}', or its shape or dtype")
            expected = [sizes.get(axis) for axis in axes]
            if len(file["shape"]) != len(axes) or any(
                size != length if size is not None else not 0 <= length <= header["rows"]
                for size, length in zip(expected, file["shape"], strict=True)
            ):
                raise DataError(f"{path}: '{field}.shape' is {file['shape']}")
    except DataError as error:
        raise StoreError(error.message, remedy=error.remedy) from error
    for name, file in header["files"].items():
        try:
            size = os.stat(folder / name).st_size  # noqa: PTH116 - pathlib is slower
        except OSError as error:
            if not is_damage(error):
                raise StoreError(
                    f"{folder / name}: cannot be read ({error.strerror})",
                    remedy="Check the permissions and the disk.",
                ) from error
            raise StoreError(f"{folder / name}: missing") from error
        if size != file["bytes"]:
            raise StoreError(f"{folder / name}: {size} bytes, expected {file['bytes']}")
    return header
