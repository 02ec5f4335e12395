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

from marsretrieval.search._halves import Converter
from marsretrieval.search._products import thread_products

__all__ = ["MAX_NORM", "exact_scores"]

MAX_NORM = 1.01  # of a stored row: unit length, rounded to float16


def exact_scores(
    vectors: npt.NDArray[Any], query: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """(n,) inner products of (n, d) float16 or float32 rows with (d,), each the float32 nearest to
    the exact value; of two equally near ones the even."""
    count, dimension = vectors.shape
    scores = np.empty(count, dtype=np.float32)
    wide = query.astype(np.float64)
    # gamma_d |x| |q| (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1) with
    # u = 2^-53, twice over for the two sums below.
    slack = 2.0**-52 * (dimension + 2) * MAX_NORM * float(np.linalg.norm(wide))
    convert = Converter(dimension)
    step = min(convert.rows, max(1, count))
    rows, sums = np.empty((step, dimension)), np.empty((step, 1))
    for start in range(0, count, step):
        some = min(step, count - start)
        np.copyto(rows[:some], convert(vectors[start : start + some]))
        thread_products(rows[:some], wide[:, None], sums[:some])
        low = (sums[:some, 0] - slack).astype(np.float32)
        high = (sums[:some, 0] + slack).astype(np.float32)
        for place in np.flatnonzero(low != high):
            low[place] = _nearest(rows[place] * wide)
        scores[start : start + some] = low
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
