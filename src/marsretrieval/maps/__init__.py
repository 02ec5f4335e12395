"""Maps of Mars: graticule, IAU names, tiles, points and rasters on plain axes of degrees.

Needs matplotlib, which is imported when a map is drawn. No picture of Mars comes with it:
`PlanetMap.background` takes yours.
"""

from __future__ import annotations

from marsretrieval.maps._features import Feature, feature, features, features_in
from marsretrieval.maps._graticule import lat_label, lon_label
from marsretrieval.maps._planet import PLANET, PlanetMap, planet_map
from marsretrieval.maps._style import DARK, LIGHT, Style, style_of
from marsretrieval.maps._window import window

__all__ = [
    "DARK",
    "LIGHT",
    "PLANET",
    "Feature",
    "PlanetMap",
    "Style",
    "feature",
    "features",
    "features_in",
    "lat_label",
    "lon_label",
    "planet_map",
    "style_of",
    "window",
]
