"""Vectors as whole numbers of one byte, with what the rounding can have cost.

A row x is stored as mean + scale * n + e, n whole numbers within -127..127; of the rest e only
its length is kept. A query q is split into t * (h + l / 128) + f, h and l whole numbers. Then

    q.x = q.mean + t * scale * (h.n + l.n / 128) + q.e + f.(scale * n)

where the first two terms are found from sums of whole numbers, and by Cauchy-Schwarz the last two
are at most |q| |e| and |f| |scale * n|. Nothing is assumed of how the vectors are distributed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.search._exact import MAX_NORM

__all__ = ["QueryPlanes", "RowPlane", "quantize_queries", "quantize_rows"]

Whole = npt.NDArray[np.int8]

_TOP = 127
_FINE = 128  # steps of the low plane in one of the high plane
_U = 2.0**-24  # rounding of float32


@dataclass(frozen=True, slots=True)
class RowPlane:
    """values: (n, d); scale, error: (n,), the scale of each row and a bound of |e|; norms: (n,)
    lengths of the rows of `values`."""

    values: Whole
    scale: npt.NDArray[np.float32]
    error: npt.NDArray[np.float32]
    norms: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class QueryPlanes:
    """q queries: planes (2 q, d) holds h of each, then l of each. All else is (q,).

    scale: t. offset: q.mean. length: |q|. slack: how far a score may be off besides |q| |e|.
    """

    planes: Whole
    scale: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    length: npt.NDArray[np.float64]
    slack: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scale)

    def approximate(
        self, sums: npt.NDArray[Any], row_scale: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """(n, q) of scale * (h.n + l.n / 128), from the sums (n, 2 q) of n rows."""
        count = len(self)
        scores: npt.NDArray[np.float32] = sums[:, :count].astype(np.float32)
        scores += np.multiply(sums[:, count:], np.float32(1 / _FINE), dtype=np.float32)
        scores *= row_scale[:, None]
        return scores


def quantize_rows(vectors: npt.NDArray[np.float32], mean: npt.NDArray[np.float32]) -> RowPlane:
    """(n, d) float32 rows, which are overwritten."""
    dimension = vectors.shape[1]
    rest = vectors
    rest -= mean
    top = np.maximum(rest.max(axis=1), -rest.min(axis=1)).astype(np.float64)
    # A row that is the mean (to 1e-30) is all zeros; its scale does not matter.
    scale = np.where(top > 1e-30, top / _TOP, 1.0).astype(np.float32)
    whole = rest / scale[:, None]
    np.rint(whole, out=whole)
    np.clip(whole, -_TOP, _TOP, out=whole)
    values = whole.astype(np.int8)
    norms = np.sqrt(np.einsum("ij,ij->i", whole, whole).astype(np.float64))
    norms *= 1 + (dimension + 4) * _U
    whole *= scale[:, None]
    rest -= whole
    squares = np.einsum("ij,ij->i", rest, rest).astype(np.float64)
    # The three roundings of an element (x - mean, scale * n, their difference) are at most
    # 3 u max|x - mean| (1 + 3 u) together, a length of sqrt(d) times that; the sum of squares is
    # off by a factor of at most 1 + gamma_(d + 2). 1e-18 covers underflow.
    error = np.sqrt(squares) * (1 + (dimension + 8) * _U)
    error += 4 * _U * np.sqrt(dimension) * top + 1e-18
    return RowPlane(values, scale, _rounded_up(error), norms)


def quantize_queries(
    queries: npt.NDArray[np.float32], mean: npt.NDArray[np.float32], radius: float
) -> QueryPlanes:
    """(q, d) finite queries. radius: the greatest |scale * n| of all rows."""
    wide = queries.astype(np.float64)
    scale = np.abs(wide).max(axis=1) / _TOP
    scale[scale < 1e-30] = 1.0
    steps = wide / scale[:, None]
    high = np.rint(steps)
    low = np.rint((steps - high) * _FINE)
    rest = wide - scale[:, None] * (high + low / _FINE)
    length = np.linalg.norm(wide, axis=1)
    # In float32, two conversions, a sum and a product: gamma_4 of the sum of all |terms|.
    largest = scale * (np.linalg.norm(high, axis=1) + np.linalg.norm(low, axis=1) / _FINE) * radius
    slack = np.linalg.norm(rest, axis=1) * radius + 6 * _U * largest
    slack += _U * MAX_NORM * length  # the score itself is rounded to float32
    slack += 1e-12 * (length * (1 + float(np.linalg.norm(mean))) + largest)  # float64, generously
    return QueryPlanes(
        planes=np.concatenate([high, low]).astype(np.int8),
        scale=scale,
        offset=wide @ mean.astype(np.float64),
        length=length * (1 + 1e-12),
        slack=slack,
    )


def _rounded_up(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    near = values.astype(np.float32)
    return np.where(near < values, np.nextafter(near, np.float32(np.inf)), near).astype(np.float32)
