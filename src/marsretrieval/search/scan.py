"""Scan all rows once and select the candidates for the best rows of each query.

Two scans share one interface: `IndexScan` reads the quantized codes of an index, `BlockScan` any
source of vectors.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from marsretrieval.geo import Box, wrap_lon
from marsretrieval.search.index import BANDS, SearchIndex, band_of
from marsretrieval.search.kernels import (
    MAX_NORM,
    Converter,
    Kernel,
    WrongBoundsError,
    thread_products,
)

if TYPE_CHECKING:
    from marsretrieval.geo.regions import Region

_MARGIN_DEG = 1e-6  # wider than the tolerance of a box's edges

Queries = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_PIECE_ROWS = 2**13
# An index is split into short and long pieces alternately.
_SHORT_ROWS = 2**12
_LONG_ROWS = 7 * 2**12


@dataclass(frozen=True, slots=True)
class Run:
    """A range of consecutive index rows.

    Attributes:
        start: First index row.
        end: Index row after the last.
        all_inside: Whether all rows lie in the region; else each row must be tested.
    """

    start: int
    end: int
    all_inside: bool


def runs_of(index: SearchIndex, region: Region) -> list[Run]:
    """Return runs that contain every row of a region.

    Args:
        index: The search index.
        region: The region.

    Returns:
        Runs in ascending order, without overlap.
    """
    spans = sorted(span for box in region.boxes for span in _spans(index, box))
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return [Run(start, end, all_inside=False) for start, end in merged]


def _spans(index: SearchIndex, box: Box) -> Iterator[tuple[int, int]]:
    """Yield the row range within the longitudes of `box` for each latitude band it touches."""
    first, last = band_of([box.south - _MARGIN_DEG, box.north + _MARGIN_DEG]).tolist()
    parts = _longitudes(box)
    for band in range(max(0, first), min(BANDS - 1, last) + 1):
        start, end = int(index.starts[band]), int(index.starts[band + 1])
        if start == end:
            continue
        lon = index.lon[start:end]
        for west, east in parts:
            low, high = np.searchsorted(lon, (west, east), side="left").tolist()
            if low < high:
                yield start + low, start + high


def _longitudes(box: Box) -> list[tuple[float, float]]:
    """Return half-open ranges within -180..180 that contain `box`'s longitudes plus a margin."""
    if box.width >= 360 - 4 * _MARGIN_DEG:
        return [(-180.0, np.inf)]
    west = float(wrap_lon(box.west - _MARGIN_DEG))
    east = float(wrap_lon(box.east + _MARGIN_DEG))
    return [(west, east)] if west <= east else [(-180.0, east), (west, np.inf)]


class VectorBlock(Protocol):
    """Consecutive rows of a source; implemented by `embeddings.Block`."""

    start: int

    def __len__(self) -> int: ...

    @property
    def vectors(self) -> npt.NDArray[Any]:
        """float16 or float32 array of shape (n, dim), unit rows."""

    @property
    def lon(self) -> npt.NDArray[np.float64]:
        """Longitudes in degrees, float64 array of shape (n,)."""

    @property
    def lat(self) -> npt.NDArray[np.float64]:
        """Latitudes in degrees, float64 array of shape (n,)."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Candidate rows for one query.

    Attributes:
        query: Index of the query.
        rows: int64 array of shape (n,).
        low: Lower bounds of the rounded scores, shape (n,).
        high: Upper bounds of the rounded scores, shape (n,).
    """

    query: int
    rows: Rows
    low: Floats
    high: Floats


class Scan(Protocol):
    """A pass over a source in pieces that can be scored in any order and thread.

    Attributes:
        rows: Number of rows in all pieces.
    """

    rows: int

    def pieces(self) -> Iterable[tuple[Any, int]]:
        """Iterate over the pieces and their numbers of rows."""

    def score_piece(self, piece: Any, floors: Floats) -> list[Offer]:
        """Return the rows of a piece whose score may reach the floor of a query.

        Args:
            piece: A piece from `pieces`.
            floors: Minimum score of each query, shape (q,).

        Returns:
            At most one offer per query.

        Raises:
            WrongBoundsError: If a row is damaged.
        """


class IndexScan:
    """Scan a search index through integer sums; its rows are index rows."""

    def __init__(
        self,
        index: SearchIndex,
        queries: Queries,
        region: Region | None,
        kernel: Kernel,
        exclude: Flags | None = None,
    ) -> None:
        from marsretrieval.search.quantization import quantize_queries

        self._index = index
        self._region = region
        self._exclude = exclude
        self._query_codes = quantize_queries(queries, index.mean, index.limits)
        self._sums = kernel.prepare(index.codes, self._query_codes.codes, index.limits.norm)
        runs = [Run(0, index.rows, all_inside=True)] if region is None else runs_of(index, region)
        self._pieces = list(_split_runs(runs, (_SHORT_ROWS, _LONG_ROWS)))
        self.rows = sum(run.end - run.start for run in runs)

    def pieces(self) -> Iterator[tuple[list[Run], int]]:
        # Short pieces first: a sample of all rows gives a good floor. Long ones have less overhead.
        """Yield runs of rows that are scanned together, and their number of rows."""
        for piece in (*self._pieces[::2], *self._pieces[1::2]):
            yield piece, sum(run.end - run.start for run in piece)

    def score_piece(self, piece: Sequence[Run], floors: Floats) -> list[Offer]:
        """Implement `Scan.score_piece`.

        Args:
            piece: Runs of index rows.
            floors: Minimum score of each query, shape (q,).

        Returns:
            At most one offer per query and run.
        """
        index, query_codes = self._index, self._query_codes
        offers = []
        for run in piece:
            span = slice(run.start, run.end)
            error = index.error[span]
            sums = self._sums(run.start, run.end)
            scores = query_codes.approximate(sums, index.scale[span], index.axis_component[span])
            max_deviation = query_codes.residual_norm * float(error.max()) + query_codes.slack
            with np.errstate(over="ignore"):
                thresholds = (
                    (floors - max_deviation - query_codes.offset) / query_codes.scale
                ).astype(np.float32)
            thresholds = np.nextafter(thresholds, np.float32(-np.inf))
            allowed = None
            if self._region is not None and not run.all_inside:
                allowed = self._region.contains(index.lon[span], index.lat[span])
            if self._exclude is not None:
                included = ~self._exclude[index.row_of[span]]
                allowed = included if allowed is None else allowed & included
            for query in range(len(query_codes)):
                reached = scores[:, query] >= thresholds[query]
                if allowed is not None:
                    reached &= allowed
                hits = np.flatnonzero(reached)
                if not len(hits):
                    continue
                middle = query_codes.offset[query] + query_codes.scale[query] * scores[
                    hits, query
                ].astype(np.float64)
                margin = (
                    query_codes.residual_norm[query] * error[hits].astype(np.float64)
                    + query_codes.slack[query]
                )
                offers.append(Offer(query, hits + run.start, middle - margin, middle + margin))
        return offers


class BlockScan:
    """Scan any source through float32 products; its rows are those of the source."""

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
        self._max_scores = MAX_NORM * lengths + self._margins  # bound for rows of unit length
        self._local = threading.local()

    def pieces(self) -> Iterator[tuple[list[tuple[VectorBlock, int, int]], int]]:
        """Yield parts of blocks that are scanned together, and their number of rows."""
        piece: list[tuple[VectorBlock, int, int]] = []
        piece_rows = 0
        for block in self._blocks:
            offset = 0
            while offset < len(block):
                step = min(_PIECE_ROWS - piece_rows, len(block) - offset)
                piece.append((block, offset, offset + step))
                offset, piece_rows = offset + step, piece_rows + step
                if piece_rows == _PIECE_ROWS:
                    yield piece, piece_rows
                    piece, piece_rows = [], 0
        if piece:
            yield piece, piece_rows

    def score_piece(
        self, piece: Sequence[tuple[VectorBlock, int, int]], floors: Floats
    ) -> list[Offer]:
        """Implement `Scan.score_piece`.

        Args:
            piece: Blocks, each with a first row and the row after the last.
            floors: Minimum score of each query, shape (q,).

        Returns:
            At most one offer per query.

        Raises:
            WrongBoundsError: If a row is damaged.
        """
        rows, scores = self._scored(piece)
        thresholds = (floors - self._margins).astype(np.float64)
        offers = []
        for query, margin in enumerate(self._margins):
            hits = np.flatnonzero(scores[query] >= thresholds[query])
            if len(hits):
                middle = scores[query, hits].astype(np.float64)
                offers.append(Offer(query, rows[hits], middle - margin, middle + margin))
        return offers

    def _scored(
        self, piece: Sequence[tuple[VectorBlock, int, int]]
    ) -> tuple[Rows, npt.NDArray[np.float32]]:
        """Return row numbers (n,) and approximate scores (q, n) of the rows within the region."""
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
            products = np.empty((len(numbers), count), dtype=np.float32)
            for first in range(0, len(numbers), convert.rows):
                batch = numbers[first : first + convert.rows]
                contiguous = self._region is None and self._exclude is None
                chosen: Any = slice(batch[0], batch[-1] + 1) if contiguous else batch
                target = products[first : first + len(batch)]
                thread_products(convert(vectors[chosen]), self._columns, target)
            if not (np.abs(products) <= self._max_scores).all():  # also true for NaN
                raise WrongBoundsError
            scores.append(products)
            rows.append(numbers + block.start)
        if not rows:
            return np.empty(0, np.int64), np.empty((count, 0), np.float32)
        return np.concatenate(rows), np.concatenate(scores).T


def _margins(dimension: int, lengths: Floats) -> Floats:
    """Return error bounds of float32 inner products for queries of these lengths, shape (q,).

    gamma_d |x| |q| with gamma_d = d u / (1 - d u) and u = 2^-24 (Higham, Accuracy and Stability of
    Numerical Algorithms, section 3.1), plus the rounding of the score, plus underflow.
    """
    steps = (dimension + 2) * 2.0**-24
    margins: Floats = steps / (1 - steps) * MAX_NORM * lengths + (dimension + 2) * 2.0**-149
    return margins


def _split_runs(runs: Sequence[Run], lengths: Sequence[int]) -> Iterator[list[Run]]:
    """Yield pieces of the given row counts in rotation; long runs are split, short ones joined."""
    piece_lengths = cycle(lengths)
    piece: list[Run] = []
    remaining = next(piece_lengths)
    for run in runs:
        start = run.start
        while start < run.end:
            end = min(run.end, start + remaining)
            piece.append(Run(start, end, run.all_inside))
            remaining -= end - start
            start = end
            if not remaining:
                yield piece
                piece, remaining = [], next(piece_lengths)
    if piece:
        yield piece
