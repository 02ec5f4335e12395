"""Positions from GeoTIFFs, world files, JSON, GeoJSON and tables, and contradictory ones."""

from __future__ import annotations

import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marsretrieval.datasets import Record, open_images
from tests.datasets.layouts import encoded, images, read_all, write_parquet, write_tar
from tests.fakes import png_bytes

RADIUS = 3_396_190.0
METRES = math.radians(1) * RADIUS


def position_of(record: Record) -> tuple[Any, ...]:
    return record.lon, record.lat, record.width_deg, record.height_deg


def chip(crs: str | None, corner: tuple[float, float], pixel: tuple[float, float]) -> bytes:
    """Write a GeoTIFF of 20 x 10 pixels with its upper left corner at `corner`."""
    rasterio = pytest.importorskip("rasterio")
    with warnings.catch_warnings(), rasterio.MemoryFile() as memory:
        warnings.simplefilter("ignore")
        with memory.open(
            driver="GTiff",
            width=20,
            height=10,
            count=1,
            dtype="uint8",
            crs=None if crs is None else rasterio.CRS.from_string(crs),
            transform=rasterio.Affine(pixel[0], 0, corner[0], 0, -pixel[1], corner[1]),
        ) as file:
            file.write(np.arange(200, dtype=np.uint8).reshape(1, 10, 20))
        return bytes(memory.read())


def eqc(more: str = "", radius: float = RADIUS) -> str:
    return f"+proj=eqc +R={radius} +units=m +no_defs {more}"


OBLATE = f"+proj=eqc +a={RADIUS} +b=3376200 +units=m +no_defs"


@pytest.mark.parametrize(
    ("crs", "corner", "pixel"),
    [
        (f"+proj=longlat +R={RADIUS} +no_defs", (137.0, 40.2), (0.02, 0.02)),
        (f"+proj=longlat +R={RADIUS} +no_defs", (-223.0 + 360, 40.2), (0.02, 0.02)),
        (eqc(), (137 * METRES, 40.2 * METRES), (0.02 * METRES, 0.02 * METRES)),
        # The mosaic's own CRS has an ellipsoid, and pixels laid out on the sphere.
        (OBLATE, (137 * METRES, 40.2 * METRES), (0.02 * METRES, 0.02 * METRES)),
        (eqc("+lon_0=180"), (-43 * METRES, 40.2 * METRES), (0.02 * METRES, 0.02 * METRES)),
        (eqc("+lat_ts=60"), (137 * METRES / 2, 40.2 * METRES), (0.01 * METRES, 0.02 * METRES)),
        (eqc("+x_0=1000 +y_0=-500"), (137 * METRES + 1000, 40.2 * METRES - 500),
         (0.02 * METRES, 0.02 * METRES)),
        (eqc(radius=3_380_000), (137 * METRES * 3_380_000 / RADIUS,
                                 40.2 * METRES * 3_380_000 / RADIUS),
         (0.02 * METRES * 3_380_000 / RADIUS,) * 2),
        (None, (137.0, 40.2), (0.02, 0.02)),
        (None, (137 * METRES, 40.2 * METRES), (0.02 * METRES, 0.02 * METRES)),
    ],
)  # fmt: skip
def test_geotiff_has_the_expected_position(crs, corner, pixel, tmp_path: Path) -> None:
    data = chip(crs, corner, pixel)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.tif").write_bytes(data)
    tar = write_tar(tmp_path / "a.tar", [("a.tif", data)])
    table = write_parquet(tmp_path / "a.parquet", {"image": [{"bytes": data, "path": "a.tif"}]})
    for path in (tmp_path / "folder", tar, table):
        (record,) = read_all(open_images(path))
        assert record.warnings == ()
        assert position_of(record) == pytest.approx((137.2, 40.1, 0.4, 0.2), abs=1e-7)


def test_a_polar_projection_is_converted(tmp_path: Path) -> None:
    crs = f"+proj=stere +lat_0=90 +lon_0=0 +R={RADIUS} +units=m +no_defs"
    # 2 R tan((90 - lat) / 2) from the pole.
    distance = 2 * RADIUS * math.tan(math.radians(2.5))
    (tmp_path / "a.tif").write_bytes(chip(crs, (-100, -distance + 50), (10, 10)))
    (record,) = read_all(open_images(tmp_path))
    assert (record.lon, record.lat) == pytest.approx((0, 85), abs=1e-3)
    assert record.width_deg == pytest.approx(200 / METRES / math.cos(math.radians(85)), rel=1e-2)
    # Round the pole, the middle alone is known.
    (tmp_path / "a.tif").write_bytes(chip(crs, (-1000, 500), (100, 90)))
    (record,) = read_all(open_images(tmp_path))
    assert record.lat == pytest.approx(90, abs=0.01) and record.width_deg is None


def test_planetographic_latitudes_become_planetocentric(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    (tmp_path / "a.tif").write_bytes(chip("IAU_2015:49901", (-137.4, 45.1), (0.02, 0.02)))
    (record,) = read_all(open_images(tmp_path))
    expected = math.degrees(math.atan((3_376_200 / RADIUS) ** 2 * math.tan(math.radians(45))))
    assert abs(45 - expected) > 0.3
    # A GeoTIFF does not keep that longitudes of this CRS count to the west.
    assert (record.lon, record.lat) == pytest.approx((-137.2, expected), abs=1e-3)


@pytest.mark.parametrize(
    ("crs", "corner", "pixel", "words"),
    [
        ("EPSG:4326", (137.0, 40.2), (0.02, 0.02), "6,378 km radius, not Mars"),
        (f"+proj=longlat +R={RADIUS} +no_defs", (-180, 90), (18, 18), "360 degrees wide"),
        (f"+proj=longlat +R={RADIUS} +no_defs", (0, 95), (0.2, 0.2), "of latitude"),
    ],
)
def test_impossible_georeference_is_named(crs, corner, pixel, words, tmp_path) -> None:
    (tmp_path / "E137_2_N_4_6.tif").write_bytes(chip(crs, corner, pixel))
    (record,) = read_all(open_images(tmp_path))
    assert record.lon is None and record.data
    (warning,) = record.warnings
    assert warning.kind == "position" and words in warning.reason


def test_without_rasterio_the_extra_is_named(tmp_path: Path, monkeypatch) -> None:
    data = chip(f"+proj=longlat +R={RADIUS} +no_defs", (137.0, 40.2), (0.02, 0.02))
    (tmp_path / "a.tif").write_bytes(data)
    (tmp_path / "b.tif").write_bytes(encoded(kind="TIFF"))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    monkeypatch.setitem(sys.modules, "rasterio.errors", None)
    first, second = read_all(open_images(tmp_path))
    assert first.lon is None and "marsretrieval[geotiff]" in first.warnings[0].reason
    assert second.warnings == ()


WORLD = "0.01\n0\n0\n-0.01\n137.005\n40.195\n"
IN_METRES = f"{0.01 * METRES}\n0\n0\n{-0.01 * METRES}\n{137.005 * METRES}\n{40.195 * METRES}"


@pytest.mark.parametrize("text", [WORLD, WORLD.replace(".", ","), IN_METRES])
@pytest.mark.parametrize("suffix", [".pgw", ".PGW", ".pngw", ".wld"])
def test_world_files_are_read(text: str, suffix: str, tmp_path: Path) -> None:
    data = png_bytes(1, 20)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes(data)
    (tmp_path / "folder" / f"a{suffix}").write_text(text)
    tar = write_tar(tmp_path / "a.tar", [("a.png", data), (f"a{suffix}", text.encode())])
    for path in (tmp_path / "folder", tar):
        (record,) = read_all(open_images(path))
        assert position_of(record) == pytest.approx((137.1, 40.1, 0.2, 0.2), abs=1e-7)


def test_prj_file_sets_the_unit_of_a_world_file(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    (tmp_path / "a.png").write_bytes(png_bytes(1, 20))
    (tmp_path / "a.pgw").write_text(IN_METRES)
    (tmp_path / "a.prj").write_text(rasterio.CRS.from_string(eqc("+lon_0=20")).to_wkt())
    (record,) = read_all(open_images(tmp_path))
    assert position_of(record) == pytest.approx((157.1, 40.1, 0.2, 0.2), abs=1e-7)


@pytest.mark.parametrize("text", ["", "1 2 3", "a b c d e f", "nan 0 0 -1 0 0"])
def test_invalid_world_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_bytes(1, 20))
    (tmp_path / "a.pgw").write_text(text)
    (record,) = read_all(open_images(tmp_path))
    assert "six numbers" in record.warnings[0].reason


SQUARE = [[[10, 20], [10.4, 20], [10.4, 20.2], [10, 20.2], [10, 20]]]


@pytest.mark.parametrize(
    "fields",
    [
        {"bounds": "10, 20, 10.4, 20.2"},
        {"bbox": [10, 20, 10.4, 20.2]},
        {"bbox": [10, 20, -5, 10.4, 20.2, 5]},
        {"BBOX": [[10, 20], [10.4, 20.2]]},
        {"bounds": {"west": 10, "south": 20, "east": 10.4, "north": "20.2"}},
        {"bbox": {"xmin": 10, "ymin": 20, "xmax": 10.4, "ymax": 20.2}},
        {"lon": 10.2, "lat": 20.1, "width_deg": 0.4, "height_deg": 0.2},
        {"Longitude": "10.2", "Latitude": "20.1", "width_deg": 0.4, "height_deg": 0.2},
        {"centre": {"lon": 10.2, "lat": 20.1}, "width_deg": 0.4, "height_deg": 0.2},
        {"center": "10.2, 20.1", "width_deg": 0.4, "height_deg": 0.2},
        {"type": "Feature", "properties": {}, "geometry":
            {"type": "Polygon", "coordinates": SQUARE}},
        {"type": "Feature", "properties": None, "bbox": [10, 20, 10.4, 20.2], "geometry": None},
        {"type": "FeatureCollection", "features": [{"type": "Feature", "properties":
            {"lon": 10.2, "lat": 20.1}, "geometry":
            {"type": "MultiPolygon", "coordinates": [SQUARE]}}]},
        {"type": "Polygon", "coordinates": SQUARE},
    ],
)  # fmt: skip
def test_positions_in_json_under_every_usual_name(fields: Any, tmp_path: Path) -> None:
    members = [("k.png", png_bytes(1)), ("k.json", json.dumps(fields).encode())]
    (record,) = read_all(open_images(write_tar(tmp_path / "a.tar", members)))
    assert record.warnings == ()
    assert position_of(record) == pytest.approx((10.2, 20.1, 0.4, 0.2), abs=1e-9)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bounds": [10, 0, 8, 1]}, "east 8 is less than west 10"),
        ({"bounds": [0, 0, 10, 1], "center": [11, 0.5]}, "is outside the bounds"),
        ({"bounds": [0, 0, 200, 1]}, "200 degrees wide"),
        ({"bounds": [0, 80, 1, 91]}, "not a position"),
        ({"bounds": [0, 5, 1, 4]}, "south 5 is not below north 4"),
        ({"lon": 10, "lat": -95}, "not a position"),
        ({"lon": 10}, "without a latitude"),
        ({"lon": "ten", "lat": 1}, "should be numbers"),
        ({"lon": 1, "lat": 1, "width_deg": 200, "height_deg": 1}, "200 x 1 degrees"),
        ({"type": "FeatureCollection", "features": []}, "0 features"),
        ({"geometry": {"type": "Curve"}}, "GeoJSON geometry"),
        ({"geometry": {"type": "Polygon", "coordinates": [[["x", 1]]]}}, "coordinates"),
        ({"type": "Feature", "geometry": {"type": "Point", "coordinates": [8e6, 2e6]}},
         "not a position"),
    ],
)  # fmt: skip
def test_contradictory_positions_are_named(fields: Any, words: str, tmp_path: Path) -> None:
    key = "E10_0_N20_0"  # its name must not stand in for what is contradictory
    members = [(f"{key}.png", png_bytes(1)), (f"{key}.json", json.dumps(fields).encode())]
    (record,) = read_all(open_images(write_tar(tmp_path / "a.tar", members)))
    assert isinstance(record, Record) and position_of(record) == (None,) * 4
    (warning,) = record.warnings
    assert warning.kind == "position" and words in warning.reason


def test_pixel_boxes_and_missing_geometries_are_not_positions(tmp_path: Path) -> None:
    for fields in (
        {"bbox": [4, 5, 64, 64], "category_id": 3},
        {"type": "Feature", "geometry": None, "properties": {}},
        {"version": "5.0", "shapes": [], "imageData": None},
    ):
        members = [("k.png", png_bytes(1)), ("k.json", json.dumps(fields).encode())]
        (record,) = read_all(open_images(write_tar(tmp_path / "a.tar", members)))
        assert (record.lon, record.warnings) == (None, ())


def test_a_footprint_over_the_antimeridian(tmp_path: Path) -> None:
    parts = [[[[179.9, 0], [180, 0], [180, 0.4], [179.9, 0]]],
             [[[-180, 0], [-179.9, 0], [-179.9, 0.4], [-180, 0]]]]  # fmt: skip
    fields = {"type": "MultiPolygon", "coordinates": parts}
    members = [("k.png", png_bytes(1)), ("k.json", json.dumps(fields).encode())]
    (record,) = read_all(open_images(write_tar(tmp_path / "a.tar", members)))
    assert position_of(record) == pytest.approx((-180, 0.2, 0.2, 0.4), abs=1e-9)


@pytest.mark.parametrize(("lon", "lat"), [("lon", "lat"), ("longitude", "latitude")])
def test_positions_in_columns(lon: str, lat: str, tmp_path: Path) -> None:
    columns = {
        "image": images(3),
        lon: [10.2, None, 10.0],
        lat: [20.1, None, 99.0],
        "width_deg": [0.4, None, 0.4],
        "height_deg": [0.2, None, 0.2],
        "valid": [0.75, None, 2.0],
    }
    first, second, third = read_all(open_images(write_parquet(tmp_path / "a.parquet", columns)))
    assert (*position_of(first), first.valid) == pytest.approx((10.2, 20.1, 0.4, 0.2, 0.75))
    assert (*position_of(second), second.valid, second.warnings) == (*(None,) * 5, ())
    assert [warning.kind for warning in third.warnings] == ["annotation", "position"]
    assert "0 to 1, not 2.0" in third.warnings[0].reason


@pytest.mark.parametrize(
    ("fields", "label", "caption", "count"),
    [
        ({"label": 2.0}, "2", None, 0),
        ({"label": ["dune", "crater"]}, None, None, 1),
        ({"caption": ["a dune", "dunes"]}, None, "a dune", 1),
        ({"caption": 5, "label": "dune"}, "dune", None, 1),
        ({"label": {}, "caption": "words"}, None, "words", 1),
    ],
)
def test_valid_parts_of_invalid_annotations_are_used(
    fields, label, caption, count, tmp_path
) -> None:
    (tmp_path / "a.png").write_bytes(png_bytes(1))
    (tmp_path / "a.json").write_text(json.dumps(fields))
    (record,) = read_all(open_images(tmp_path))
    assert (record.label, record.caption, len(record.warnings)) == (label, caption, count)
