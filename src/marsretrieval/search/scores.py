"""The exact score of every row: what a map of a query's strength is drawn from."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval._environment import usable_cpus
from marsretrieval.errors import UsageError
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search._exact import MAX_NORM, WrongBoundsError, exact_scores
from marsretrieval.search.topk import VectorSource, damaged, view_for
from marsretrieval.search.view import SearchView

_PIECE_ROWS = 2**13


def score_all(
    source: VectorSource | SearchView,
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
    source: VectorSource | SearchView, view: SearchView | None
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
