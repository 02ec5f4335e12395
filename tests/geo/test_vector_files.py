"""Regions in GIS vector formats give the same area as GeoJSON."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from marsretrieval.errors import DataError, MarsRetrievalWarning, MissingDependencyError
from marsretrieval.geo import MARS_CRS, Area, Box

FORMATS = [".gpkg", ".shp", ".fgb", ".parquet", ".geoparquet", ".geojson"]
SEAM = shapely.MultiPolygon([shapely.box(170, -20, 180, 5), shapely.box(-180, -20, -170, 5)])
WITH_HOLE = shapely.box(0, 0, 40, 40) - shapely.box(10, 10, 30, 30)
NORTH = shapely.Polygon([((lon + 180) % 360 - 180, 70) for lon in range(0, 361, 30)])
UNIT = shapely.box(0, 0, 1, 1)


def grid() -> tuple[Any, Any]:
    lon, lat = np.meshgrid(np.arange(-179.65, 180, 0.7), np.arange(-89.65, 90, 0.7))
    return lon.ravel(), lat.ravel()


def write(
    path: Path, shapes: list[Any], crs: Any = "IAU_2015:49900", layer: str | None = None
) -> Path:
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.GeoDataFrame({"n": range(len(shapes))}, geometry=shapes, crs=crs)
    if path.suffix in (".parquet", ".geoparquet"):
        frame.to_parquet(path)
    else:
        frame.to_file(path, layer=layer) if layer else frame.to_file(path)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    ("shapes", "boxes"),
    [
        ([SEAM], [Box(170, -20, -170, 5)]),
        ([shapely.box(350, -20, 370, 5)], [Box(-10, -20, 10, 5)]),
        ([shapely.box(-100, -60, 100, 60)], [Box(-100, -60, 100, 60)]),
        ([shapely.box(-180, -90, 180, 90)], [Box(-180, -90, 180, 90)]),
        ([shapely.box(0, 0, 9, 9), SEAM], [Box(0, 0, 9, 9), Box(170, -20, -170, 5)]),
    ],
)
def test_every_format_gives_the_area(
    suffix: str, shapes: list[Any], boxes: list[Box], tmp_path: Path
) -> None:
    lon, lat = grid()
    area = Area.read(write(tmp_path / f"region{suffix}", shapes))
    expected = np.any([box.contains(lon, lat) for box in boxes], axis=0)
    np.testing.assert_array_equal(area.contains(lon, lat), expected)


@pytest.mark.parametrize("suffix", FORMATS)
def test_holes_and_poles(suffix: str, tmp_path: Path) -> None:
    lon, lat = grid()
    area = Area.read(write(tmp_path / f"region{suffix}", [WITH_HOLE, NORTH]))
    expected = Box(0, 0, 40, 40).contains(lon, lat) & ~Box(10, 10, 30, 30).contains(lon, lat)
    expected |= lat > 70
    np.testing.assert_array_equal(area.contains(lon, lat), expected)


@pytest.mark.parametrize("suffix", FORMATS)
def test_metres_of_mars_are_converted(suffix: str, tmp_path: Path) -> None:
    lon, lat = grid()
    size = 10 * 3_396_190 * np.pi / 180
    path = write(tmp_path / f"a{suffix}", [shapely.box(-size, -size, size, size)], "IAU_2015:49910")
    expected = Box(-10, -10, 10, 10).contains(lon, lat)
    np.testing.assert_array_equal(Area.read(path).contains(lon, lat), expected)


@pytest.mark.parametrize(
    ("suffix", "crs"),
    [
        (".parquet", "IAU_2015:49901"),  # a GeoPackage calls its axes eastward
        (".parquet", "IAU_2015:49902"),
        (".gpkg", "IAU_2015:49902"),
        (".parquet", "+proj=longlat +R=3396000"),
        (".gpkg", "+proj=longlat +R=3396000"),
    ],
)
def test_other_prime_meridians_of_mars_are_converted(suffix: str, crs: str, tmp_path: Path) -> None:
    lon, lat = grid()
    sign = -1 if crs == "IAU_2015:49901" else 1  # longitudes of this system are west positive
    for west, east in ((0, 360), (170, 190), (-180, 180), (-100, 100), (80, 100)):
        path = write(tmp_path / f"region{suffix}", [shapely.box(west, -90, east, 90)], crs)
        low, high = sorted((sign * west, sign * east))
        box = Box(low, -90, high, 90)
        np.testing.assert_array_equal(Area.read(path).contains(lon, lat), box.contains(lon, lat))


def test_planetographic_latitudes_become_planetocentric(tmp_path: Path) -> None:
    path = write(tmp_path / "region.parquet", [shapely.box(10, 0, 20, 60)], "IAU_2015:49901")
    (box,) = Area.read(path).boxes
    centric = np.degrees(np.arctan((3_376_200 / 3_396_190) ** 2 * np.tan(np.radians(60))))
    assert (box.west, box.south, box.east) == pytest.approx((-20, 0, -10))
    assert box.north == pytest.approx(centric)


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_without_a_reference_system_is_in_degrees_of_mars(
    suffix: str, tmp_path: Path
) -> None:
    area = Area.read(write(tmp_path / f"region{suffix}", [UNIT], None))
    assert area.contains([0.5, 2], [0.5, 0.5]).tolist() == [True, False]


@pytest.mark.parametrize("suffix", FORMATS[:-1])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "IAU_2015:30100"])
def test_other_bodies_are_refused(suffix: str, crs: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a system of the Earth|is not a system of Mars") as caught:
        Area.read(write(tmp_path / f"region{suffix}", [UNIT], crs))
    assert "IAU_2015:49900" in str(caught.value) and f"region{suffix}" in str(caught.value)


@pytest.mark.parametrize("suffix", FORMATS)
def test_points_and_missing_geometries_are_errors(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a Point is not an area"):
        Area.read(write(tmp_path / f"points{suffix}", [shapely.Point(1, 2)]))
    if suffix == ".fgb":  # GDAL writes none
        return
    with pytest.raises(DataError, match="a feature has no geometry"):
        Area.read(write(tmp_path / f"none{suffix}", [UNIT, None]))


@pytest.mark.parametrize("suffix", FORMATS[:-1])
def test_damaged_files_are_errors(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"region{suffix}"
    with pytest.raises(DataError, match="no such file"):
        Area.read(path)
    intact = write(path, [WITH_HOLE]).read_bytes()
    for content in (b"", b"{}", b"<VRTDataset/>", intact[: len(intact) // 3]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"region{suffix}"):
            Area.read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=f"region{suffix}"):
        Area.read(path)


def test_one_of_several_layers_is_chosen_by_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "two.gpkg", [UNIT], layer="first")
    write(path, [shapely.box(20, 0, 21, 1)], layer="second")
    with pytest.raises(DataError, match=r"2 layers \(first, second\)[\s\S]*--region-layer"):
        Area.read(path)
    for layer, expected in (("first", [True, False]), ("second", [False, True])):
        area = Area.read(path, layer=layer)
        assert area.contains([0.5, 20.5], [0.5, 0.5]).tolist() == expected
    with pytest.raises(DataError, match=r"no layer 'third' \(there are: first, second\)"):
        Area.read(path, layer="third")
    flat = write(tmp_path / "a.geojson", [UNIT])
    with pytest.raises(DataError, match="a file without layers"):
        Area.read(flat, layer="first")


def test_a_zipped_shapefile_is_read(tmp_path: Path) -> None:
    write(tmp_path / "region.shp", [SEAM])
    archive = tmp_path / "region.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for part in sorted(tmp_path.glob("region.*")):
            if part != archive:
                target.write(part, f"export/{part.name}")
        target.writestr("export/README.txt", "dunes")
    area = Area.read(archive)
    assert area.contains([175, -175, 0], [0, 0, 0]).tolist() == [True, True, False]
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("README.txt", "dunes")
    with pytest.raises(DataError, match="no Shapefile in the archive"):
        Area.read(archive)


def test_parquet_files_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "region.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(DataError, match="no column of geometries"):
        Area.read(path)
    pq.write_table(pa.table({"geometry": [shapely.to_wkb(UNIT)]}), path)  # no metadata
    assert Area.read(path).contains(0.5, 0.5).all()
    pq.write_table(pa.table({"geometry": [b"nonsense"]}), path)
    with pytest.raises(DataError, match="invalid geometry"):
        Area.read(path)
    for columns, message in (
        ({"shape": {"encoding": "polygon"}}, "encoded as polygon, not WKB"),
        ([], "invalid GeoParquet metadata"),
        ({"shape": {"encoding": "WKB", "crs": {"name": "?"}}}, "unknown coordinate reference"),
    ):
        described = {"geo": json.dumps({"primary_column": "shape", "columns": columns})}
        table = pa.table({"shape": [shapely.to_wkb(UNIT)]}).replace_schema_metadata(described)
        pq.write_table(table, path)
        with pytest.raises(DataError, match=message):
            Area.read(path)
    described["geo"] = json.dumps(
        {"primary_column": "shape", "columns": {"shape": {"encoding": "WKB", "crs": MARS_CRS}}}
    )
    pq.write_table(table.replace_schema_metadata(described), path)
    assert Area.read(path).contains(0.5, 0.5).all()


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "region.gpkg", [UNIT])
    monkeypatch.setitem(__import__("sys").modules, "pyogrio", None)
    with pytest.raises(MissingDependencyError, match=r"marsretrieval\[gis\]"):
        Area.read(path)


def test_kml_is_read_as_degrees_of_mars_with_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("pyogrio")
    corners = "0,0,0 1,0,0 1,1,0 0,1,0 0,0,0"
    polygon = f"<Polygon><outerBoundaryIs><LinearRing><coordinates>{corners}</coordinates>"
    polygon += "</LinearRing></outerBoundaryIs></Polygon>"
    path = tmp_path / "region.kml"
    path.write_text(
        '<?xml version="1.0"?><kml xmlns="http://www.opengis.net/kml/2.2"><Document>'
        f"<Placemark><name>a</name>{polygon}</Placemark></Document></kml>"
    )
    with pytest.warns(MarsRetrievalWarning, match="degrees are used as longitudes"):
        assert Area.read(path).contains([0.5, 2], [0.5, 0.5]).tolist() == [True, False]
    path.write_text("<OGRVRTDataSource/>")
    with pytest.raises(DataError, match=r"region\.kml: not a kml file"):
        Area.read(path)
