"""Thumbnails: found from any source and working folder, compared with what was embedded."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from marsretrieval.datasets import open_images, read_members
from marsretrieval.datasets.webdataset import write_tar
from marsretrieval.embeddings import EmbeddingStore, build_store, open_store
from marsretrieval.search import TileImages
from tests.fakes import FakeEncoder
from tests.search.pictures import picture, picture_store


def load(store: EmbeddingStore) -> list[bytes | str]:
    tiles = store.take(range(store.rows))
    return [
        item.image if item.image is not None else item.reason
        for item in TileImages(store).load(tiles.ids, tiles.sources)
    ]


def test_files_are_read_and_scaled_down(tmp_path: Path) -> None:
    store = picture_store(tmp_path, [None] * 3)
    (tmp_path / "images" / "wide.png").write_bytes(b"")
    images = TileImages(store, side=20)
    tiles = store.take([2, 0])
    first, second = images.load(tiles.ids, tiles.sources)
    assert first.image is not None and second.image is not None
    assert Image.open(io.BytesIO(first.image)).size == (20, 20)
    assert first.image != second.image


def test_members_of_tars_are_read(tmp_path: Path) -> None:
    members = [(f"a/{number}.png", picture(number)) for number in range(4)]
    write_tar(tmp_path / "tiles.tar", members)
    build_store(FakeEncoder(), open_images(tmp_path / "tiles.tar"), tmp_path / "store")
    store = open_store(tmp_path / "store")
    assert all(isinstance(item, bytes) for item in load(store))
    assert dict(read_members(tmp_path / "tiles.tar", ["a/2.png", "missing"])) == {
        "a/2.png": picture(2)
    }
    with pytest.raises(ValueError, match="tar cannot be read"):
        (tmp_path / "junk.tar").write_bytes(b"junk" * 400)
        list(read_members(tmp_path / "junk.tar", ["a"]))


def test_rows_of_tables_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    for part in range(2):  # rows are numbered over both files
        images = [{"bytes": picture(3 * part + row), "path": None} for row in range(3)]
        pq.write_table(pa.table({"image": images}), folder / f"{part}.parquet")
    build_store(FakeEncoder(), open_images(folder), tmp_path / "store")
    store = open_store(tmp_path / "store")
    assert all(isinstance(item, bytes) for item in load(store))
    tiles = store.take([0])
    (without_store,) = TileImages(None).load(tiles.ids, tiles.sources)
    assert without_store.reason == "rows of tables need the store"


def test_relative_sources_are_found_beside_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    picture_store(Path("work"), [None])
    assert open_store(Path("work/store")).take([0]).sources == ["work/images/tile-000.png"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (image,) = load(open_store(Path("../work/store")))
    assert isinstance(image, bytes)


def test_each_unreadable_image_has_a_reason(tmp_path: Path) -> None:
    store = picture_store(tmp_path, [None] * 4)
    images = tmp_path / "images"
    (images / "tile-000.png").unlink()
    (images / "tile-001.png").write_bytes(picture(99))
    (images / "tile-002.png").unlink()
    os.mkfifo(images / "tile-002.png")  # reading it would never end
    missing, changed, pipe, readable = load(store)
    assert "No such file" in str(missing)
    assert changed == "the file has changed since it was embedded"
    assert "not a regular file" in str(pipe)
    assert isinstance(readable, bytes)


def test_thumbnails_are_kept(tmp_path: Path) -> None:
    store = picture_store(tmp_path, [None])
    tiles = store.take([0])
    images = TileImages(store)
    before = images.load(tiles.ids, tiles.sources)
    (tmp_path / "images" / "tile-000.png").unlink()
    assert images.load(tiles.ids, tiles.sources) == before
