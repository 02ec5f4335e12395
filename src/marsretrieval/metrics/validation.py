"""Validation of metric inputs; errors name the argument and the first invalid row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError

_UNIT_TOLERANCE = 1e-2  # float16 and bfloat16 rows have unit length within about 4e-3


def unit_rows(vectors: npt.ArrayLike, name: str) -> npt.NDArray[np.float32]:
    """Check vectors.

    Args:
        vectors: Floating-point array of shape (n, d), n and d at least 1.
        name: Name of the argument for messages.

    Returns:
        float32 array of shape (n, d), finite unit rows.

    Raises:
        DataError: If the shape or type is wrong, or a row is not finite or not of unit length.
    """
    rows = np.asarray(vectors)
    if rows.ndim != 2 or not rows.size or not np.issubdtype(rows.dtype, np.floating):
        raise DataError(
            f"{name}: an array of shape {rows.shape} and type {rows.dtype}",
            remedy="Embeddings are (n, d) floating-point numbers, n and d at least 1.",
        )
    rows = rows.astype(np.float32, copy=False)
    norms = np.linalg.norm(rows, axis=1)
    bad = np.flatnonzero(~np.isfinite(norms))
    if bad.size:
        raise DataError(
            f"{name}: NaN or infinity in {bad.size} of {len(rows)} rows (first: row {bad[0]})",
            remedy="Compute these rows again, or remove them from all inputs.",
        )
    bad = np.flatnonzero(np.abs(norms - 1) > _UNIT_TOLERANCE)
    if bad.size:
        raise DataError(
            f"{name}: {bad.size} of {len(rows)} rows are not of unit length "
            f"(row {bad[0]}: {norms[bad[0]]:.4g})",
            remedy="Divide every row by its Euclidean norm.",
        )
    return rows


def scores_of(scores: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    """Check scores.

    Args:
        scores: Array of shape (n,), n at least 1.
        name: Name of the argument for messages.

    Returns:
        float64 array of shape (n,), finite.

    Raises:
        DataError: If the shape is wrong or a score is not finite.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise DataError(
            f"{name}: an array of shape {values.shape}; (n,) is expected, n at least 1",
            remedy="Give one score per item.",
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise DataError(
            f"{name}: {bad.size} are NaN or infinite (first: number {bad[0]})",
            remedy="Give every item a finite score, or remove it.",
        )
    return values


def lonlat(
    positions: npt.ArrayLike, name: str, *, unknown: bool = False
) -> npt.NDArray[np.float64]:
    """Check positions.

    Args:
        positions: Longitudes (-180..360) and latitudes in degrees, shape (n, 2).
        name: Name of the argument for messages.
        unknown: Whether rows may be NaN.

    Returns:
        float64 array of shape (n, 2).

    Raises:
        DataError: If the shape is wrong, or a position is missing or out of range.
    """
    values = np.asarray(positions, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != 2:
        raise DataError(
            f"{name}: an array of shape {values.shape}; (n, 2) is expected, lon and lat",
            remedy="Give one row of longitude and latitude per item.",
        )
    finite = np.isfinite(values).all(axis=1)
    if not unknown and not finite.all():
        raise DataError(
            f"{name}: row {np.flatnonzero(~finite)[0]} has no position",
            remedy="Give every row finite degrees, or remove the row.",
        )
    lon, lat = values[finite].T
    wrong = (lon < -180) | (lon > 360) | (np.abs(lat) > 90)
    if wrong.any():
        first = np.flatnonzero(finite)[np.flatnonzero(wrong)[0]]
        raise DataError(
            f"{name}: row {first} is at longitude {values[first, 0]}, latitude {values[first, 1]}",
            remedy="Longitudes are within -180..360, latitudes within -90..90 degrees.",
        )
    return values


def same_length(**columns: Sequence[Any] | npt.NDArray[Any]) -> None:
    """Check that columns have equal lengths.

    Args:
        **columns: Name for messages to column.

    Raises:
        DataError: If the lengths differ.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{count:,} {name}" for name, count in lengths.items())
        raise DataError(
            f"counts do not match: {counts}",
            remedy="Give inputs of the same items: one entry per item, in the same order.",
        )


def unique(names: Sequence[str], what: str) -> None:
    """Check that names are distinct.

    Args:
        names: The names.
        what: Name of the argument for messages.

    Raises:
        DataError: If a name is repeated.
    """
    previous: set[str] = set()
    for name in names:
        if name in previous:
            raise DataError(
                f"{what}: '{name}' appears more than once", remedy="Give every name once."
            )
        previous.add(name)
