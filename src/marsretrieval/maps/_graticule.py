"""Where lines of longitude and latitude go, and how they are called."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from marsretrieval.geo import Box
from marsretrieval.maps._style import Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_graticule", "lat_label", "lines", "lon_label", "step_for"]

_STEPS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 45.0, 60.0, 90.0)


def step_for(span_deg: float, at_most: int) -> float:
    """The smallest round step that cuts `span_deg` at most `at_most` times."""
    return next((step for step in _STEPS if span_deg / step <= at_most), _STEPS[-1])


def lines(start: float, end: float, step: float) -> npt.NDArray[np.float64]:
    """Multiples of `step` within start..end, (n,)."""
    first, last = math.ceil(start / step - 1e-9), math.floor(end / step + 1e-9)
    return np.round(np.arange(first, last + 1) * step, 9)


def lon_label(lon: float, domain: int = 180) -> str:
    """`30°W` for `domain` 180, `330°E` for 360; any longitude."""
    turned = lon % 360
    if domain == 180 and turned > 180:
        return f"{_number(360 - turned)}°W"
    return f"{_number(turned)}°" + ("E" if turned % 180 or domain == 360 else "")


def lat_label(lat: float) -> str:
    """`30°N`, `0°`, `30°S`."""
    return f"{_number(abs(lat))}°" + ("N" if lat > 0 else "S" if lat < 0 else "")


def _number(value: float) -> str:
    return f"{round(value, 6):g}"


def draw_graticule(axes: Axes, box: Box, west: float, domain: int, style: Style) -> None:
    """Lines and their names along the left and lower edges; longitudes run on from `west`."""
    extent = axes.get_window_extent()
    across = step_for(box.width, 12)
    upward = step_for(box.height, max(4, min(12, round(12 * extent.height / extent.width))))
    if box.width >= 180:
        across = upward = max(across, upward)
    longitudes = lines(west, west + box.width, across)
    latitudes = lines(box.south, box.north, upward)
    axes.set_xticks(longitudes, [lon_label(float(each), domain) for each in longitudes])
    axes.set_yticks(latitudes, [lat_label(float(each)) for each in latitudes])
    axes.grid(True, color=style.grid, linewidth=0.5)
    axes.set_axisbelow(False)
    for line in (*axes.get_xgridlines(), *axes.get_ygridlines()):
        line.set_zorder(1.5)  # above rasters, below tiles and points
    axes.tick_params(colors=style.muted, labelsize=style.font - 0.5, length=0, pad=4)
    for spine in axes.spines.values():
        spine.set_edgecolor(style.muted)
        spine.set_linewidth(0.7)
