"""`data tiles` of own rasters: from a raster to hits on a map."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.rasters.conftest import A, M, write_raster

__all__ = ["write_raster"]
GREY = np.random.default_rng(0).integers(1, 255, (128, 192)).astype(np.uint8)
MODEL = "tests.fakes:FakeEncoder"


def test_from_a_raster_to_a_layer(write_raster, marsretrieval, tmp_path: Path) -> None:
    gpd = pytest.importorskip("geopandas")
    path = write_raster("B01_009958_1524_XI_27S347W.tif", GREY, corner=(13 * M, -27 * M), pixel=6)
    out, store, layer = tmp_path / "tiles", tmp_path / "store", tmp_path / "cones.gpkg"
    arguments = ("data", "tiles", path, "--tile-px", 64, "--size", 64, "--out", out)
    planned = json.loads(marsretrieval(*arguments, "--dry-run", "--json").stdout)
    assert planned["tiles"] == 6 and planned["rasters"][0]["instrument"] == "CTX"
    assert not out.exists()
    plan = marsretrieval(*arguments, "--dry-run").stdout
    assert "CTX B01_009958_1524_XI_27S347W" in plan and "192 x 128 uint8" in plan
    report = json.loads(marsretrieval(*arguments, "--json").stdout)
    assert report["complete"] and report["tiles"] == 6
    assert "1 already present" in marsretrieval(*arguments).stdout
    marsretrieval("embed", "-m", MODEL, "--images", out, "--store", store)
    hits = marsretrieval(
        "search", "--store", store, "--text", "cones", "--trust", "--bbox", "12.9,-27.1,13.1,-26.9",
        "-o", layer,
    )  # fmt: skip
    assert hits.exit_code == 0
    table = gpd.read_file(layer)
    assert len(table) == 6
    bounds = table.total_bounds
    degrees = math.degrees(6 / A)
    assert bounds == pytest.approx(
        [13, -27 - 128 * degrees, 13 + 192 * degrees, -27], abs=degrees / 100
    )


def test_options_of_the_other_path_are_refused(write_raster, marsretrieval, tmp_path) -> None:
    path = write_raster("a.tif", GREY)
    for option in (("--bbox", "0,0,1,1"), ("--quads", "E000_N00"), ("--exact",),
                   ("--bbox", "0,0,1,1", "--clip"), ("--equal-aspect",),
                   ("--drop-empty", 0.5), ("--scratch", "s"),
                   ("--server", "https://x.org"), ("--ca-file", "c")):  # fmt: skip
        result = marsretrieval("data", "tiles", path, *option, "--out", tmp_path / "o", code=2)
        assert option[0] in result.stderr and "separate runs" in result.stderr
    for option in (("--tile-px", 64), ("--tile-m", 10), ("--overlap", 0), ("--stretch", "none"),
                   ("--min-valid", 0.5), ("--bands", 1), ("--nodata", 0)):  # fmt: skip
        result = marsretrieval("data", "tiles", "--quads", "E000_N00", *option, code=2)
        assert option[0] in result.stderr
    for text, words in (("x", "--delta x"), ("nan", "--delta nan"), ("-1", "--delta -1")):
        assert words in marsretrieval("data", "tiles", path, "--delta", text, code=2).stderr
    assert "--bands x" in marsretrieval("data", "tiles", path, "--bands", "x", code=2).stderr


def test_a_failed_raster_is_listed_and_the_others_are_cut(
    write_raster, marsretrieval, tmp_path
) -> None:
    good, bad = write_raster("a.tif", GREY), write_raster("b.tif", GREY, crs="EPSG:3857")
    out = tmp_path / "out"
    result = marsretrieval("data", "tiles", good, bad, "--out", out, "--size", 64, code=1)
    assert f"failed: {bad}: its coordinate system is on a body of 6,378 km" in result.stderr
    assert (out / "a.tar").exists() and "6 tiles of 1 raster" in result.stdout
    result = marsretrieval("data", "tiles", good, bad, "--out", out, "--size", 64, "--json", code=1)
    assert json.loads(result.stdout)["failed"][0]["source"] == str(bad)
    result = marsretrieval("data", "tiles", bad, "--out", out, "--size", 64, "--dry-run", code=1)
    assert "failed:" in result.stderr


def test_quads_and_own_rasters_in_one_run(
    write_raster, marsretrieval, tmp_path, tiny_planet
) -> None:
    quad = next(tiny_planet.rglob("*E*_N*.tif"))
    path = write_raster("a.tif", GREY)
    out = tmp_path / "out"
    result = marsretrieval(
        "data", "tiles", quad, path, "--out", out, "--size", 32, "--json", code=0
    )
    report = json.loads(result.stdout)
    assert report["own_rasters"]["tiles"] == 24 and len(report["quads"]["cut"]) == 1
    assert report["complete"]
    assert "1 file of the CTX mosaic by name, and 1 own raster" in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "description", "remedy"),
    [
        ("x.tsv", b"filepath\ttitle\n", "a table", "embed --images {path}"),
        ("x.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image without", "embed --images {folder}"),
        ("x.png", b"\x89PNG\r\n\x1a\n", "a PNG image without", "embed --images {folder}"),
        ("x.tif", b"hello", "a text file", "gdal_translate"),
        ("x.img", b"PDS_VERSION_ID = PDS3", "a PDS image", "gdal_translate"),
        ("x.tif", b"\0\1\2", "a file of an unknown format", "gdal_translate"),
    ],
)
def test_files_that_are_no_rasters(
    marsretrieval, tmp_path: Path, name: str, content: bytes, description: str, remedy: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    result = marsretrieval("data", "tiles", path, "--tile-px", 32, "--out", tmp_path / "o", code=1)
    assert f"failed: {path}: {description}" in result.stderr and "b'" not in result.stderr
    assert remedy.format(path=path, folder=tmp_path) in result.stderr
    assert not result.stdout
