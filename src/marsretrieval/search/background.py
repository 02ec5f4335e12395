"""How far the scores of a query stand out from those of all tiles of a store."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from marsretrieval.search.data_share import rows_below
from marsretrieval.search.view import SearchView, known_of

if TYPE_CHECKING:
    from marsretrieval.embeddings import EmbeddingStore

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
        view = known if isinstance(known, SearchView) else None
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
