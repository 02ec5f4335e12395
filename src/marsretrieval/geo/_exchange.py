"""What exports say of places: the coordinate reference system, and geometries for GIS files."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

from marsretrieval.geo._shapes import Ring, footprint
from marsretrieval.geo._sphere import MARS_RADIUS_M, lon_180_to_360, wrap_lon

__all__ = [
    "MARS_CRS",
    "MARS_CRS_URN",
    "GeometryColumn",
    "Shape",
    "geojson_geometry",
    "outline",
    "wkt",
]

Shape = tuple[float, float] | list[Ring]  # a point (lon, lat), or one or more rings

MARS_CRS_URN = "urn:ogc:def:crs:IAU:2015:49900"

# PROJJSON of IAU_2015:49900. Never EPSG:4326: software would measure on the Earth.
MARS_CRS: dict[str, Any] = {
    "$schema": "https://proj.org/schemas/v0.7/projjson.schema.json",
    "type": "GeographicCRS",
    "name": "Mars (2015) - Sphere / Ocentric",
    "datum": {
        "type": "GeodeticReferenceFrame",
        "name": "Mars (2015) - Sphere",
        "anchor": "Viking 1 lander: 47.95137 W",
        "ellipsoid": {"name": "Mars (2015) - Sphere", "radius": int(MARS_RADIUS_M)},
        "prime_meridian": {"name": "Reference Meridian", "longitude": 0},
    },
    "coordinate_system": {
        "subtype": "ellipsoidal",
        "axis": [
            {
                "name": "Geodetic latitude",
                "abbreviation": "Lat",
                "direction": "north",
                "unit": "degree",
            },
            {
                "name": "Geodetic longitude",
                "abbreviation": "Lon",
                "direction": "east",
                "unit": "degree",
            },
        ],
    },
    "id": {"authority": "IAU", "code": 49900, "version": 2015},
}

_POINT, _POLYGON, _MULTIPOLYGON = 1, 3, 6


def outline(
    lon: float, lat: float, width_deg: float, height_deg: float, *, domain: int = 180
) -> Shape | None:
    """The footprint of a tile; its centre where the extent is unknown (NaN); None where the
    place is. Longitudes are -180..180 or 0..360 as `domain` says."""
    if not (math.isfinite(lon) and math.isfinite(lat)):
        return None
    if math.isfinite(width_deg) and math.isfinite(height_deg):
        # Stores keep extents in float32; 0.2 must come back as 0.2.
        return footprint(lon, lat, round(width_deg, 6), round(height_deg, 6), domain=domain)
    return float(wrap_lon(lon) if domain == 180 else lon_180_to_360(lon)), lat


def geojson_geometry(shape: Shape | None) -> dict[str, Any] | None:
    """Point, Polygon or MultiPolygon; None is GeoJSON's null geometry."""
    if shape is None:
        return None
    if isinstance(shape, tuple):
        return {"type": "Point", "coordinates": list(shape)}
    polygons = [[[list(corner) for corner in ring]] for ring in shape]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def wkt(shape: Shape | None) -> str:
    """Well-known text, which QGIS reads from a column of a CSV file; empty for None."""
    if shape is None:
        return ""
    if isinstance(shape, tuple):
        return f"POINT ({_pair(shape)})"
    rings = [f"(({', '.join(map(_pair, ring))}))" for ring in shape]
    return f"POLYGON {rings[0]}" if len(rings) == 1 else f"MULTIPOLYGON ({', '.join(rings)})"


def _pair(corner: tuple[float, float]) -> str:
    return f"{corner[0]:.9g} {corner[1]:.9g}"


class GeometryColumn:
    """Turns shapes into WKB and remembers what the GeoParquet metadata must say of them."""

    def __init__(self) -> None:
        self._types: set[str] = set()
        self._bounds = [math.inf, math.inf, -math.inf, -math.inf]

    def wkb(self, shape: Shape | None) -> bytes | None:
        """Little-endian WKB of one shape; None for none."""
        if shape is None:
            return None
        corners = [shape] if isinstance(shape, tuple) else [xy for ring in shape for xy in ring]
        for x, y in corners:
            west, south, east, north = self._bounds
            self._bounds = [min(west, x), min(south, y), max(east, x), max(north, y)]
        if isinstance(shape, tuple):
            self._types.add("Point")
            return struct.pack("<BI2d", 1, _POINT, *shape)
        polygons = [
            struct.pack("<BIII", 1, _POLYGON, 1, len(ring))
            + struct.pack(f"<{2 * len(ring)}d", *(value for corner in ring for value in corner))
            for ring in shape
        ]
        if len(polygons) == 1:
            self._types.add("Polygon")
            return polygons[0]
        self._types.add("MultiPolygon")
        return struct.pack("<BII", 1, _MULTIPOLYGON, len(polygons)) + b"".join(polygons)

    def metadata(self) -> dict[str, str]:
        """Key-value metadata of a Parquet file whose column `geometry` holds all these shapes:
        GeoParquet 1.1."""
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(self._types),
            "crs": MARS_CRS,
            "edges": "planar",
            "orientation": "counterclockwise",
        }
        if self._types:
            column["bbox"] = self._bounds
        told = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
        return {"geo": json.dumps(told)}
