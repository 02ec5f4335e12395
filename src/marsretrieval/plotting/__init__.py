"""Maps of Mars: graticule, IAU names, tiles, points and rasters, by cartopy on a sphere.

Polar stereographic near the poles, equirectangular elsewhere. Drawing needs the extra `gis`;
matplotlib and cartopy are imported when a map is drawn. No base map comes with the package:
`PlanetMap.background` takes an image.
"""

from __future__ import annotations

from marsretrieval.plotting.features import (
    Feature,
    feature,
    features,
    features_in,
    lat_label,
    lon_label,
)
from marsretrieval.plotting.map import PlanetMap, planet_map
from marsretrieval.plotting.projection import require_cartopy
from marsretrieval.plotting.style import DARK, LIGHT, PLANET, Style, style_of, window

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
    "require_cartopy",
    "style_of",
    "window",
]
