"""Positions on Mars: its sphere, the names of CTX tiles and quads, boxes and footprints.

Longitude and latitude are planetocentric degrees on the sphere of the CTX mosaic, east positive.
Equirectangular metres are never converted by PROJ, which since 9.8 follows the ellipsoid of a CRS,
while the mosaic's pixels were laid out by the formula of the sphere (up to 0.40 degrees off).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marsretrieval.lazy import lazy_exports

if TYPE_CHECKING:
    from marsretrieval.geo.crs import (
        DegreeConverter,
        OffPlanetError,
        Placement,
        mars_ellipsoid,
        own_degrees,
        place_rectangle,
        planetocentric,
    )
    from marsretrieval.geo.regions import Area, Region
    from marsretrieval.geo.sphere import (
        MARS_RADIUS_M,
        QUAD_DEG,
        TILE_DEG,
        Box,
        great_circle_deg,
        lon_180_to_360,
        lonlat_to_metres,
        metres_to_lonlat,
        near_any,
        parse_quad_name,
        parse_tile_name,
        quad_name,
        tile_centre,
        tile_corner,
        tile_name,
        unit_vectors,
        wrap_lon,
    )
    from marsretrieval.geo.vectors import (
        MARS_CRS,
        MARS_CRS_URN,
        GeometryColumn,
        Ring,
        Shape,
        area_km2,
        footprint,
        geojson_geometry,
        merge_outlines,
        outline,
        outlines,
        to_shapely,
        touching_groups,
        wkt,
    )

__all__ = [
    "MARS_CRS",
    "MARS_CRS_URN",
    "MARS_RADIUS_M",
    "QUAD_DEG",
    "TILE_DEG",
    "Area",
    "Box",
    "DegreeConverter",
    "GeometryColumn",
    "OffPlanetError",
    "Placement",
    "Region",
    "Ring",
    "Shape",
    "area_km2",
    "footprint",
    "geojson_geometry",
    "great_circle_deg",
    "lon_180_to_360",
    "lonlat_to_metres",
    "mars_ellipsoid",
    "merge_outlines",
    "metres_to_lonlat",
    "near_any",
    "outline",
    "outlines",
    "own_degrees",
    "parse_quad_name",
    "parse_tile_name",
    "place_rectangle",
    "planetocentric",
    "quad_name",
    "tile_centre",
    "tile_corner",
    "tile_name",
    "to_shapely",
    "touching_groups",
    "unit_vectors",
    "wkt",
    "wrap_lon",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "marsretrieval.geo.crs": (
            "DegreeConverter",
            "OffPlanetError",
            "Placement",
            "mars_ellipsoid",
            "own_degrees",
            "place_rectangle",
            "planetocentric",
        ),
        "marsretrieval.geo.regions": (
            "Area",
            "Region",
        ),
        "marsretrieval.geo.sphere": (
            "Box",
            "MARS_RADIUS_M",
            "QUAD_DEG",
            "TILE_DEG",
            "great_circle_deg",
            "lon_180_to_360",
            "lonlat_to_metres",
            "metres_to_lonlat",
            "near_any",
            "parse_quad_name",
            "parse_tile_name",
            "quad_name",
            "tile_centre",
            "tile_corner",
            "tile_name",
            "unit_vectors",
            "wrap_lon",
        ),
        "marsretrieval.geo.vectors": (
            "GeometryColumn",
            "MARS_CRS",
            "MARS_CRS_URN",
            "Ring",
            "Shape",
            "area_km2",
            "footprint",
            "geojson_geometry",
            "merge_outlines",
            "outline",
            "outlines",
            "to_shapely",
            "touching_groups",
            "wkt",
        ),
    },
)
