"""Group positions into regions for close-up maps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from marsretrieval import geo

Floats = npt.NDArray[np.float64]

_MAX_REGIONS, _MAX_REGION_DEG = 8, 24.0  # limits for maps of regions


def regions_of(lonlat: Floats) -> list[geo.Box]:
    """Find groups of neighbouring quads that hold any position.

    Args:
        lonlat: Positions of shape (n, 2), lon and lat in degrees; NaN if unknown.

    Returns:
        Bounding boxes from north to south; empty if there are too many or one is too wide.
    """
    from scipy import ndimage

    positions = lonlat[np.isfinite(lonlat).all(axis=1)]
    quad = geo.QUAD_DEG
    columns = 360 // quad
    top = 90 // quad  # index of the northernmost row, counted from the equator
    row = top - np.floor(positions[:, 1] / quad).astype(int)
    column = np.floor((geo.wrap_lon(positions[:, 0]) + 180) / quad).astype(int) % columns
    occupied = np.zeros((2 * top + 2, columns), dtype=bool)
    occupied[row, column] = True
    empty = np.flatnonzero(~occupied.any(axis=0))
    if not len(empty):
        return []
    first = int(empty[0])  # an empty column, so that no region crosses the edge of the grid
    labels, count = ndimage.label(np.roll(occupied, -first, axis=1), np.ones((3, 3)))
    parts = ndimage.find_objects(labels)
    spans = [part.stop - part.start for pair in parts for part in pair]
    if count > _MAX_REGIONS or max(spans, default=0) * quad > _MAX_REGION_DEG:
        return []
    return [
        geo.Box(
            float(geo.wrap_lon((x.start + first) * quad - 180)),
            max(-90.0, (top + 1 - y.stop) * quad),
            float(geo.wrap_lon((x.stop + first) * quad - 180)),
            min(90.0, (top + 1 - y.start) * quad),
        )
        for y, x in parts
    ]
