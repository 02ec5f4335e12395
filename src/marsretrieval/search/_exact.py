"""The score of a row as everybody must get it: the exact inner product, rounded once.

A sum in float64 is off by far less than float32 can show, so rounding it gives the right float32
unless it lies next to the middle between two of them. Those few are summed without any error.
So a score depends on the stored row and the query alone: not on kernels, chunks or threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_NORM", "chunk_rows", "exact_scores"]

MAX_NORM = 1.01  # of a stored row: unit length, rounded to float16
_CHUNK_BYTES = 2**20  # of float64: stays in a core's second-level cache


def chunk_rows(dimension: int) -> int:
    """Rows to convert at a time."""
    return max(1, _CHUNK_BYTES // (8 * dimension))


def exact_scores(
    vectors: npt.NDArray[Any], query: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """(n,) inner products of (n, d) float16 or float32 rows with (d,), each the float32 nearest to
    the exact value; of two equally near ones the even."""
    scores = np.empty(len(vectors), dtype=np.float32)
    step = chunk_rows(vectors.shape[1])
    wide = query.astype(np.float64)
    # gamma_d |x| |q| (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1) with
    # u = 2^-53, twice over for the two sums below.
    slack = 2.0**-52 * (len(query) + 2) * MAX_NORM * float(np.linalg.norm(wide))
    for start in range(0, len(vectors), step):
        rows = vectors[start : start + step].astype(np.float64)
        sums = np.einsum("ij,j->i", rows, wide)
        low, high = (sums - slack).astype(np.float32), (sums + slack).astype(np.float32)
        for place in np.flatnonzero(low != high):
            low[place] = _nearest(rows[place] * wide)
        scores[start : start + step] = low
    return scores


def _nearest(terms: npt.NDArray[np.float64]) -> np.float32:
    """The float32 nearest to the sum of `terms`, which are exact: products of two float32."""
    total = math.fsum(terms)
    near = np.float32(total)
    if float(near) == total:
        return near
    other = np.nextafter(near, np.float32(math.copysign(math.inf, total - float(near))))
    if (float(near) + float(other)) / 2 != total:
        return near
    # The float64 nearest to the sum is the very middle; on which side does the sum lie?
    rest = math.fsum([*terms, -total])
    if rest == 0:
        return near
    return max(near, other) if rest > 0 else min(near, other)
