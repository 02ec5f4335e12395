"""What every metric asks of its input, in one place; what is wrong is said by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError

_UNIT_TOLERANCE = 1e-2  # float16 and bfloat16 vectors are unit only to about 4e-3


def unit_rows(vectors: npt.ArrayLike, name: str) -> npt.NDArray[np.float32]:
    """(n, d) float32 with finite unit rows. Raises DataError naming the first row that is not."""
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
        raise DataError(f"{name}: {bad.size} rows hold NaN or infinity (first: row {bad[0]})")
    bad = np.flatnonzero(np.abs(norms - 1) > _UNIT_TOLERANCE)
    if bad.size:
        raise DataError(
            f"{name}: {bad.size} rows are not of unit length (row {bad[0]}: {norms[bad[0]]:.4g})",
            remedy="Divide every row by its Euclidean norm.",
        )
    return rows


def scores_of(scores: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    """(n,) finite numbers. Raises DataError."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise DataError(f"{name}: an array of shape {values.shape}; (n,) is expected, n at least 1")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise DataError(f"{name}: {bad.size} are NaN or infinite (first: number {bad[0]})")
    return values


def lonlat(
    positions: npt.ArrayLike, name: str, *, unknown: bool = False
) -> npt.NDArray[np.float64]:
    """(n, 2) degrees, longitude in -180..360; rows of NaN only where they may be `unknown`."""
    values = np.asarray(positions, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != 2:
        raise DataError(
            f"{name}: an array of shape {values.shape}; (n, 2) is expected, lon and lat"
        )
    known = np.isfinite(values).all(axis=1)
    if not unknown and not known.all():
        raise DataError(f"{name}: row {np.flatnonzero(~known)[0]} has no position")
    lon, lat = values[known].T
    wrong = (lon < -180) | (lon > 360) | (np.abs(lat) > 90)
    if wrong.any():
        first = np.flatnonzero(known)[np.flatnonzero(wrong)[0]]
        raise DataError(
            f"{name}: row {first} is at longitude {values[first, 0]}, latitude {values[first, 1]}",
            remedy="Longitudes are within -180..360, latitudes within -90..90 degrees.",
        )
    return values


def same_length(**columns: Sequence[Any] | npt.NDArray[Any]) -> None:
    """Raises DataError when the columns are not equally long."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{count:,} {name}" for name, count in lengths.items())
        raise DataError(f"counts do not match: {told}")


def unique(names: Sequence[str], what: str) -> None:
    """Raises DataError naming the first name that comes twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{what}: '{name}' comes more than once")
        seen.add(name)
