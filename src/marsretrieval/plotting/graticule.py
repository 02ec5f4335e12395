"""Lines of longitude and latitude on a map, with labels at the edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from marsretrieval.geo import Box, wrap_lon
from marsretrieval.plotting.features import lat_label, lon_label, multiples, round_step

if TYPE_CHECKING:
    from marsretrieval.plotting.projection import MapFrame
    from marsretrieval.plotting.style import Style


def draw_graticule(
    axes: Any, frame: MapFrame, box: Box, domain: int, style: Style, stretch: float
) -> None:
    """Draw the graticule of a map.

    Args:
        axes: Axes of cartopy.
        frame: Projection and extent of the map.
        box: Part of the planet that is shown.
        domain: Whether longitudes are labelled -180..180 or 0..360.
        style: Colours and font size.
        stretch: Height of a degree of latitude over the width of a degree of longitude.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter

    lon_step = round_step(box.width, 12)
    ratio = frame.height * stretch / frame.width
    lat_step = round_step(box.height, max(4, min(12, round(12 * ratio))))
    if box.width >= 180 and not frame.polar:
        lon_step = lat_step = max(lon_step, lat_step)
    west = frame.centre_lon - box.width / 2
    longitudes = multiples(west, west + box.width, lon_step)
    latitudes = multiples(box.south, box.north, lat_step)
    if box.width >= 360.0:
        longitudes = longitudes[:-1]
    lines = axes.gridlines(
        draw_labels=True,
        xlocs=FixedLocator(sorted({float(wrap_lon(lon)) for lon in longitudes})),
        ylocs=FixedLocator(latitudes),
        xformatter=FuncFormatter(lambda lon, _: lon_label(float(lon), domain)),
        yformatter=FuncFormatter(lambda lat, _: lat_label(float(lat))),
        color=style.grid,
        linewidth=0.5,
        zorder=1.5,  # above rasters, below tiles and points
        xlabel_style={"color": style.muted, "fontsize": style.font - 0.5},
        ylabel_style={"color": style.muted, "fontsize": style.font - 0.5},
        x_inline=False,
        y_inline=frame.circular,
    )
    if not frame.polar:
        lines.top_labels = lines.right_labels = False
        lines.xpadding = lines.ypadding = 4
    elif frame.circular:
        _clip_to_disk(axes)
    elif box.north > -box.south:
        lines.top_labels = False
    else:
        lines.bottom_labels = False
    for spine in axes.spines.values():
        spine.set_edgecolor(style.muted)
        spine.set_linewidth(0.7)


def _clip_to_disk(axes: Any) -> None:
    from matplotlib.path import Path as Outline

    angle = np.linspace(0, 2 * np.pi, 361)
    disk = Outline(0.5 + 0.5 * np.column_stack([np.sin(angle), np.cos(angle)]))
    axes.set_boundary(disk, transform=axes.transAxes)
