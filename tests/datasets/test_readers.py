from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from marsretrieval.datasets import Record, Skipped, content_hash, open_images, set_hash
from marsretrieval.errors import DataError, DatasetNotFoundError, TableError
from tests.datasets.layouts import images, problem_of, read_all, write_parquet, write_tar
from tests.fakes import png_bytes


def reasons(items: list) -> list[str]:
    return [item.reason for item in items if isinstance(item, Skipped)]


def records(items: list) -> list[Record]:
    return [item for item in items if isinstance(item, Record)]


# WebDataset


@pytest.mark.parametrize(
    ("name", "data", "refined", "original"),
    [
        ("json", {"ori_caption": "o", "refined_caption": "r"}, "r", "o"),
        ("json", {"caption": {"ori_caption": "o", "refined_caption": "r"}}, "r", "o"),
        ("json", {"caption": '{"ori_caption": "o", "refined_caption": "r"}'}, "r", "o"),
        ("json", {"caption": "plain words"}, "plain words", None),
        ("json", {"ori_caption": "only this"}, "only this", "only this"),
        ("json", {"caption": "{not json"}, "{not json", None),
        ("json", {}, None, None),
        ("txt", "from a text \n", "from a text", None),
    ],
)
def test_captions_are_read_from_every_supported_field(
    name, data, refined, original, tmp_path
) -> None:
    text = data if isinstance(data, str) else json.dumps(data)
    tar = write_tar(tmp_path / "a.tar", [("k.png", png_bytes(1)), (f"k.{name}", text.encode())])
    (record,) = read_all(open_images(tar))
    assert (record.id, record.caption, record.original_caption) == ("k", refined, original)
    assert record.data == png_bytes(1)


def test_text_file_is_used_if_json_has_no_caption(tmp_path: Path) -> None:
    members = [("k.png", png_bytes(1)), ("k.json", b'{"label": "dune"}'), ("k.txt", b"words")]
    (record,) = read_all(open_images(write_tar(tmp_path / "a.tar", members)))
    assert (record.caption, record.label) == ("words", "dune")


def test_tile_positions_from_json_or_from_the_name(tmp_path: Path) -> None:
    fields = {"bounds": [10.0, 20.0, 10.4, 20.2], "center": [10.2, 20.1]}
    members = [
        ("E10_0_N20_0.png", png_bytes(1)),
        ("E10_0_N20_0.json", json.dumps(fields).encode()),
        ("E_4_0_N_4_0.png", png_bytes(2)),
        ("somewhere.png", png_bytes(3)),
    ]
    first, second, third = read_all(open_images(write_tar(tmp_path / "a.tar", members)))
    assert (first.lon, first.lat) == (10.2, 20.1)
    assert (first.width_deg, first.height_deg) == pytest.approx((0.4, 0.2))
    assert (second.lon, second.lat) == pytest.approx((-3.9, -3.9))
    assert (second.width_deg, second.height_deg) == (0.2, 0.2)
    assert (third.lon, third.lat) == (None, None)


def test_invalid_members_of_a_tar_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    members = [
        ("a.png", png_bytes(1)),
        ("b.json", b"{}"),
        ("c.png", png_bytes(3)),
        ("c.json", b"{broken"),
        ("d.png", png_bytes(4)),
        ("a.png", png_bytes(1)),
        ("e.png", png_bytes(5)),
        ("e.jpg", png_bytes(6)),
    ]
    items = read_all(open_images(write_tar(tmp_path / "a.tar", members)))
    assert [record.id for record in records(items)] == ["a", "c", "d", "e"]
    assert "JSON cannot be read" in records(items)[1].warnings[0].reason
    message = " | ".join(reasons(items))
    for words in ("without an image", "same key", "second image"):
        assert words in message


def test_a_tar_cut_between_two_members_is_named(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", [("a.png", png_bytes(1)), ("b.png", png_bytes(2))])
    data = tar.read_bytes()
    tar.write_bytes(data[: data.index(b"b.png")])
    assert "no end mark" in reasons(read_all(open_images(tar)))[0]


@pytest.mark.parametrize(("keep", "count"), [(0, 0), (300, 0), (0.55, 1)])
def test_damaged_tar_is_read_in_part_and_named(keep, count, tmp_path: Path) -> None:
    members = [(f"{key}.png", png_bytes(7, 80)) for key in "abcd"]
    tar = write_tar(tmp_path / "cut.tar", members)
    content = tar.read_bytes()
    tar.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    items = read_all(open_images(tmp_path))
    assert len(records(items)) >= count
    assert len(records(items)) < 4
    assert "cut.tar" in items[-1].source
    assert isinstance(items[-1], Skipped)


def test_compressed_tars_are_read_and_damaged_ones_named(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar.gz", [("a.png", png_bytes(1))], "w:gz")
    assert len(read_all(open_images(tar))) == 1
    tar.write_bytes(tar.read_bytes()[:-200])
    assert reasons(read_all(open_images(tar)))


def test_annotations_can_be_read_without_images(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", [("k.png", png_bytes(1)), ("k.txt", b"words")])
    (record,) = read_all(open_images(tar), images=False)
    assert (record.data, record.caption) == (b"", "words")


# Parquet


def test_parquet_in_hugging_face_layout(tmp_path: Path) -> None:
    names = ["dune", "crater"]
    for part, ids in enumerate((["p", "q", "r"], ["s", "t"])):
        columns = {"image": images(len(ids)), "label": [0, 1, 1][: len(ids)], "image_id": ids}
        write_parquet(tmp_path / "data" / f"train-{part}.parquet", columns, names, row_group_size=2)
    source = open_images(tmp_path)
    assert source.kind == "parquet"
    assert [shard.rows for shard in source.shards()] == [3, 2]
    items = read_all(source)
    assert [(record.id, record.label) for record in items] == [
        ("p", "dune"), ("q", "crater"), ("r", "crater"), ("s", "dune"), ("t", "crater"),
    ]  # fmt: skip
    assert items[1].data == png_bytes(1)
    assert all(record.data == b"" for record in read_all(source, images=False))


def test_rows_without_an_id_are_numbered_over_all_files(tmp_path: Path) -> None:
    for part in range(2):
        columns = {"image": images(3), "label": ["x", "y", "x"]}
        write_parquet(tmp_path / f"{part}.parquet", columns, row_group_size=2)
    assert [record.id for record in read_all(open_images(tmp_path))] == list("012345")


def test_captions_in_columns_and_images_in_files(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png_bytes(9))
    columns = {
        "image": [{"bytes": None, "path": "x.png"}, {"bytes": None, "path": "gone.png"}],
        "refined_caption": ["r", "s"],
        "ori_caption": ["o", "p"],
    }
    first, second = read_all(open_images(write_parquet(tmp_path / "a.parquet", columns)))
    assert (first.data, first.caption, first.original_caption) == (png_bytes(9), "r", "o")
    assert "gone.png cannot be read" in second.reason


def test_unknown_label_is_named_and_minus_one_means_no_label(tmp_path: Path) -> None:
    columns = {"image": images(3), "label": [0, 7, -1]}
    items = read_all(open_images(write_parquet(tmp_path / "a.parquet", columns, ["dune"])))
    assert [item.label for item in records(items)] == ["dune", None, None]
    problems = [problem_of(item) for item in records(items)]
    assert problems == [None, "label 7 is none of the dataset's 1", None]


def test_wrong_parquet_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "wrong.parquet", {"picture": [b"x"]})
    with pytest.raises(TableError, match=r"wrong.parquet: no column 'image' \(columns: picture"):
        read_all(open_images(tmp_path))
    (tmp_path / "wrong.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(DataError, match=r"wrong\.parquet"):
        open_images(tmp_path).shards()


# Folders


def test_a_folder_of_classes_labels_by_its_sub_folders(tmp_path: Path) -> None:
    for name in ("dune", "crater"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(png_bytes(1))
    (tmp_path / "dune" / "1.txt").write_text("a dune")
    (tmp_path / ".hidden.png").write_bytes(b"")
    source = open_images(tmp_path)
    assert source.kind == "classes"
    crater, dune = read_all(source)
    assert (crater.id, crater.label) == ("crater/1", "crater")
    assert (dune.id, dune.label, dune.caption) == ("dune/1", "dune", "a dune")


def test_plain_folder_has_no_labels_and_names_non_images(tmp_path: Path) -> None:
    (tmp_path / "b.JPG").write_bytes(png_bytes(1))
    (tmp_path / "E137_2_N_4_6.png").write_bytes(png_bytes(2))
    (tmp_path / "c.doc").write_bytes(b"x")
    (tmp_path / "readme.md").write_bytes(b"x")
    source = open_images(tmp_path)
    assert source.kind == "folder"
    tile, image, other = read_all(source)
    assert (tile.lon, tile.lat) == pytest.approx((137.3, -4.5))
    assert image.label is None and image.lon is None
    assert "'.doc'" in other.reason


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_bytes(1))
    (tmp_path / "a.png").chmod(0)
    assert "cannot be read" in reasons(read_all(open_images(tmp_path)))[0]


def test_a_long_folder_is_read_in_parts(tmp_path: Path) -> None:
    for number in range(600):
        (tmp_path / f"{number:04d}.png").write_bytes(b"x")
    assert [shard.rows for shard in open_images(tmp_path).shards()] == [512, 88]


# All of them


def test_missing_and_empty_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="nowhere"):
        open_images(tmp_path / "nowhere")
    with pytest.raises(DatasetNotFoundError, match="contents: nothing"):
        open_images(tmp_path)
    (tmp_path / "a.doc").write_bytes(b"x")
    with pytest.raises(DatasetNotFoundError, match=r"contents: \.doc"):
        open_images(tmp_path)
    with pytest.raises(DataError, match=r"a\.doc"):
        open_images(tmp_path / "a.doc")
    write_tar(tmp_path / "a.tar", [])
    write_parquet(tmp_path / "a.parquet", {"image": images(1)})
    with pytest.raises(DataError, match="holds 1 tars and 1 Parquet files"):
        open_images(tmp_path)


@pytest.mark.parametrize("layout", ["tar", "parquet", "folder"])
def test_sources_are_picklable_and_detect_changes(layout: str, tmp_path: Path) -> None:
    def write(seed: int) -> None:
        if layout == "tar":
            write_tar(tmp_path / "a.tar", [("k.png", png_bytes(seed, 24 + seed))])
        elif layout == "parquet":
            columns = {"image": [{"bytes": png_bytes(seed, 24 + seed), "path": "k"}]}
            write_parquet(tmp_path / "a.parquet", columns)
        else:
            (tmp_path / "k.png").write_bytes(png_bytes(seed, 24 + seed))

    write(1)
    source = pickle.loads(pickle.dumps(open_images(tmp_path)))
    before = source.shards()
    assert before == open_images(tmp_path).shards()
    assert read_all(source)[0].data == png_bytes(1, 25)
    write(2)
    assert open_images(tmp_path).shards()[0].fingerprint != before[0].fingerprint


def test_set_hash_does_not_depend_on_item_order() -> None:
    items = [(f"{number}", content_hash(bytes([number]))) for number in range(5)]
    assert set_hash(items) == set_hash(reversed(items))
    assert set_hash(items) != set_hash(items[:-1])
    assert set_hash(items) != set_hash([*items[:-1], ("4", content_hash(b"x"))])
