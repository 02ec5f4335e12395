"""One pass over the rows: which of them could be among the best of each query, and how good."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from marsretrieval.geo import Box, Region, wrap_lon
from marsretrieval.search.exact import MAX_NORM, WrongBoundsError
from marsretrieval.search.index.index import BANDS, SearchIndex, band_of
from marsretrieval.search.kernels import Converter, Kernel, thread_products
from marsretrieval.search.quantization import quantize_queries

_MARGIN_DEG = 1e-6  # wider than the tolerance of a box's edges


@dataclass(frozen=True, slots=True)
class Run:
    """Places start..end - 1. whole: all of them lie in the region; else each must be asked."""

    start: int
    end: int
    whole: bool


def runs_of(view: SearchIndex, region: Region) -> list[Run]:
    """Runs that hold every row of the region, in ascending order and without overlap."""
    spans = sorted(span for box in region.boxes for span in _spans(view, box))
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return [Run(start, end, whole=False) for start, end in merged]


def _spans(view: SearchIndex, box: Box) -> Iterator[tuple[int, int]]:
    """For each latitude band that `box` touches, the rows within its longitudes."""
    first, last = band_of([box.south - _MARGIN_DEG, box.north + _MARGIN_DEG]).tolist()
    parts = _longitudes(box)
    for band in range(max(0, first), min(BANDS - 1, last) + 1):
        start, end = int(view.starts[band]), int(view.starts[band + 1])
        if start == end:
            continue
        lon = view.lon[start:end]
        for west, east in parts:
            low, high = np.searchsorted(lon, (west, east), side="left").tolist()
            if low < high:
                yield start + low, start + high


def _longitudes(box: Box) -> list[tuple[float, float]]:
    """Half-open ranges within -180..180 that hold all longitudes of `box`, and a little more."""
    if box.width >= 360 - 4 * _MARGIN_DEG:
        return [(-180.0, np.inf)]
    west = float(wrap_lon(box.west - _MARGIN_DEG))
    east = float(wrap_lon(box.east + _MARGIN_DEG))
    return [(west, east)] if west <= east else [(-180.0, east), (west, np.inf)]


Queries = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_PIECE_ROWS = 2**13
# A view is cut into short and long pieces in turn.
_SHORT_ROWS = 2**12
_LONG_ROWS = 7 * 2**12


class VectorBlock(Protocol):
    """Consecutive rows of a source; embeddings.Block is one."""

    start: int

    def __len__(self) -> int: ...

    @property
    def vectors(self) -> npt.NDArray[Any]:
        """(n, dimension), float16 or float32, rows of unit length."""

    @property
    def lon(self) -> npt.NDArray[np.float64]: ...

    @property
    def lat(self) -> npt.NDArray[np.float64]: ...


@dataclass(frozen=True, slots=True)
class Offer:
    """Rows that may count for one query; `low` and `high` enclose the rounded score of each."""

    query: int
    rows: Rows
    low: Floats
    high: Floats


class Scan(Protocol):
    """A way through a source, in pieces that may be worked at in any order and thread."""

    rows: int

    def pieces(self) -> Iterable[tuple[Any, int]]:
        """Each piece and its number of rows."""

    def look_at(self, piece: Any, floors: Floats) -> list[Offer]:
        """What a piece holds that reaches the floor (q,) of each query.

        Raises WrongBoundsError where a row turns out to be damaged."""


class ViewScan:
    """A search view, through sums of whole numbers; its rows are places."""

    def __init__(
        self,
        view: SearchIndex,
        queries: Queries,
        region: Region | None,
        kernel: Kernel,
        exclude: Flags | None = None,
    ) -> None:
        self._view = view
        self._region = region
        self._exclude = exclude
        self._asked = quantize_queries(queries, view.mean, view.limits)
        self._sums = kernel.prepare(view.plane, self._asked.planes, view.limits.norm)
        runs = [Run(0, view.rows, whole=True)] if region is None else runs_of(view, region)
        self._pieces = list(_cut(runs, (_SHORT_ROWS, _LONG_ROWS)))
        self.rows = sum(run.end - run.start for run in runs)

    def pieces(self) -> Iterator[tuple[list[Run], int]]:
        # The short ones first: a sample of everywhere finds a good floor. Long ones cost less.
        for piece in (*self._pieces[::2], *self._pieces[1::2]):
            yield piece, sum(run.end - run.start for run in piece)

    def look_at(self, piece: Sequence[Run], floors: Floats) -> list[Offer]:
        view, asked = self._view, self._asked
        offers = []
        for run in piece:
            here = slice(run.start, run.end)
            error = view.error[here]
            sums = self._sums(run.start, run.end)
            scores = asked.approximate(sums, view.scale[here], view.along[here])
            most = asked.across * float(error.max()) + asked.slack
            with np.errstate(over="ignore"):
                needed = ((floors - most - asked.offset) / asked.scale).astype(np.float32)
            needed = np.nextafter(needed, np.float32(-np.inf))
            allowed = None
            if self._region is not None and not run.whole:
                allowed = self._region.contains(view.lon[here], view.lat[here])
            if self._exclude is not None:
                counted = ~self._exclude[view.row_of[here]]
                allowed = counted if allowed is None else allowed & counted
            for query in range(len(asked)):
                reached = scores[:, query] >= needed[query]
                if allowed is not None:
                    reached &= allowed
                kept = np.flatnonzero(reached)
                if not len(kept):
                    continue
                middle = asked.offset[query] + asked.scale[query] * scores[kept, query].astype(
                    np.float64
                )
                half = asked.across[query] * error[kept].astype(np.float64) + asked.slack[query]
                offers.append(Offer(query, kept + run.start, middle - half, middle + half))
        return offers


class BlockScan:
    """Any source, through products in float32; its rows are those of the source."""

    def __init__(
        self,
        blocks: Iterable[VectorBlock],
        rows: int,
        queries: Queries,
        region: Region | None,
        exclude: Flags | None = None,
    ) -> None:
        self.rows = rows
        self._exclude = exclude
        self._blocks = blocks
        self._region = region
        self._queries = queries
        self._columns = np.ascontiguousarray(queries).T
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
        self._margins = _margins(queries.shape[1], lengths)
        self._most = MAX_NORM * lengths + self._margins  # no row of unit length scores beyond it
        self._local = threading.local()

    def pieces(self) -> Iterator[tuple[list[tuple[VectorBlock, int, int]], int]]:
        piece: list[tuple[VectorBlock, int, int]] = []
        held = 0
        for block in self._blocks:
            done = 0
            while done < len(block):
                step = min(_PIECE_ROWS - held, len(block) - done)
                piece.append((block, done, done + step))
                done, held = done + step, held + step
                if held == _PIECE_ROWS:
                    yield piece, held
                    piece, held = [], 0
        if piece:
            yield piece, held

    def look_at(self, piece: Sequence[tuple[VectorBlock, int, int]], floors: Floats) -> list[Offer]:
        rows, scores = self._scored(piece)
        needed = (floors - self._margins).astype(np.float64)
        offers = []
        for query, margin in enumerate(self._margins):
            kept = np.flatnonzero(scores[query] >= needed[query])
            if len(kept):
                middle = scores[query, kept].astype(np.float64)
                offers.append(Offer(query, rows[kept], middle - margin, middle + margin))
        return offers

    def _scored(
        self, piece: Sequence[tuple[VectorBlock, int, int]]
    ) -> tuple[Rows, npt.NDArray[np.float32]]:
        """Row numbers (n,) and approximate scores (q, n) of the rows within the region."""
        dimension, count = self._columns.shape
        convert = getattr(self._local, "convert", None)
        if convert is None:
            convert = self._local.convert = Converter(dimension)
        rows: list[Rows] = []
        scores: list[npt.NDArray[np.float32]] = []
        for block, start, end in piece:
            numbers = np.arange(start, end)
            if self._region is not None:
                inside = self._region.contains(block.lon[start:end], block.lat[start:end])
                numbers = numbers[inside]
            if self._exclude is not None:
                numbers = numbers[~self._exclude[numbers + block.start]]
            if not len(numbers):
                continue
            vectors = block.vectors
            found = np.empty((len(numbers), count), dtype=np.float32)
            for first in range(0, len(numbers), convert.rows):
                some = numbers[first : first + convert.rows]
                whole = self._region is None and self._exclude is None
                chosen: Any = slice(some[0], some[-1] + 1) if whole else some
                into = found[first : first + len(some)]
                thread_products(convert(vectors[chosen]), self._columns, into)
            if not (np.abs(found) <= self._most).all():  # NaN is no less than anything
                raise WrongBoundsError
            scores.append(found)
            rows.append(numbers + block.start)
        if not rows:
            return np.empty(0, np.int64), np.empty((count, 0), np.float32)
        return np.concatenate(rows), np.concatenate(scores).T


def _margins(dimension: int, lengths: Floats) -> Floats:
    """How far float32 inner products may be off, for queries of these lengths (q,): gamma_d |x| |q|
    with gamma_d = d u / (1 - d u) and u = 2^-24 (Higham, Accuracy and Stability of Numerical
    Algorithms, section 3.1), plus the rounding of the score itself, plus underflow."""
    steps = (dimension + 2) * 2.0**-24
    margins: Floats = steps / (1 - steps) * MAX_NORM * lengths + (dimension + 2) * 2.0**-149
    return margins


def _cut(runs: Sequence[Run], lengths: Sequence[int]) -> Iterator[list[Run]]:
    """Pieces of these numbers of rows in turn: long runs are cut, short ones put together."""
    turn = cycle(lengths)
    piece: list[Run] = []
    room = next(turn)
    for run in runs:
        start = run.start
        while start < run.end:
            end = min(run.end, start + room)
            piece.append(Run(start, end, run.whole))
            room -= end - start
            start = end
            if not room:
                yield piece
                piece, room = [], next(turn)
    if piece:
        yield piece
