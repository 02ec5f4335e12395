"""Quantize vectors to int8 codes, with error bounds.

A row x is stored as mean + scale * n + axis_component * axis + e, where n holds integers within
-127..127 and axis is the direction of the mean; of the residual e only the length is stored. A
query q is split into t * (h + l / 128) + f with integers h and l. Then

    q.x = q.mean + t * scale * (h.n + l.n / 128) + axis_component * q.axis + q.e + f.(scale * n)

where the first three terms follow from integer sums. By Cauchy-Schwarz the last term is at most
|f| |scale * n|, and q.e is at most |q - (q.axis) axis| |e|, since e is orthogonal to the axis up
to rounding. Embeddings lie in a narrow cone around their mean, so the component of a query along
the axis, large for an image query, adds no uncertainty. The bounds assume no distribution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from marsretrieval.search.kernels import MAX_NORM

Int8Array = npt.NDArray[np.int8]

_MAX_CODE = 127
_LOW_STEPS = 128  # steps of l in one step of h
_U = 2.0**-24  # rounding of float32


class Limits(NamedTuple):
    """Upper bounds over all rows.

    Attributes:
        radius: Bound of |scale * n|.
        norm: Bound of |n|.
        rest: Bound of |axis_component * axis + e|.
        axis_error: Bound of |e.axis|, not quite zero because `axis_component` is rounded.
    """

    radius: float = 0.0
    norm: float = 0.0
    rest: float = 0.0
    axis_error: float = 0.0

    def merge(self, other: Self) -> Limits:
        """Return the limits of the rows of both.

        Args:
            other: Limits of other rows.

        Returns:
            The element-wise maximum.
        """
        return Limits(*map(max, self, other))


@dataclass(frozen=True, slots=True)
class RowCodes:
    """Quantized rows; see the module docstring.

    Attributes:
        values: int8 array n of shape (n, d).
        scale: float32 array of shape (n,).
        axis_component: float32 array of shape (n,).
        error: float32 array of shape (n,), upper bounds of |e|.
        limits: Upper bounds over all rows.
    """

    values: Int8Array
    scale: npt.NDArray[np.float32]
    axis_component: npt.NDArray[np.float32]
    error: npt.NDArray[np.float32]
    limits: Limits


@dataclass(frozen=True, slots=True)
class QueryCodes:
    """Quantized queries; see the module docstring.

    Attributes:
        codes: int8 array of shape (2 q, d): h of each query, then l of each query.
        scale: t, float64 array of shape (q,).
        offset: q.mean, float64 array of shape (q,).
        axis_component: q.axis / t, float32 array of shape (q,).
        residual_norm: |q - (q.axis) axis|, float64 array of shape (q,).
        slack: Bound of the score error besides residual_norm * |e|, float64 array of shape (q,).
    """

    codes: Int8Array
    scale: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    axis_component: npt.NDArray[np.float32]
    residual_norm: npt.NDArray[np.float64]
    slack: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scale)

    def approximate(
        self,
        sums: npt.NDArray[Any],
        row_scale: npt.NDArray[np.float32],
        row_axis_component: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """Compute scale * (h.n + l.n / 128) + axis_component * q.axis / t.

        Args:
            sums: Integer sums of shape (n, 2 q): h.n of each query, then l.n.
            row_scale: float32 array of shape (n,).
            row_axis_component: float32 array of shape (n,).

        Returns:
            float32 array of shape (n, q).
        """
        count = len(self)
        scores: npt.NDArray[np.float32] = sums[:, :count].astype(np.float32)
        scores += np.multiply(sums[:, count:], np.float32(1 / _LOW_STEPS), dtype=np.float32)
        scores *= row_scale[:, None]
        scores += row_axis_component[:, None] * self.axis_component
        return scores


def axis_of(mean: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the direction of a vector.

    Args:
        mean: float32 array of shape (d,).

    Returns:
        Vector of unit length to float32 precision; zeros if the mean is (almost) zero.
    """
    length = float(np.linalg.norm(mean.astype(np.float64)))
    axis: npt.NDArray[np.float32] = (mean / (length or 1.0)).astype(np.float32)
    return axis if length > 1e-6 else np.zeros_like(mean)


def quantize_rows(vectors: npt.NDArray[np.float32], mean: npt.NDArray[np.float32]) -> RowCodes:
    """Quantize rows.

    Args:
        vectors: float32 array of shape (n, d); it is overwritten.
        mean: float32 array of shape (d,) to subtract.

    Returns:
        The codes with error bounds.
    """
    axis = axis_of(mean)
    dimension = vectors.shape[1]
    rest = vectors
    rest -= mean
    largest = np.maximum(rest.max(axis=1), -rest.min(axis=1)).astype(np.float64)
    # A row equal to the mean (within 1e-30) has zero codes; its scale does not matter.
    scale = np.where(largest > 1e-30, largest / _MAX_CODE, 1.0).astype(np.float32)
    rounded = rest / scale[:, None]
    np.rint(rounded, out=rounded)
    np.clip(rounded, -_MAX_CODE, _MAX_CODE, out=rounded)
    values = rounded.astype(np.int8)
    norms = np.sqrt(np.einsum("ij,ij->i", rounded, rounded).astype(np.float64))
    norms *= 1 + (dimension + 4) * _U
    rounded *= scale[:, None]
    rest -= rounded
    norm_factor = 1 + (dimension + 8) * _U  # bounds the error of the sum of squares and its root
    largest *= np.sqrt(dimension)
    lengths = np.sqrt(np.einsum("ij,ij->i", rest, rest).astype(np.float64))
    # x - mean, scale * n and their difference: three roundings, of at most u max|x - mean| each
    # in an element, sqrt(d) times that in length. 1e-18 covers underflow.
    lengths = lengths * norm_factor + 4 * _U * largest + 1e-18
    axis_component = np.einsum("ij,j->i", rest, axis)
    rest -= axis_component[:, None] * axis
    error = np.sqrt(np.einsum("ij,ij->i", rest, rest).astype(np.float64))
    # The same three, the product axis_component * axis and the difference.
    error = error * norm_factor + 4 * _U * largest + 4 * _U * lengths + 1e-18
    # e.axis: the three roundings, gamma_d of the sum of `axis_component`, |axis|^2 not quite 1.
    axis_error = 4 * _U * largest + (dimension + 16) * _U * lengths
    limits = Limits(
        radius=float((scale * norms).max(initial=0.0)) * (1 + 4 * _U),
        norm=float(norms.max(initial=0.0)),
        rest=float(lengths.max(initial=0.0)),
        axis_error=float(axis_error.max(initial=0.0)),
    )
    return RowCodes(values, scale, axis_component, _round_up(error), limits)


def quantize_queries(
    queries: npt.NDArray[np.float32], mean: npt.NDArray[np.float32], limits: Limits
) -> QueryCodes:
    """Quantize queries.

    Args:
        queries: Finite float32 array of shape (q, d).
        mean: float32 array of shape (d,) that was subtracted from the rows.
        limits: Limits of the rows.

    Returns:
        The codes with error bounds.
    """
    wide = queries.astype(np.float64)
    axis = axis_of(mean).astype(np.float64)
    scale = np.abs(wide).max(axis=1) / _MAX_CODE
    scale[scale < 1e-30] = 1.0
    steps = wide / scale[:, None]
    high = np.rint(steps)
    low = np.rint((steps - high) * _LOW_STEPS)
    rest = wide - scale[:, None] * (high + low / _LOW_STEPS)
    length = np.linalg.norm(wide, axis=1)
    axis_component = wide @ axis
    slack = np.linalg.norm(rest, axis=1) * limits.radius
    slack += np.abs(axis_component) * limits.axis_error
    # In float32: two conversions, two sums, two products and the rounding of `axis_component`, at
    # most gamma_6 of the sum of all |terms|.
    largest = scale * (np.linalg.norm(high, axis=1) + np.linalg.norm(low, axis=1) / _LOW_STEPS)
    largest = largest * limits.radius + np.abs(axis_component) * limits.rest
    slack += 8 * _U * largest
    slack += _U * MAX_NORM * length  # rounding of the score to float32
    # Generous bound for float64 operations.
    slack += 1e-12 * (length * (1 + float(np.linalg.norm(mean)) + limits.rest) + largest)
    residual_norm = np.linalg.norm(wide - axis_component[:, None] * axis, axis=1)
    return QueryCodes(
        codes=np.concatenate([high, low]).astype(np.int8),
        scale=scale,
        offset=wide @ mean.astype(np.float64),
        axis_component=(axis_component / scale).astype(np.float32),
        residual_norm=residual_norm + 1e-12 * length,
        slack=slack,
    )


def _round_up(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    near = values.astype(np.float32)
    return np.where(near < values, np.nextafter(near, np.float32(np.inf)), near).astype(np.float32)
