"""Image folders with links, duplicates, sidecars and mixed contents."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from marsretrieval.datasets import (
    FolderSource,
    Record,
    RepeatedKey,
    Skipped,
    folder,
    open_images,
    read_annotations,
)
from marsretrieval.datasets.listing import WORLD_FILE_SUFFIXES
from marsretrieval.errors import DataError, DatasetNotFoundError
from tests.datasets.layouts import images, problem_of, read_all, write_parquet, write_tar
from tests.fakes import png_bytes


def put(path: Path, data: bytes | str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = png_bytes(1) if data is None else data
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def ids(source: FolderSource) -> list[str]:
    return [item.id for item in read_all(source)]


def test_images_at_any_depth_are_named_by_their_paths(tmp_path: Path) -> None:
    for name in ("b/x/1.png", "a/1.png", "0.png", "a/.hidden.png", ".hidden/1.png"):
        put(tmp_path / name)
    source = open_images(tmp_path)
    assert source.kind == "folder"
    assert ids(source) == ["0", "a/1", "b/x/1"]
    assert {item.label for item in read_all(source)} == {None}


def test_linked_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "1.png")
    put(tmp_path / "set" / "crater" / "1.png")
    (tmp_path / "set" / "dune").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "crater" / "up").symlink_to(tmp_path / "set")
    source = open_images(tmp_path / "set")
    assert source.kind == "classes"
    assert [(item.id, item.label) for item in read_all(source)] == [
        ("crater/1", "crater"),
        ("dune/1", "dune"),
    ]


def test_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    source = open_images(tmp_path)
    assert [shard.rows for shard in source.shards()] == [2]
    _, item = read_all(source)
    assert isinstance(item, Skipped) and "No such file" in item.reason


def test_same_name_with_two_extensions_is_one_key(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.k.png", "a.png", "a.doc"):
        put(tmp_path / name)
    items = read_all(open_images(tmp_path))
    assert [(item.id, type(item)) for item in items] == [
        ("a", Skipped), ("a", Record), ("a.k", Record), ("a", RepeatedKey),
    ]  # fmt: skip
    assert items[1].source.endswith("a.jpg")
    assert "same key" in items[3].reason and items[3].source.endswith("a.png")


def test_oversized_file_is_named_and_not_read(tmp_path: Path, monkeypatch) -> None:
    put(tmp_path / "a.tif", bytes(3000))
    monkeypatch.setattr(folder, "MAX_BYTES", 2000)
    (item,) = read_all(open_images(tmp_path))
    assert item.reason == "3,000 bytes, more than 2,000"


def test_sidecar_files_annotate_an_image(tmp_path: Path) -> None:
    for name in "abcd":
        put(tmp_path / f"{name}.png")
    put(tmp_path / "a.json", json.dumps({"bounds": [10, 20, 10.4, 20.2], "label": 3}))
    put(tmp_path / "a.txt", "words")
    put(tmp_path / "b.txt", b"\xff\xfe\xff")
    put(tmp_path / "c.json", '{"center": [0, 95]}')
    for name in ("a.pgw", "a.png.aux.xml", "README.md", "list.csv"):
        put(tmp_path / name, "x")
    first, second, third, last = read_all(open_images(tmp_path))
    assert (first.caption, first.label) == ("words", "3")
    assert (first.lon, first.lat, first.width_deg) == pytest.approx((10.2, 20.1, 0.4))
    assert [(warning.kind, warning.id) for warning in second.warnings] == [("annotation", "b")]
    assert "not a position" in third.warnings[0].reason
    assert (last.caption, last.lon, last.warnings) == (None, None, ())


@pytest.mark.skipif(os.geteuid() == 0, reason="root lists everything")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    put(tmp_path / "closed" / "a.png").parent.chmod(0)
    try:
        with pytest.raises(DataError, match="closed: cannot be listed"):
            open_images(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_mixed_contents_are_counted_and_the_remedy_names_one_kind(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "b.png")
    tar = write_tar(tmp_path / "c.tar", [("k.png", png_bytes(1))])
    with pytest.raises(DataError, match="holds 1 tars and 2 images") as raised:
        open_images(tmp_path)
    assert str(tar) in str(raised.value)
    tar.unlink()
    table = write_parquet(tmp_path / "c.parquet", {"image": images(1)})
    with pytest.raises(DataError, match="holds 1 Parquet files and 2 images"):
        open_images(tmp_path)
    assert open_images(table).kind == "parquet"


def test_tables_in_data_folder_allow_an_image_above(tmp_path: Path) -> None:
    put(tmp_path / "teaser.png")
    write_parquet(tmp_path / "data" / "a.parquet", {"image": images(1)})
    assert open_images(tmp_path).kind == "parquet"


def test_tars_in_subfolders_are_suggested(tmp_path: Path) -> None:
    write_tar(tmp_path / "one" / "two" / "a.tar", [("k.png", png_bytes(1))])
    with pytest.raises(DatasetNotFoundError, match="contents: one/") as raised:
        open_images(tmp_path)
    assert str(tmp_path / "one" / "two") in str(raised.value)


def test_extensions_are_read_in_any_case_and_paths_as_text(tmp_path: Path) -> None:
    write_tar(tmp_path / "A.TAR", [("k.PNG", png_bytes(1)), ("k.JSON", b'{"caption": "c"}')])
    (record,) = read_all(open_images(str(tmp_path)))  # type: ignore[arg-type]
    assert (record.id, record.caption) == ("k", "c")


def test_sidecar_files_are_ignored_and_jfif_is_an_image(tmp_path: Path) -> None:
    stray = "Thumbs.db desktop.ini .DS_Store ._b.jpg a.jpg.ovr a.jpg.aux.xml hits.qml out.gpkg"
    worlds = [f"a{suffix}" for suffix in (*sorted(WORLD_FILE_SUFFIXES), ".tfwx", ".prj")]
    assert {"a.j2w", "a.jgw", "a.pgw", "a.tfw", "a.wld", "a.webpw", "a.bmpw"} <= {*worlds}
    for name in (*stray.split(), *worlds):
        put(tmp_path / name, "x")
    put(tmp_path / "a.jpg")
    put(tmp_path / "b.jfif")
    assert ids(open_images(tmp_path)) == ["a", "b"]


def test_only_regular_files_are_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "b.png")
    put(tmp_path / "d.png")
    (tmp_path / "d.json").symlink_to("/dev/zero")
    for images_wanted in (True, False):
        *bad, good = read_all(open_images(tmp_path), images=images_wanted)
        assert [item.id for item in bad] == ["a", "b", "c"]
        assert all("not a regular file" in item.reason for item in bad)
        assert good.id == "d"


def test_names_that_are_not_utf8_are_named_and_the_others_read(tmp_path: Path) -> None:
    put(tmp_path / "set" / "good.png")
    put(tmp_path / "set" / os.fsdecode(b"cr\xe4ter.png"))
    put(tmp_path / "set" / os.fsdecode(b"d\xfcnen") / "1.png")
    bad, worse, good = read_all(open_images(tmp_path / "set"))
    assert [bad.id, worse.id, good.id] == [r"cr\xe4ter", r"d\xfcnen/1", "good"]
    assert "not UTF-8" in bad.reason and "not UTF-8" in worse.reason
    (tmp_path / "set").rename(tmp_path / os.fsdecode(b"s\xe4t"))
    with pytest.raises(DataError, match="not UTF-8"):
        open_images(tmp_path / os.fsdecode(b"s\xe4t"))


def test_a_renamed_class_folder_changes_the_fingerprint(tmp_path: Path) -> None:
    put(tmp_path / "crater" / "1.png")
    before = open_images(tmp_path).shards()
    (tmp_path / "crater").rename(tmp_path / "cone")
    assert open_images(tmp_path).shards() != before


def labels(source: FolderSource) -> dict[str, str | None]:
    return {item.id: item.label for item in read_all(source) if isinstance(item, Record)}


def test_split_folders_are_not_classes(tmp_path: Path) -> None:
    put(tmp_path / "train" / "crater_0.png")
    put(tmp_path / "test" / "dune_0.png")
    assert set(labels(open_images(tmp_path)).values()) == {None}


def test_classes_in_split_folders(tmp_path: Path) -> None:
    for name in ("train/crater/0.png", "train/dune/0.png", "val/dune/0.png"):
        put(tmp_path / name)
    assert labels(open_images(tmp_path)) == {
        "train/crater/0": "crater", "train/dune/0": "dune", "val/dune/0": "dune",
    }  # fmt: skip


def test_a_table_of_labels_beside_a_folder_of_images(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        put(tmp_path / "map-proj-v3" / f"{name}.jpg")
    lines = "a.jpg 0\nb.jpg 1\nmap-proj-v3/c.jpg 1 train\ngone.jpg 2\nd.jpg 0\nd.jpg 1\n"
    table = put(tmp_path / "labels-map-proj-v3.txt", lines)
    put(tmp_path / "landmarks_map-proj-v3_classmap.csv", "0,crater\n1,dune\n2,plain\n")
    source = open_images(tmp_path)
    assert list(labels(source).values()) == ["crater", "dune", "dune", None]
    records, (problem,) = read_annotations(source)
    assert problem.source == str(table)
    assert (
        problem.reason == "1 of its 6 lines do not match an image in the folder (first: gone.jpg)"
    )
    assert problem_of(records[3]) == "several labels in the tables: crater, dune"


def test_list_of_class_names_is_not_a_label_table(tmp_path: Path) -> None:
    put(tmp_path / "crater" / "1.png")
    put(tmp_path / "labels.txt", "crater\nsand dune\n")
    source = open_images(tmp_path)
    assert labels(source) == {"crater/1": "crater"}
    assert read_annotations(source)[1] == []
