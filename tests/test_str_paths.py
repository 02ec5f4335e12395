"""Tests that functions of the documented modules accept paths as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import marsretrieval as mr
from marsretrieval import datasets, embeddings, evaluation, geo, results, search, tasks
from marsretrieval.api.inventory import create_inventory
from marsretrieval.datasets import ctx, rasters, synthetic
from marsretrieval.datasets.verify import verify
from marsretrieval.embeddings import build_text_store, plan_build
from marsretrieval.encoders import LoadOptions
from marsretrieval.errors import DataError, StoreError
from marsretrieval.plotting import planet_map
from marsretrieval.report.html.page import write_html
from marsretrieval.report.matching import match_results
from marsretrieval.report.result_files import ResultFile, read_whole
from tests.fakes import FakeEncoder, FakeSource
from tests.search.places import make_store


class Grid:
    """Mean brightness on a grid; a text is a random vector."""

    def encode_images(self, images: list[Image.Image]) -> np.ndarray:
        grey = [np.asarray(image.convert("L").resize((6, 6)), float) / 255 for image in images]
        return np.stack([values.ravel() + 0.01 for values in grey])

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        return np.stack([np.random.default_rng(len(text)).random(36) for text in texts])


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_planet: Path) -> Path:
    """A folder with the planet, two stores, a box and a result."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "planet").symlink_to(tiny_planet)
    make_store(folder / "store", [(10.0 + number, 5.0, 0.2) for number in range(5)])
    make_store(folder / "more", [(40.0, 5.0, 0.2)], ["another"])
    (folder / "names.txt").write_text("first\nsecond\n")
    ring = "[[[0,0],[90,0],[90,90],[0,90],[0,0]]]"
    (folder / "box.geojson").write_text(f'{{"type": "Polygon", "coordinates": {ring}}}')
    mr.evaluate(Grid(), "landform", data=folder / "planet", results=folder / "results",
                resamples=5)  # fmt: skip
    return folder


def result_file(work: Path) -> str:
    return str(next((work / "results").rglob("landform.json")))


def truth(work: Path) -> str:
    return str(work / "planet" / "Mars-Global-Geolocalization" / "ground_truth")


def plan(work: Path) -> Sequence[Any]:
    from marsretrieval.encoders import find

    return evaluation.plan(
        [find("mars-nano")], [tasks.find_task("landform")], data=str(work / "planet"),
        results=str(work / "results"), options=LoadOptions(), settings=tasks.Settings(),
    )  # fmt: skip


def search_result(work: Path) -> Any:
    return mr.open_store(work / "store").search(like="tile-000001")


def hits(work: Path) -> Any:
    return search_result(work).hits


def first_quad(work: Path) -> str:
    return str(min((work / "planet").rglob("*.tif")))


def cut_rasters(work: Path) -> None:
    report = rasters.cut_rasters(
        [first_quad(work)], rasters.RasterSpec(tile_px=64), str(work / "own-tiles")
    )
    (manifest,) = rasters.list_manifests(str(work / "own-tiles"))
    path = next((work / "own-tiles").glob("*.json"))
    assert not report.failed and rasters.read_raster_manifest(str(path)) == manifest
    with rasters.open_raster(first_quad(work)) as raster:
        assert raster.path == Path(first_quad(work))


CALLS: dict[str, Callable[[Path], Any]] = {
    "open_store": lambda work: mr.open_store(str(work / "store"), encoder=FakeEncoder()),
    "open_stores": lambda work: mr.open_store([str(work / "store"), str(work / "more")]),
    "build_store": lambda work: mr.build_store(
        Grid(), str(work / "planet" / "Mars-Landforms"), str(work / "own")
    ),
    "evaluate": lambda work: mr.evaluate(
        Grid(), "landform", data=str(work / "planet"), results=str(work / "results"), resamples=5
    ),
    "load_results": lambda work: mr.load_results(str(work / "results")),
    "embeddings.open_store": lambda work: embeddings.open_store(str(work / "store")),
    "embeddings.build_store": lambda work: embeddings.build_store(
        FakeEncoder(), FakeSource(), str(work / "fake")
    ),
    "plan_build": lambda work: plan_build(FakeSource(), str(work / "new")),
    "build_text_store": lambda work: build_text_store(
        FakeEncoder(), [("a", "dunes")], str(work / "texts"), role="query"
    ),
    "verify_store": lambda work: embeddings.verify_store(str(work / "store")),
    "export_parquet": lambda work: embeddings.export_parquet(
        embeddings.open_store(work / "store"), str(work / "store.parquet")
    ),
    "merge_stores": lambda work: embeddings.merge_stores(
        [str(work / "store"), str(work / "more")], str(work / "merged")
    ),
    "subset_store": lambda work: embeddings.subset_store(
        str(work / "store"), str(work / "subset"), ids=["tile-000001"]
    ),
    "open_index": lambda work: search.open_index(str(work / "store"), build=False),
    "verify_index": lambda work: search.verify_index(str(work / "store")),
    "drop_index": lambda work: search.drop_index(str(work / "store")),
    "open_images": lambda work: datasets.open_images(str(work / "planet" / "Mars-Landforms")),
    "open_sources": lambda work: datasets.open_sources([str(work / "planet" / "Mars-Landforms")]),
    "read_ground_truth": lambda work: datasets.read_ground_truth(truth(work)),
    "catalogue_files": lambda work: datasets.catalogue_files(truth(work)),
    "read_points": lambda work: datasets.read_points(next(map(str, Path(truth(work)).iterdir()))),
    "read_image_queries": lambda work: datasets.read_image_queries(
        str(Path(truth(work)).parent / "image_queries")
    ),
    "read_regular": lambda work: datasets.read_regular(str(work / "names.txt"), 100),
    "write_planet": lambda work: synthetic.write_planet(str(work / "planet"), size="tiny"),
    "find_planet": lambda work: synthetic.find_planet(str(work / "planet")),
    "verify": lambda work: verify(str(work / "planet"), tasks=["landform"]),
    "ctx.plan": lambda work: ctx.plan([], ctx.TileSpec(), str(work / "tiles")),
    "ctx.find_files": lambda work: ctx.find_files([str(work / "planet")]),
    "rasters.split_sources": lambda work: rasters.split_sources([str(work / "planet")]),
    "rasters.plan_rasters": lambda work: rasters.plan_rasters(
        [first_quad(work)], rasters.RasterSpec(tile_px=64), str(work / "cut")
    ),
    "rasters.cut_rasters": cut_rasters,
    "find_results": lambda work: results.find_results([str(work / "results")]),
    "read_result": lambda work: results.read_result(result_file(work)),
    "RunResult.write": lambda work: results.read_result(result_file(work)).write(
        str(work / "copy.json")
    ),
    "ResultFile.read": lambda work: ResultFile.read(result_file(work)),
    "read_whole": lambda work: read_whole(result_file(work)),
    "match_results": lambda work: match_results(
        result_file(work), result_file(work), results=str(work / "results")
    ),
    "write_html": lambda work: write_html(
        [ResultFile.read(result_file(work))], str(work / "page.html")
    ),
    "read_class_names": lambda work: tasks.read_class_names(str(work / "names.txt")),
    "Task.open": lambda work: [task.open(str(work / "planet")) for task in tasks.TASKS],
    "evaluation.plan": plan,
    "Area.read": lambda work: geo.Area.read(str(work / "box.geojson")),
    "write_hits": lambda work: search.write_hits(hits(work), str(work / "hits.csv")),
    "check_hits_path": lambda work: search.check_hits_path(str(work / "hits.csv")),
    "Heatmap.write": lambda work: search_result(work).heatmap().write(str(work / "heat.tif")),
    "write_page": lambda work: search.write_page(hits(work), str(work / "page.html")),
    "write_sheet": lambda work: search.write_sheet(hits(work), str(work / "sheet.png")),
    "create_inventory": lambda work: create_inventory(
        str(work / "cones.inventory"), mr.open_store(work / "store"), similar_to="tile-000001"
    ).close(),
    "PlanetMap.save": lambda work: planet_map().save(str(work / "map.png"), dpi=30),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_path_may_be_text(work: Path, name: str) -> None:
    CALLS[name](work)


def test_errors_are_those_of_paths(work: Path) -> None:
    with pytest.raises(StoreError, match="no such folder"):
        mr.open_store(str(work / "gone"))
    with pytest.raises(DataError, match="no such file"):
        mr.load_results(str(work / "gone"))
