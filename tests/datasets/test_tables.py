"""Tables with various delimiters, encodings, units, west longitudes, and GIS files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from marsretrieval.datasets import (
    PositionColumns,
    TileCoverage,
    catalogue_files,
    read_points,
)
from marsretrieval.datasets.ground_truth import Points
from marsretrieval.errors import MissingDependencyError, TableError

GALE = (137.4, -4.6)
NORTH = (-60.2, 77.1)


def write(folder: Path, data: bytes | str, name: str = "craters.csv") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def positions(path: Path, columns: PositionColumns | None = None) -> list[tuple[float, float]]:
    points = read_points(path, columns=columns)
    return [(round(lon, 6), round(lat, 6)) for lon, lat in zip(points.lon, points.lat, strict=True)]


@pytest.mark.parametrize(
    "data",
    [
        "lon,lat\n137.4,-4.6\n-60.2,77.1\n",
        "id;lon;lat\na;137,4;-4,6\nb;-60,2;77,1\n",
        'lon, lat\n"137,4", "-4,6"\n"-60,2", "77,1"\n',
        "lon lat\n137.4 -4.6\n-60.2  77.1\n",
        "lon|lat\n137.4|-4.6\n-60.2|77.1\n",
        "sep=;\nlon;lat\n137.4;-4.6\n-60.2;77.1\n",
        "# JMARS shapes\n# longitude=east\n\nlon,lat,name\n137.4,-4.6,a\n# more\n-60.2,77.1,b\n",
        "# lon lat\n137.4 -4.6\n-60.2 77.1\n",
        "lon,lat,name\ndeg,deg,-\n137.4,-4.6,a\n-60.2,77.1,b\n",
        "lon\tlat\n(°E)\t(°N)\n-----\t-----\n137.4\t-4.6\n-60.2\t77.1\n",
        "Name,Lon_E,Lat_N,Lon_W\na,137.4,-4.6,222.6\nb,299.8,77.1,60.2\n",
        "CRATER_ID,LAT_CIRC_IMG,LON_CIRC_IMG,LAT_ELLI_IMG\n1,-4.6,137.4,0\n2,77.1,-60.2,0\n",
        "Feature_Name,Center_Latitude,Center_Longitude\na,-4.6,137.4\nb,77.1,299.8\n",
        "x,y\n137.4,-4.6\n-60.2,77.1\n",
        "Longitude (°E),Latitude [deg]\n137.4°,4.6°S\n60.2 W,\N{MINUS SIGN}-0\n".replace(
            "\N{MINUS SIGN}-0", "77.1"
        ),
        "name,lon_w,lat\na,222.6,-4.6\nb,60.2,77.1\n",
        "# longitude=west\nlon,lat\n222.6,-4.6\n60.2,77.1\n",
        "lon,lat\r\n137.4,-4.6,\r\n-60.2,77.1,\r\n\r\n",
        "\ufefflon,lat\n137.4,-4.6\n-60.2,77.1\n",
        "lon,lat\n137.4,-4.6\n-60.2,77.1\n".encode("utf-16"),
        "lon,lat\n137.4,-4.6\n-60.2,77.1\n".encode("utf-16-le"),
        "lon,lat,name\n137.4,-4.6,Galé\n-60.2,77.1,b\n".encode("latin-1"),
        f'lon,lat,footprint\n137.4,-4.6,"POLYGON (({"137.0 -4.6, " * 20_000}))"\n-60.2,77.1,\n',
    ],
)
def test_positions_are_read_from_many_table_layouts(data: bytes | str, tmp_path: Path) -> None:
    assert positions(write(tmp_path, data)) == [GALE, NORTH]


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,lon,lat\n222.6,-4.6,1,2\n60.2,77.1,3,4\n")
    assert positions(path, PositionColumns("A", "b", west=True)) == [GALE, NORTH]
    assert positions(path) == [(1, 2), (3, 4)]
    west = write(tmp_path, "lon_w,lat\n137.4,-4.6\n-60.2,77.1\n", "w.csv")
    assert positions(west, PositionColumns(west=False)) == [GALE, NORTH]
    with pytest.raises(TableError, match=r"no column 'c' .columns: a, b, lon, lat") as raised:
        read_points(path, columns=PositionColumns("c", "b"))
    assert "--lon-column" in str(raised.value)
    with pytest.raises(TableError, match="both from 'a'"):
        read_points(path, columns=PositionColumns("a", "a"))


def test_box_edges_are_not_read_as_positions(tmp_path: Path) -> None:
    path = write(tmp_path, "lon_w,lon_e,lat_s,lat_n\n137,138,-5,-4\n")
    with pytest.raises(TableError, match="no column 'lon'"):
        read_points(path)


def test_skipped_rows_and_assumptions_are_named(tmp_path: Path) -> None:
    text = "lon,lat,n\n137.4,-4.6,a\n,,none\n1,N/A,half\n-9999,-9999,x\n-60.2,77.1,b\n"
    points = read_points(write(tmp_path, text))
    assert points.skipped == ("line 3", "line 4", "line 5")
    assert "3 rows without a position left out (line 3, line 4, line 5)" in points.notes[-1]
    assert points.to_dict()["skipped"] == 3
    for data, words in (
        (b"name,Lon_W,lat\na,222.6,-4.6\n", "'Lon_W' are read as positive to the west"),
        ("lon,lat,n\n1,2,é\n".encode("latin-1"), "read as Latin-1"),
        (b"lon,lat\ndeg,deg\n1,2\n", "line 2 holds units"),
        (b"lon,lat\n1,2\n# end\n", "comments between the rows left out: line 3"),
        (b"clon,clat\n1,2\n", "positions are read from clon and clat"),
    ):
        (note,) = read_points(write(tmp_path, data)).notes
        assert words in note and "craters.csv" in note


def test_files_that_are_not_tables_are_named(tmp_path: Path) -> None:
    for data, words in (
        (b"\x89PNG\r\n\0\0\0", "binary data"),
        (b"PK\x03\x04lon,lat\0", "binary data"),
        (b"lon,lat\n1_000,2\n", "line 2: no numbers"),
    ):
        with pytest.raises(TableError, match=words):
            read_points(write(tmp_path, data))
    for name in ("a.gpkg", "a.shp", "a.fgb", "a.parquet", "a.geojson"):
        path = write(tmp_path, "<OGRVRTDataSource><SrcDataSource>/vsicurl/x", name)
        with pytest.raises(TableError, match=name):
            read_points(path)
    with pytest.raises(TableError, match="not a file"):
        read_points(Path(os.devnull))


def test_geojson_points_need_no_library(tmp_path: Path) -> None:
    features = [
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [*position, 0]},
         "properties": {"name": "a"}}
        for position in (GALE, (299.8, 77.1))
    ]  # fmt: skip
    features.append({"type": "Feature", "geometry": None, "properties": None})
    collection = {"type": "FeatureCollection", "features": features}
    path = write(tmp_path, json.dumps(collection), "craters.geojson")
    assert positions(path) == [GALE, NORTH]
    assert read_points(path).skipped == ("feature 3",)
    features[0]["geometry"] = {"type": "Point", "coordinates": [8123123.0, -4.6]}
    write(tmp_path, json.dumps(collection), "craters.geojson")
    with pytest.raises(TableError, match=r"feature 1 lies at 8.12312e\+06"):
        read_points(path)
    features[0]["geometry"] = {"type": "Point", "coordinates": "x"}
    write(tmp_path, json.dumps(collection), "craters.geojson")
    with pytest.raises(TableError, match="feature 1: invalid coordinates"):
        read_points(path)
    write(tmp_path, "[]", "craters.geojson")
    with pytest.raises(TableError, match="not a GeoJSON FeatureCollection"):
        read_points(path)


def test_parquet_columns_are_read(tmp_path: Path) -> None:
    table = pa.table({"Lon": pa.array([137.4, -60.2]), "Lat": pa.array([-4.6, 77.1])})
    pq.write_table(table, tmp_path / "craters.parquet")
    assert positions(tmp_path / "craters.parquet") == [GALE, NORTH]


@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.fgb", "a.geojson", "a.parquet"])
def test_geometries_of_gis_files_are_read(name: str, tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    pytest.importorskip("pyogrio")
    import shapely

    seam = shapely.MultiPolygon([shapely.box(179, 0, 180, 2), shapely.box(-180, 0, -179, 2)])
    shapes = [shapely.Point(GALE), shapely.box(-61.2, 76.1, -59.2, 78.1), seam]
    if name == "a.shp":  # one kind of geometry a file
        shapes = [shapely.box(136.4, -5.6, 138.4, -3.6), *shapes[1:]]
    frame = geopandas.GeoDataFrame({"n": [1, 2, 3]}, geometry=shapes, crs="IAU_2015:49900")
    path = tmp_path / name
    frame.to_parquet(path) if name == "a.parquet" else frame.to_file(path)
    result = positions(path)
    assert result[:2] == [GALE, NORTH]
    assert abs(abs(result[2][0]) - 180) < 1e-9 and result[2][1] == 1


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".fgb", ".geojson", ".parquet"])
def test_metres_become_degrees_by_the_formulas_of_the_sphere(suffix: str, tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    import shapely

    def points_of(shapes: list[shapely.Geometry], crs: str | None) -> Points:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}{suffix}"
        frame = geopandas.GeoDataFrame({"n": range(len(shapes))}, geometry=shapes, crs=crs)
        frame.to_parquet(path) if suffix == ".parquet" else frame.to_file(path)
        return read_points(path)

    lon, lat = np.array([137.4, -60.2, 179.9]), np.array([-4.6, 77.1, 0.5])
    metres = np.radians(np.column_stack([lon, lat])) * 3_396_190
    points = points_of([shapely.Point(*xy) for xy in metres], "IAU_2015:49910")
    order = np.argsort(points.lon)  # FlatGeobuf sorts features
    np.testing.assert_allclose(points.lon[order], np.sort(lon), atol=1e-6)
    np.testing.assert_allclose(points.lat[order], lat[np.argsort(lon)], atol=1e-6)
    # Polar stereographic on a sphere (Snyder 1987, 21-1): rho = 2 R tan(45 deg - lat / 2).
    crs = "+proj=stere +lat_0=90 +lon_0=0 +R=3396190 +units=m +no_defs"
    for pole_lon, pole_lat in ((30.0, 80.0), (-150.0, 88.5)):
        rho = 2 * 3_396_190 * np.tan(np.radians(45 - pole_lat / 2))
        x, y = rho * np.sin(np.radians(pole_lon)), -rho * np.cos(np.radians(pole_lon))
        if suffix == ".geojson":  # its member crs holds names of authorities only
            continue
        points = points_of([shapely.Point(x, y)], crs)
        assert points.lon[0] == pytest.approx(pole_lon, abs=1e-6)
        assert points.lat[0] == pytest.approx(pole_lat, abs=1e-6)
    points = points_of([shapely.Point(GALE)], None)
    assert (points.lon[0], points.lat[0]) == pytest.approx(GALE)
    if suffix != ".geojson":
        assert "no reference system" in " ".join(points.notes)
        for other in ("EPSG:4326", "EPSG:3857", "IAU_2015:30100"):
            with pytest.raises(
                TableError, match=r"system of the Earth|not a system of Mars|is not one of Mars"
            ):
                points_of([shapely.Point(GALE)], other)
    with pytest.raises(TableError, match="not degrees"):
        points_of([shapely.Point(8_123_123, -272_000)], None)


def test_columns_take_precedence_over_geometries_and_contradictions_are_named(
    tmp_path: Path,
) -> None:
    geopandas = pytest.importorskip("geopandas")
    import shapely

    frame = geopandas.GeoDataFrame(
        {"lon": [137.4, 60.2], "lat": [-4.6, 77.1]},
        geometry=[shapely.Point(GALE), shapely.Point(NORTH)], crs="IAU_2015:49900",
    )  # fmt: skip
    frame.to_file(tmp_path / "a.gpkg")
    points = read_points(tmp_path / "a.gpkg")
    assert points.lon.tolist() == [137.4, 60.2]
    assert "1 of 2 positions in lon and lat differ from the geometries" in points.notes[-1]


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyogrio", None)
    path = write(tmp_path, b"SQLite format 3\0", "a.gpkg")
    with pytest.raises(MissingDependencyError, match=r"marsretrieval\[gis\]"):
        read_points(path)


def test_files_that_are_not_read_are_listed_with_the_reason(tmp_path: Path) -> None:
    for name in ("a.csv", "a.gpkg", "b.shp", "b.dbf", "b.shx", "b.prj", "c.xlsx", "README.txt"):
        write(tmp_path, "", name)
    (tmp_path / "more").mkdir()
    files = catalogue_files(tmp_path)
    assert [path.name for path in files.tables] == ["a.csv", "b.shp"]
    reasons = {item.id: item.reason for item in files.ignored}
    assert reasons.keys() == {"README.txt", "a.gpkg", "c.xlsx", "more"}
    assert "a.csv is the catalogue of this landform" in reasons["a.gpkg"]


def test_suspicious_positions_are_detected_by_tile_coverage(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tile_lonlat = np.column_stack([random.uniform(30, 60, 40), random.uniform(10, 25, 40)])
    coverage = TileCoverage(tile_lonlat, 0.5)

    def warnings(lon: np.ndarray, lat: np.ndarray) -> list[str]:
        path = tmp_path / "craters.csv"
        np.savetxt(path, np.column_stack([lon, lat]), delimiter=",", header="lon,lat", comments="")
        return read_points(path).suspicions(coverage)

    lon, lat = tile_lonlat.T
    assert warnings(lon, lat) == []
    (west,) = warnings(360 - lon, lat)
    assert "positive to the west: 40 of 40 points would then" in west and "--lon-west" in west
    (swapped,) = warnings(lat, lon)
    assert "may be swapped: 40 of 40" in swapped and "--lon-column" in swapped
    (radians,) = warnings(np.radians(lon), np.radians(lat))
    assert "may be radians" in radians
    assert warnings(lon + 90, lat) == []
