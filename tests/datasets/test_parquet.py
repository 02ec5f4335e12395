"""Parquet in the shapes that people write it."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from marsretrieval.datasets import Record, Skipped, _parquet, open_images, read_annotations
from marsretrieval.errors import DataError, TableError
from tests.datasets.layouts import images, read_all, write_parquet
from tests.fakes import png_bytes


@pytest.mark.parametrize(
    "column",
    [
        pa.array([png_bytes(0), png_bytes(1)], pa.binary()),
        pa.array([png_bytes(0), png_bytes(1)], pa.large_binary()),
        pa.array([{"bytes": png_bytes(0)}, {"bytes": png_bytes(1)}]),
        pa.array([{"bytes": png_bytes(0), "path": None}, {"bytes": None, "path": "in/1.png"}]),
        pa.array(["0.png", "in/1.png"]),
        pa.array(["0.png", "in/1.png"]).dictionary_encode(),
    ],
    ids=["binary", "large", "bytes", "mixed", "paths", "dictionary"],
)
def test_images_in_every_kind_of_column(column: pa.Array, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "0.png").write_bytes(png_bytes(0))
    (tmp_path / "in" / "1.png").write_bytes(png_bytes(1))
    source = open_images(write_parquet(tmp_path / "a.parquet", {"image": column}))
    assert [(each.id, each.data) for each in read_all(source)] == [
        ("0", png_bytes(0)),
        ("1", png_bytes(1)),
    ]
    assert [(each.id, each.data) for each in read_all(source, images=False)] == [
        ("0", b""),
        ("1", b""),
    ]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "no image in this row"),
        ({"bytes": b"", "path": None}, "no image in this row"),
        ({"bytes": None, "path": "gone.png"}, "gone.png cannot be read"),
        ({"bytes": None, "path": "../outside.png"}, "outside of the dataset"),
        ({"bytes": None, "path": "/etc/hostname"}, "outside of the dataset"),
    ],
)
def test_rows_without_an_image_are_named(value, words: str, tmp_path: Path) -> None:
    (tmp_path / "outside.png").write_bytes(png_bytes(1))
    column = pa.array([value], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    path = write_parquet(tmp_path / "set" / "a.parquet", {"image": column, "id": ["k"]})
    (item,) = read_all(open_images(path))
    assert isinstance(item, Skipped)
    assert item.id == "k" and item.source.endswith("a.parquet:row 0") and words in item.reason


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"image": [1.5]}, "column 'image' is double, expected a struct of bytes and path"),
        ({"image": [{"url": "x"}]}, "column 'image' is struct<url: string>"),
        ({"image": [b"x"], "label": [["a", "b"]]}, "column 'label' is list<.*expected text"),
        ({"image": [b"x"], "caption": [["a", "b"]]}, "column 'caption' is list<"),
        ({"image": [b"x"], "lon": ["east"]}, "column 'lon' is string, expected degrees"),
        ({"Image": [b"x"]}, r"no column 'image' \(there are Image\)"),
    ],
)
def test_wrong_columns_are_named(columns, words: str, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(TableError, match=words) as raised:
        read_all(open_images(path), images=False)
    assert "a.parquet" in str(raised.value)


@pytest.mark.parametrize("told", [b"{", b"[]", b'{"info": {"features": []}}'])
def test_metadata_that_cannot_be_read_is_named(told: bytes, tmp_path: Path) -> None:
    table = pa.table({"image": [b"x"], "label": [0]})
    pq.write_table(table.replace_schema_metadata({"huggingface": told}), tmp_path / "a.parquet")
    with pytest.raises(TableError, match=r"a\.parquet"):
        read_all(open_images(tmp_path))


@pytest.mark.parametrize(
    "labels",
    [
        pa.array(["dune", None]),
        pa.array(["dune", None], pa.large_string()),
        pa.array(["dune", None]).dictionary_encode(),
    ],
)
def test_labels_as_text(labels: pa.Array, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": images(2), "label": labels})
    assert [record.label for record in read_all(open_images(path))] == ["dune", None]


def test_places_by_columns_or_by_the_name_in_the_id(tmp_path: Path) -> None:
    columns = {
        "image": images(5),
        "id": ["a", "E10_0_N20_0", "c", "d", "e"],
        "lon": [350.0, None, math.nan, 4.0, 400.0],
        "lat": [-4.5, None, math.nan, None, 0.0],
    }
    *found, astray = read_all(open_images(write_parquet(tmp_path / "a.parquet", columns)))
    places = [(each.lon, each.lat, each.width_deg) for each in found]
    assert places == [
        (-10, -4.5, None), (10.1, 20.1, 0.2), (None, None, None), (None, None, None),
    ]  # fmt: skip
    assert astray.lon is None and "400" in astray.warnings[0].reason
    assert "lon without a latitude" in found[3].warnings[0].reason


def test_small_row_groups_are_read_together_and_large_ones_alone(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(_parquet, "_PER_SHARD", 5)
    for name, size in (("a", 2), ("b", 7)):
        columns = {"image": images(9), "label": [f"{name}{n}" for n in range(9)]}
        write_parquet(tmp_path / f"{name}.parquet", columns, row_group_size=size)
    source = open_images(tmp_path)
    assert [shard.rows for shard in source.shards()] == [4, 5, 7, 2]
    found = read_all(source)
    assert [each.id for each in found] == [str(n) for n in range(18)]
    assert [each.label for each in found] == [f"{name}{n}" for name in "ab" for n in range(9)]
    assert len({shard.name for shard in source.shards()}) == 4
    assert len({shard.fingerprint for shard in source.shards()}) == 4
    last = source.shards()[-1]
    assert [each.id for each in source.read(last)] == ["16", "17"]


def test_damaged_pages_are_named_by_their_rows(tmp_path: Path) -> None:
    columns = {"image": [{"bytes": png_bytes(n, 60), "path": None} for n in range(300)]}
    pages = {"data_page_size": 20_000, "write_batch_size": 8, "use_dictionary": False}
    path = write_parquet(tmp_path / "a.parquet", columns, write_page_checksum=True, **pages)
    data = bytearray(path.read_bytes())
    place = data.index(png_bytes(250, 60)[40:200])
    data[place] ^= 0xFF
    path.write_bytes(data)
    *good, bad = read_all(open_images(path))
    assert 100 < len(good) <= 250
    assert all(isinstance(each, Record) and each.data == png_bytes(n, 60)
               for n, each in enumerate(good))  # fmt: skip
    assert isinstance(bad, Skipped)
    assert bad.source == f"{path}:rows {len(good)} to 299"


def test_an_id_that_comes_twice_is_named(tmp_path: Path) -> None:
    for name in "ab":
        columns = {"image": images(1), "image_id": ["k"], "label": [name]}
        write_parquet(tmp_path / f"{name}.parquet", columns)
    (record,), (again,) = read_annotations(open_images(tmp_path))
    assert record.label == "a"
    assert "b.parquet:row 1" in again.source and "a.parquet:row 0" in again.reason


def test_a_shard_of_another_source_is_refused(tmp_path: Path) -> None:
    few = open_images(write_parquet(tmp_path / "few.parquet", {"image": images(1)}))
    many = open_images(
        write_parquet(tmp_path / "many.parquet", {"image": images(600)}, row_group_size=300)
    )
    with pytest.raises(DataError, match=r"few\.parquet: holds no rows '0000-00001'"):
        list(few.read(many.shards()[1]))


def test_a_table_without_rows_has_no_shards(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": pa.array([], pa.binary())})
    assert list(open_images(path).shards()) == []
