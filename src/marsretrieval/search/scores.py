"""The exact score of every row: what a map of a query's strength is drawn from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import UsageError
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search.topk import VectorSource

__all__ = ["score_all"]

_CHUNK_BYTES = 2**21  # of float64


def score_all(
    source: VectorSource, query: npt.ArrayLike, *, progress: Progress = NO_PROGRESS
) -> npt.NDArray[np.float32]:
    """(rows,) inner products of one query with all stored vectors, in the order of the rows.

    Each is computed in float64 and rounded to float32: the very scores of `exact_topk`. Raises
    UsageError for a query of another dimension or not finite.
    """
    asked = np.asarray(query, dtype=np.float32)
    if asked.shape != (source.dimension,):
        raise UsageError(
            f"a query of shape {asked.shape}; the store holds vectors of {source.dimension} numbers"
        )
    if not np.isfinite(asked).all():
        raise UsageError("the query vector holds NaN or infinity")
    wide = asked.astype(np.float64)
    scores = np.empty(source.rows, dtype=np.float32)
    step = max(1, _CHUNK_BYTES // (8 * source.dimension))
    with progress.start("score", source.rows, "rows") as bar:
        for block in source.blocks():
            vectors = block.vectors
            for start in range(0, len(block), step):
                some = vectors[start : start + step].astype(np.float64)
                place = block.start + start
                scores[place : place + len(some)] = np.einsum("ij,j->i", some, wide)
                bar.advance(len(some))
    return scores
