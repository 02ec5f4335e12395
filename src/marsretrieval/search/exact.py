"""The score of a row as everybody must get it: the exact inner product, rounded once.

A sum in float64 is off by far less than float32 can show, so rounding it gives the right float32
unless it lies next to the middle between two of them. Those few are summed without any error.
So a score depends on the stored row and the query alone: not on kernels, chunks or threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.search.kernels import Converter, thread_products

MAX_NORM = 1.01  # of a stored row: unit length, rounded to float16


class WrongBoundsError(Exception):
    """A score lies outside its bounds: what these were made from, or a stored row, is damaged."""


def exact_scores(
    vectors: npt.NDArray[Any], query: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """(n,) inner products of (n, d) float16 or float32 rows with (d,), each the float32 nearest to
    the exact value; of two equally near ones the even.

    Raises WrongBoundsError where one is no number."""
    count, dimension = vectors.shape
    wide = query.astype(np.float64)
    # gamma_d |x| |q| (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1) with
    # u = 2^-53, twice over for the two sums below.
    slack = 2.0**-52 * (dimension + 2) * MAX_NORM * float(np.linalg.norm(wide))
    convert = Converter(dimension)
    sums = _sums(query)
    found = np.empty(count)
    for start in range(0, count, convert.rows):
        rows = convert(vectors[start : start + convert.rows])
        found[start : start + len(rows)] = sums(rows)
    if not np.isfinite(found).all():
        raise WrongBoundsError
    scores: npt.NDArray[np.float32] = (found - slack).astype(np.float32)
    for row in np.flatnonzero(scores != (found + slack).astype(np.float32)):
        scores[row] = _nearest(vectors[row].astype(np.float64) * wide)
    return scores


Sums = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]


def _sums(query: npt.NDArray[np.float32]) -> Sums:
    """Inner products of float32 rows with `query`, made in float64."""
    numkong = _numkong_in_float64()
    if numkong is not None:
        packed = numkong.dots_pack(np.ascontiguousarray(query)[None], dtype="float32")
        return lambda rows: np.asarray(numkong.dots_packed(rows, packed))[:, 0]
    wide = query.astype(np.float64)[:, None]

    def sums(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        found = np.empty((len(rows), 1))
        thread_products(rows.astype(np.float64), wide, found)
        return found[:, 0]

    return sums


@cache
def _numkong_in_float64() -> Any:
    """NumKong where its products of float32 are made in float64, as it says: tried on terms that
    cancel out, in sums of every remainder of a register."""
    try:
        import numkong
    except ImportError:
        return None
    rng = np.random.default_rng(0)
    for dimension in (1, 3, 17, 31, 100, 1031):
        rows = rng.standard_normal((20, dimension)).astype(np.float32)
        query = rng.standard_normal(dimension).astype(np.float32)
        half = dimension // 2
        rows[10:, half : 2 * half] = -rows[10:, :half]
        query[half : 2 * half] = query[:half]
        packed = numkong.dots_pack(query[None], dtype="float32")
        found = np.asarray(numkong.dots_packed(rows, packed))
        terms = rows.astype(np.float64) * query.astype(np.float64)
        off = np.abs(found[:, 0] - np.array([math.fsum(each) for each in terms]))
        if found.dtype != np.float64 or (off > 2.0**-53 * dimension * np.abs(terms).sum(1)).any():
            return None
    return numkong


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
