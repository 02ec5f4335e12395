"""Areas from GeoJSON: holes, seams, poles and invalid files."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsretrieval.errors import DataError, MarsRetrievalWarning
from marsretrieval.geo import Area, Box


def polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [list(ring) for ring in rings]}


def ring(west: float, south: float, east: float, north: float) -> list[list[float]]:
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


def grid() -> tuple[Any, Any]:
    """Return cell centres at 0.7 degrees, none on a whole degree."""
    lon, lat = np.meshgrid(np.arange(-179.65, 180, 0.7), np.arange(-89.65, 90, 0.7))
    return lon.ravel(), lat.ravel()


@pytest.mark.parametrize(
    ("drawn", "box"),
    [
        (ring(10, -20, 30, 5), Box(10, -20, 30, 5)),
        (ring(-30, -20, -10, 5), Box(-30, -20, -10, 5)),
        (ring(330, -20, 350, 5), Box(-30, -20, -10, 5)),  # 0..360
        (ring(350, -20, 370, 5), Box(-10, -20, 10, 5)),  # over the prime meridian, 0..360
        (ring(170, -20, 190, 5), Box(170, -20, -170, 5)),  # beyond 180
        (ring(-190, -20, -170, 5), Box(170, -20, -170, 5)),  # beyond -180
        (ring(170, -20, -170, 5), Box(170, -20, -170, 5)),  # with a jump
        (ring(350, -20, 10, 5), Box(-10, -20, 10, 5)),  # with a jump, 0..360
        (ring(-180, -90, 180, 90), Box(-180, -90, 180, 90)),
        (ring(0, -30, 360, 30), Box(-180, -30, 180, 30)),
        (ring(-180, 60, 180, 90), Box(-180, 60, 180, 90)),
        (ring(0, 0, 180, 30), Box(0, 0, 180, 30)),
        (list(reversed(ring(10, -20, 30, 5))), Box(10, -20, 30, 5)),
    ],
)
def test_a_rectangle_is_a_box(drawn: Any, box: Box) -> None:
    lon, lat = grid()
    area = Area.from_geojson(polygon(drawn))
    expected = box.contains(lon, lat)
    np.testing.assert_array_equal(area.contains(lon, lat), expected)
    np.testing.assert_array_equal(area.contains(lon + 360, lat), expected)
    covered = np.any([part.contains(lon, lat) for part in area.boxes], axis=0)
    assert covered[expected].all()
    assert not area.contains([np.nan, 0], [0, np.nan]).any()


def test_holes_islands_and_several_polygons() -> None:
    lon, lat = grid()
    outer, hole = ring(0, 0, 40, 40), ring(10, 10, 30, 30)
    with_hole = Area.from_geojson(polygon(outer, hole))
    expected = Box(0, 0, 40, 40).contains(lon, lat) & ~Box(10, 10, 30, 30).contains(lon, lat)
    np.testing.assert_array_equal(with_hole.contains(lon, lat), expected)
    # A hole written in the other system of longitudes.
    west = Area.from_geojson(polygon(ring(-40, 0, 0, 40), ring(330, 10, 350, 30)))
    expected = Box(-40, 0, 0, 40).contains(lon, lat) & ~Box(-30, 10, -10, 30).contains(lon, lat)
    np.testing.assert_array_equal(west.contains(lon, lat), expected)
    # Polygons that overlap are united.
    both = {"type": "MultiPolygon", "coordinates": [[ring(0, 0, 20, 20)], [ring(10, 10, 30, 30)]]}
    expected = Box(0, 0, 20, 20).contains(lon, lat) | Box(10, 10, 30, 30).contains(lon, lat)
    np.testing.assert_array_equal(Area.from_geojson(both).contains(lon, lat), expected)


def test_features_and_collections() -> None:
    lon, lat = grid()
    one = {"type": "Feature", "properties": {}, "geometry": polygon(ring(170, 0, 180, 10))}
    other = {"type": "Feature", "geometry": polygon(ring(-180, 0, -170, 10))}
    area = Area.from_geojson({"type": "FeatureCollection", "features": [one, other]})
    np.testing.assert_array_equal(area.contains(lon, lat), Box(170, 0, -170, 10).contains(lon, lat))
    geometries = {
        "type": "GeometryCollection",
        "geometries": [one["geometry"], other["geometry"]],
    }
    np.testing.assert_array_equal(
        Area.from_geojson(geometries).contains(lon, lat), area.contains(lon, lat)
    )


@pytest.mark.parametrize("start", [0, 170])
@pytest.mark.parametrize("way", [1, -1])
@pytest.mark.parametrize("edge", [70, -70])
def test_a_ring_round_a_pole_encloses_it(start: int, way: int, edge: int) -> None:
    lons = [(start + way * step + 180) % 360 - 180 for step in range(0, 361, 30)]
    area = Area.from_geojson(polygon([[lon, edge] for lon in lons]))
    lon, lat = grid()
    expected = lat > edge if edge > 0 else lat < edge
    np.testing.assert_array_equal(area.contains(lon, lat), expected)


@given(
    corners=st.lists(
        st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=3, max_size=12, unique=True
    ),
    shift=st.sampled_from([0, 175, -175, 90, 355]),
    lat=st.floats(-19.5, 19.5),
)
def test_even_odd_rule_equals_counting_crossings(
    corners: list[tuple[float, float]], shift: float, lat: float
) -> None:
    closed = [*corners, corners[0]]
    if len({x + shift for x, _ in corners}) < 2 or len({y for _, y in corners}) < 2:
        return
    lon = np.linspace(-21, 21, 97) + 1e-4
    area = Area.from_geojson(polygon([[x + shift, y] for x, y in closed]))
    contained = area.contains(lon + shift, np.full(len(lon), lat))
    for x, inside in zip(lon, contained, strict=True):
        crossings, nearest = 0, 1.0
        for (x1, y1), (x2, y2) in itertools.pairwise(closed):
            if (y1 <= lat) != (y2 <= lat):
                at = x1 + (lat - y1) / (y2 - y1) * (x2 - x1)
                nearest = min(nearest, abs(at - x))
                crossings += x < at
        assert nearest < 1e-9 or inside == (crossings % 2 == 1)


def test_neighbouring_regions_partition_positions() -> None:
    lon, lat = np.meshgrid(np.arange(0, 20.0), np.arange(0, 20.0))  # on the edges, too
    parts = [
        Area.from_geojson(polygon(ring(x, y, x + 5, y + 5)))
        for x in range(0, 20, 5)
        for y in range(0, 20, 5)
    ]
    count = sum(part.contains(lon.ravel(), lat.ravel()).astype(int) for part in parts)
    assert (count == 1).all()


@pytest.mark.parametrize("shift", [0, 175, 340])
def test_neighbours_share_slanted_edges_and_no_position(shift: float) -> None:
    steps = np.arange(1, 40) * 0.5
    for corner in (20, 7, 13.3):  # the edge from 0, 0 to `corner`, 20
        west_ring = [[0, 0], [corner, 20], [0, 20], [0, 0]]
        east_ring = [[0, 0], [corner, 0], [corner, 20], [0, 0]]
        parts = [
            Area.from_geojson(polygon([[x + shift, y] for x, y in part]))
            for part in (west_ring, east_ring)
        ]
        x, y = steps * corner / 20 + shift, steps
        assert (sum(part.contains(x, y).astype(int) for part in parts) == 1).all()


def test_many_vertices_are_fast() -> None:
    angle = np.linspace(0, 2 * np.pi, 20001)
    radius = 40 + 5 * np.sin(40 * angle)
    drawn = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    drawn[-1] = drawn[0]
    area = Area.from_geojson(polygon(drawn.tolist()))
    lon, lat = grid()
    distance, bearing = np.hypot(lon, lat), np.arctan2(lat, lon)
    edge = 40 + 5 * np.sin(40 * bearing)
    sure = np.abs(distance - edge) > 0.05
    np.testing.assert_array_equal(area.contains(lon, lat)[sure], (distance < edge)[sure])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "not a GeoJSON object"),
        ({"type": "Point", "coordinates": [0, 0]}, "a Point is not an area"),
        ({"type": "FeatureCollection", "features": []}, "no polygon"),
        ({"type": "FeatureCollection"}, "features: not a list"),
        ({"type": "Feature", "geometry": None}, "no geometry"),
        ({"coordinates": []}, "without type"),
        (polygon(), "no ring"),
        (polygon([[0, 0], [1, 1], [0, 0]]), "3 positions"),
        (polygon(ring(0, 0, 1, 1)[:-1]), "not closed"),
        (polygon([[0, 0], [1, 0], [1, "x"], [0, 0]]), "not a number"),
        (polygon([[0, 0], [1, 0], [1], [0, 0]]), "not a list of longitude and latitude"),
        (polygon([[0, 0], [1, 0], [None, 1], [0, 0]]), "not"),
        (polygon(ring(0, 0, 5, 0)), "no area"),
        (polygon(ring(0, 0, 0, 5)), "no area"),
        (polygon(ring(0, 0, 592000, 30000)), "not in degrees"),
        (polygon(ring(0, 0, 10, 91)), "not in degrees"),
        (polygon([[x % 360, 60] for x in range(0, 721, 30)]), "more than once"),
    ],
)
def test_invalid_region_files_are_explained(tmp_path: Path, value: Any, message: str) -> None:
    path = tmp_path / "region.geojson"
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=message) as caught:
        Area.read(path)
    assert str(path) in str(caught.value) and "GeoJSON" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        Area.read(tmp_path / "none.geojson")
    (tmp_path / "bad.geojson").write_text("{")
    with pytest.raises(DataError, match="not readable as JSON"):
        Area.read(tmp_path / "bad.geojson")


@pytest.mark.parametrize(
    ("west", "east"), [(-100, 100), (-179.9999, 179.9999), (-170, 120), (0, 200), (20, 350)]
)
@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_a_wide_rectangle_is_its_box(west: float, east: float, first: int) -> None:
    corners = ring(west, -60, east, 60)[:-1]
    turned = [*corners[first:], *corners[:first]]
    area = Area.from_geojson(polygon([*turned, turned[0]]))
    lon, lat = grid()
    np.testing.assert_array_equal(
        area.contains(lon, lat), Box(west, -60, east, 60).contains(lon, lat)
    )
    covered = np.any([box.contains(lon, lat) for box in area.boxes], axis=0)
    assert covered[area.contains(lon, lat)].all()


def test_direction_of_a_wide_ring_selects_the_side() -> None:
    lon, lat = grid()
    with pytest.warns(MarsRetrievalWarning, match="clockwise ring from -100 to 100"):
        area = Area.from_geojson(polygon(list(reversed(ring(-100, -60, 100, 60)))))
    expected = Box(100, -60, -100, 60).contains(lon, lat)
    np.testing.assert_array_equal(area.contains(lon, lat), expected)


def test_a_wide_triangle_has_straight_edges() -> None:
    area = Area.from_geojson(polygon([[-100, 0], [100, 0], [0, 50], [-100, 0]]))
    assert area.contains([0, 0, 90, 170, -170], [1, 49, 2, 1, 60]).tolist() == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_small_overlap_of_the_antimeridian_is_preserved() -> None:
    drawn = [[170, -60], [180, -1], [-175, 0], [180, 1], [170, 60], [100, 0], [170, -60]]
    area = Area.from_geojson(polygon(drawn))
    assert area.contains([-178, -170, 0, 150, 90], [0, 0, 0, 0, 0]).tolist() == [
        True, False, False, True, False,
    ]  # fmt: skip


def test_holes_wider_than_half_the_planet() -> None:
    lon, lat = grid()
    for outer in (ring(-180, -80, 180, 80), ring(-150, -80, 150, 80)):
        area = Area.from_geojson(polygon(outer, list(reversed(ring(-100, -60, 100, 60)))))
        expected = Box(outer[0][0], -80, outer[1][0], 80).contains(lon, lat)
        expected &= ~Box(-100, -60, 100, 60).contains(lon, lat)
        np.testing.assert_array_equal(area.contains(lon, lat), expected)


def test_geometries_of_other_libraries() -> None:
    shapely = pytest.importorskip("shapely")
    geopandas = pytest.importorskip("geopandas")
    lon, lat = grid()
    shape = shapely.box(130, -10, 140, 0)
    series = geopandas.GeoSeries([shape], crs=pyproj_mars())
    frame = geopandas.GeoDataFrame({"name": ["a"]}, geometry=series)
    expected = Box(130, -10, 140, 0).contains(lon, lat)
    for value in (shape, shapely.geometry.mapping(shape), series, frame):
        np.testing.assert_array_equal(Area.from_geojson(value).contains(lon, lat), expected)
    projected = frame.to_crs("IAU_2015:49910")
    np.testing.assert_array_equal(Area.from_geojson(projected).contains(lon, lat), expected)


def pyproj_mars() -> Any:
    from marsretrieval.geo import MARS_CRS

    return pytest.importorskip("pyproj").CRS.from_json_dict(MARS_CRS)


def in_metres(crs: str, size: float) -> dict[str, Any]:
    member = {"type": "name", "properties": {"name": crs}}
    return {**polygon(ring(-size, -size, size, size)), "crs": member}


def test_coordinates_in_metres_are_converted() -> None:
    pytest.importorskip("pyproj")
    lon, lat = grid()
    metres = 3_396_190 * np.pi / 180
    area = Area.from_geojson(in_metres("urn:ogc:def:crs:IAU:2015::49910", 10 * metres))
    expected = Box(-10, -10, 10, 10).contains(lon, lat)
    np.testing.assert_array_equal(area.contains(lon, lat), expected)
    # A square about the north pole, in polar stereographic metres.
    area = Area.from_geojson(in_metres("IAU_2015:49930", 10 * metres))
    colatitude = np.degrees(2 * np.arctan(np.radians(10) / 2))
    assert area.contains(lon, lat)[lat > 90 - colatitude + 0.5].all()
    assert not area.contains(lon, lat)[lat < 90 - 1.5 * colatitude].any()


@pytest.mark.parametrize("crs", ["EPSG:3857", "urn:ogc:def:crs:EPSG::32632", "IAU_2015:30110"])
def test_projected_systems_of_other_bodies_are_refused(crs: str) -> None:
    pytest.importorskip("pyproj")
    with pytest.raises(DataError, match="is not a system of Mars"):
        Area.from_geojson(in_metres(crs, 20.0))
    with pytest.raises(DataError, match="unknown coordinate reference system"):
        Area.from_geojson(in_metres("EPSG:999999", 20.0))


@pytest.mark.parametrize("crs", ["urn:ogc:def:crs:OGC:1.3:CRS84", "EPSG:4326"])
def test_degrees_of_the_earth_are_used_with_a_warning(crs: str) -> None:
    with pytest.warns(MarsRetrievalWarning, match="a system of the Earth"):
        area = Area.from_geojson(in_metres(crs, 20.0))
    assert area.contains([0, 30], [0, 0]).tolist() == [True, False]


def test_the_system_of_own_files_needs_no_conversion(recwarn: pytest.WarningsRecorder) -> None:
    for crs in ("urn:ogc:def:crs:IAU:2015:49900", "urn:ogc:def:crs:IAU:2015::49900"):
        assert Area.from_geojson(in_metres(crs, 20.0)).contains(0, 0).all()
    assert not len(recwarn)


@pytest.mark.parametrize("suffix", [".gpkg", ".shp"])
def test_a_planetographic_layer_is_refused_for_its_unknown_direction(
    suffix: str, tmp_path: Path
) -> None:
    geopandas = pytest.importorskip("geopandas")
    shapely = pytest.importorskip("shapely")
    path = tmp_path / f"west{suffix}"
    geopandas.GeoDataFrame(geometry=[shapely.box(10, 0, 20, 10)], crs="IAU_2015:49901").to_file(
        path
    )
    with pytest.raises(DataError, match="positive to the east or to the west"):
        Area.read(path)


def test_a_file_of_another_format_names_the_formats_of_regions(tmp_path: Path) -> None:
    table = tmp_path / "hits.csv"
    table.write_text("rank,lon,lat\n1,2,3\n")
    with pytest.raises(DataError, match="not readable as JSON") as caught:
        Area.read(table)
    assert "Give polygons as GeoJSON, GeoPackage" in (caught.value.remedy or "")
