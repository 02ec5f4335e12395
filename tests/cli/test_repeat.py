"""Option --repeat of the search command: the same request from an exported file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from marsretrieval.embeddings import open_store
from tests.cli.test_embed_search import MODEL, call, called, tiles
from tests.cli.test_search import HERE
from tests.fakes import png_bytes

pytest.importorskip("pyogrio")
pytest.importorskip("rasterio")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mars")
    call("embed", "-m", MODEL, "--images", tiles(folder / "tiles"), "--store", folder / "store")
    return folder / "store"


def test_the_same_hits_from_any_file(store: Path, tmp_path: Path) -> None:
    example = tmp_path / "example.png"
    example.write_bytes(png_bytes(11))
    files = [
        tmp_path / name for name in ("a.gpkg", "b.csv", "c.parquet", "d.geojson", "e.png", "g.html")
    ]
    heat = tmp_path / "f.tif"
    outs = [word for file in files for word in ("-o", file)]
    first = called(
        *("search", "--store", store, "--text", "dunes", "--raw", "--image", example),
        *("--mix", 0.6, "--not-like", HERE, "--not-weight", 0.4, "--bbox", "0,0,2,2", "-k", 7),
        *("--merge-deg", 0.3, "--lon", 360, *outs, "--heatmap", heat),
    )
    for file in (*files, heat):
        again = called("search", "--repeat", file)
        assert again["hits"] == first["hits"] and again["merge_deg"] == 0.3
        same = {key: value for key, value in again["request"].items() if key != "stores"}
        assert same == {key: first["request"][key] for key in same}
        assert again["repeat"]["file"] == str(file)
        assert again["repeat"]["overridden"] == again["repeat"]["differences"] == []


def test_options_override(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "hits.csv"
    call("search", "--store", store, "--text", "dunes", "--bbox", "0,0,2,2", "-k", 7, "-o", out)
    ring = [[1.2, 0.2], [1.6, 0.2], [1.6, 0.4], [1.2, 0.4], [1.2, 0.2]]
    region = tmp_path / "region.geojson"
    region.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    repeated = call("search", "--repeat", out, "-k", 2, "--region", region, "--json")
    result = json.loads(repeated.stdout)
    assert (result["text"], result["count"], result["bbox"]) == ("dunes", 2, None)
    assert result["region"] == str(region) and len(result["hits"]) == 2
    assert result["repeat"]["overridden"] == ["--bbox", "--count"]
    assert "--count of the command line replaces that of" in repeated.stderr


def test_another_store_is_said(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "hits.geojson"
    call("search", "--store", store, "--text", "dunes", "-o", out)
    other = tmp_path / "other"
    shutil.copytree(store, other)
    entry = min((other / "shards").glob("*.json"))
    entry.unlink()
    repeated = call("search", "--repeat", out, "--store", other, "--json")
    result = json.loads(repeated.stdout)
    names = [item["what"] for item in result["repeat"]["differences"]]
    assert names == ["rows", "set_hash"] and "images: 12 then, " in repeated.stderr
    same = call("search", "--repeat", out, "--json")
    assert json.loads(same.stdout)["repeat"]["differences"] == [] and "then" not in same.stderr


def test_a_text_replaces_a_vector_and_a_catalogue_is_named(store: Path, tmp_path: Path) -> None:
    vector, points = tmp_path / "query.npy", tmp_path / "points.csv"
    np.save(vector, np.eye(1, open_store(store).dimension)[0])
    points.write_text("name,lon,lat\nA,1,1\n")
    out = tmp_path / "hits.csv"
    catalogue_options = ("--against", points, "-o", out)
    first = called("search", "--store", store, "--vector", vector, "-k", 3, *catalogue_options)
    repeated = call("search", "--repeat", out, "--json")
    assert [hit["id"] for hit in json.loads(repeated.stdout)["hits"]] == [
        hit["id"] for hit in first["hits"]
    ]
    assert f"add --against {points}" in repeated.stderr
    other = call("search", "--repeat", out, "--text", "dunes", "--json")
    result = json.loads(other.stdout)
    assert (result["text"], result["vector"]) == ("dunes", None)
    assert result["repeat"]["overridden"] == ["--vector"] and "is left out" in other.stderr


def test_several_stores_are_repeated(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(store, other)
    stores = ("--store", store, "--store", other)
    out = tmp_path / "hits.html"
    first = called("search", *stores, "--similar-to", f"store:{HERE}", "-k", 4, "-o", out)
    again = called("search", "--repeat", out)
    assert again["hits"] == first["hits"] and again["repeat"]["differences"] == []
    assert again["like"] == [f"store:{HERE}"] and len(again["request"]["stores"]) == 2


def test_missing_and_changed_images(store: Path, tmp_path: Path) -> None:
    example = tmp_path / "example.png"
    example.write_bytes(png_bytes(11))
    out = tmp_path / "hits.csv"
    call("search", "--store", store, "--image", example, "-o", out)
    example.write_bytes(png_bytes(12))
    assert "example.png: changed since" in call("search", "--repeat", out, code=1).stderr
    example.unlink()
    assert "example.png: no such file" in call("search", "--repeat", out, code=1).stderr
    (tmp_path / "hits.csv.json").unlink()
    message = call("search", "--repeat", out, code=1).stderr
    assert "hits.csv.json" in message and "Traceback" not in message


def test_a_base_map_of_ones_own(store: Path, tmp_path: Path) -> None:
    from PIL import Image

    verb = ("search", "--store", store, "--like", HERE, "-o", tmp_path / "map.png", "--basemap")
    Image.new("RGB", (720, 360), "#446688").save(tmp_path / "wide.png")
    Image.new("RGB", (300, 300)).save(tmp_path / "square.png")
    call(*verb, tmp_path / "wide.png")
    call(*verb, "none")
    assert "not twice as wide" in call(*verb, tmp_path / "square.png", code=2).stderr
    assert "gone.png: no such file" in call(*verb, tmp_path / "gone.png", code=1).stderr
