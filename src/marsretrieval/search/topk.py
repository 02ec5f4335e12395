"""Exact top-k over stored vectors, on one core, in memory that does not grow with the store.

One pass in float32 keeps every row whose score could be among the best, rounding errors
considered; these few are then scored in float64. So scores and order depend on the stored vectors
and the query alone: not on shards, chunks, threads, or the other queries of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import UsageError
from marsretrieval.geo import Box
from marsretrieval.progress import NO_PROGRESS, Progress

__all__ = ["Ranking", "VectorBlock", "VectorSource", "exact_topk"]

Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_CHUNK_BYTES = 2**20  # of float32: fits a core's second-level cache, where conversion is quickest
_SCRATCH = 2**16  # rows scored before the best of them are picked
_SLACK = 4096  # candidates beyond 2 k before the worst are dropped
_QUERIES_AT_ONCE = 256
_MAX_NORM = 1.01  # of a stored row: unit length, rounded to float16


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


class VectorSource(Protocol):
    """What can be searched; embeddings.EmbeddingStore is one."""

    @property
    def rows(self) -> int: ...

    @property
    def dimension(self) -> int: ...

    def blocks(self) -> Iterator[VectorBlock]: ...

    def vectors(self, rows: Rows) -> npt.NDArray[Any]: ...

    def ids(self, rows: Rows) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best rows of a source for q queries, best first.

    Both (q, k). Where a query has fewer hits than another, scores end in -inf and rows in -1.
    """

    scores: Scores
    rows: Rows

    def hits(self, query: int) -> tuple[Scores, Rows]:
        """Scores and rows of one query, without the filling."""
        found = self.rows[query] >= 0
        return self.scores[query][found], self.rows[query][found]


def exact_topk(
    source: VectorSource,
    queries: npt.ArrayLike,
    k: int,
    *,
    min_score: float | None = None,
    box: Box | None = None,
    progress: Progress = NO_PROGRESS,
) -> Ranking:
    """The `k` rows with the highest inner products for each of q queries, exactly.

    queries: (q, dimension), or (dimension,) for one. Scores are the inner products with the
    vectors as they are stored, rounded to float32; equal ones are ordered by id. With `box` only
    rows inside it count, with `min_score` only those that reach it; k beyond what is left gives
    all of it. Raises UsageError for a wrong k or queries of another dimension or not finite.
    """
    asked = np.atleast_2d(np.asarray(queries, dtype=np.float32))
    if k < 1:
        raise UsageError(f"k must be at least 1, not {k}")
    if asked.ndim != 2 or asked.shape[1] != source.dimension:
        raise UsageError(
            f"queries of shape {asked.shape}; the store holds vectors of {source.dimension} numbers"
        )
    if not np.isfinite(asked).all():
        raise UsageError("a query vector holds NaN or infinity")
    found: list[tuple[Scores, Rows]] = []
    groups = range(0, len(asked), _QUERIES_AT_ONCE)
    with progress.start("search", source.rows * len(groups), "rows") as bar:
        for start in groups:
            some = asked[start : start + _QUERIES_AT_ONCE]
            best = [_Best(source, query, k, min_score) for query in some]
            for rows, scores in _scored(source, some, box):
                for each, column in zip(best, scores, strict=True):
                    each.offer(rows, column)
                bar.advance(len(rows))
            found += [each.finish() for each in best]
    width = max((len(rows) for _, rows in found), default=0)
    ranking = Ranking(
        scores=np.full((len(found), width), -np.inf, dtype=np.float32),
        rows=np.full((len(found), width), -1, dtype=np.int64),
    )
    for query, (scores, rows) in enumerate(found):
        ranking.scores[query, : len(rows)] = scores
        ranking.rows[query, : len(rows)] = rows
    return ranking


class _Best:
    """The candidates of one query: every row that may still belong to the best k."""

    def __init__(
        self, source: VectorSource, query: Scores, k: int, min_score: float | None
    ) -> None:
        self._source = source
        self._query = query.astype(np.float64)
        self._k = k
        self._min_score = min_score
        self._margin = _margin(query)
        # Rows below the bound are out for good.
        self._bound = -np.inf if min_score is None else min_score - self._margin
        self._scores: list[Scores] = []
        self._rows: list[Rows] = []
        self._count = 0
        self._limit = 2 * k + _SLACK

    def offer(self, rows: Rows, scores: Scores) -> None:
        """Consider rows with their approximate scores, (n,) each."""
        kept = np.flatnonzero(scores >= self._bound)
        if not len(kept):
            return
        self._scores.append(scores[kept])
        self._rows.append(rows[kept])
        self._count += len(kept)
        if self._count > self._limit:
            self._prune()

    def finish(self) -> tuple[Scores, Rows]:
        """Exact scores and rows, best first."""
        if not self._count:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        self._prune()
        rows = np.concatenate(self._rows)
        scores = self._exact(rows)
        if self._min_score is not None:
            passed = scores >= np.float32(self._min_score)
            scores, rows = scores[passed], rows[passed]
        return self._ordered(scores, rows)

    def _prune(self) -> None:
        scores, rows = np.concatenate(self._scores), np.concatenate(self._rows)
        if len(scores) > self._k:
            last = np.partition(scores, len(scores) - self._k)[len(scores) - self._k]
            # The k-th best true score is at least last - margin, and a row within the margin
            # of that may reach it.
            self._bound = max(self._bound, last - 2 * self._margin)
            kept = scores >= self._bound
            scores, rows = scores[kept], rows[kept]
            if len(scores) > self._limit:
                # So many near-ties (blank tiles, a constant model) that only exact scores and
                # ids can tell them apart.
                scores, rows = self._ordered(self._exact(rows), rows)
        self._scores, self._rows, self._count = [scores], [rows], len(scores)

    def _exact(self, rows: Rows) -> Scores:
        """Inner products in float64, rounded to float32; each depends on its own row only."""
        order = np.argsort(rows, kind="stable")
        scores = np.empty(len(rows), dtype=np.float32)
        step = max(1, _CHUNK_BYTES // (8 * len(self._query)))
        for start in range(0, len(rows), step):
            places = order[start : start + step]
            vectors = self._source.vectors(rows[places]).astype(np.float64)
            scores[places] = np.einsum("ij,j->i", vectors, self._query)
        return scores

    def _ordered(self, scores: Scores, rows: Rows) -> tuple[Scores, Rows]:
        """The best k by score descending, then id ascending."""
        order = np.argsort(-scores, kind="stable")
        if len(order) > self._k:
            cut = scores[order[self._k - 1]]
            order = order[: int(np.searchsorted(-scores[order], -cut, side="right"))]
        ranked = scores[order]
        same = ranked[1:] == ranked[:-1]
        tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
        if len(tied):
            members = order[tied]
            ids = self._source.ids(rows[members])
            keys = sorted(
                range(len(tied)), key=lambda i: (-ranked[tied[i]], ids[i], rows[members[i]])
            )
            order[tied] = members[keys]
        order = order[: self._k]
        return scores[order], rows[order]


def _margin(query: Scores) -> float:
    """How far a float32 inner product may be off: gamma_d |x| |q| with gamma_d = d u / (1 - d u)
    and u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), plus the
    rounding of the score itself."""
    steps = (len(query) + 2) * 2.0**-24
    length = float(np.linalg.norm(query.astype(np.float64)))
    return steps / (1 - steps) * _MAX_NORM * length


def _scored(
    source: VectorSource, queries: Scores, box: Box | None
) -> Iterator[tuple[Rows, Scores]]:
    """Row numbers (n,) and approximate scores (q, n), many rows at a time.

    The arrays are used again: what is to be kept must be copied.
    """
    size = min(_SCRATCH, max(1, source.rows))
    rows = np.empty(size, dtype=np.int64)
    scores = np.empty((len(queries), size), dtype=np.float32)
    columns = np.ascontiguousarray(queries.T)
    convert = _Converter(source.dimension)
    filled = 0
    for block in source.blocks():
        chosen = None if box is None else np.flatnonzero(box.contains(block.lon, block.lat))
        count = len(block) if chosen is None else len(chosen)
        vectors = block.vectors
        done = 0
        while done < count:
            step = min(convert.rows, count - done, size - filled)
            here: Any = slice(done, done + step) if chosen is None else chosen[done : done + step]
            scores[:, filled : filled + step] = (convert(vectors[here]) @ columns).T
            rows[filled : filled + step] = block.start + (
                np.arange(done, done + step) if chosen is None else here
            )
            filled += step
            done += step
            if filled == size:
                yield rows, scores
                filled = 0
    if filled:
        yield rows[:filled], scores[:, :filled]


class _Converter:
    """float16 or float32 rows as float32, in a buffer that stays in the cache.

    numpy converts halves one by one; shifting their bits into place and scaling by 2^112, which
    is exact for every finite half, subnormal ones included, takes half the time.
    """

    _KEEP_SIGN = np.int32(-(2**31) + 2**28 - 1)
    _SCALE = np.float32(2.0**112)

    def __init__(self, dimension: int) -> None:
        self.rows = max(1, _CHUNK_BYTES // (4 * dimension))
        self._bits = np.empty((self.rows, dimension), dtype=np.int32)

    def __call__(self, vectors: npt.NDArray[Any]) -> Scores:
        if vectors.dtype != np.float16:
            return np.asarray(vectors, dtype=np.float32)
        bits = self._bits[: len(vectors)]
        np.copyto(bits, vectors.view(np.int16))
        bits <<= 13
        bits &= self._KEEP_SIGN
        floats = bits.view(np.float32)
        floats *= self._SCALE
        return floats
