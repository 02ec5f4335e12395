"""Exact inner products, correctly rounded to float32.

Sums are computed in float64; those that lie too close to a rounding boundary of float32 are
recomputed with `math.fsum`. A score therefore depends only on the stored row and the query, not
on kernels, chunk sizes or threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.search.kernels import Converter, thread_products

MAX_NORM = 1.01  # length of a stored row: 1, rounded to float16

Sums = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]


class WrongBoundsError(Exception):
    """A score lies outside its computed bounds: the index or a stored row is damaged."""


def exact_scores(
    vectors: npt.NDArray[Any], query: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Compute inner products, each rounded once to the nearest float32 (ties to even).

    Error bound of the float64 sums: Higham, Accuracy and Stability of Numerical Algorithms,
    section 3.1, with u = 2^-53.

    Args:
        vectors: float16 or float32 array of shape (n, dim), rows of about unit length.
        query: float32 array of shape (dim,).

    Returns:
        float32 array of shape (n,).

    Raises:
        WrongBoundsError: If a score is not finite.
    """
    count, dimension = vectors.shape
    wide = query.astype(np.float64)
    # gamma_d |x| |q| (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1) with
    # u = 2^-53, twice over for the two sums below.
    tolerance = 2.0**-52 * (dimension + 2) * MAX_NORM * float(np.linalg.norm(wide))
    convert = Converter(dimension)
    dot = _dot_function(query)
    totals = np.empty(count)
    for start in range(0, count, convert.rows):
        rows = convert(vectors[start : start + convert.rows])
        totals[start : start + len(rows)] = dot(rows)
    if not np.isfinite(totals).all():
        raise WrongBoundsError
    scores: npt.NDArray[np.float32] = (totals - tolerance).astype(np.float32)
    for row in np.flatnonzero(scores != (totals + tolerance).astype(np.float32)):
        scores[row] = _nearest_float32(vectors[row].astype(np.float64) * wide)
    return scores


def _dot_function(query: npt.NDArray[np.float32]) -> Sums:
    """Return a function that multiplies float32 rows with `query` in float64."""
    numkong = _exact_numkong()
    if numkong is not None:
        packed = numkong.dots_pack(np.ascontiguousarray(query)[None], dtype="float32")
        return lambda rows: np.asarray(numkong.dots_packed(rows, packed))[:, 0]
    wide = query.astype(np.float64)[:, None]

    def dot(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        products = np.empty((len(rows), 1))
        thread_products(rows.astype(np.float64), wide, products)
        return products[:, 0]

    return dot


@cache
def _exact_numkong() -> Any:
    """Return the NumKong module if its float32 products accumulate in float64, else None.

    The check uses cancelling terms and dimensions that leave every register remainder.
    """
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
        products = np.asarray(numkong.dots_packed(rows, packed))
        terms = rows.astype(np.float64) * query.astype(np.float64)
        off = np.abs(products[:, 0] - np.array([math.fsum(row_terms) for row_terms in terms]))
        if (
            products.dtype != np.float64
            or (off > 2.0**-53 * dimension * np.abs(terms).sum(1)).any()
        ):
            return None
    return numkong


def _nearest_float32(terms: npt.NDArray[np.float64]) -> np.float32:
    """Round the sum of `terms` to float32; the terms are exact products of two float32 numbers."""
    total = math.fsum(terms)
    near = np.float32(total)
    if float(near) == total:
        return near
    other = np.nextafter(near, np.float32(math.copysign(math.inf, total - float(near))))
    if (float(near) + float(other)) / 2 != total:
        return near
    # The float64 sum is exactly the midpoint; the sign of its error decides.
    rest = math.fsum([*terms, -total])
    if rest == 0:
        return near
    return max(near, other) if rest > 0 else min(near, other)
