"""The ground that all maps share: drawn once, used by each."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from functools import cache
from importlib.util import find_spec
from typing import Any

from marsretrieval.plotting import LIGHT, lat_label, lon_label, planet_map
from marsretrieval.report.html._svg import MAP_TEXT, drawing, inline_svg, panel

_NAMES = 24  # features: more would hide what is found


@cache
def planet() -> str:
    """A `<g id="mars">` of 720 x 360 units: the planet with a graticule of 30 degrees and the IAU
    names of its largest features, which need the extra `gis`."""
    features = _feature_names() if find_spec("cartopy") else ""
    lines = "".join(f"M{x} 0v360" for x in range(60, 720, 60))
    lines += "".join(f"M0 {y}h720" for y in range(60, 360, 60))
    return (
        '<g id="mars"><rect class="ground" width="720" height="360"/>'
        f'<path class="grat" d="{lines}"/><g class="names">{features}</g>{_labels()}</g>'
    )


def _feature_names() -> str:
    names = [each.name for each in fields(LIGHT)]
    colours: dict[str, Any] = {
        name: MAP_TEXT for name in names if str(getattr(LIGHT, name)).startswith("#")
    }
    with drawing():
        figure, axes = panel(10.0, 5.0)
        axes.set_position((0.0, 0.0, 1.0, 1.0))
        chart = planet_map(axes=axes, style=replace(LIGHT, **colours, font=13.0), graticule=False)
        chart.features(at_most=_NAMES).axes.set_axis_off()
        for text in chart.axes.texts:
            text.set_path_effects([])
        svg = inline_svg(figure, "mars", "")
    return re.sub(r"^<svg[^>]*>|</svg>\s*$", "", svg)


def _labels() -> str:
    """Longitudes along the lower edge, latitudes along the left one."""
    found = [
        f'<text class="maptext" x="{(lon + 180) * 2 + 3}" y="355">{lon_label(lon)}</text>'
        for lon in range(-120, 180, 60)
    ]
    found += [
        f'<text class="maptext" x="3" y="{(90 - lat) * 2 - 3}">{lat_label(lat)}</text>'
        for lat in range(-60, 90, 30)
    ]
    return "".join(found)
