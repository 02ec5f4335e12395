"""Searches of the map: further hits of an indexed store, and bounded memory."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import marsretrieval as mr
from marsretrieval.errors import UsageError
from marsretrieval.search import approximate_scores, exact_from_approximate, exact_topk
from marsretrieval.search.index.find import make_index
from marsretrieval.web.schemas import SearchBody
from marsretrieval.web.workspace import MapStore, Pictures, candidate_rows


@pytest.fixture(scope="module")
def indexed(tile_store: Path, tmp_path_factory: pytest.TempPathFactory) -> MapStore:
    path = tmp_path_factory.mktemp("indexed") / "mars.store"
    shutil.copytree(tile_store, path)
    opened = mr.open_store(path, device="cpu")
    make_index(opened.embeddings)
    store = MapStore(opened, "mars")
    assert store.index is not None
    return store


def test_further_hits_of_an_indexed_store_equal_those_of_an_exact_search(indexed: MapStore) -> None:
    lon, lat = indexed.store.embeddings.positions().T
    box = [float(lon.min()), float(lat.min()), float(lon.min()) + 2, float(lat.max())]
    tiles = indexed.tiles.ids([3, 90])
    for request in (
        SearchBody(like=[tiles[0]]),
        SearchBody(like=[tiles[0]], not_like=[tiles[1]], bbox=box),
    ):
        prepared = indexed.prepare_search(request, Pictures())
        search = indexed.search(prepared, lambda: True)
        area = {} if request.bbox is None else {"bbox": tuple(box)}
        for count in (200, 201, 700, 5000):
            hits = indexed.hits(search, count)
            expected = indexed.store.search(
                like=request.like, not_like=request.not_like, k=5000, **area
            ).hits
            assert len(hits) >= min(count, len(expected))
            assert hits.ids == expected.ids[: len(hits)]
            np.testing.assert_array_equal(hits.scores, expected.scores[: len(hits)])


def test_neighbours_and_tiles_of_a_box_do_not_depend_on_the_index(
    indexed: MapStore, map_store: MapStore
) -> None:
    for row in (0, 17, len(map_store.store) - 1):
        assert indexed.neighbours(row) == map_store.neighbours(row)
    lon, lat = (float(value) for value in map_store.store.embeddings.positions()[17])
    box = mr.geo.Box(lon - 0.5, lat - 0.5, lon + 0.5, lat + 0.5)
    assert sorted(indexed.tiles_in(box, 100)) == sorted(map_store.tiles_in(box, 100))


def test_candidates_contain_the_best_rows(indexed: MapStore) -> None:
    index = indexed.index
    rng = np.random.default_rng(0)
    exclude = rng.random(index.rows) < 0.3
    for skipped in (None, exclude):
        query = rng.standard_normal(index.dimension).astype(np.float32)
        scored = approximate_scores(index, query)
        rows = candidate_rows(scored.scores, scored.bound, 50, skipped)
        assert 50 <= len(rows) < index.rows / 2
        others = np.ones(index.rows, dtype=np.bool_)
        others[rows] = False
        by_row = None if skipped is None else index.by_row(skipped)
        for k in (1, 49, 50):
            ranking = exact_from_approximate(
                index, query, scored.scores, scored.bound, k, exclude=others
            )
            expected = exact_topk(index, query, k, exclude=by_row)
            np.testing.assert_array_equal(ranking.rows, expected.rows)
            np.testing.assert_array_equal(ranking.scores, expected.scores)
    assert len(candidate_rows(scored.scores, scored.bound, 10_000, exclude)) == (~exclude).sum()


def test_uploaded_images_are_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    Image.fromarray(pixels).save(buffer, "png")
    data = buffer.getvalue()
    monkeypatch.setattr("marsretrieval.web.workspace.MAX_PICTURE_BYTES", 3 * len(data))
    pictures = Pictures()
    first = pictures.add([(data, "a.png")])
    second = pictures.add([(data, "b.png")] * 2)
    assert [image.size for image in pictures.load([*first, *second])] == [(64, 64)] * 3
    third = pictures.add([(data, "c.png")] * 4)  # more than allowed: all of one request are kept
    assert len(pictures.load(third)) == 4
    with pytest.raises(UsageError, match="2 uploaded images are no longer kept"):
        pictures.load(second)


def test_kept_searches_are_bounded_by_bytes(
    indexed: MapStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tile = indexed.tiles.ids([3])[0]
    prepared = indexed.prepare_search(SearchBody(like=[tile]), Pictures())
    first = indexed.search(prepared, lambda: True)
    monkeypatch.setattr("marsretrieval.web.workspace.KEPT_BYTES", int(2.5 * first.bytes))
    second, third = (indexed.search(prepared, lambda: True) for _ in range(2))
    assert indexed.find(first.key) is None
    assert indexed.find(second.key) is second and indexed.find(third.key) is third
