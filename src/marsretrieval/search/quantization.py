"""Vectors as whole numbers of one byte, with what the rounding can have cost.

A row x is stored as mean + scale * n + along * axis + e, n whole numbers within -127..127, axis
the direction of the mean; of the rest e only its length is kept. A query q is split into
t * (h + l / 128) + f, h and l whole numbers. Then

    q.x = q.mean + t * scale * (h.n + l.n / 128) + along * q.axis + q.e + f.(scale * n)

where the first three terms are found from sums of whole numbers. Of the others, by Cauchy-Schwarz,
the last is at most |f| |scale * n|, and q.e at most |q - (q.axis) axis| |e|, since e is at right
angles to the axis but for its own rounding. Embeddings lie in a narrow cone round their mean: what
of a query lies along it, most of it for the embedding of an image, costs no certainty. Nothing is
assumed of how the vectors are distributed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from marsretrieval.search.exact import MAX_NORM

Whole = npt.NDArray[np.int8]

_TOP = 127
_FINE = 128  # steps of the low plane in one of the high plane
_U = 2.0**-24  # rounding of float32


class Limits(NamedTuple):
    """What no row exceeds. radius: |scale * n|. norm: |n|. rest: |along * axis + e|.
    askew: |e.axis|, which is not quite zero for the rounding of `along`."""

    radius: float = 0.0
    norm: float = 0.0
    rest: float = 0.0
    askew: float = 0.0

    def joined(self, other: Self) -> Limits:
        return Limits(*map(max, self, other))


@dataclass(frozen=True, slots=True)
class RowPlane:
    """values: (n, d); scale, along, error: (n,), the last a bound of |e|."""

    values: Whole
    scale: npt.NDArray[np.float32]
    along: npt.NDArray[np.float32]
    error: npt.NDArray[np.float32]
    limits: Limits


@dataclass(frozen=True, slots=True)
class QueryPlanes:
    """q queries: planes (2 q, d) holds h of each, then l of each. All else is (q,).

    scale: t. offset: q.mean. along: q.axis / t. across: |q - (q.axis) axis|. slack: how far a
    score may be off besides across * |e|.
    """

    planes: Whole
    scale: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    along: npt.NDArray[np.float32]
    across: npt.NDArray[np.float64]
    slack: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scale)

    def approximate(
        self,
        sums: npt.NDArray[Any],
        row_scale: npt.NDArray[np.float32],
        row_along: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """(n, q) of scale * (h.n + l.n / 128) + along * q.axis / t, from the sums (n, 2 q)."""
        count = len(self)
        scores: npt.NDArray[np.float32] = sums[:, :count].astype(np.float32)
        scores += np.multiply(sums[:, count:], np.float32(1 / _FINE), dtype=np.float32)
        scores *= row_scale[:, None]
        scores += row_along[:, None] * self.along
        return scores


def axis_of(mean: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The direction of the mean, of unit length to float32's precision; zeros where it has none."""
    length = float(np.linalg.norm(mean.astype(np.float64)))
    axis: npt.NDArray[np.float32] = (mean / (length or 1.0)).astype(np.float32)
    return axis if length > 1e-6 else np.zeros_like(mean)


def quantize_rows(vectors: npt.NDArray[np.float32], mean: npt.NDArray[np.float32]) -> RowPlane:
    """(n, d) float32 rows, which are overwritten."""
    axis = axis_of(mean)
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
    grown = 1 + (dimension + 8) * _U  # more than the sum of squares can be off, and its root
    top *= np.sqrt(dimension)
    lengths = np.sqrt(np.einsum("ij,ij->i", rest, rest).astype(np.float64))
    # x - mean, scale * n and their difference: three roundings, of at most u max|x - mean| each
    # in an element, sqrt(d) times that in length. 1e-18 covers underflow.
    lengths = lengths * grown + 4 * _U * top + 1e-18
    along = np.einsum("ij,j->i", rest, axis)
    rest -= along[:, None] * axis
    error = np.sqrt(np.einsum("ij,ij->i", rest, rest).astype(np.float64))
    # The same three, the product along * axis and the difference from it.
    error = error * grown + 4 * _U * top + 4 * _U * lengths + 1e-18
    # e.axis: the three roundings, gamma_d of the sum that gave `along`, |axis|^2 not quite 1.
    askew = 4 * _U * top + (dimension + 16) * _U * lengths
    limits = Limits(
        radius=float((scale * norms).max(initial=0.0)) * (1 + 4 * _U),
        norm=float(norms.max(initial=0.0)),
        rest=float(lengths.max(initial=0.0)),
        askew=float(askew.max(initial=0.0)),
    )
    return RowPlane(values, scale, along, _rounded_up(error), limits)


def quantize_queries(
    queries: npt.NDArray[np.float32], mean: npt.NDArray[np.float32], limits: Limits
) -> QueryPlanes:
    """(q, d) finite queries, for rows within `limits`."""
    wide = queries.astype(np.float64)
    axis = axis_of(mean).astype(np.float64)
    scale = np.abs(wide).max(axis=1) / _TOP
    scale[scale < 1e-30] = 1.0
    steps = wide / scale[:, None]
    high = np.rint(steps)
    low = np.rint((steps - high) * _FINE)
    rest = wide - scale[:, None] * (high + low / _FINE)
    length = np.linalg.norm(wide, axis=1)
    along = wide @ axis
    slack = np.linalg.norm(rest, axis=1) * limits.radius
    slack += np.abs(along) * limits.askew
    # In float32: two conversions, two sums, two products and the rounding of `along`, at most
    # gamma_6 of the sum of all |terms|.
    largest = scale * (np.linalg.norm(high, axis=1) + np.linalg.norm(low, axis=1) / _FINE)
    largest = largest * limits.radius + np.abs(along) * limits.rest
    slack += 8 * _U * largest
    slack += _U * MAX_NORM * length  # the score itself is rounded to float32
    # float64, generously.
    slack += 1e-12 * (length * (1 + float(np.linalg.norm(mean)) + limits.rest) + largest)
    across = np.linalg.norm(wide - along[:, None] * axis, axis=1)
    return QueryPlanes(
        planes=np.concatenate([high, low]).astype(np.int8),
        scale=scale,
        offset=wide @ mean.astype(np.float64),
        along=(along / scale).astype(np.float32),
        across=across + 1e-12 * length,
        slack=slack,
    )


def _rounded_up(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    near = values.astype(np.float32)
    return np.where(near < values, np.nextafter(near, np.float32(np.inf)), near).astype(np.float32)
