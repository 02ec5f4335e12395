"""Exact scores of all rows, and the score distribution of a query over a store."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import UsageError
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search.index import SearchIndex
from marsretrieval.search.index.find import known_of
from marsretrieval.search.kernels import MAX_NORM, WrongBoundsError, choose_kernel, exact_scores
from marsretrieval.search.tiles import rows_below
from marsretrieval.search.topk import VectorSource, damage_error, index_for
from marsretrieval.system import usable_cpus

if TYPE_CHECKING:
    from marsretrieval.embeddings import EmbeddingStore

_PIECE_ROWS = 2**13
_APPROXIMATE_ROWS = 7 * 2**12  # index rows per task of a thread

# Texts without visible counterpart on Mars. A thirteenth text of this kind scores higher than all
# of them with probability 1/13.
MEANINGLESS = (
    "lorem ipsum dolor sit amet", "asdfghjkl", "a birthday cake", "the stock market",
    "a cat on a sofa", "red sports car", "tax return form", "xyzzy plugh", "hello world",
    "football match", "piano concerto", "grocery list",
)  # fmt: skip
MIN_Z = 2.0  # of the best score, for queries with images or tiles

_SAMPLE_ROWS = 4096
_RUN_ROWS = 16  # neighbouring rows share memory pages


def score_all(
    source: VectorSource | SearchIndex,
    query: npt.ArrayLike,
    *,
    progress: Progress = NO_PROGRESS,
) -> npt.NDArray[np.float32]:
    """Compute the exact score of every row; the same scores as `exact_topk`.

    Reads the search index if there is one, but does not build one.

    Args:
        source: A store or search index.
        query: Array of shape (dim,).
        progress: Progress display.

    Returns:
        float32 array of shape (rows,), in the order of the source's rows.

    Raises:
        UsageError: If the query has another dimension or is not finite.
        StoreError: If a stored vector is not of unit length, or the index is damaged.
    """
    query_vector = _check_query(query, source.dimension)
    index = index_for(source, "use", progress)
    all_scores = np.empty(source.rows, dtype=np.float32)
    pending: deque[Future[int]] = deque()
    max_score = 1.001 * MAX_NORM * float(np.linalg.norm(query_vector.astype(np.float64)))

    def score(start: int, vectors: npt.NDArray[Any]) -> int:
        scores = exact_scores(vectors, query_vector)
        if (np.abs(scores) > max_score).any():  # impossible for rows of unit length
            raise WrongBoundsError
        all_scores[start : start + len(vectors)] = scores
        return len(vectors)

    with (
        progress.start("score", source.rows, "rows") as bar,
        ThreadPoolExecutor(usable_cpus()) as pool,
    ):
        try:
            for start, vectors in _pieces(source, index):
                pending.append(pool.submit(score, start, vectors))
                if len(pending) > 2 * usable_cpus():
                    bar.advance(pending.popleft().result())
            for work in pending:
                bar.advance(work.result())
        except WrongBoundsError as error:
            raise damage_error(source, index) from error
    return all_scores if index is None else index.by_row(all_scores)


@dataclass(frozen=True, slots=True, eq=False)
class ApproximateScores:
    """Scores of all rows of an index from their quantized codes.

    Attributes:
        scores: float32 array of shape (rows,), by index row (`SearchIndex.by_row` reorders).
        bound: No score differs from the exact one by more than this.
    """

    scores: npt.NDArray[np.float32]
    bound: float


def approximate_scores(
    index: SearchIndex, query: npt.ArrayLike, *, kernel: str = "auto"
) -> ApproximateScores:
    """Score every row of an index from its quantized codes, without reading the vectors.

    For pictures of the whole planet: several times faster than `score_all`. The bound is that of
    `search.quantization`, for the row with the largest quantization error.

    Args:
        index: The search index.
        query: Array of shape (dim,).
        kernel: One of `search.KERNELS`.

    Returns:
        The scores and the bound of their error.

    Raises:
        UsageError: If the query has another dimension or is not finite.
    """
    from marsretrieval.search.quantization import quantize_queries

    query_vector = _check_query(query, index.dimension)
    codes = quantize_queries(query_vector[None], index.mean, index.limits)
    sums = choose_kernel(kernel).prepare(index.codes, codes.codes, index.limits.norm)
    scores = np.empty(index.rows, dtype=np.float32)
    scale, offset = np.float32(codes.scale[0]), np.float32(codes.offset[0])

    def score(start: int) -> float:
        span = slice(start, min(index.rows, start + _APPROXIMATE_ROWS))
        part = codes.approximate(
            sums(span.start, span.stop), index.scale[span], index.axis_component[span]
        )[:, 0]
        part *= scale
        part += offset
        scores[span] = part
        return float(index.error[span].max())

    with ThreadPoolExecutor(usable_cpus()) as pool:
        errors = list(pool.map(score, range(0, index.rows, _APPROXIMATE_ROWS)))
    bound = float(codes.residual_norm[0]) * max(errors, default=0.0) + float(codes.slack[0])
    # Two float32 roundings of a score, here of the product and the sum with the offset.
    return ApproximateScores(
        scores, bound + 2.0**-22 * MAX_NORM * float(np.linalg.norm(query_vector.astype(np.float64)))
    )


def _check_query(query: npt.ArrayLike, dimension: int) -> npt.NDArray[np.float32]:
    try:
        given = np.asarray(query)
        if given.dtype.kind == "c":
            raise TypeError("complex numbers")
        query_vector = given.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the query vector is not an array of numbers ({error})") from error
    if query_vector.shape != (dimension,):
        raise UsageError(
            f"a query of shape {query_vector.shape}; the store holds vectors of {dimension} numbers"
        )
    if not np.isfinite(query_vector).all():
        raise UsageError("the query vector holds NaN or infinity")
    return query_vector


def _pieces(
    source: VectorSource | SearchIndex, index: SearchIndex | None
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield start and vectors of each piece, in the order of the store rows or index rows."""
    if index is not None:
        for start in range(0, index.rows, _PIECE_ROWS):
            yield start, index.stored[start : start + _PIECE_ROWS]
        return
    for block in source.blocks():
        vectors = block.vectors
        for start in range(0, len(block), _PIECE_ROWS):
            yield block.start + start, vectors[start : start + _PIECE_ROWS]


@dataclass(frozen=True, slots=True)
class Background:
    """The distribution of one query's scores over a store.

    Attributes:
        scores: Scores of the sampled tiles, ascending.
        rows: Number of tiles of the store, without those that are known to have no data; all are
            sampled if it equals the number of scores.
    """

    scores: npt.NDArray[np.float32]
    rows: int

    @property
    def mean(self) -> float:
        """Mean score of a tile; NaN without tiles."""
        return float(self.scores.mean(dtype=np.float64)) if len(self.scores) else math.nan

    @property
    def std(self) -> float:
        """Standard deviation of the scores; NaN without tiles."""
        return float(self.scores.std(dtype=np.float64)) if len(self.scores) else math.nan

    def z(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the standard deviations of scores above the mean.

        Args:
            scores: Array of shape (n,).

        Returns:
            Array of shape (n,); 0 if all tiles have the same score.
        """
        above = np.asarray(scores, dtype=np.float64) - self.mean
        return above / self.std if self.std > 1e-9 else np.zeros_like(above)

    def percentile(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the percent of the sampled tiles with a lower score.

        Args:
            scores: Array of shape (n,).

        Returns:
            Array of shape (n,), 0 to 100.
        """
        values = np.asarray(scores, dtype=np.float32)
        lower = np.searchsorted(self.scores, values - np.float32(1e-6), side="left")
        return np.asarray(100.0 * lower / max(1, len(self.scores)))

    def best(self) -> float:
        """Return the best score of all tiles; an estimate if not all are sampled."""
        count = len(self.scores)
        if not count:
            return -math.inf
        more = expected_best(self.rows) - expected_best(count)
        return float(self.scores[-1]) + more * self.std


class ScoreSample:
    """Vectors of up to 4,096 tiles of a store, in evenly spaced runs of neighbours.

    A smaller store is sampled completely. Tiles known to have no data are left out unless the store
    has no others: they all look alike and would shift the mean.

    Args:
        store: The store.
    """

    def __init__(self, store: EmbeddingStore) -> None:
        reader = known_of(store)
        index = reader if isinstance(reader, SearchIndex) else None
        empty = rows_below(store, None)
        with_data = np.arange(store.rows)
        if empty is not None and not empty.all():
            with_data = np.flatnonzero(~(empty if index is None else empty[index.row_of]))
        sample = with_data[_sample_rows(len(with_data))]
        # By index row: neighbours are adjacent in the file.
        stored = store.vectors(sample) if index is None else np.take(index.stored, sample, axis=0)
        self._vectors = stored.astype(np.float32)
        self._rows = len(with_data)

    def background(self, query: npt.ArrayLike) -> Background:
        """Score the sample.

        Args:
            query: Array of shape (dim,).

        Returns:
            The distribution of the scores.
        """
        scores = self._vectors @ np.asarray(query, dtype=np.float32)
        return Background(np.sort(scores), self._rows)


def expected_best(count: int) -> float:
    """Return the expected maximum of `count` standard normal values.

    Asymptotic expansion: Cramér, Mathematical Methods of Statistics, 1946, section 28.6.

    Args:
        count: Number of values.

    Returns:
        The expectation; 0 for fewer than 2 values.
    """
    if count < 2:
        return 0.0
    root = math.sqrt(2 * math.log(count))
    correction = math.log(math.log(count)) + math.log(4 * math.pi) - 2 * 0.5772156649
    return root - correction / (2 * root)


def _sample_rows(count: int) -> npt.NDArray[np.int64]:
    if count <= _SAMPLE_ROWS:
        return np.arange(count)
    runs = _SAMPLE_ROWS // _RUN_ROWS
    starts = np.linspace(0, count - _RUN_ROWS, runs).astype(np.int64)
    return (starts[:, None] + np.arange(_RUN_ROWS)).ravel()
