"""Curves with no more points than an eye can tell apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def thinned(x: Floats, y: Floats, tolerance: float) -> tuple[Floats, Floats]:
    """The curve through a part of its points, so that none of the others is further from it than
    `tolerance`, in the units of x and y (Ramer 1972, Douglas and Peucker 1973)."""
    keep = np.zeros(len(x), dtype=bool)
    keep[[0, -1]] = True
    stack = [(0, len(x) - 1)]
    while stack:
        first, last = stack.pop()
        if last - first < 2:
            continue
        between = slice(first + 1, last)
        distance = _distances(x[between], y[between], (x[first], y[first]), (x[last], y[last]))
        furthest = int(np.argmax(distance))
        if distance[furthest] > tolerance:
            middle = first + 1 + furthest
            keep[middle] = True
            stack += [(first, middle), (middle, last)]
    return x[keep], y[keep]


def _distances(
    x: Floats, y: Floats, start: tuple[float, float], end: tuple[float, float]
) -> Floats:
    """(n,) distances of points from the segment between two others."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = dx * dx + dy * dy
    along = ((x - start[0]) * dx + (y - start[1]) * dy) / length if length else np.zeros(len(x))
    along = np.clip(along, 0.0, 1.0)
    distances: Floats = np.hypot(x - start[0] - along * dx, y - start[1] - along * dy)
    return distances
