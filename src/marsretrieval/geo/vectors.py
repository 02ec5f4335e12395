"""Tile footprints and their GIS geometries: conversion, areas, groups and outlines.

Includes the coordinate reference system of Mars.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.geo.sphere import MARS_RADIUS_M, lon_180_to_360, wrap_lon

Ring = list[tuple[float, float]]  # closed, counter-clockwise, (lon, lat) degrees

_DECIMALS = 9

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

_TYPE_NAMES = {0: "Point", 3: "Polygon", 6: "MultiPolygon"}  # by shapely's type ids

_GRID_DEG = 1e-7  # 6 mm; edges closer than this are one edge
_NEAR_DEG = 1e-6  # tolerance of extents that stores hold in float32


def footprint(
    lon: float, lat: float, width_deg: float, height_deg: float, *, domain: int = 180
) -> list[Ring]:
    """Return the outline of a tile: one ring, or two if it crosses the seam.

    The seam is at 180 degrees for `domain` 180 and at 0 degrees for `domain` 360. Corners beyond a
    pole are clipped to it.

    Args:
        lon: Longitude of the centre, degrees.
        lat: Latitude of the centre, degrees.
        width_deg: Width in degrees of longitude.
        height_deg: Height in degrees.
        domain: Longitude range: 180 for -180 to 180, 360 for 0 to 360.

    Returns:
        Closed, counter-clockwise rings.
    """
    south = round(max(lat - height_deg / 2, -90.0), _DECIMALS)
    north = round(min(lat + height_deg / 2, 90.0), _DECIMALS)
    start = -180.0 if domain == 180 else 0.0
    if width_deg >= 360:
        return [_rectangle(start, south, start + 360, north)]
    middle = float(wrap_lon(lon) if domain == 180 else lon_180_to_360(lon))
    west = round(middle - width_deg / 2, _DECIMALS)
    east = round(middle + width_deg / 2, _DECIMALS)
    end = start + 360
    if west < start:
        return [
            _rectangle(round(west + 360, _DECIMALS), south, end, north),
            _rectangle(start, south, east, north),
        ]
    if east > end:
        return [
            _rectangle(west, south, end, north),
            _rectangle(start, south, round(east - 360, _DECIMALS), north),
        ]
    return [_rectangle(west, south, east, north)]


def _rectangle(west: float, south: float, east: float, north: float) -> Ring:
    return [(west, south), (east, south), (east, north), (west, north), (west, south)]


def outline(
    lon: float, lat: float, width_deg: float, height_deg: float, *, domain: int = 180
) -> Shape | None:
    """Return the shape of a tile.

    Args:
        lon: Longitude of the centre, degrees; NaN if unknown.
        lat: Latitude of the centre, degrees; NaN if unknown.
        width_deg: Width in degrees of longitude; NaN if unknown.
        height_deg: Height in degrees; NaN if unknown.
        domain: Longitude range: 180 for -180 to 180, 360 for 0 to 360.

    Returns:
        The footprint; the centre if the extent is unknown, None if the position is unknown.
    """
    if not (math.isfinite(lon) and math.isfinite(lat)):
        return None
    if math.isfinite(width_deg) and math.isfinite(height_deg):
        # Stores hold extents in float32; restore 0.2 exactly.
        return footprint(lon, lat, round(width_deg, 6), round(height_deg, 6), domain=domain)
    return float(wrap_lon(lon) if domain == 180 else lon_180_to_360(lon)), lat


def geojson_geometry(shape: Shape | None) -> dict[str, Any] | None:
    """Convert a shape to GeoJSON.

    Args:
        shape: A point, rings or None.

    Returns:
        A Point, Polygon or MultiPolygon; None (GeoJSON null) for None.
    """
    if shape is None:
        return None
    if isinstance(shape, tuple):
        return {"type": "Point", "coordinates": list(shape)}
    polygons = [[[list(corner) for corner in ring]] for ring in shape]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def wkt(shape: Shape | None) -> str:
    """Convert a shape to well-known text.

    Args:
        shape: A point, rings or None.

    Returns:
        WKT; empty for None.
    """
    if shape is None:
        return ""
    if isinstance(shape, tuple):
        return f"POINT ({_pair(shape)})"
    rings = [f"(({', '.join(map(_pair, ring))}))" for ring in shape]
    return f"POLYGON {rings[0]}" if len(rings) == 1 else f"MULTIPOLYGON ({', '.join(rings)})"


def _pair(corner: tuple[float, float]) -> str:
    return f"{corner[0]:.9g} {corner[1]:.9g}"


def to_shapely(shapes: Sequence[Shape | None]) -> npt.NDArray[np.object_]:
    """Make shapely geometries.

    Args:
        shapes: Shapes of n tiles.

    Returns:
        Array of shape (n,): Point, Polygon, MultiPolygon, or None for None.
    """
    import shapely

    geometries = np.full(len(shapes), None, dtype=object)
    points = [row for row, shape in enumerate(shapes) if isinstance(shape, tuple)]
    areas = [(row, shape) for row, shape in enumerate(shapes) if isinstance(shape, list)]
    if points:
        geometries[points] = shapely.points([shapes[row] for row in points])
    rings = [ring for _, shape in areas for ring in shape]
    if rings:
        corners = np.array([corner for ring in rings for corner in ring], dtype=np.float64)
        ring_of = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
        polygons = shapely.polygons(shapely.linearrings(corners, indices=ring_of))
        geometries[[row for row, _ in areas]] = _join_polygons(polygons, [len(s) for _, s in areas])
    return geometries


def outlines(
    lon: npt.ArrayLike, lat: npt.ArrayLike, width_deg: npt.ArrayLike, height_deg: npt.ArrayLike
) -> npt.NDArray[np.object_]:
    """Make the geometries of many tiles.

    Args:
        lon: Longitudes of the centres in degrees, shape (n,); NaN where unknown.
        lat: Latitudes of the centres.
        width_deg: Extents in longitude; NaN where unknown.
        height_deg: Extents in latitude.

    Returns:
        Array of shapely geometries, shape (n,): `to_shapely` of every `outline`, longitudes
        -180..180.
    """
    import shapely

    x, y, width, height = (
        np.asarray(values, dtype=np.float64) for values in (lon, lat, width_deg, height_deg)
    )
    west, east = (np.round(wrap_lon(x) + sign * np.round(width, 6) / 2, 9) for sign in (-1, 1))
    south, north = (
        np.round(np.clip(y + sign * np.round(height, 6) / 2, -90.0, 90.0), 9) for sign in (-1, 1)
    )
    # NaN, the antimeridian and global tiles are rare and converted one by one.
    is_plain = (west >= -180) & (east <= 180) & (width < 360) & np.isfinite(south)
    others = np.flatnonzero(~is_plain)
    sides = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    corners = np.stack([np.stack(side, axis=-1)[is_plain] for side in sides], axis=1)
    geometries = np.full(len(x), None, dtype=object)
    geometries[is_plain] = shapely.polygons(corners)
    boxes = zip(x[others], y[others], width[others], height[others], strict=True)
    geometries[others] = to_shapely([outline(*map(float, box)) for box in boxes])
    return geometries


def _join_polygons(
    polygons: npt.NDArray[np.object_], counts: Sequence[int]
) -> npt.NDArray[np.object_]:
    """Join consecutive polygons into one Polygon or MultiPolygon per count."""
    import shapely

    starts = np.cumsum([0, *counts[:-1]])
    joined: npt.NDArray[np.object_] = polygons[starts]
    for row in np.flatnonzero(np.asarray(counts) > 1).tolist():
        joined[row] = shapely.multipolygons(polygons[starts[row] : starts[row] + counts[row]])
    return joined


class GeometryColumn:
    """Encode geometries as WKB and collect the GeoParquet metadata of their column."""

    def __init__(self) -> None:
        self._types: set[str] = set()
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def encode(self, geometries: npt.NDArray[np.object_]) -> list[bytes | None]:
        """Encode some rows of the column.

        Args:
            geometries: Array of shapely geometries and None, shape (n,).

        Returns:
            Little-endian WKB, None for None.
        """
        import shapely

        present = geometries[~shapely.is_missing(geometries)]
        self._types |= {_TYPE_NAMES[number] for number in np.unique(shapely.get_type_id(present))}
        if len(present):
            bounds = shapely.total_bounds(present)
            self._bounds[:2] = np.minimum(self._bounds[:2], bounds[:2])
            self._bounds[2:] = np.maximum(self._bounds[2:], bounds[2:])
        encoded: list[bytes | None] = shapely.to_wkb(geometries, byte_order=1).tolist()
        return encoded

    def metadata(self) -> dict[str, str]:
        """Key-value metadata (GeoParquet 1.1) of a file whose column `geometry` this is."""
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(self._types),
            "crs": MARS_CRS,
            "edges": "planar",
            "orientation": "counterclockwise",
        }
        if self._types:
            column["bbox"] = self._bounds.tolist()
        described = {
            "version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column},
        }  # fmt: skip
        return {"geo": json.dumps(described)}


def area_km2(geometries: npt.NDArray[np.object_]) -> npt.NDArray[np.float64]:
    """Compute areas on the sphere of polygons whose edges are straight in longitude and latitude.

    By Green's theorem the area is R^2 times the integral of -sin(lat) d(lon) around the outline.
    An edge from (lon1, lat1) to (lon2, lat2) contributes
    (lon2 - lon1) (cos(lat1) - cos(lat2)) / (lat2 - lat1), exactly; on a parallel,
    (lon2 - lon1) sin(lat). For a box this is R^2 (lon2 - lon1) (sin(lat2) - sin(lat1)), the area
    in Lambert's cylindrical equal-area projection (Snyder, Map Projections: A Working Manual,
    USGS Professional Paper 1395, 1987, eq. 10-1 and 10-2).

    Args:
        geometries: Shapely geometries and None, shape (n,), coordinates in degrees.

    Returns:
        Square kilometres, shape (n,); NaN for geometries that are not polygons.
    """
    import shapely

    kinds = shapely.get_type_id(geometries)
    areas = np.full(len(geometries), np.nan)
    polygonal = np.flatnonzero(np.isin(kinds, (3, 6)))
    parts, owner = shapely.get_parts(geometries[polygonal], return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    corners, ring = shapely.get_coordinates(rings, return_index=True)
    lon, lat = np.radians(corners).T
    same = ring[1:] == ring[:-1]
    d_lon, d_lat = np.diff(lon)[same], np.diff(lat)[same]
    start, end = lat[:-1][same], lat[1:][same]
    # 2 sin(m) sin(d/2) / d of the middle m: the quotient of cosines without cancellation.
    mean = np.sin((start + end) / 2) * np.sinc(d_lat / (2 * np.pi))
    sums = np.abs(np.bincount(ring[:-1][same], weights=-mean * d_lon, minlength=len(rings)))
    is_hole = np.concatenate([[False], part[1:] == part[:-1]]) if len(part) else part > 0
    of_parts = np.bincount(part, weights=np.where(is_hole, -sums, sums), minlength=len(parts))
    totals = np.bincount(owner, weights=of_parts, minlength=len(polygonal))
    areas[polygonal] = totals * (MARS_RADIUS_M / 1000) ** 2
    return areas


def touching_groups(geometries: npt.NDArray[np.object_]) -> list[list[int]]:
    """Group polygons that overlap or touch, directly or through others.

    Args:
        geometries: Shapely geometries, shape (n,), degrees; others than polygons are left out. The
            edges of the longitude range, 360 degrees apart, are neighbours.

    Returns:
        Ascending indices of each group, in the order of the first.
    """
    import shapely
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    members = np.flatnonzero(np.isin(shapely.get_type_id(geometries), (3, 6)))
    if not len(members):
        return []
    shapes = geometries[members]
    tree = shapely.STRtree(shapes)
    first, second = tree.query(shapes, predicate="dwithin", distance=_NEAR_DEG)
    turned = shapely.transform(shapes, lambda xy: xy + np.array([360.0, 0.0]))
    west, east = tree.query(turned, predicate="dwithin", distance=_NEAR_DEG)
    pairs = np.concatenate([first, west]), np.concatenate([second, east])
    links = coo_array((np.ones(len(pairs[0]), dtype=np.int8), pairs), shape=(len(shapes),) * 2)
    _, labels = connected_components(links, directed=False)
    groups: dict[int, list[int]] = {}
    for index, label in zip(members.tolist(), labels.tolist(), strict=True):
        groups.setdefault(label, []).append(index)
    return list(groups.values())


def merge_outlines(geometries: Sequence[object]) -> object:
    """Merge polygons into one outline.

    Args:
        geometries: Shapely polygons and multipolygons.

    Returns:
        Their union, a MultiPolygon, counter-clockwise.
    """
    import shapely

    union = shapely.union_all(np.asarray(geometries, dtype=object), grid_size=_GRID_DEG)
    parts = [part for part in shapely.get_parts(union) if shapely.get_type_id(part) == 3]
    return shapely.multipolygons([shapely.geometry.polygon.orient(part) for part in parts])
