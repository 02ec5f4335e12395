"""Input types of a search: numpy scalars, geometries of other libraries, images in memory."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marsretrieval.errors import ImageError, UsageError
from marsretrieval.search import text_query


def test_several_texts_form_one_query(store: Any) -> None:
    both = store.search(["dunes", "ice"], k=4)
    alone = [store.search(text, k=4).query for text in ("dunes", "ice")]
    np.testing.assert_allclose(both.query, text_query(np.stack(alone)), atol=1e-6)
    assert both.about["text"] == "dunes; ice" and both.about["texts"] == ["dunes", "ice"]
    one = store.search(["dunes"], k=4)
    np.testing.assert_array_equal(one.query, alone[0])
    assert one.about["text"] == "dunes"
    with pytest.raises(UsageError, match="text is empty"):
        store.search(["dunes", " "])
    with pytest.raises(UsageError, match="3 is not a text"):
        store.search(["dunes", 3])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_numpy_scalars_are_accepted(store: Any, tmp_path: Path, kind: Any) -> None:
    pytest.importorskip("geopandas")
    least = kind(store.search("dunes", k=9)[-1].score - 1e-5)
    result = store.search(
        "dunes",
        images=np.zeros((8, 8), np.uint8),
        k=np.int64(9),
        min_score=kind(-0.9),
        min_valid=kind(0.0),
        mix=kind(0.25),
        not_text="ice",
        not_weight=kind(0.125),
        bbox=np.array([179, -5, -179, 5], kind),
        lon=np.int32(360),
        raw=np.bool_(True),
        keep_examples=np.bool_(False),
    )
    assert len(result) == 9 and len(store.search("dunes", min_score=least)) >= 9
    merged = result.merge(kind(0.5))
    names = ["a.gpkg", "a.geojson", "a.parquet", "a.csv", "a.fgb", "a.shp"]
    for name in names:
        assert merged.write(tmp_path / name)
    merged.map()
    for name in ("heat.tif", "heat.png"):
        merged.heatmap(tmp_path / name, cell=kind(0.5))
    assert json.loads(json.dumps(dict(merged.about)))["merge_deg"] == 0.5
    assert len(store.search(like_at=(kind(179.875), kind(0.125)), k=np.uint8(3))) == 3
    frame = store.search("dunes", k=5).to_geodataframe()
    assert len(store.search("dunes", min_score=frame.score.min())) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 2.5}, "k is 2.5, not a whole number"),
        ({"k": "many"}, "k is 'many'"),
        ({"min_score": "high"}, "min_score is 'high'"),
        ({"image_weight": None}, "image_weight is None"),
        ({"mix": 3}, "image_weight 3 is not within"),
        ({"negative_weight": -1}, "negative_weight -1 is not within"),
        ({"bbox": ("a", 0, 1, 1)}, "west of a box is 'a'"),
        ({"region": 3}, "region is of type int"),
        ({"similar_to": 3}, "similar_to is of type int"),
        ({"similar_to": [None]}, "None is not the id of a tile"),
        ({"negative_text": {"a": 1}}, "negative_text is of type dict"),
        ({"similar_to_location": ({}, {})}, "is not a position"),
        ({"similar_to_location": 3}, "is not a position"),
    ],
)
def test_wrong_values(store: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        store.search("dunes", **options)


def test_regions_from_other_libraries(store: Any) -> None:
    shapely = pytest.importorskip("shapely")
    geopandas = pytest.importorskip("geopandas")
    shape = shapely.box(179.8, 0.0, 180.2, 0.4)
    expected = {hit.id for hit in store.search("dunes", bbox=(179.8, 0.0, -179.8, 0.4))}
    assert len(expected) == 4
    frame = geopandas.GeoDataFrame({"name": ["a"]}, geometry=[shape])
    for region in (shape, shapely.geometry.mapping(shape), frame.geometry, frame):
        result = store.search("dunes", region=region)
        assert {hit.id for hit in result} == expected and result.about["region"] == "polygons"


def test_images_in_memory_match_the_vector_of_their_file(store: Any, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(200, 30_000, (24, 24)).astype(np.uint16)
    rgba = np.random.default_rng(1).integers(0, 256, (24, 24, 4)).astype(np.uint8)
    for name, array in (("deep.png", values), ("alpha.png", rgba)):
        path = tmp_path / name
        Image.fromarray(array).save(path)
        expected = store.search(images=path, k=1).query
        opened = Image.open(io.BytesIO(path.read_bytes()))
        for image in (Image.open(path), opened, array, [array], array[None]):
            if isinstance(image, np.ndarray) and image.ndim == 3 and image is not array:
                continue  # (1, height, width) is no batch
            np.testing.assert_array_equal(store.search(images=image, k=1).query, expected)
    with pytest.raises(ImageError, match="image 1: an array of shape"):
        store.search(images=np.zeros((3, 24, 24)))


@pytest.mark.parametrize(
    "vector", [["a"] * 32, [[1], [1, 2]], np.ones(32, complex), [None] * 32, object()]
)
def test_vectors_that_are_not_numbers(store: Any, vector: Any) -> None:
    with pytest.raises(UsageError, match="vector"):
        store.search(vector=vector)
    with pytest.raises(UsageError, match="query"):
        store.scores(vector)


@pytest.mark.parametrize("rows", [["a"], [1.5], [None], np.ones(20, bool)])
def test_rows_that_are_not_whole_numbers(store: Any, rows: Any) -> None:
    with pytest.raises(UsageError, match="not whole numbers"):
        store.vectors(rows)
    assert store.vectors([]).shape == (0, store.dimension)


def test_one_text_in_place_of_several(store: Any) -> None:
    with pytest.raises(UsageError, match="texts is not a list"):
        store.search_many("dunes")


@pytest.mark.parametrize("image", [np.full((8, 8), np.nan), Image.new("RGB", (0, 0))])
def test_images_without_pixels(store: Any, image: Any) -> None:
    with pytest.raises(ImageError, match="without"):
        store.search(images=image)


def test_wrong_arguments_of_a_result(store: Any, tmp_path: Path) -> None:
    result = store.search("dunes", k=3)
    for call, message in (
        (lambda: result.write(None), "path is None"),
        (lambda: result.write("a\0.csv"), "null character"),
        (lambda: result.to_csv(""), "empty path"),
        (lambda: result.write(tmp_path / "a.html", page_images=1.5), "images is 1.5"),
        (lambda: result.map(style=3), "style is 3"),
        (lambda: result.merge("a"), "deg is 'a'"),
        (lambda: result.heatmap(cell="a"), "cell is 'a'"),
        (lambda: result.against(None), "path is None"),
    ):
        with pytest.raises(UsageError, match=message):
            call()
