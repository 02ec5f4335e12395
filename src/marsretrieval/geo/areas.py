"""Areas on the sphere of Mars, and outlines of groups of footprints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from marsretrieval.geo.sphere import MARS_RADIUS_M

_GRID_DEG = 1e-7  # 6 mm; edges closer than this are one edge
_NEAR_DEG = 1e-6  # tolerance of extents that stores hold in float32


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
