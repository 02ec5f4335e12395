"""Tests of searches over several stores, in Python and on the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

import marsretrieval as mr
from marsretrieval.embeddings import open_store
from marsretrieval.errors import MissingImagesWarning, UsageError
from tests.fakes import FakeEncoder, png_bytes
from tests.report.pages import Page
from tests.search.pictures import picture_store
from tests.search.places import make_store

Command = Callable[..., Result]

WEST = [(-120.0 + 0.2 * number, 5.0, 0.2) for number in range(6)]
EAST = [(20.0 + 0.2 * number, -5.0, 0.2) for number in range(4)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two stores; the id `both` is in each."""
    folder = tmp_path_factory.mktemp("stores")
    make_store(folder / "west", WEST, ["both", *(f"w{number}" for number in range(1, 6))])
    make_store(folder / "east", EAST, ["e0", "both", "e2", "e3"])
    return [folder / "west", folder / "east"]


def test_one_ranking_with_the_store_of_every_hit(folders: list[Path], tmp_path: Path) -> None:
    store = mr.open_store(folders, encoder=FakeEncoder())
    result = store.search("dunes", k=10, raw=True)
    scores = {}
    query = FakeEncoder().encode_texts(["dunes"])[0]
    for folder in folders:
        ids, vectors = open_store(folder).load()
        scores |= {(folder.name, name): v @ query for name, v in zip(ids, vectors, strict=True)}
    expected = sorted(scores, key=lambda key: (-scores[key], key[1]))
    records = list(result.hits.records())
    assert [(row["store"], row["id"]) for row in records] == expected
    assert [row["rank"] for row in records] == list(range(1, 11))
    assert [part["rows"] for part in result.about["stores"]] == [6, 4]
    path, _ = result.to_csv(tmp_path / "hits")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["store"], row["id"]) for row in rows] == expected
    merged = result.merge(10)
    assert [hit.store for hit in merged] == [name for name, _ in expected[:1]] + [
        next(name for name, _ in expected if name != expected[0][0])
    ]
    assert sum(hit.tiles or 0 for hit in merged) == 10
    assert list(result.to_dataframe()["store"]) == [name for name, _ in expected]


def test_example_tiles_of_several_stores(folders: list[Path]) -> None:
    store = mr.open_store([str(folder) for folder in folders], encoder=FakeEncoder())
    with pytest.raises(UsageError, match="tile 'both' is in 2 stores: west, east"):
        store.search(like="both")
    own = store.search(like="east:both", k=1, keep_examples=True)
    assert own.hits[0].record()["store"] == "east" and own[0].id == "both"
    rest = store.search(like="east:both")
    keys = {(row["store"], row["id"]) for row in rest.hits.records()}
    assert len(keys) == 9 and ("west", "both") in keys and ("east", "both") not in keys


def test_files_name_the_store_of_every_hit(folders: list[Path], tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    result = mr.open_store(folders, encoder=FakeEncoder()).search("dunes")
    stores = [hit.store for hit in result]
    assert {*stores} == {"west", "east"}
    for suffix in ("gpkg", "fgb", "shp"):
        path = tmp_path / f"hits.{suffix}"
        result.write(path)
        assert list(geopandas.read_file(path).sort_values("rank")["store"]) == stores
    features = json.loads(result.write(tmp_path / "hits.geojson")[0].read_text())["features"]
    assert len({feature["id"] for feature in features}) == 10  # `both` is in both stores
    layer = geopandas.read_file(tmp_path / "hits.gpkg", layer="places")
    assert layer["best_store"][0] == stores[0]


def test_the_page_has_the_images_of_both_stores(tmp_path: Path) -> None:
    """Relative sources and equal ids: each image is read from the store of its hit."""
    for name, first in (("a", 0), ("b", 100)):
        (tmp_path / name).mkdir()
        picture_store(tmp_path / name, [(10.0, first / 10, 0.2)] * 2)
    paths = [tmp_path / name / "store" for name in ("a", "b")]
    both = mr.open_store(paths, encoder=FakeEncoder())
    (tmp_path / "b" / "images" / "tile-001.png").write_bytes(png_bytes(99))
    result = both.search(like=f"{paths[0]}:tile-000", keep_examples=True)
    with pytest.warns(MissingImagesWarning, match="1 of 4 images cannot be read"):
        result.write(tmp_path / "x.html")
    with pytest.warns(MissingImagesWarning, match="1 of 4 images cannot be read"):
        result.sheet(tmp_path / "x.png")
    page = Page((tmp_path / "x.html").read_text(encoding="utf-8"))
    assert len(page.all("img")) == 4  # three hits and the example
    captions = [p.text for p in page.all("p", class_="where-text") if "title" in p.attributes]
    assert captions == [hit.store for hit in result]
    assert page.all("pre")[0].text.count("--store") == 2


def test_an_inventory_needs_one_store(folders: list[Path], tmp_path: Path) -> None:
    store = mr.open_store(folders, encoder=FakeEncoder())
    with pytest.raises(UsageError, match="an inventory of 2 stores"):
        mr.open_inventory(tmp_path / "dunes", store=store, text="dunes")


def test_heat_maps_are_of_all_stores(folders: list[Path]) -> None:
    store = mr.open_store(folders, encoder=FakeEncoder())
    heat = store.search("dunes").heatmap()
    alone = mr.open_store(folders[0], encoder=FakeEncoder()).search("dunes").heatmap()
    assert np.isfinite(heat.values).sum() > np.isfinite(alone.values).sum()


def test_a_store_gives_its_vectors_and_metadata(folders: list[Path], tmp_path: Path) -> None:
    store = mr.open_store(folders[1], encoder=FakeEncoder())
    assert store.ids == ["e0", "both", "e2", "e3"] and store.complete
    assert store.vectors().shape == (4, store.dimension) and store.vectors().dtype == np.float32
    np.testing.assert_array_equal(store.vectors([2]), store.vectors()[[2]])
    assert store.metadata([1]).ids == ["both"] and len(store.metadata().lon) == 4
    assert store.verify() == []
    assert store.info()["rows"] == 4 and store.info()["set_hash"] == store.set_hash
    store.export(str(tmp_path / "east.parquet"))
    assert (tmp_path / "east.parquet").exists()


def test_the_command_searches_several_stores(folders: list[Path], marsretrieval: Command) -> None:
    stores = ("--store", folders[0], "--store", folders[1])
    new = ("search", *stores, "--similar-to", "west:both", "--negative", "e0", "--json")
    old = ("search", *stores, "--like", "west:both", "--not-like", "e0", "--json")
    result = json.loads(marsretrieval(*new).stdout)
    assert result == json.loads(marsretrieval(*old).stdout)
    assert {hit["store"] for hit in result["hits"]} == {"west", "east"}
    assert result["rows"] == 10 and len(result["hits"]) == 9
    text = marsretrieval(*new[:-1]).stdout
    assert "west:w1" in text and "east:both" in text
    error = marsretrieval("search", *stores, "--similar-to", "both", code=2)
    assert "is in 2 stores: west, east" in error.stderr
