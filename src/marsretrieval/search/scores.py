"""The exact score of every row: what a map of a query's strength is drawn from."""

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
from marsretrieval.search.exact import MAX_NORM, WrongBoundsError, exact_scores
from marsretrieval.search.index.find import known_of
from marsretrieval.search.index.index import SearchIndex
from marsretrieval.search.tiles import rows_below
from marsretrieval.search.topk import VectorSource, damaged, view_for
from marsretrieval.system import usable_cpus

if TYPE_CHECKING:
    from marsretrieval.embeddings import EmbeddingStore

_PIECE_ROWS = 2**13


def score_all(
    source: VectorSource | SearchIndex,
    query: npt.ArrayLike,
    *,
    progress: Progress = NO_PROGRESS,
) -> npt.NDArray[np.float32]:
    """(rows,) inner products of one query with all stored vectors, in the order of the rows.

    The very scores of `exact_topk`. Reads the search view where there is one, but makes none.
    Raises UsageError for a query of another dimension or not finite, StoreError when a vector of
    the store is not of unit length, or its view turns out to be damaged.
    """
    asked = np.asarray(query, dtype=np.float32)
    if asked.shape != (source.dimension,):
        raise UsageError(
            f"a query of shape {asked.shape}; the store holds vectors of {source.dimension} numbers"
        )
    if not np.isfinite(asked).all():
        raise UsageError("the query vector holds NaN or infinity")
    view = view_for(source, "use", progress)
    found = np.empty(source.rows, dtype=np.float32)
    ahead: deque[Future[int]] = deque()
    most = 1.001 * MAX_NORM * float(np.linalg.norm(asked.astype(np.float64)))

    def score(start: int, vectors: npt.NDArray[Any]) -> int:
        scores = exact_scores(vectors, asked)
        if (np.abs(scores) > most).any():  # as no row of unit length can
            raise WrongBoundsError
        found[start : start + len(vectors)] = scores
        return len(vectors)

    with (
        progress.start("score", source.rows, "rows") as bar,
        ThreadPoolExecutor(usable_cpus()) as pool,
    ):
        try:
            for start, vectors in _pieces(source, view):
                ahead.append(pool.submit(score, start, vectors))
                if len(ahead) > 2 * usable_cpus():
                    bar.advance(ahead.popleft().result())
            for work in ahead:
                bar.advance(work.result())
        except WrongBoundsError as error:
            raise damaged(source, view) from error
    return found if view is None else view.by_row(found)


def _pieces(
    source: VectorSource | SearchIndex, view: SearchIndex | None
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Vectors in the order of the rows, or of the places of the view, and where they start."""
    if view is not None:
        for start in range(0, view.rows, _PIECE_ROWS):
            yield start, view.stored[start : start + _PIECE_ROWS]
        return
    for block in source.blocks():
        vectors = block.vectors
        for start in range(0, len(block), _PIECE_ROWS):
            yield block.start + start, vectors[start : start + _PIECE_ROWS]


# None of them can be seen from orbit. A query that is as meaningless beats all of them in one
# case of thirteen.
MEANINGLESS = (
    "lorem ipsum dolor sit amet", "asdfghjkl", "a birthday cake", "the stock market",
    "a cat on a sofa", "red sports car", "tax return form", "xyzzy plugh", "hello world",
    "football match", "piano concerto", "grocery list",
)  # fmt: skip
MIN_Z = 2.0  # of the best score of a query that is not text alone

_SAMPLE_ROWS = 4096
_RUN_ROWS = 16  # neighbours, which lie in the same pages of a file


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
        """Mean score of a tile."""
        return float(self.scores.mean(dtype=np.float64))

    @property
    def std(self) -> float:
        """Standard deviation of the scores."""
        return float(self.scores.std(dtype=np.float64))

    def z(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Standard deviations above the mean, (n,); 0 where all tiles score alike."""
        above = np.asarray(scores, dtype=np.float64) - self.mean
        return above / self.std if self.std > 1e-9 else np.zeros_like(above)

    def percentile(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Percent of the sampled tiles that score lower, (n,)."""
        wanted = np.asarray(scores, dtype=np.float32)
        lower = np.searchsorted(self.scores, wanted - np.float32(1e-6), side="left")
        return np.asarray(100.0 * lower / max(1, len(self.scores)))

    def best(self) -> float:
        """Best score among all tiles; an estimate where not all are sampled."""
        count = len(self.scores)
        if not count:
            return -math.inf
        more = expected_best(self.rows) - expected_best(count)
        return float(self.scores[-1]) + more * self.std


class ScoreSample:
    """Vectors of up to 4,096 tiles of a store, runs of neighbours at even distances.

    Of smaller stores it holds all tiles. Tiles that are known to have no data do not count,
    unless a store has no others: they all look alike, and would move the mean.
    """

    def __init__(self, store: EmbeddingStore) -> None:
        known = known_of(store)
        view = known if isinstance(known, SearchIndex) else None
        empty = rows_below(store, None)
        with_data = np.arange(store.rows)
        if empty is not None and not empty.all():
            with_data = np.flatnonzero(~(empty if view is None else empty[view.row_of]))
        sample = with_data[_sampled(len(with_data))]
        # By place in a view: neighbours lie side by side in its file.
        stored = store.vectors(sample) if view is None else np.take(view.stored, sample, axis=0)
        self._vectors = stored.astype(np.float32)
        self._rows = len(with_data)

    def background(self, query: npt.ArrayLike) -> Background:
        """Score the sample with a query vector (dimension,)."""
        scores = self._vectors @ np.asarray(query, dtype=np.float32)
        return Background(np.sort(scores), self._rows)


def expected_best(count: int) -> float:
    """Expected largest of `count` standard normal values (asymptotic expansion; 0 below 2).

    Cramér, Mathematical Methods of Statistics, 1946, section 28.6.
    """
    if count < 2:
        return 0.0
    root = math.sqrt(2 * math.log(count))
    correction = math.log(math.log(count)) + math.log(4 * math.pi) - 2 * 0.5772156649
    return root - correction / (2 * root)


def _sampled(count: int) -> npt.NDArray[np.int64]:
    if count <= _SAMPLE_ROWS:
        return np.arange(count)
    runs = _SAMPLE_ROWS // _RUN_ROWS
    starts = np.linspace(0, count - _RUN_ROWS, runs).astype(np.int64)
    return (starts[:, None] + np.arange(_RUN_ROWS)).ravel()
