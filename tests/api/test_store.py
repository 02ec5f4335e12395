"""Tests of the Python search interface."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import marsretrieval
from marsretrieval.api import query
from marsretrieval.embeddings import build_store, build_text_store
from marsretrieval.errors import (
    DataError,
    ModalityError,
    StoreMismatchError,
    UsageError,
)
from marsretrieval.geo import Area, Box
from marsretrieval.progress import NO_PROGRESS
from marsretrieval.search import Hit
from tests.fakes import FakeEncoder, FakeSource, FakeVisionEncoder, png_bytes


def test_hits_are_typed_and_ranked(store: Any) -> None:
    result = store.search("pitted cones", k=7)
    assert len(result) == 7 and len(store) == 20
    assert all(isinstance(hit, Hit) for hit in result)
    assert [hit.rank for hit in result] == list(range(1, 8))
    scores = store.scores(result.query)
    best = np.sort(scores)[::-1][:7]
    np.testing.assert_allclose([hit.score for hit in result], best, atol=1e-6)
    assert result[0] == next(iter(result)) and result[-1].rank == 7
    assert "7 hits, best" in repr(result) and "20 images by fake-0" in repr(store)
    assert result[2:4] == [result[2], result[3]] and result[:0] == []
    with pytest.raises(IndexError):
        result[7]


def test_number_of_hits(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "DEFAULT_K", 5)
    assert len(store.search("dunes")) == 5
    ranked = store.search("dunes", k=20)
    reached = store.search("dunes", min_score=ranked[8].score - 1e-6)
    assert [hit.id for hit in reached] == [hit.id for hit in ranked[:9]]
    assert reached.about["count"] is None
    assert dict(store.prepare_search("dunes", min_score=0.2).describe())["hits"] == "all"
    assert len(store.search("dunes", min_score=ranked[8].score - 1e-6, k=4)) == 4
    example = store.search(like=ranked[0].id, min_score=-1)
    assert len(example) == 19 and ranked[0].id not in example.hits.ids
    with pytest.raises(UsageError, match="not a number"):
        store.prepare_search("dunes", min_score=float("nan"))


def test_example_tile_is_excluded_from_hits(store: Any) -> None:
    like = store.search(like="tile-000003", k=19)
    ids = [hit.id for hit in like]
    assert len(ids) == 19 and "tile-000003" not in ids
    with_example = store.search(like="tile-000003", k=19, keep_examples=True)
    assert with_example[0].id == "tile-000003" and with_example[0].score == pytest.approx(
        1, abs=1e-3
    )
    assert [hit.id for hit in with_example][1:] == ids[:18]
    two = store.search(like=["tile-000003", "tile-000004"], k=100)
    assert len(two) == 18 and two.about["like"] == ["tile-000003", "tile-000004"]
    assert store.search(like="tile-000003", k=2)[0].id == ids[0]


def test_tiles_by_position(store: Any) -> None:
    by_id = store.search(like=["tile-000002", "tile-000005"])
    by_place = store.search(like_at=[(-179.95, 0.05), (179.95, 0.25)])
    assert by_place.about["like"] == ["tile-000002", "tile-000005"]
    np.testing.assert_array_equal(by_id.query, by_place.query)
    assert store.search(like_at=(180.05, 0.05)).about["like"] == ["tile-000002"]


def test_like_needs_no_model(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    alone = marsretrieval.open_store(folder, report=said.append)  # fake-0 is in no catalogue
    assert len(alone.search(like="tile-000001", not_like="tile-000002", k=5)) == 5
    assert said == []
    build_store(FakeVisionEncoder(), FakeSource(), tmp_path / "vision")
    vision = marsretrieval.open_store(tmp_path / "vision")
    assert len(vision.search(like="tile-000001")) == 11


def test_images_as_paths_and_pillow_images(store: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(5))
    picture = Image.open(path)
    assert picture.mode == "L"
    for images in (path, str(path), picture, [path], [picture]):
        result = store.search(images=images, k=1)
        assert result[0].id == "tile-000005" and result[0].score == pytest.approx(1, abs=1e-3)
    both = store.search("dunes", images=path, mix=1.0, k=1)
    assert both[0].id == "tile-000005" and both.about["mix"] == 1.0
    away = store.search("dunes", not_images=[path], not_text="ice", not_weight=0.9)
    rank = {hit.id: hit.rank for hit in store.search("dunes")}
    assert [hit.id for hit in away].index("tile-000005") + 1 >= rank["tile-000005"]
    assert away.about["not_weight"] == 0.9 and away.about["not_text"] == ["ice"]


def test_boxes_and_regions(store: Any, tmp_path: Path) -> None:
    box = (179.8, 0.0, -179.8, 0.4)
    inside = {"tile-000001", "tile-000002", "tile-000005", "tile-000006"}
    ring = [[179.8, 0.0], [180.2, 0.0], [180.2, 0.4], [179.8, 0.4], [179.8, 0.0]]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    file = tmp_path / "region.geojson"
    file.write_text(json.dumps(polygon))
    for where in (
        {"bbox": box},
        {"bbox": "179.8,0,-179.8,0.4"},
        {"bbox": Box(*box)},
        {"region": file},
        {"region": str(file)},
        {"region": polygon},
        {"region": Area.from_geojson(polygon)},
        {"region": Box(*box)},
    ):
        assert {hit.id for hit in store.search("dunes", **where)} == inside
    assert store.search("dunes", bbox=box).about["bbox"] == "179.8,0,-179.8,0.4"


def test_several_texts_in_one_pass(store: Any) -> None:
    passes: list[str] = []

    class Watch:
        def start(self, label: str, total: int | None, unit: str = "items") -> Any:
            passes.append(label)
            return NO_PROGRESS.start(label, total, unit)

    results = store.search_many(["dunes", "ice"], k=4, progress=Watch())
    assert passes == ["search"]
    for text, result in zip(("dunes", "ice"), results, strict=True):
        alone = store.search(text, k=4)
        assert [hit.id for hit in result] == [hit.id for hit in alone]
        assert result.about["text"] == text
    assert store.search_many([]) == []
    with pytest.raises(UsageError, match="must share k"):
        store.run_searches([store.prepare_search("dunes", k=1), store.prepare_search("ice", k=2)])


def test_queries_in_one_call_must_share_the_region(store: Any) -> None:
    def square(east: float) -> dict[str, Any]:
        corners = [[-180, -90], [east, -90], [east, 90], [-180, 90], [-180, -90]]
        return {"type": "Polygon", "coordinates": [corners]}

    for name, one, other in (
        ("region", square(0), square(-100)),
        ("bbox", (-60, -10, 59.99999, 10), (-60, -10, 60.000001, 10)),
    ):
        searches = [store.prepare_search("dunes", **{name: region}) for region in (one, other, one)]
        assert len(store.run_searches(searches[::2])) == 2
        with pytest.raises(UsageError, match="must share k"):
            store.run_searches(searches)


def test_results_as_files_and_maps(store: Any, tmp_path: Path) -> None:
    pytest.importorskip("geopandas")
    result = store.search("dunes", k=12, lon=360)
    assert all(hit.lon >= 0 for hit in result)
    frame = result.to_geodataframe()
    assert len(frame) == 12 and frame.total_bounds[2] > 180
    style = tmp_path / "a.qml"
    assert result.to_geojson(tmp_path / "a.geojson") == [tmp_path / "a.geojson", style]
    assert result.to_parquet(tmp_path / "a") == [tmp_path / "a.parquet", style]
    record = tmp_path / "a.csv.json"
    assert result.to_csv(str(tmp_path / "a.csv")) == [tmp_path / "a.csv", record]
    assert {path.name for path in tmp_path.iterdir()} == {
        "a.geojson",
        "a.parquet",
        "a.csv",
        "a.csv.json",
        "a.qml",
    }
    result.to_geojson(tmp_path / "b.json")
    assert (tmp_path / "b.json").exists()
    clusters = result.merge(0.25)
    assert sum(hit.tiles for hit in clusters) == 12 and "places" in repr(clusters)
    np.testing.assert_array_equal(clusters.query, result.query)
    assert clusters == clusters and clusters != result  # without comparing arrays
    with pytest.raises(UsageError, match=r"Use \.tif"):
        clusters.heatmap(tmp_path / "heat.jpg")
    heat = clusters.heatmap(tmp_path / "heat.png")
    assert heat.values.shape == (5, 4) and heat.tiles == 20
    best = np.unravel_index(np.nanargmax(heat.values), heat.values.shape)
    lon = heat.west + (best[1] + 0.5) * heat.cell_lon
    lat = heat.north - (best[0] + 0.5) * heat.cell_lat
    assert (lon, lat) == pytest.approx((result[0].lon, result[0].lat))
    chart = result.map(style="dark", title="Dunes")
    assert chart._repr_png_().startswith(b"\x89PNG")
    table = store.search("a <b> c", k=12)._repr_html_()
    assert table.count("<tr>") == 11 and "and 2 more" in table
    assert store.search("dunes", min_score=0.999)._repr_html_() == "<p>no hits</p>"


def test_a_table_without_hits_has_the_columns_of_one_with_hits(store: Any, tmp_path: Path) -> None:
    catalogue = tmp_path / "known.csv"
    catalogue.write_text("lon,lat\n1,1\n")
    hits, none = store.search("dunes", k=3), store.search("dunes", min_score=0.999)
    assert len(none) == 0
    for some, empty in (
        (hits, none),
        (hits.merge(0.5), none.merge(0.5)),
        (hits.against(catalogue), none.against(catalogue)),
    ):
        frame = empty.to_dataframe()
        assert frame.shape[0] == 0 and list(frame.columns) == list(some.to_dataframe().columns)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, UsageError, "nothing to search for"),
        ({"not_text": "x"}, UsageError, "nothing to search for"),
        ({"text": "x", "k": 0}, UsageError, "at least 1"),
        ({"text": "x", "mix": 2}, UsageError, "image_weight 2"),
        ({"text": "x", "not_weight": -1}, UsageError, "negative_weight -1"),
        ({"text": "x", "lon": 90}, UsageError, "Use 180 or 360"),
        ({"text": "x", "bbox": (0, 0, 1, 1), "region": "r.geojson"}, UsageError, "one of them"),
        ({"text": "x", "bbox": (0, 5, 1, 1)}, UsageError, "south must be below north"),
        ({"text": "x", "bbox": (0, 5, 1)}, UsageError, "is not a box"),
        ({"like_at": (0, 5, 1)}, UsageError, "is not a position"),
        ({"like_at": "here"}, UsageError, "is not a position"),
        ({"text": "x", "region": "gone.geojson"}, DataError, "gone.geojson: no such file"),
        ({"text": "x", "region": {"type": "Point"}}, DataError, "is not an area"),
        ({"images": "gone.png"}, DataError, "gone.png: cannot be read"),
        ({"like": "tile-999999"}, UsageError, "Did you mean"),
        ({"like_at": (0, 0)}, UsageError, "The nearest is tile-0000"),
    ],
)
def test_invalid_queries(store: Any, options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        store.search(**options)


def test_invalid_stores(folder: Path, tmp_path: Path) -> None:
    build_text_store(FakeEncoder(), [("a", "dunes")], tmp_path / "texts", role="caption")
    with pytest.raises(UsageError, match="holds texts"):
        marsretrieval.open_store(tmp_path / "texts")
    with pytest.raises(StoreMismatchError, match="weights_sha256"):
        marsretrieval.open_store(folder, encoder=FakeEncoder(seed=1))
    build_store(FakeVisionEncoder(), FakeSource(), tmp_path / "vision")
    vision = marsretrieval.open_store(tmp_path / "vision", encoder=FakeVisionEncoder())
    with pytest.raises(ModalityError, match="vision-only"):
        vision.search("dunes")


def test_importing_the_package_loads_no_heavy_libraries() -> None:
    code = (
        "import sys; before = set(sys.modules); import marsretrieval; "
        "roots = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "assert roots - set(sys.stdlib_module_names) == {'marsretrieval'}, roots; "
        "marsretrieval.open_store; "
        "assert not {'torch', 'matplotlib', 'transformers'} & set(sys.modules); "
        "assert 'open_store' in dir(marsretrieval)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        marsretrieval.nothing  # noqa: B018


def test_searching_by_tiles_loads_no_deep_learning(folder: Path) -> None:
    code = (
        f"import sys, marsretrieval; s = marsretrieval.open_store({str(folder)!r}); "
        "assert len(s.search(like='tile-000001')) == 19; "
        "assert not {'torch', 'matplotlib', 'scipy', 'rasterio'} & set(sys.modules)"
    )
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    assert time.perf_counter() - start < 30
