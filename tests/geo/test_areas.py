"""Areas on the sphere, against closed formulas and an independent integration."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from marsretrieval.geo import MARS_RADIUS_M, area_km2, merge_outlines, outline, touching_groups
from marsretrieval.geo import to_shapely as shapes_of

R_KM = MARS_RADIUS_M / 1000


def shapely_array(*geometries: object) -> np.ndarray:
    array = np.full(len(geometries), None, dtype=object)
    array[:] = geometries
    return array


@pytest.mark.parametrize(
    "box", [(0, 0, 1, 1), (-180, -90, 180, 90), (10, 60, 12.5, 88), (-1, -90, 1, -80)]
)
def test_boxes_have_the_area_of_their_formula(box: tuple[float, float, float, float]) -> None:
    west, south, east, north = np.radians(box)
    expected = R_KM**2 * (east - west) * (np.sin(north) - np.sin(south))
    (area,) = area_km2(shapely_array(shapely.box(*box)))
    assert area == pytest.approx(expected, rel=1e-12)


def test_the_planet_and_a_small_tile() -> None:
    planet, tile = area_km2(
        shapely_array(shapely.box(-180, -90, 180, 90), shapely.box(0, 0, 1e-4, 1e-4))
    )
    assert planet == pytest.approx(4 * np.pi * R_KM**2, rel=1e-12)
    assert tile == pytest.approx((np.radians(1e-4) * R_KM) ** 2, rel=1e-9)


def test_slanted_edges_holes_and_other_geometries() -> None:
    triangle = shapely.Polygon([(0, 0), (40, 10), (10, 60)])
    holed = shapely.box(0, 0, 30, 30) - shapely.box(10, 10, 20, 20)
    clockwise = shapely.Polygon(list(triangle.exterior.coords)[::-1])
    parts = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(5, 0, 6, 1)])
    areas = area_km2(shapely_array(triangle, holed, clockwise, parts, shapely.Point(1, 1), None))
    # Midpoint rule over cells of 0.05 degrees, each weighted with the cosine of its latitude.
    lon, lat = np.meshgrid(np.arange(0.025, 60, 0.05), np.arange(0.025, 60, 0.05))
    cell = (np.radians(0.05) * R_KM) ** 2 * np.cos(np.radians(lat))
    for area, shape in zip(areas, (triangle, holed), strict=False):
        inside = shapely.contains_xy(shape, lon, lat)
        assert area == pytest.approx(float((cell * inside).sum()), rel=1e-3)
    assert areas[2] == pytest.approx(areas[0])
    (one,) = area_km2(shapely_array(shapely.box(0, 0, 1, 1)))
    assert areas[3] == pytest.approx(2 * one)
    assert np.isnan(areas[4:]).all()


def test_groups_of_tiles_that_touch() -> None:
    side = 0.2
    centres = [
        (0.1, 0.1),
        (0.3, 0.1),
        (0.5, 0.3),
        (1.1, 0.1),
        (179.9, 5.1),
        (-179.9, 5.1),
        (180.0, 8),
    ]
    tiles = shapes_of([outline(lon, lat, side, side) for lon, lat in centres])
    tiles = np.append(tiles, np.array([shapely.Point(0.1, 0.1)], dtype=object))
    assert touching_groups(tiles) == [[0, 1, 2], [3], [4, 5], [6]]
    assert touching_groups(tiles[:0]) == []
    merged = merge_outlines(list(tiles[:2]))
    assert isinstance(merged, shapely.MultiPolygon) and len(merged.geoms) == 1
    assert merged.area == pytest.approx(0.08) and merged.geoms[0].exterior.is_ccw
