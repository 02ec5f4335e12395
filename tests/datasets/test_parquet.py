"""Parquet files in common layouts."""

from __future__ import annotations

import math
import os
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from marsretrieval.datasets import Record, Skipped, open_images, parquet, read_annotations
from marsretrieval.errors import DataError, TableError
from tests.datasets.layouts import images, problem_of, read_all, write_parquet
from tests.fakes import png_bytes


@pytest.mark.parametrize(
    "column",
    [
        pa.array([png_bytes(0), png_bytes(1)], pa.binary()),
        pa.array([png_bytes(0), png_bytes(1)], pa.large_binary()),
        pa.array([png_bytes(0), png_bytes(1)], pa.binary_view()),
        pa.array([{"bytes": png_bytes(0)}, {"bytes": png_bytes(1)}]),
        pa.array([{"bytes": png_bytes(0), "path": None}, {"bytes": None, "path": "in/1.png"}]),
        pa.array(["0.png", "in/1.png"]),
        pa.array(["0.png", "in\\1.png"], pa.string_view()),
        pa.array([{"bytes": None, "path": "0.png"}, {"bytes": None, "path": ".\\in\\1.png"}]),
        pa.array(["0.png", "in/1.png"]).dictionary_encode(),
    ],
    ids=["binary", "large", "view", "bytes", "mixed", "paths", "windows", "struct", "dictionary"],
)
def test_images_in_every_kind_of_column(column: pa.Array, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "0.png").write_bytes(png_bytes(0))
    (tmp_path / "in" / "1.png").write_bytes(png_bytes(1))
    source = open_images(write_parquet(tmp_path / "a.parquet", {"image": column}))
    assert [(item.id, item.data) for item in read_all(source)] == [
        ("0", png_bytes(0)),
        ("1", png_bytes(1)),
    ]
    assert [(item.id, item.data) for item in read_all(source, images=False)] == [
        ("0", b""),
        ("1", b""),
    ]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "no image in this row"),
        ({"bytes": b"", "path": None}, "no image in this row"),
        ({"bytes": None, "path": "gone.png"}, "gone.png cannot be read"),
        ({"bytes": None, "path": "../outside.png"}, "outside the dataset"),
        ({"bytes": None, "path": "/etc/hostname"}, "outside the dataset"),
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
        ({"image": [7]}, "column 'image' is int64"),
        ({"image": [{"bytes": "text", "path": None}]}, "column 'image' is struct<bytes: string"),
        ({"image": [{"path": 7}]}, "column 'image' is struct<path: int64>"),
        ({"Image": [b"x"]}, r"no column 'image' \(columns: Image\)"),
    ],
)
def test_wrong_columns_are_named(columns, words: str, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(TableError, match=words) as raised:
        read_all(open_images(path), images=False)
    assert "a.parquet" in str(raised.value)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"label": [["a", "b"]]}, "column 'label' holds a list, expected text or ClassLabel"),
        ({"label": [0.5]}, "label 0.5 is neither text nor a whole number"),
        ({"label": [True]}, "column 'label' holds a bool"),
        ({"caption": [["a", "b"]]}, "column 'caption' holds a list, expected text"),
        ({"refined_caption": [7]}, "column 'refined_caption' holds a int, expected text"),
        ({"lon": ["east"], "lat": ["4"]}, "lon, lat should be numbers in degrees, not 'east', '4'"),
        ({"lon": [[1.0]], "lat": [4.0]}, "lon, lat should be numbers in degrees, not [1.0], 4.0"),
        ({"lon": [400.0], "lat": [0.0]}, "centre 400, 0 is not a position in degrees"),
    ],
)
def test_image_with_invalid_annotations_is_read(columns, words: str, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": [b"x"], **columns})
    for with_images in (True, False):
        (record,) = read_all(open_images(path), images=with_images)
        assert isinstance(record, Record) and problem_of(record) is not None
        assert words in problem_of(record)
        assert (record.label, record.caption, record.lon) == (None, None, None)


DEEP = b'{"info": ' + b"[" * 100_000


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": {"features": []}}', DEEP])
def test_unreadable_metadata_is_named_when_needed(metadata, tmp_path: Path) -> None:
    table = pa.table({"image": [b"x", b"x"], "label": [0, None]})
    pq.write_table(table.replace_schema_metadata({"huggingface": metadata}), tmp_path / "a.parquet")
    first, second = read_all(open_images(tmp_path))
    assert "metadata cannot be read" in problem_of(first) and problem_of(second) is None
    table = table.set_column(1, "label", pa.array(["dune", None]))
    pq.write_table(table.replace_schema_metadata({"huggingface": metadata}), tmp_path / "a.parquet")
    assert [item.label for item in read_all(open_images(tmp_path))] == ["dune", None]


@pytest.mark.parametrize(
    "labels",
    [
        pa.array(["dune", None]),
        pa.array(["dune", None], pa.large_string()),
        pa.array(["dune", None], pa.string_view()),
        pa.array([b"dune", None], pa.binary()),
        pa.array([b"dune", None], pa.binary_view()),
        pa.array(["dune", None]).dictionary_encode(),
    ],
)
def test_labels_as_text(labels: pa.Array, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": images(2), "label": labels})
    assert [record.label for record in read_all(open_images(path))] == ["dune", None]


def test_positions_from_columns_or_from_the_id(tmp_path: Path) -> None:
    columns = {
        "image": images(5),
        "id": ["a", "E10_0_N20_0", "c", "d", "e"],
        "lon": [350.0, None, math.nan, 4.0, 400.0],
        "lat": [-4.5, None, math.nan, None, 0.0],
    }
    items = read_all(open_images(write_parquet(tmp_path / "a.parquet", columns)))
    positions = [(item.lon, item.lat, item.width_deg) for item in items]
    assert positions == [
        (-10, -4.5, None), (10.1, 20.1, 0.2), (None, None, None), (None, None, None),
        (None, None, None),
    ]  # fmt: skip
    assert "400" in items[4].warnings[0].reason
    assert "lon without a latitude" in items[3].warnings[0].reason


def test_small_row_groups_are_read_together_and_large_ones_alone(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(parquet, "_PER_SHARD", 5)
    for name, size in (("a", 2), ("b", 7)):
        columns = {"image": images(9), "label": [f"{name}{n}" for n in range(9)]}
        write_parquet(tmp_path / f"{name}.parquet", columns, row_group_size=size)
    source = open_images(tmp_path)
    assert [shard.rows for shard in source.shards()] == [4, 5, 7, 2]
    items = read_all(source)
    assert [item.id for item in items] == [str(n) for n in range(18)]
    assert [item.label for item in items] == [f"{name}{n}" for name in "ab" for n in range(9)]
    assert len({shard.name for shard in source.shards()}) == 4
    assert len({shard.fingerprint for shard in source.shards()}) == 4
    last = source.shards()[-1]
    assert [item.id for item in source.read(last)] == ["16", "17"]


def test_damaged_pages_are_named_by_their_rows(tmp_path: Path) -> None:
    columns = {"image": [{"bytes": png_bytes(n, 60), "path": None} for n in range(300)]}
    pages = {"data_page_size": 20_000, "write_batch_size": 8, "use_dictionary": False}
    path = write_parquet(tmp_path / "a.parquet", columns, write_page_checksum=True, **pages)
    data = bytearray(path.read_bytes())
    offset = data.index(png_bytes(250, 60)[40:200])
    data[offset] ^= 0xFF
    path.write_bytes(data)
    *good, bad = read_all(open_images(path))
    assert 100 < len(good) <= 250
    assert all(isinstance(item, Record) and item.data == png_bytes(n, 60)
               for n, item in enumerate(good))  # fmt: skip
    assert isinstance(bad, Skipped)
    assert bad.source == f"{path}:rows {len(good)} to 299"


def test_duplicate_id_is_named(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("labels", "names", "right"),
    [
        (pa.array([0, 1, None], pa.float64()), None, ["0", "1", None]),
        (pa.array([0, 1, None], pa.float64()), ["a", "b"], ["a", "b", None]),
        (pa.array([math.nan, 1.0, -1.0]), ["a", "b"], [None, "b", None]),
        (pa.array([0, 1, -1], pa.int8()), ["a", "b"], ["a", "b", None]),
        (pa.array([0, 1, -1], pa.int64()), None, ["0", "1", None]),
        (pa.array([0, 1, None], pa.decimal128(3)), None, ["0", "1", None]),
        (pa.array([0, 1, 0]).dictionary_encode(), ["a", "b"], ["a", "b", "a"]),
    ],
)
def test_labels_as_numbers(labels, names, right, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": images(3), "label": labels}, names)
    records = read_all(open_images(path))
    assert [record.label for record in records] == right
    assert {problem_of(record) for record in records} == {None}


@pytest.mark.parametrize(
    "values",
    [
        pa.array([137.4, None]), pa.array([137.4, None], pa.float32()),
        pa.array(["137.4", None]), pa.array(["137.4", None], pa.string_view()),
        pa.array([Decimal("137.4"), None], pa.decimal128(4, 1)),
    ],
)  # fmt: skip
def test_degrees_of_every_kind(values: pa.Array, tmp_path: Path) -> None:
    columns = {"image": images(2), "lon": values, "lat": values}
    columns["lat"] = pa.array([-4.6, None])
    first, second = read_all(open_images(write_parquet(tmp_path / "a.parquet", columns)))
    assert (first.lon, first.lat) == pytest.approx((137.4, -4.6), abs=1e-4)
    assert (second.lon, second.lat) == (None, None)


def test_texts_that_are_not_utf8_are_named_by_their_rows(tmp_path: Path) -> None:
    def texts(*values: bytes) -> pa.Array:
        offsets = np.cumsum([0, *map(len, values)]).astype(np.int32)
        buffers = [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(values))]
        return pa.Array.from_buffers(pa.string(), len(values), buffers)

    columns = {"image": images(3), "id": texts(b"a", b"b\xe4", b"c")}
    columns["caption"] = texts(b"one", b"two", b"thr\xe4")
    first, bad, last = read_all(open_images(write_parquet(tmp_path / "a.parquet", columns)))
    assert (first.id, first.caption) == ("a", "one")
    assert isinstance(bad, Skipped) and (bad.id, bad.reason) == (r"b\xe4", "its id is not UTF-8")
    assert last.id == "c" and "caption is not UTF-8" in problem_of(last)


def test_absolute_paths_inside_the_folder_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "in").mkdir(parents=True)
    (folder / "in/0.png").write_bytes(png_bytes(0))
    (tmp_path / "set2.png").write_bytes(png_bytes(0))
    paths = [str(folder / "in/0.png"), "in/../in/0.png", str(tmp_path / "set2.png"), r"..\set2.png"]
    items = read_all(open_images(write_parquet(folder / "a.parquet", {"image": paths})))
    assert [isinstance(item, Record) for item in items] == [True, True, False, False]
    assert "outside the dataset" in items[2].reason
    assert "No such file" in items[3].reason


def test_pipes_and_devices_are_not_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    path = write_parquet(tmp_path / "a.parquet", {"image": ["a.png", "b.png"]})
    assert all("not a regular file" in item.reason for item in read_all(open_images(path)))


@pytest.mark.parametrize("dictionary", [True, False])
def test_images_with_implausible_compression_are_named(dictionary, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_SMALL", 1_000_000)
    bombs = pa.array([bytes(500_000 + n % 2) for n in range(8)], pa.binary())
    schema = pa.schema([("image", pa.binary())])
    with pq.ParquetWriter(
        tmp_path / "a.parquet", schema, compression="zstd", use_dictionary=dictionary
    ) as writer:
        for column in (pa.array([png_bytes(0)], pa.binary()), bombs, pa.array([png_bytes(1)])):
            writer.write_table(pa.table([column.cast(pa.binary())], schema=schema))
    first, bomb, last = read_all(open_images(tmp_path))
    assert (first.data, last.data) == (png_bytes(0), png_bytes(1))
    assert (first.id, last.id) == ("0", "9")
    assert (
        "a.parquet:rows 1 to 8" in bomb.source and "an implausible compression ratio" in bomb.reason
    )


def test_large_images_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(parquet, "_BYTES_AT_A_TIME", 3 * len(png_bytes(0, 60)) * 40)
    columns = {"image": [png_bytes(n, 60) for n in range(40)]}
    source = open_images(write_parquet(tmp_path / "a.parquet", columns))
    sizes = []
    real = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda self, size, **more: sizes.append(size) or real(self, size, **more),
    )
    assert len(read_all(source)) == 40
    assert sizes and 1 <= sizes[0] <= 3


@pytest.mark.parametrize("name", ["image", "caption"])
def test_duplicate_column_is_named(name: str, tmp_path: Path) -> None:
    columns = [pa.array([png_bytes(1)]), pa.array([png_bytes(2)]), pa.array(["a"])]
    names = ["image", "image", "caption"] if name == "image" else ["image", "caption", "caption"]
    pq.write_table(pa.Table.from_arrays(columns, names=names), tmp_path / "a.parquet")
    source = open_images(tmp_path / "a.parquet")
    with pytest.raises(TableError, match=f"the column '{name}' appears twice"):
        list(source.read(source.shards()[0]))


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a dune", None]),
        pa.array(["a dune", None], pa.large_string()),
        pa.array(["a dune", None]).dictionary_encode(),
        pa.array([b"a dune", None], pa.large_binary()),
    ],
    ids=["string", "large", "dictionary", "bytes"],
)
def test_text_is_the_caption_of_a_table_without_a_column_of_captions(
    column: pa.Array, tmp_path: Path
) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": images(2), "text": column})
    for with_images in (True, False):
        items = read_all(open_images(path), images=with_images)
        assert [(item.caption, item.original_caption) for item in items] == [
            ("a dune", None),
            (None, None),
        ]
        assert [item.warnings for item in items] == [(), ()]


def test_a_column_of_captions_takes_precedence_over_text(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "a.parquet",
        {"image": images(2), "text": ["ocr", "ocr"], "caption": ["a dune", None]},
    )
    assert [item.caption for item in read_all(open_images(path))] == ["a dune", None]


def test_a_text_that_is_no_text_is_a_warning(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": images(1), "text": [["a", "b"]]})
    (item,) = read_all(open_images(path))
    assert item.caption is None
    assert problem_of(item) == "column 'text' holds a list, expected text"


def test_null_images_in_a_dictionary_or_struct_are_named(tmp_path: Path) -> None:
    binary = pa.array([png_bytes(0), None], pa.large_binary()).dictionary_encode()
    struct = pa.array(
        [{"bytes": png_bytes(0), "path": "0.png"}, None],
        pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())]),
    )
    for column in (binary, struct):
        first, second = read_all(
            open_images(write_parquet(tmp_path / "a.parquet", {"image": column}))
        )
        assert first.data == png_bytes(0)
        assert isinstance(second, Skipped) and second.reason == "no image in this row"
