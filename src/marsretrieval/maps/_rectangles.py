"""Tiles as rectangles of a map that is cut somewhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["rectangles"]

Floats = npt.NDArray[np.float64]


def rectangles(
    x: Floats, y: Floats, width: Floats, height: Floats, west: float, east: float
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Corners (m, 4, 2) of all rectangles about n centres that reach into west..east, and which
    of the n each is of: one that is cut by an edge of the planet is there twice."""
    pieces, owners = [], []
    for turn in (-360.0, 0.0, 360.0):
        left, right = x + turn - width / 2, x + turn + width / 2
        seen = np.flatnonzero((right > west) & (left < east) & np.isfinite(y))
        low, high = y[seen] - height[seen] / 2, y[seen] + height[seen] / 2
        corners = [
            (left[seen], low),
            (right[seen], low),
            (right[seen], high),
            (left[seen], high),
        ]
        pieces.append(np.stack([np.stack(each, axis=-1) for each in corners], axis=1))
        owners.append(seen)
    return np.concatenate(pieces), np.concatenate(owners)
