from __future__ import annotations

from pathlib import Path

import pytest

from marsretrieval.datasets import read_ground_truth, read_image_queries, read_points
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
    found = read_points(path)
    assert found.lon.tolist() == [-9.5, 180, -180, -20]
    assert found.duplicates == 1


def test_points_at_one_position_are_counted(tmp_path: Path) -> None:
    points = read_points(table(tmp_path, "lon,lat\n350,1\n-10,1\n-10,1.5\n0,0\n360,0\n"))
    assert (len(points.lon), points.duplicates) == (5, 2)
    assert read_points(table(tmp_path, "lon,lat\n1,2\n")).duplicates == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "no column 'lon' .columns: a, b"),
        ("lon\n1\n", "no column 'lat'"),
        ("", "no column 'lon'"),
        ("lon,lat\n", "no points"),
        ("lon,lat\n1,2\nfar,3\n", "line 3: no numbers"),
        ("lon,lat\n1,nan\n", "no points, none of 1 rows has a position"),
        ("lon,lat\n1,inf\n", "line 2: latitude inf"),
        ("lon,lat,lon\n1,2,3\n", "2 columns are named 'lon'"),
        ("lon,lat\n137,4,-4,6\n", "line 2 has 4 values, the header 2: 137, 4, -4, 6"),
        ("x,y\n8123123,-273000\n", "longitude 8123123.0 is not within"),
        ("lon,lat\n400,3\n", "line 2: longitude 400"),
        ("lon,lat\n4,-91\n", "line 2: latitude -91"),
        ("lon,lat\n4\n", "no points, none of 1 rows has a position"),
        ("lon,lat\n-4.6,137.4\n", "swapped"),
    ],
)
def test_wrong_tables_are_named_by_line_and_value(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=words) as raised:
        read_points(table(tmp_path, text))
    assert "landslides.csv" in str(raised.value)


def test_undecodable_bytes_are_named(tmp_path: Path) -> None:
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
    assert {name: len(each.lon) for name, each in read_ground_truth(tmp_path).items()} == {
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
