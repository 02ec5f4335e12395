"""Which part of Mars a map should show."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from marsretrieval.geo import Box, wrap_lon
from marsretrieval.maps._planet import PLANET

__all__ = ["window"]

_WHOLE_DEG = 120.0  # positions spread wider than this show the planet
_MARGIN, _LEAST_DEG = 0.12, 2.0
_SLIMMEST = 0.45  # height by width, and width by height


def window(
    lon: npt.ArrayLike,
    lat: npt.ArrayLike,
    *,
    least_deg: float = _LEAST_DEG,
    margin: float = _MARGIN,
) -> Box:
    """A box around all positions, over the antimeridian where that is the shorter way round; the
    planet where they are spread wide or there are none.

    margin: room on each side, as a part of their extent. Unknown positions (NaN) do not count.
    """
    x = np.asarray(lon, dtype=np.float64).ravel()
    y = np.asarray(lat, dtype=np.float64).ravel()
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return PLANET
    turned = np.unique(np.remainder(x[known], 360.0))
    gaps = np.diff(np.append(turned, turned[0] + 360.0))
    widest = int(np.argmax(gaps))
    west = float(turned[(widest + 1) % len(turned)])
    width = 360.0 - float(gaps[widest])
    south, north = float(y[known].min()), float(y[known].max())
    if width > _WHOLE_DEG or north - south > _WHOLE_DEG:
        return PLANET
    shrink = float(np.cos(np.radians(min(abs(south + north) / 2, 80.0))))
    wide = max(width * (1 + 2 * margin), least_deg / shrink)
    high = max((north - south) * (1 + 2 * margin), least_deg)
    # Degrees of longitude are shorter than those of latitude by the cosine.
    high = max(high, _SLIMMEST * wide * shrink)
    wide = min(max(wide, _SLIMMEST * high / shrink), 359.0)
    middle = west + width / 2
    low = max(-90.0, min((south + north) / 2 - high / 2, 90.0 - high))
    return Box(
        float(wrap_lon(middle - wide / 2)),
        low,
        float(wrap_lon(middle + wide / 2)),
        min(90.0, low + high),
    )
