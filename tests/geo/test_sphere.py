"""Tests of tile names, angles, boxes and footprints."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from marsretrieval import geo
from marsretrieval.errors import UsageError
from tests.shared import shared_file

longitudes = st.floats(-180, 180, exclude_max=True)
latitudes = st.floats(-90, 90)
TILE_CASES = [
    ("E137_2_N_4_6.png", (137.2, -4.6)),
    ("E_0_2_N0_0.png", (-0.2, 0.0)),
    ("E_180_0_N_80_0.png", (-180.0, -80.0)),
    ("a/b/E12_4_N3_0.png", (12.4, 3.0)),
    ("E1_25_N2_75.png", (1.25, 2.75)),
    ("E12_N3.png", None),
    ("E12_4_N3_0.jpg", None),
    ("E12_4_N3_0", None),
    ("crater.png", None),
]


@pytest.mark.parametrize(("name", "corner"), TILE_CASES)
def test_published_tile_names(name: str, corner: tuple[float, float] | None) -> None:
    assert geo.parse_tile_name(name) == corner


def test_golden_tile_names() -> None:
    cases = json.loads(shared_file("golden/golden.json").read_text())
    (tiles,) = [case for case in cases if case["task"] == "tile_name"]
    for case in tiles["cases"]:
        expected = None if case["lonlat"][0] is None else tuple(case["lonlat"])
        assert geo.parse_tile_name(case["name"]) == expected, case["name"]


@pytest.mark.parametrize(
    ("name", "corner"),
    [
        ("E137_2_N_4_6", (137.2, -4.6)),
        ("E12_N3", (12.0, 3.0)),
        ("E12_4_N3_0.jpg", (12.4, 3.0)),
        ("E999_0_N3_0", None),
        ("E12_4_N93_0", None),
        ("E_0_0_N_0_0", (0.0, 0.0)),
        ("DE12_4_N3_0", None),
        ("", None),
    ],
)
def test_tolerant_tile_corner(name: str, corner: tuple[float, float] | None) -> None:
    assert geo.tile_corner(name) == corner


def test_tile_centre_is_half_a_tile_north_east() -> None:
    assert geo.tile_centre("E0_2_N0_2") == (0.3, 0.3)
    assert geo.tile_centre("E179_8_N_80_0") == (179.9, -79.9)
    assert geo.tile_centre("E1_25_N2_75", delta=0.25) == (1.375, 2.875)
    assert geo.tile_centre("note.txt") is None


@given(
    column=st.integers(-900, 899),
    row=st.integers(-450, 449),
    delta=st.sampled_from([0.2, 0.1, 0.25, 0.125, 0.05, 1.0, 2.0]),
)
def test_tile_name_is_read_back_by_the_published_rule(column: int, row: int, delta: float) -> None:
    lon, lat = column * 0.2, row * 0.2
    lon, lat = round(lon / delta) * delta, round(lat / delta) * delta
    name = geo.tile_name(lon, lat, delta)
    read = geo.parse_tile_name(name + ".png")
    assert read == pytest.approx((lon, lat), abs=1e-9)
    assert geo.tile_corner(name) == read


def test_tile_name_equals_the_published_name() -> None:
    assert geo.tile_name(137.2, -4.6) == "E137_2_N_4_6"
    assert geo.tile_name(-4.0, -0.0) == "E_4_0_N0_0"
    assert geo.tile_name(-0.2 + 0.2, 79.8) == "E0_0_N79_8"


@pytest.mark.parametrize(
    ("name", "corner"),
    [
        ("MurrayLab_CTX_V01_E-004_N-04_Mosaic.tif", (-4, -4)),
        ("MurrayLab_GlobalCTXMosaic_V01_E-004_N-04.zip", (-4, -4)),
        ("mosaic/MurrayLab_CTX_V01_E000_N40_Mosaic.tif", (0, 40)),
        ("MurrayLab_CTX_V01_E-180_N84_Mosaic.tif", (-180, 84)),
        ("E137_2_N_4_6.png", None),
        ("MurrayLab_CTX_V01_E999_N40_Mosaic.tif", None),
        ("readme.txt", None),
    ],
)
def test_quad_names(name: str, corner: tuple[int, int] | None) -> None:
    assert geo.parse_quad_name(name) == corner


@given(longitudes, st.floats(-88, 88, exclude_max=True))
def test_quad_name_holds_its_point(lon: float, lat: float) -> None:
    corner = geo.parse_quad_name(geo.quad_name(lon, lat))
    assert corner is not None
    west, south = corner
    assert west <= lon < west + 4
    assert south <= lat < south + 4
    assert geo.quad_name(west, south) == geo.quad_name(lon, lat)


@given(st.floats(-1e4, 1e4))
def test_wrapping_keeps_the_meridian(lon: float) -> None:
    half, full = float(geo.wrap_lon(lon)), float(geo.lon_180_to_360(lon))
    assert -180 <= half < 180
    assert 0 <= full < 360
    for moved in (half, full):
        turns = (moved - lon) / 360
        assert abs(turns - round(turns)) < 1e-12
    if -180 <= lon < 180:
        assert half == lon


def test_wrapping_arrays_and_edges() -> None:
    np.testing.assert_array_equal(
        geo.wrap_lon([180.0, -180.0, 360.0, 359.9, 137.3, np.nextafter(-180, -200)]),
        [-180.0, -180.0, 0.0, 359.9 - 360, 137.3, -180.0],
    )
    np.testing.assert_array_equal(geo.lon_180_to_360([-1.0, 0.0, 360.0]), [359.0, 0.0, 0.0])
    assert np.isnan(geo.wrap_lon(np.nan))


@given(longitudes, latitudes)
def test_metres_and_back(lon: float, lat: float) -> None:
    x, y = geo.lonlat_to_metres(lon, lat)
    back = geo.metres_to_lonlat(x, y)
    assert np.allclose(back, (lon, lat), atol=1e-10)


def test_metres_of_the_mosaic() -> None:
    x, y = geo.lonlat_to_metres(-60.0, -56.0)  # corner reported for the real quad E-060_N-56
    assert x == pytest.approx(-3556481.85, abs=0.02)
    assert y == pytest.approx(-3319383.06, abs=0.02)


@given(longitudes, latitudes, longitudes, latitudes)
def test_great_circle_agrees_with_unit_vectors(
    lon1: float, lat1: float, lon2: float, lat2: float
) -> None:
    angle = float(geo.great_circle_deg(lon1, lat1, lon2, lat2))
    a, b = geo.unit_vectors(lon1, lat1)[0], geo.unit_vectors(lon2, lat2)[0]
    expected = math.degrees(2 * math.atan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))
    assert angle == pytest.approx(expected, abs=1e-5)  # haversine is least exact at antipodes
    assert angle == pytest.approx(float(geo.great_circle_deg(lon2, lat2, lon1, lat1)), abs=1e-9)


def test_great_circle_known_values() -> None:
    assert geo.great_circle_deg(179.9, 0, -179.9, 0) == pytest.approx(0.2)
    assert geo.great_circle_deg(0, 90, 120, 90) == pytest.approx(0, abs=1e-12)
    assert geo.great_circle_deg(0, 60, 1, 60) == pytest.approx(0.49999, abs=1e-4)
    assert geo.great_circle_deg([0, 0], [0, 0], [90, 180], [0, 0]).tolist() == [90.0, 180.0]


def test_near_any_equals_the_distance_matrix() -> None:
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-180, 180, 400), rng.uniform(-85, 85, 400)
    points_lon, points_lat = rng.uniform(-180, 180, 60), rng.uniform(-85, 85, 60)
    matrix = geo.great_circle_deg(lon[:, None], lat[:, None], points_lon, points_lat)
    near = geo.near_any(lon, lat, points_lon, points_lat, 5.0)
    np.testing.assert_array_equal(near, (matrix <= 5.0).any(axis=1))
    assert near.any()
    assert not geo.near_any(lon, lat, [], [], 5.0).any()
    assert geo.near_any([], [], points_lon, points_lat, 5.0).shape == (0,)


def test_box_parses_and_holds_its_edges() -> None:
    box = geo.Box.parse("130, -10, 140, 0")
    assert (box.width, box.height) == (10, 10)
    np.testing.assert_array_equal(
        box.contains([130, 140, 135, 129.99, np.nan, 135], [-10, 0, -5, -5, 0, 0.01]),
        [True, True, True, False, False, False],
    )


def test_box_over_the_antimeridian_and_in_either_convention() -> None:
    box = geo.Box.parse("170.1,-5,-170.3,5")
    assert box.width == pytest.approx(19.6)
    lon = np.array([170.1, 180, -180, -170.3, 189.7, 0, 169.9, -170.2])
    expected = [True, True, True, True, True, False, False, False]
    np.testing.assert_array_equal(box.contains(lon, np.zeros(8)), expected)
    same = geo.Box(170.1, -5, 189.7, 5)
    np.testing.assert_array_equal(same.contains(lon, np.zeros(8)), expected)


@pytest.mark.parametrize(
    "text",
    ["", "1,2,3", "a,b,c,d", "0,10,10,0", "0,-91,10,0", "0,0,0,10", "400,0,500,1", "nan,0,1,1",
     "180,0,-180,1"],
)  # fmt: skip
def test_wrong_boxes_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        geo.Box.parse(text)


def test_whole_planet_box() -> None:
    for box in (geo.Box(-180, -90, 180, 90), geo.Box(0, -90, 360, 90)):
        assert box.width == 360
        assert box.contains([-180, 0, 179.9, 359], [-90, 0, 90, 1]).all()


@given(
    st.tuples(longitudes, st.floats(1, 359)),
    st.tuples(longitudes, st.floats(1, 359)),
    st.integers(0, 2**32 - 1),
)
def test_overlap_is_symmetric_and_agrees_with_points(
    first: tuple[float, float], second: tuple[float, float], seed: int
) -> None:
    a, b = (
        geo.Box(lon, -10, float(geo.wrap_lon(lon + width)), 10) for lon, width in (first, second)
    )
    assert a.overlaps(b) == b.overlaps(a)
    lon = np.random.default_rng(seed).uniform(-180, 180, 200)
    both = a.contains(lon, np.zeros(200)) & b.contains(lon, np.zeros(200))
    if both.any():
        assert a.overlaps(b)


def test_overlap_needs_more_than_an_edge() -> None:
    assert not geo.Box(0, 0, 4, 4).overlaps(geo.Box(4, 0, 8, 4))
    assert not geo.Box(0, 0, 4, 4).overlaps(geo.Box(0, 4, 4, 8))
    assert geo.Box(176, 0, -176, 4).overlaps(geo.Box(-180, 0, -176, 4))


def _area(ring: geo.Ring) -> float:
    pairs = itertools.pairwise(ring)
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs) / 2


@given(
    longitudes, st.floats(-80, 80), st.sampled_from([0.2, 1.0, 30.0]), st.sampled_from([180, 360])
)
def test_footprints_keep_their_area_and_their_domain(
    lon: float, lat: float, size: float, domain: int
) -> None:
    rings = geo.footprint(lon, lat, size, 0.2, domain=domain)
    start = -180 if domain == 180 else 0
    assert sum(map(_area, rings)) == pytest.approx(size * 0.2, rel=1e-6)  # counter-clockwise: > 0
    for ring in rings:
        assert ring[0] == ring[-1]
        assert all(start <= x <= start + 360 for x, _ in ring)


def test_footprint_at_the_seam_is_split() -> None:
    west_ring, east_ring = geo.footprint(-180.0, 10.0, 0.2, 0.2)
    assert {x for x, _ in west_ring} == {179.9, 180.0}
    assert {x for x, _ in east_ring} == {-180.0, -179.9}
    assert len(geo.footprint(179.9, 10.0, 0.2, 0.2)) == 1
    assert len(geo.footprint(0.0, 10.0, 0.2, 0.2, domain=360)) == 2
    assert len(geo.footprint(0.0, 10.0, 0.2, 0.2)) == 1
    assert geo.footprint(0.0, 89.95, 360.0, 0.2) == [
        [(-180.0, 89.85), (180.0, 89.85), (180.0, 90.0), (-180.0, 90.0), (-180.0, 89.85)]
    ]


def test_outlines_of_many_tiles_equal_single_outlines() -> None:
    numbers = np.random.default_rng(5)
    lon = np.concatenate([numbers.uniform(-180, 360, 2000).round(6), np.arange(-180, 361, 0.2)])
    lat = numbers.uniform(-90, 90, len(lon)).round(6)
    width = numbers.choice(np.float32([0.2, 0.1953125, 4, 359.9, 360, 400, np.nan]), len(lon))
    height = numbers.choice(np.float32([0.2, 0.1953125, 4, np.nan]), len(lon))
    lon[::50], lat[::70] = np.nan, np.nan
    shapes = [geo.outline(*map(float, row)) for row in zip(lon, lat, width, height, strict=True)]
    expected = shapely.to_wkb(geo.to_shapely(shapes)).tolist()
    assert shapely.to_wkb(geo.outlines(lon, lat, width, height)).tolist() == expected
    assert len(geo.outlines([], [], [], [])) == 0


def test_geometries_have_their_kinds_and_corners() -> None:
    square = [(1.0, 2.0), (3.0, 2.0), (3.0, 4.0), (1.0, 4.0), (1.0, 2.0)]
    other = [(x + 10, y) for x, y in square]
    shapes: list[geo.Shape | None] = [None, (5.0, 6.0), [square], [square, other], [other]]
    assert [shape and shape.wkt for shape in geo.to_shapely(shapes)] == [
        None,
        "POINT (5 6)",
        "POLYGON ((1 2, 3 2, 3 4, 1 4, 1 2))",
        "MULTIPOLYGON (((1 2, 3 2, 3 4, 1 4, 1 2)), ((11 2, 13 2, 13 4, 11 4, 11 2)))",
        "POLYGON ((11 2, 13 2, 13 4, 11 4, 11 2))",
    ]
    column = geo.GeometryColumn()
    assert column.encode(geo.to_shapely([None])) == [None]
    assert "bbox" not in json.loads(column.metadata()["geo"])["columns"]["geometry"]
    wkb = column.encode(geo.to_shapely(shapes))
    assert wkb[1] == b"\x01\x01\0\0\0" + np.array([5.0, 6.0], "<f8").tobytes()
    described = json.loads(column.metadata()["geo"])["columns"]["geometry"]
    assert described["bbox"] == [1, 2, 13, 6]
    assert described["geometry_types"] == ["MultiPolygon", "Point", "Polygon"]
