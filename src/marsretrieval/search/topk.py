"""Exact top-k over stored vectors, in memory that does not grow with the store.

A first pass finds bounds of every row's score, quickly, and keeps each row that could be among
the best; these few are then scored exactly. So scores and order depend on the stored vectors and
the query alone: not on shards, search views, kernels, threads, or the other queries of the batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import StoreError, UsageError
from marsretrieval.geo import Region
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search.exact import WrongBoundsError, exact_scores
from marsretrieval.search.index.find import discard_index, index_of
from marsretrieval.search.index.index import SearchIndex
from marsretrieval.search.kernels import choose_kernel
from marsretrieval.search.scan import BlockScan, Scan, VectorBlock, ViewScan
from marsretrieval.system import usable_cpus

Floats = npt.NDArray[np.float64]

_SLACK = 2**12  # candidates beyond 2 k before the worst are dropped
_MANY = 2**16  # and beyond 4 k before they are scored exactly


class Candidates:
    """The rows of one query whose rounded score could be among the best k, or (k None) reach
    `floor`.

    `low` and `high` of a row enclose its exact score after rounding to float32. A row is out for
    good when its `high` lies below `floor`: the least of the best k `low` so far, or what was
    asked for.
    """

    def __init__(
        self,
        k: int | None,
        floor: float,
        exact: Callable[[Rows], Scores],
        ids: Callable[[Rows], Sequence[str]],
    ) -> None:
        self.floor = floor
        self._least = floor
        self._k = k
        self._exact = exact
        self._ids = ids
        self._parts: list[tuple[Rows, Floats, Floats]] = []
        self._count = 0
        self._limit = np.inf if k is None else 2 * k + _SLACK

    def offer(self, rows: Rows, low: Floats, high: Floats) -> None:
        """Consider n rows, each (n,)."""
        kept = high >= self.floor
        if not kept.all():
            rows, low, high = rows[kept], low[kept], high[kept]
        if not len(rows):
            return
        self._parts.append((rows, low, high))
        self._count += len(rows)
        # A first floor as soon as there can be one: most of what follows lies below it.
        first = self._k is not None and self.floor == -np.inf and self._count >= self._k
        if first or self._count > self._limit:
            self._prune()

    def finish(self) -> tuple[Scores, Rows]:
        """Exact scores and rows: score descending, then id ascending."""
        if not self._count:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        self._prune()
        ((rows, low, high),) = self._parts
        scores = self._enclosed(rows, low, high)
        reached = scores >= self._least
        return self._ordered(scores[reached], rows[reached])

    def _prune(self) -> None:
        rows, low, high = (np.concatenate(each) for each in zip(*self._parts, strict=True))
        k = self._k
        if k is not None and len(rows) > k:
            self.floor = max(self.floor, float(np.partition(low, len(low) - k)[len(low) - k]))
            kept = high >= self.floor
            rows, low, high = rows[kept], low[kept], high[kept]
            if len(rows) > 4 * k + _MANY:
                # So many near-ties (blank tiles, a constant model) that only exact scores and
                # ids can tell them apart.
                scores, rows = self._ordered(self._enclosed(rows, low, high), rows)
                low = high = scores.astype(np.float64)
                self.floor = max(self.floor, float(low.min()))
            self._limit = max(2 * k + _SLACK, 2 * len(rows))
        self._parts, self._count = [(rows, low, high)], len(rows)

    def _enclosed(self, rows: Rows, low: Floats, high: Floats) -> Scores:
        scores = self._exact(rows)
        if not ((low <= scores) & (scores <= high)).all():
            raise WrongBoundsError
        return scores

    def _ordered(self, scores: Scores, rows: Rows) -> tuple[Scores, Rows]:
        """The best k by score descending, then id ascending."""
        k = len(scores) if self._k is None else self._k
        if len(scores) > k:
            cut = np.partition(scores, len(scores) - k)[len(scores) - k]
            kept = scores >= cut
            scores, rows = scores[kept], rows[kept]
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        same = ranked[1:] == ranked[:-1]
        tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
        if len(tied):
            members = order[tied]
            ids = self._ids(rows[members])
            keys = sorted(
                range(len(tied)), key=lambda i: (-ranked[tied[i]], ids[i], rows[members[i]])
            )
            order[tied] = members[keys]
        order = order[:k]
        return scores[order], rows[order]


Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
ViewUse = Literal["build", "use", "ignore"]

_QUERIES_AT_ONCE = 32
_EXACT_ROWS = 1024  # rows whose vectors are copied at a time


class VectorSource(Protocol):
    """What can be searched; embeddings.EmbeddingStore and SearchIndex are."""

    @property
    def rows(self) -> int: ...

    @property
    def dimension(self) -> int: ...

    def blocks(self) -> Iterator[VectorBlock]: ...

    def vectors(self, rows: Rows) -> npt.NDArray[Any]: ...

    def ids(self, rows: Rows) -> list[str]: ...


@dataclass(frozen=True, slots=True, eq=False)
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
    source: VectorSource | SearchIndex,
    queries: npt.ArrayLike,
    k: int | None,
    *,
    min_score: float | None = None,
    region: Region | None = None,
    exclude: npt.NDArray[np.bool_] | None = None,
    view: ViewUse = "build",
    kernel: str = "auto",
    progress: Progress = NO_PROGRESS,
) -> Ranking:
    """The `k` rows with the highest inner products for each of q queries, exactly.

    queries: (q, dimension), or (dimension,) for one. A score is the inner product of the query
    with the vector as it is stored, rounded once to float32; equal scores are ordered by id. With
    `region` (a geo.Box, a geo.Area) only rows whose centre lies in it count, with `min_score` only
    those that reach it; rows where `exclude` (rows,) is True never count. k beyond what is left
    gives all of it, and so does k None, which needs a `min_score`.

    view: whether a large store gets a search view (`build`, a minute for a million rows, once),
    is searched with one if it has one (`use`), or never (`ignore`); the answers are the same.
    kernel: one of search.KERNELS, for the pass over a view.

    Raises UsageError for a wrong k or queries of another dimension or not finite, StoreError when
    a vector of the store is not of unit length, or its view turns out to be damaged.
    """
    asked = np.atleast_2d(np.asarray(queries, dtype=np.float32))
    if k is None and min_score is None:
        raise UsageError("without k, a search needs a min_score")
    if k is not None and k < 1:
        raise UsageError(f"k must be at least 1, not {k}")
    if min_score is not None and not np.isfinite(min_score):
        raise UsageError(f"min_score is {min_score}, not a number")
    if asked.ndim != 2 or asked.shape[1] != source.dimension:
        raise UsageError(
            f"queries of shape {asked.shape}; the store holds vectors of {source.dimension} numbers"
        )
    if not np.isfinite(asked).all():
        raise UsageError("a query vector holds NaN or infinity")
    if exclude is not None and exclude.shape != (source.rows,):
        raise UsageError(f"exclude of shape {exclude.shape}; the store has {source.rows:,} rows")
    field = _field(source, region, exclude, view, kernel, progress)
    found: list[tuple[Scores, Rows]] = []
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for start in range(0, len(asked), _QUERIES_AT_ONCE):
            some = asked[start : start + _QUERIES_AT_ONCE]
            try:
                found += _search(field, some, k, min_score, pool, progress)
            except WrongBoundsError as error:
                raise field.damaged() from error
    width = max((len(rows) for _, rows in found), default=0)
    ranking = Ranking(
        scores=np.full((len(found), width), -np.inf, dtype=np.float32),
        rows=np.full((len(found), width), -1, dtype=np.int64),
    )
    for query, (scores, rows) in enumerate(found):
        ranking.scores[query, : len(rows)] = scores
        ranking.rows[query, : len(rows)] = rows
    return ranking


@dataclass(frozen=True, slots=True)
class _Field:
    """What is searched, by numbers of its own: rows of the source, or places of its view."""

    scan: Callable[[Scores], Scan]
    vectors: Callable[[Rows], npt.NDArray[Any]]
    ids: Callable[[Rows], Sequence[str]]
    rows: Callable[[Rows], Rows]
    damaged: Callable[[], StoreError]


def _field(
    source: VectorSource | SearchIndex,
    region: Region | None,
    exclude: npt.NDArray[np.bool_] | None,
    use: ViewUse,
    kernel: str,
    progress: Progress,
) -> _Field:
    view = view_for(source, use, progress)
    chosen = choose_kernel(kernel)
    if view is None:
        return _Field(
            scan=lambda queries: BlockScan(source.blocks(), source.rows, queries, region, exclude),
            vectors=source.vectors,
            ids=source.ids,
            rows=lambda rows: rows,
            damaged=lambda: damaged(source, None),
        )
    return _Field(
        scan=lambda queries: ViewScan(view, queries, region, chosen, exclude),
        vectors=lambda places: np.take(view.stored, places, axis=0),
        ids=lambda places: view.ids(view.row_of[places]),
        rows=lambda places: view.row_of[places],
        damaged=lambda: damaged(source, view),
    )


def damaged(source: VectorSource | SearchIndex, view: SearchIndex | None) -> StoreError:
    """The error to raise when rows of a source were found to be damaged, read through this view,
    which is removed, or without one."""
    if view is not None:
        return discard_index(view)
    return StoreError(
        f"a vector of {getattr(source, 'path', 'the store')} is not of unit length",
        remedy="Either a shard is damaged (marsretrieval store verify tells which), or the model "
        "gives such vectors and has to be mended.",
    )


def view_for(
    source: VectorSource | SearchIndex, use: ViewUse, progress: Progress
) -> SearchIndex | None:
    """The search view to read in place of `source`; None where there is none or it is empty."""
    if isinstance(source, SearchIndex):
        return source if source.rows else None
    if use == "ignore":
        return None
    from marsretrieval.embeddings import EmbeddingStore

    if not isinstance(source, EmbeddingStore) or not source.rows:
        return None
    return index_of(source, build=use == "build", progress=progress)


def _search(
    field: _Field,
    queries: Scores,
    k: int | None,
    min_score: float | None,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> list[tuple[Scores, Rows]]:
    """Scores and rows of each query, best first."""
    least = -np.inf if min_score is None else float(np.float32(min_score))

    def candidates(query: Scores) -> Candidates:
        return Candidates(k, least, lambda rows: _exact(field, rows, query, run), field.ids)

    # Pieces of a query are shared out among the threads; in the end, if there are enough, queries.
    run: Callable[..., Iterable[object]] = pool.map
    threads = usable_cpus()
    best = [candidates(query) for query in queries]
    floors = np.full(len(best), least)
    scan = field.scan(queries)
    ahead: deque[tuple[Future[Any], int]] = deque()
    with progress.start("search", scan.rows, "rows") as bar:

        def settle() -> None:
            work, rows = ahead.popleft()
            for offer in work.result():
                best[offer.query].offer(offer.rows, offer.low, offer.high)
                floors[offer.query] = best[offer.query].floor
            bar.advance(rows)

        try:
            for piece, rows in scan.pieces():
                ahead.append((pool.submit(scan.look_at, piece, floors), rows))
                if len(ahead) > 2 * threads:
                    settle()
            while ahead:
                settle()
        finally:
            for work, _ in ahead:
                work.cancel()
    if len(best) >= 2 * threads:
        run = map
        found = list(pool.map(Candidates.finish, best))
    else:
        found = [each.finish() for each in best]
    return [(scores, field.rows(rows)) for scores, rows in found]


def _exact(
    field: _Field, rows: Rows, query: Scores, run: Callable[..., Iterable[object]]
) -> Scores:
    order = np.argsort(rows, kind="stable")
    scores = np.empty(len(rows), dtype=np.float32)

    def some(start: int) -> None:
        places = order[start : start + _EXACT_ROWS]
        scores[places] = exact_scores(field.vectors(rows[places]), query)

    for _ in run(some, range(0, len(rows), _EXACT_ROWS)):
        pass
    return scores
