"""Exact top-k search over stored vectors, with bounded memory.

A first pass computes bounds of every row's score and keeps the candidates; a second pass scores
these exactly. Scores and order depend only on the stored vectors and the query, not on shards,
search indexes, kernels, threads or the other queries of the batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import StoreError, UsageError
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search.index import SearchIndex
from marsretrieval.search.index.find import discard_index, index_of
from marsretrieval.search.kernels import WrongBoundsError, choose_kernel, exact_scores
from marsretrieval.search.scan import BlockScan, IndexScan, Scan, VectorBlock
from marsretrieval.system import usable_cpus
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.geo.regions import Region

Floats = npt.NDArray[np.float64]

_SLACK = 2**12  # candidates beyond 2 k before pruning
_MANY = 2**16  # candidates beyond 4 k before exact scoring

Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
IndexUse = Literal["build", "use", "ignore"]

_QUERIES_AT_ONCE = 32
_EXACT_ROWS = 1024  # rows per exact_scores call


class Candidates:
    """Rows of one query whose rounded score may be among the best k, or (k None) reach `floor`.

    A row is discarded when its upper bound lies below `floor`: the k-th best lower bound so far, or
    the minimum score.

    Args:
        k: Number of hits; None for all that reach the minimum score.
        floor: Minimum score, or -inf.
        exact: Function that returns the exact scores of rows.
        ids: Function that returns the ids of rows, for ordering ties.
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
        """Add n rows as candidates.

        Args:
            rows: int64 array of shape (n,).
            low: Lower bounds of the rounded scores, shape (n,).
            high: Upper bounds of the rounded scores, shape (n,).
        """
        reaching = high >= self.floor
        if not reaching.all():
            rows, low, high = rows[reaching], low[reaching], high[reaching]
        if not len(rows):
            return
        self._parts.append((rows, low, high))
        self._count += len(rows)
        # Set the first floor at k candidates: most later rows lie below it.
        first = self._k is not None and self.floor == -np.inf and self._count >= self._k
        if first or self._count > self._limit:
            self._prune()

    def finish(self) -> tuple[Scores, Rows]:
        """Return exact scores and rows, by score descending, then id ascending."""
        if not self._count:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        self._prune()
        ((rows, low, high),) = self._parts
        scores = self._checked_scores(rows, low, high)
        reached = scores >= self._least
        return self._rank(scores[reached], rows[reached])

    def _prune(self) -> None:
        rows, low, high = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
        k = self._k
        if k is not None and len(rows) > k:
            self.floor = max(self.floor, float(np.partition(low, len(low) - k)[len(low) - k]))
            reaching = high >= self.floor
            rows, low, high = rows[reaching], low[reaching], high[reaching]
            if len(rows) > 4 * k + _MANY:
                # Many near-ties (blank tiles, a constant model): only exact scores and ids
                # separate them.
                scores, rows = self._rank(self._checked_scores(rows, low, high), rows)
                low = high = scores.astype(np.float64)
                self.floor = max(self.floor, float(low.min()))
            self._limit = max(2 * k + _SLACK, 2 * len(rows))
        self._parts, self._count = [(rows, low, high)], len(rows)

    def _checked_scores(self, rows: Rows, low: Floats, high: Floats) -> Scores:
        scores = self._exact(rows)
        if not ((low <= scores) & (scores <= high)).all():
            raise WrongBoundsError
        return scores

    def _rank(self, scores: Scores, rows: Rows) -> tuple[Scores, Rows]:
        """Return the best k by score descending, then id ascending."""
        return _rank_rows(scores, rows, self._k, self._ids)


def _rank_rows(
    scores: Scores, rows: Rows, count: int | None, ids_of: Callable[[Rows], Sequence[str]]
) -> tuple[Scores, Rows]:
    """Return the best `count` rows by score descending, then id ascending, then row."""
    k = len(scores) if count is None else count
    if len(scores) > k:
        cut = np.partition(scores, len(scores) - k)[len(scores) - k]
        reaching = scores >= cut
        scores, rows = scores[reaching], rows[reaching]
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    same = ranked[1:] == ranked[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
    if len(tied):
        members = order[tied]
        ids = ids_of(rows[members])
        keys = sorted(range(len(tied)), key=lambda i: (-ranked[tied[i]], ids[i], rows[members[i]]))
        order[tied] = members[keys]
    order = order[:k]
    return scores[order], rows[order]


class VectorSource(Protocol):
    """A searchable source; implemented by `embeddings.EmbeddingStore` and `SearchIndex`."""

    @property
    def rows(self) -> int:
        """Number of vectors."""

    @property
    def dimension(self) -> int:
        """Number of components of each vector."""

    def blocks(self) -> Iterator[VectorBlock]:
        """Yield the vectors shard by shard, in row order."""

    def vectors(self, rows: Rows) -> npt.NDArray[Any]:
        """Return the stored vectors of rows.

        Args:
            rows: int64 array of shape (n,).

        Returns:
            float16 or float32 array of shape (n, dim), in the order of `rows`.
        """

    def ids(self, rows: Rows) -> list[str]:
        """Return the ids of rows.

        Args:
            rows: int64 array of shape (n,).

        Returns:
            n ids, in the order of `rows`.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The best rows of a source for q queries, best first.

    Attributes:
        scores: float32 array of shape (q, k), padded with -inf for queries with fewer hits.
        rows: int64 array of shape (q, k), padded with -1.
    """

    scores: Scores
    rows: Rows

    def hits(self, query: int) -> tuple[Scores, Rows]:
        """Return scores and rows of one query without the padding.

        Args:
            query: Index of the query.

        Returns:
            Scores and rows of its hits, best first.
        """
        filled = self.rows[query] >= 0
        return self.scores[query][filled], self.rows[query][filled]


def exact_topk(
    source: VectorSource | SearchIndex,
    queries: npt.ArrayLike,
    k: int | None,
    *,
    min_score: float | None = None,
    region: Region | None = None,
    exclude: npt.NDArray[np.bool_] | None = None,
    index: IndexUse = "build",
    kernel: str = "auto",
    progress: Progress = NO_PROGRESS,
) -> Ranking:
    """Find the k rows with the highest inner products for each of q queries, exactly.

    A score is the inner product of the query with the stored vector, rounded once to float32;
    equal scores are ordered by id.

    Args:
        source: A store, several combined stores (each is searched with its own index) or a search
            index.
        queries: Array of shape (q, dim), or (dim,) for one query.
        k: Number of hits per query; None for all that reach `min_score`.
        min_score: Minimum score of a hit.
        region: Use only rows whose centre lies in it (a `geo.Box` or `geo.Area`).
        exclude: Boolean array of shape (rows,); rows with True are skipped.
        index: `build` builds a search index for a large store (once, about a minute per million
            rows), `use` uses an existing one, `ignore` reads the store. The results are equal.
        kernel: One of `search.KERNELS`, for the pass over an index.
        progress: Progress display.

    Returns:
        The ranking; fewer than k columns if fewer rows qualify.

    Raises:
        UsageError: If k or `min_score` is invalid, or the queries have another dimension or are not
            finite.
        StoreError: If a stored vector is not of unit length, or the index is damaged.
    """
    query_vectors = np.atleast_2d(np.asarray(queries, dtype=np.float32))
    if k is None and min_score is None:
        raise UsageError("without k, a search needs a min_score")
    if k is not None and k < 1:
        raise UsageError(f"k must be at least 1, not {k}")
    if min_score is not None and not np.isfinite(min_score):
        raise UsageError(f"min_score is {min_score}, not a number")
    if query_vectors.ndim != 2 or query_vectors.shape[1] != source.dimension:
        raise UsageError(
            f"queries of shape {query_vectors.shape}; "
            f"the store holds vectors of {source.dimension} numbers"
        )
    if not np.isfinite(query_vectors).all():
        raise UsageError("a query vector holds NaN or infinity")
    if exclude is not None and exclude.shape != (source.rows,):
        raise UsageError(
            f"exclude of shape {exclude.shape}; the store has {pluralize(source.rows, 'row')}"
        )
    results: list[tuple[Scores, Rows]] = []
    stores: Sequence[VectorSource] = getattr(source, "stores", ())
    if stores:
        bounds = np.cumsum([0, *(store.rows for store in stores)])
        rankings = [
            exact_topk(
                store, query_vectors, k, min_score=min_score, region=region, index=index,
                exclude=None if exclude is None else exclude[first:last], kernel=kernel,
                progress=progress,
            )
            for store, first, last in zip(stores, bounds, bounds[1:], strict=False)
        ]  # fmt: skip
        for query in range(len(query_vectors)):
            parts = [ranking.hits(query) for ranking in rankings]
            scores = np.concatenate([part[0] for part in parts])
            rows = np.concatenate(
                [part[1] + first for part, first in zip(parts, bounds, strict=False)]
            )
            results.append(_rank_rows(scores, rows, k, source.ids))
        return _to_ranking(results)
    target = _search_target(source, region, exclude, index, kernel, progress)
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for start in range(0, len(query_vectors), _QUERIES_AT_ONCE):
            batch = query_vectors[start : start + _QUERIES_AT_ONCE]
            try:
                results += _search(target, batch, k, min_score, pool, progress)
            except WrongBoundsError as error:
                raise target.damage_error() from error
    return _to_ranking(results)


def exact_from_approximate(
    index: SearchIndex,
    query: npt.ArrayLike,
    scores: Scores,
    bound: float,
    k: int,
    *,
    exclude: npt.NDArray[np.bool_] | None = None,
) -> Ranking:
    """Find the k best rows exactly from approximate scores of all rows; equals `exact_topk`.

    With s the k-th best approximate score, k rows score at least s - bound, so that a row below
    s - 2 bound is not among the best k. The other rows are scored exactly.

    Args:
        index: The search index.
        query: Array of shape (dim,).
        scores: Approximate scores by index row, shape (rows,); see `approximate_scores`.
        bound: No exact score differs from its approximate one by more than this.
        k: Number of hits.
        exclude: Boolean array by index row, shape (rows,); rows with True are skipped.

    Returns:
        The ranking of one query, with rows of the store.

    Raises:
        UsageError: If k is below 1, or an array has another shape.
        StoreError: If an exact score violates the bound: the index is damaged.
    """
    vector = np.asarray(query, dtype=np.float32)
    if k < 1:
        raise UsageError(f"k must be at least 1, not {k}")
    for name, shape, expected in (
        ("query", vector.shape, (index.dimension,)),
        ("scores", scores.shape, (index.rows,)),
        ("exclude", (index.rows,) if exclude is None else exclude.shape, (index.rows,)),
    ):
        if shape != expected:
            raise UsageError(f"{name} of shape {shape} instead of {expected}")
    if not index.rows:
        return _to_ranking([(np.empty(0, np.float32), np.empty(0, np.int64))])
    allowed = None if exclude is None else ~exclude
    considered = scores if allowed is None else scores[allowed]
    least = -np.inf
    if len(considered) > k:
        cut = len(considered) - k
        least = float(np.partition(considered, cut)[cut]) - 2 * bound
        # Rounded down: no row is lost to the comparison in float32.
        least = float(np.nextafter(np.float32(least), np.float32(-np.inf)))
    reaching = scores >= np.float32(least)
    if allowed is not None:
        reaching &= allowed
    rows = np.flatnonzero(reaching)
    middle = scores[rows].astype(np.float64)
    target = _search_target(index, None, None, "use", "auto", NO_PROGRESS)
    with ThreadPoolExecutor(usable_cpus()) as pool:
        best = Candidates(
            k,
            -np.inf,
            lambda rows: _exact(target, rows, vector, pool.map),
            target.ids,
        )
        try:
            best.offer(rows, middle - bound, middle + bound)
            exact, ranked = best.finish()
        except WrongBoundsError as error:
            raise damage_error(index, index) from error
    return _to_ranking([(exact, target.rows(ranked))])


def _to_ranking(results: Sequence[tuple[Scores, Rows]]) -> Ranking:
    width = max((len(rows) for _, rows in results), default=0)
    ranking = Ranking(
        scores=np.full((len(results), width), -np.inf, dtype=np.float32),
        rows=np.full((len(results), width), -1, dtype=np.int64),
    )
    for query, (scores, rows) in enumerate(results):
        ranking.scores[query, : len(rows)] = scores
        ranking.rows[query, : len(rows)] = rows
    return ranking


@dataclass(frozen=True, slots=True)
class _SearchTarget:
    """A source or its index; `rows` converts its own row numbers to rows of the source."""

    scan: Callable[[Scores], Scan]
    vectors: Callable[[Rows], npt.NDArray[Any]]
    ids: Callable[[Rows], Sequence[str]]
    rows: Callable[[Rows], Rows]
    damage_error: Callable[[], StoreError]


def _search_target(
    source: VectorSource | SearchIndex,
    region: Region | None,
    exclude: npt.NDArray[np.bool_] | None,
    use: IndexUse,
    kernel: str,
    progress: Progress,
) -> _SearchTarget:
    index = index_for(source, use, progress)
    chosen = choose_kernel(kernel)
    if index is None:
        return _SearchTarget(
            scan=lambda queries: BlockScan(source.blocks(), source.rows, queries, region, exclude),
            vectors=source.vectors,
            ids=source.ids,
            rows=lambda rows: rows,
            damage_error=lambda: damage_error(source, None),
        )
    return _SearchTarget(
        scan=lambda queries: IndexScan(index, queries, region, chosen, exclude),
        vectors=lambda index_rows: np.take(index.stored, index_rows, axis=0),
        ids=lambda index_rows: index.ids(index.row_of[index_rows]),
        rows=lambda index_rows: index.row_of[index_rows],
        damage_error=lambda: damage_error(source, index),
    )


def damage_error(source: VectorSource | SearchIndex, index: SearchIndex | None) -> StoreError:
    """Return the error for damaged rows; a damaged index is removed.

    Args:
        source: The source that was searched.
        index: The index that was read, if any.

    Returns:
        The error to raise.
    """
    if index is not None:
        return discard_index(index)
    return StoreError(
        f"a vector of {getattr(source, 'path', 'the store')} is not of unit length",
        remedy="Run marsretrieval store verify: a shard is damaged, or the encoder returned "
        "vectors that are not normalized.",
    )


def index_for(
    source: VectorSource | SearchIndex, use: IndexUse, progress: Progress
) -> SearchIndex | None:
    """Return the search index to read instead of `source`.

    Args:
        source: A store or search index.
        use: `build`, `use` or `ignore`; see `exact_topk`.
        progress: Progress display for building.

    Returns:
        The index; None if there is none or it is empty.
    """
    if isinstance(source, SearchIndex):
        return source if source.rows else None
    if use == "ignore":
        return None
    from marsretrieval.embeddings import EmbeddingStore

    if not isinstance(source, EmbeddingStore) or not source.rows:
        return None
    return index_of(source, build=use == "build", progress=progress)


def _search(
    target: _SearchTarget,
    queries: Scores,
    k: int | None,
    min_score: float | None,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> list[tuple[Scores, Rows]]:
    """Return scores and rows of every query, best first."""
    least = -np.inf if min_score is None else float(np.float32(min_score))

    def candidates(query: Scores) -> Candidates:
        return Candidates(k, least, lambda rows: _exact(target, rows, query, run), target.ids)

    # Threads score pieces of one query; in the end, if there are enough queries, whole queries.
    run: Callable[..., Iterable[object]] = pool.map
    threads = usable_cpus()
    best = [candidates(query) for query in queries]
    floors = np.full(len(best), least)
    scan = target.scan(queries)
    pending: deque[tuple[Future[Any], int]] = deque()
    with progress.start("search", scan.rows, "rows") as bar:

        def collect_oldest() -> None:
            work, rows = pending.popleft()
            for offer in work.result():
                best[offer.query].offer(offer.rows, offer.low, offer.high)
                floors[offer.query] = best[offer.query].floor
            bar.advance(rows)

        try:
            for piece, rows in scan.pieces():
                pending.append((pool.submit(scan.score_piece, piece, floors), rows))
                if len(pending) > 2 * threads:
                    collect_oldest()
            while pending:
                collect_oldest()
        finally:
            for work, _ in pending:
                work.cancel()
    if len(best) >= 2 * threads:
        run = map
        results = list(pool.map(Candidates.finish, best))
    else:
        results = [query_candidates.finish() for query_candidates in best]
    return [(scores, target.rows(rows)) for scores, rows in results]


def _exact(
    target: _SearchTarget, rows: Rows, query: Scores, run: Callable[..., Iterable[object]]
) -> Scores:
    order = np.argsort(rows, kind="stable")
    scores = np.empty(len(rows), dtype=np.float32)

    def score_batch(start: int) -> None:
        batch = order[start : start + _EXACT_ROWS]
        scores[batch] = exact_scores(target.vectors(rows[batch]), query)

    for _ in run(score_batch, range(0, len(rows), _EXACT_ROWS)):
        pass
    return scores
