"""Maps of Mars with graticule, IAU names, tiles, points and rasters.

Maps are polar stereographic near the poles and equirectangular elsewhere. Drawing needs the
extra `gis`; matplotlib and cartopy are imported on first use. `PlanetMap.terrain` draws the base
map of the package, the Viking mosaic; `PlanetMap.background` accepts any image.
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
from marsretrieval.plotting.projection import regions_of, require_cartopy
from marsretrieval.plotting.style import (
    DARK,
    LIGHT,
    PLANET,
    Style,
    map_style,
    style_of,
    window,
)

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
    "map_style",
    "planet_map",
    "regions_of",
    "require_cartopy",
    "style_of",
    "window",
]
