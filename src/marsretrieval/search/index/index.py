"""The files of a search view, and the view itself: a store again, in an order and in forms that
searching likes."""

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
    confined,
    from_json,
    is_damage,
    read_json,
)
from marsretrieval.search.quantization import Limits

if TYPE_CHECKING:
    from marsretrieval.embeddings import Columns

Ends = npt.NDArray[np.int64]


class TextsWriter:
    """Writes texts one after the other; `ends` says where."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._ends: list[Ends] = [np.empty(0, np.int64)]
        self._length = 0

    def add(self, texts: Sequence[str]) -> None:
        encoded = [text.encode() for text in texts]
        ends = self._length + np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        self._ends.append(ends)
        self._length += sum(map(len, encoded))
        self._file.write(b"".join(encoded))

    @property
    def ends(self) -> Ends:
        """(n,) bytes from the beginning of the file."""
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
    """Reads texts by their number from a mapped file."""

    def __init__(self, path: Path, ends: Ends) -> None:
        self._ends = ends
        self._bytes: builtins.bytes | mmap.mmap = b""
        if len(ends) and ends[-1]:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def take(self, numbers: npt.NDArray[np.int64]) -> list[str]:
        ends = self._ends[numbers].tolist()
        begins = np.where(numbers > 0, self._ends[np.maximum(numbers, 1) - 1], 0).tolist()
        return [self._bytes[a:b].decode() for a, b in zip(begins, ends, strict=True)]

    def find(self, text: str) -> int:
        """The number of the first that is `text`, or -1."""
        wanted = text.encode()
        if not wanted:
            return -1
        place = self._bytes.find(wanted)
        while place >= 0:
            number = int(np.searchsorted(self._ends, place, side="right"))
            begin = int(self._ends[number - 1]) if number else 0
            if begin == place and self._ends[number] == place + len(wanted):
                return number
            place = self._bytes.find(wanted, place + 1)
        return -1


FORMAT = 2  # of the view; another one is not read, the view is made anew
HEADER = "header.json"
BANDS = 180  # of one degree of latitude, from the south; one more for rows without a place
NO_BAND = BANDS

_BLOCK_ROWS = 4096


class _Limits(JsonObject):
    radius: float
    norm: float
    rest: float
    askew: float


class ViewFile(JsonObject, total=False):
    """A file of a view; those of arrays have a shape and a type."""

    bytes: Required[Int64]
    sha256: str
    shape: list[Int64]
    dtype: Literal["int8", "int64", "float16", "float32", "float64"]


class Header(JsonObject):
    """The header of a view."""

    format: Int64
    fingerprint: str
    rows: Annotated[int, Constraint(ge=0, lt=2**40)]
    dimension: Annotated[int, Constraint(gt=0, le=2**20)]
    limits: _Limits
    files: dict[str, ViewFile]


_ROWS = ("rows",)
_AXES = {
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


def band_of(lat: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """(n,) number of the band of each latitude; NO_BAND for NaN."""
    values = np.asarray(lat, dtype=np.float64)
    known = np.isfinite(values)
    bands = np.clip(np.floor(np.where(known, values, 0.0) + 90.0), 0, BANDS - 1)
    return np.where(known, bands, NO_BAND).astype(np.int64)


@dataclass(slots=True)
class ViewBlock:
    """Rows of the store, gathered from the view; a search.VectorBlock."""

    start: int
    vectors: npt.NDArray[Any]
    lon: Floats
    lat: Floats

    def __len__(self) -> int:
        return len(self.vectors)


class SearchIndex:
    """All rows of a store, sorted by latitude band, then longitude, in memory-mapped files.

    Its rows are numbered as those of the store (`rows` of a ranking mean the same in both); the
    number of a row within the sorted files is called its place.

    plane: (n, d) int8. scale, along, error: (n,) float32, see search/_quantize.py. stored: (n, d)
    float16 or float32, the vectors of the store. row_of: (n,) the store's number of each place.
    lon, lat, width_deg, height_deg: (n,) degrees, NaN where unknown. starts: (BANDS + 2,) first
    place of each band. All these are in the order of places.
    """

    def __init__(self, folder: Path, store: Path) -> None:
        """Raises StoreError when a file is missing, or not as long as the header says."""
        self.path = folder
        self.store = store
        header = _header(folder)
        self.header = header
        self.fingerprint = header["fingerprint"]
        self.rows = header["rows"]
        self.dimension = header["dimension"]
        limits = header["limits"]
        self.limits = Limits(limits["radius"], limits["norm"], limits["rest"], limits["askew"])
        self.plane: npt.NDArray[np.int8] = self._array("plane")
        self.scale: npt.NDArray[np.float32] = self._array("scale")
        self.along: npt.NDArray[np.float32] = self._array("along")
        self.error: npt.NDArray[np.float32] = self._array("error")
        self.stored: npt.NDArray[Any] = self._array("stored")
        self.row_of: npt.NDArray[np.int64] = self._array("row_of")
        self.lon: Floats = self._array("lon")
        self.lat: Floats = self._array("lat")
        self.width_deg: npt.NDArray[np.float32] = self._array("width_deg")
        self.height_deg: npt.NDArray[np.float32] = self._array("height_deg")
        # Only of stores that hold shares of data.
        self._valid = self._array("valid") if "valid.npy" in header["files"] else None
        self.starts: npt.NDArray[np.int64] = self._array("starts")
        self.mean: npt.NDArray[np.float32] = self._array("mean")
        # At once, too: when the store has grown, another process may replace this folder.
        self._ids = Texts(folder / "ids.txt", self._array("id_ends"))
        self._sources = Texts(folder / "sources.txt", self._array("source_ends"))
        self._source_of: Rows = self._array("source_of")

    @property
    def bytes(self) -> int:
        """On disk."""
        return sum(told["bytes"] for told in self.header["files"].values())

    @cached_property
    def place_of(self) -> Rows:
        """(n,) the place of each row of the store."""
        return self.by_row(np.arange(self.rows))

    def by_row(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(n,) one value for each place, in the order of the store's rows."""
        found = np.empty_like(values)
        with self._undamaged():
            found[self.row_of] = values
        return found

    def ids(self, rows: npt.ArrayLike) -> list[str]:
        """Ids of n rows, in the order asked for."""
        with self._undamaged():
            return self._ids.take(np.atleast_1d(np.asarray(rows, dtype=np.int64)))

    def find(self, name: str) -> int:
        """The first row with this id, or -1."""
        with self._undamaged():
            return self._ids.find(name)

    def vectors(self, rows: npt.ArrayLike) -> npt.NDArray[Any]:
        """(n, dimension) copies of n rows as they are stored, in the order asked for."""
        places: npt.NDArray[Any] = self.stored[self.place_of[np.asarray(rows, dtype=np.int64)]]
        return places

    def take(self, rows: npt.ArrayLike) -> Columns:
        """What is known of n rows, in the order asked for."""
        from marsretrieval.embeddings import Columns

        wanted = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        with self._undamaged():
            places = self.place_of[wanted]
            return Columns(
                ids=self.ids(wanted),
                lon=self.lon[places],
                lat=self.lat[places],
                width_deg=self.width_deg[places].astype(np.float64),
                height_deg=self.height_deg[places].astype(np.float64),
                sources=self._sources.take(self._source_of[wanted]),
            )

    def positions(self) -> Floats:
        """(rows, 2) longitude and latitude of all centres, degrees; NaN where unknown."""
        return np.column_stack([self.by_row(self.lon), self.by_row(self.lat)])

    def extents(self) -> Floats:
        """(rows, 2) width and height of all tiles, degrees; NaN where unknown."""
        sides = [self.by_row(each).astype(np.float64) for each in (self.width_deg, self.height_deg)]
        return np.column_stack(sides)

    def valid(self) -> Floats:
        """(rows,) share of each tile with data, 0 to 1; NaN where unknown."""
        if self._valid is None:
            return np.full(self.rows, np.nan)
        values: Floats = self.by_row(self._valid).astype(np.float64)
        return values

    def blocks(self) -> Iterator[ViewBlock]:
        """All rows in the store's order."""
        for start in range(0, self.rows, _BLOCK_ROWS):
            places = self.place_of[start : start + _BLOCK_ROWS]
            yield ViewBlock(start, self.stored[places], self.lon[places], self.lat[places])

    @contextmanager
    def _undamaged(self) -> Iterator[None]:
        """Numbers that lead nowhere and texts that are none: bytes changed on the disk."""
        try:
            yield
        except (IndexError, UnicodeDecodeError) as error:
            raise StoreError(
                f"{self.path}: the search view is damaged",
                remedy=f"marsretrieval store verify {self.store} removes it, and the next search "
                "makes it anew.",
            ) from error

    def _array(self, name: str) -> npt.NDArray[Any]:
        path = self.path / f"{name}.npy"
        told = self.header["files"][path.name]
        shape = tuple(told["shape"])
        if 0 in shape:
            return np.empty(shape, dtype=told["dtype"])
        try:
            array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, SyntaxError, EOFError, OSError) as error:
            raise StoreError(f"{path}: not readable as an array ({error})") from error
        if array.shape != shape or array.dtype.name != told["dtype"]:
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
        for name, axes in _AXES.items():
            at = f"files.{name}.npy"
            file = header["files"].get(f"{name}.npy")
            if file is None and name == "valid":  # only of stores that hold shares of data
                continue
            if file is None or not {"shape", "dtype"} <= file.keys():
                raise DataError(f"{path}: missing field '{at}', or its shape or dtype")
            expected = [sizes.get(axis) for axis in axes]
            if len(file["shape"]) != len(axes) or any(
                size != there if size is not None else not 0 <= there <= header["rows"]
                for size, there in zip(expected, file["shape"], strict=True)
            ):
                raise DataError(f"{path}: '{at}.shape' is {file['shape']}")
    except DataError as error:
        raise StoreError(error.message) from error
    for name, file in header["files"].items():
        try:
            size = os.stat(folder / name).st_size  # noqa: PTH116 - a path object for each takes time
        except OSError as error:
            if not is_damage(error):
                raise StoreError(f"{folder / name}: cannot be read ({error.strerror})") from error
            raise StoreError(f"{folder / name}: missing") from error
        if size != file["bytes"]:
            raise StoreError(f"{folder / name}: {size} bytes, {file['bytes']} were written")
    return header
