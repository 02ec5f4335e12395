from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from marsretrieval.datasets import (
    PositionColumns,
    read_ground_truth,
    read_image_queries,
    read_points,
)
from marsretrieval.errors import DatasetNotFoundError, TableError
from tests.fakes import png_bytes
from tests.shared import shared_file


def table(folder: Path, text: str, name: str = "landslides.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "lon,lat\n350.5,10\n-20,-5.25\n",
        "id;Latitude;Longitude\n1;10;350.5\n2;-5.25;-20\n",
        "\ufefflat\tlon\tdiameter\n10\t350.5\t3\n-5.25\t-20\t\n\n",
    ],
)
def test_points_are_read_in_degrees_within_180(text: str, tmp_path: Path) -> None:
    points = read_points(table(tmp_path, text))
    assert points.lon.tolist() == pytest.approx([-9.5, -20])
    assert points.lat.tolist() == [10, -5.25]


def test_longitudes_as_written_and_within_180(tmp_path: Path) -> None:
    path = table(tmp_path, "lon,lat\n350.5,10\n180,5\n-180,5\n-20,1\n")
    assert read_points(path, as_written=True).lon.tolist() == [350.5, 180, -180, -20]
    points = read_points(path)
    assert points.lon.tolist() == [-9.5, 180, -180, -20]
    assert points.duplicates == 1


def test_points_at_one_position_are_counted(tmp_path: Path) -> None:
    points = read_points(table(tmp_path, "lon,lat\n350,1\n-10,1\n-10,1.5\n0,0\n360,0\n"))
    assert (len(points.lon), points.duplicates) == (5, 2)
    assert read_points(table(tmp_path, "lon,lat\n1,2\n")).duplicates == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "no column 'lon' .columns: a, b"),
        ("lon\n1\n", "no column 'lat'"),
        ("", "no points, an empty file"),
        ("lon,lat\n", "no points"),
        ("lon,lat\n1,2\nfar,3\n", "line 3: no numbers"),
        ("lon,lat\n1,nan\n", "no points, none of 1 row has a position"),
        ("lon,lat\n1,inf\n", "line 2: latitude inf"),
        ("lon,lat,lon\n1,2,3\n", "2 columns are named 'lon'"),
        ("lon,lat\n137,4,-4,6\n", "line 2 has 4 values, the header 2: 137, 4, -4, 6"),
        ("x,y\n8123123,-273000\n", "longitude 8123123.0 is not within"),
        ("lon,lat\n400,3\n", "line 2: longitude 400"),
        ("lon,lat\n4,-91\n", "line 2: latitude -91"),
        ("lon,lat\n4\n", "no points, none of 1 row has a position"),
        ("lon,lat\n-4.6,137.4\n", "swapped"),
        ("lon,lat\n-4.6,137.4\n77.1,-60.2\n9,200\n", "2 of 3 positions .*swapped"),
        ("lon,lat\n1,95\n100,96\n3,4\n", "2 of 3 positions are out of range: line 2"),
        ("target,lon,lat\nMoon,1,2\n", "none of 1 row is on Mars"),
        ("x" * 200_000 + ",b\n1,2\n", "no column 'lon' .columns: xxx"),
    ],
)
def test_wrong_tables_are_named_by_line_and_value(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=f"(?s){words}") as raised:
        read_points(table(tmp_path, text))
    assert len(str(raised.value)) < 1000
    assert "landslides.csv" in str(raised.value)


def test_rows_out_of_range_and_of_other_bodies_are_left_out_and_counted(tmp_path: Path) -> None:
    text = "Target,Feature Name,Center Longitude,Center Latitude\n"
    text += "Mars,Gale,137.8,-5.4\nMars,?,137,-95\nMars,,,\nMoon,Tycho,-11,-43\nMars,,10,20\n"
    points = read_points(table(tmp_path, text))
    assert (points.lon.tolist(), points.lat.tolist()) == ([137.8, 10], [-5.4, 20])
    assert points.names == ("Gale", "line 6")
    assert points.skipped == ("line 3", "line 4", "line 5")
    notes = " ".join(points.notes)
    for reason, line in (("without a position", 4), ("out of range", 3), ("of other bodies", 5)):
        assert re.search(rf"1 row [a-z ]*{reason}[a-zA-Z ]* left out \(line {line}\)", notes)


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("CRATER_ID\tLATITUDE_CIRCLE_IMAGE\tLONGITUDE_CIRCLE_IMAGE\tCRATER_NAME", ("id", "Gale")),
        ("CRATER_ID,LAT_CIRC_IMG,LON_CIRC_IMG,LAT_ELLI_IMG", ("id", "id")),  # Robbins
        ("Clean_Feature_Name,Center_Latitude,Center_Longitude,Diameter", ("id", "id")),  # IAU
        ("name,clat,clon,type", ("id", "id")),
        ("name:string,Lat:real,Lon:real,Diameter:real", ("id", "id")),  # JMARS
        ("id;Latitude (N);Longitude (E);Area", ("id", "id")),
        ("PRODUCT_ID,IMAGE_CENTER_LATITUDE,IMAGE_CENTER_LONGITUDE,SUN", ("id", "id")),  # HiRISE
    ],
)
def test_headers_of_known_catalogues(header: str, names: tuple[str, str], tmp_path: Path) -> None:
    delimiter = next(sign for sign in "\t;," if sign in header)
    rows = [["id", "-4.6", "299.8", ""], ["id", "-5.4", "137.8", "Gale"]]
    text = "\n".join([header, *(delimiter.join(row) for row in rows)])
    points = read_points(table(tmp_path, text, "a.txt"))
    assert points.lon.tolist() == pytest.approx([-60.2, 137.8])
    assert points.lat.tolist() == [-4.6, -5.4]
    assert points.names == names
    chosen = read_points(
        table(tmp_path, text, "a.txt"),
        columns=PositionColumns(west=True, name=header.split(delimiter)[3]),
    )
    assert chosen.lon.tolist() == pytest.approx([60.2, -137.8])
    assert chosen.names == ("line 2", "Gale")


def test_bytes_that_are_not_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TableError, match=r"a\.csv"):
        read_points(tmp_path / "a.csv")
    with pytest.raises(DatasetNotFoundError):
        read_points(tmp_path / "nowhere.csv")


def test_one_catalogue_per_landform(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="nowhere"):
        read_ground_truth(tmp_path / "nowhere")
    with pytest.raises(DatasetNotFoundError, match=r"no \.csv"):
        read_ground_truth(tmp_path)
    (tmp_path / "points.xlsx").write_bytes(b"")
    with pytest.raises(DatasetNotFoundError, match=r"contents: points\.xlsx"):
        read_ground_truth(tmp_path)
    table(tmp_path, "lon,lat\n1,2\n")
    table(tmp_path, "lon,lat\n1,2\n3,4\n", "yardangs.CSV")
    assert {name: len(item.lon) for name, item in read_ground_truth(tmp_path).items()} == {
        "landslides": 1,
        "yardangs": 2,
    }


def test_example_images_per_landform(tmp_path: Path) -> None:
    assert read_image_queries(tmp_path / "nowhere") == {}
    (tmp_path / "yardangs").mkdir()
    (tmp_path / "yardangs" / "1.png").write_bytes(png_bytes(1))
    (source,) = read_image_queries(tmp_path).values()
    assert sum(shard.rows or 0 for shard in source.shards()) == 1


def test_a_real_catalogue_is_read() -> None:
    points = read_points(shared_file("marsdata/catalogues/planet4_polar_regions.csv"))
    assert len(points.lon) == 32
    assert (points.lat < -70).all()


def test_ground_truth_in_layers_and_archives(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    import shapely

    frame = geopandas.GeoDataFrame(
        {"name": ["a", "b"]}, geometry=[shapely.Point(1, 2), shapely.Point(3, 4)],
        crs="IAU_2015:49900",
    )  # fmt: skip
    truth = tmp_path / "ground_truth"
    truth.mkdir()
    frame.to_file(truth / "cones.gpkg", layer="points")
    frame.iloc[:1].to_file(truth / "cones.gpkg", layer="checked")
    table(truth, "lon,lat\n5,6\n", "dunes.csv")
    frame.to_file(tmp_path / "fans.shp")
    with zipfile.ZipFile(truth / "fans.shp.zip", "w") as archive:
        for part in tmp_path.glob("fans.*"):
            archive.write(part, part.name)
    with pytest.raises(TableError, match=r"2 layers \(points, checked\)[\s\S]*--layer NAME"):
        read_ground_truth(truth)
    (truth / "fans.shp.zip").rename(tmp_path / "fans.shp.zip")
    truth_points = read_ground_truth(truth, columns=PositionColumns(layer="checked"))
    assert {name: points.lon.tolist() for name, points in truth_points.items()} == {
        "cones": [1], "dunes": [5],
    }  # fmt: skip
    (truth / "cones.gpkg").unlink()
    with pytest.raises(TableError, match=r"layer checked: no file of several layers \(dunes"):
        read_ground_truth(truth, columns=PositionColumns(layer="checked"))
    (tmp_path / "fans.shp.zip").rename(truth / "fans.shp.zip")
    truth_points = read_ground_truth(truth)
    assert truth_points["fans"].names == ("a", "b") and set(truth_points) == {"dunes", "fans"}
