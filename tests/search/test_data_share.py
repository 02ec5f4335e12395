"""Tiles without data in stores, indexes, searches, heat maps and exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from marsretrieval.api import open_store
from marsretrieval.cli.app import app
from marsretrieval.embeddings import EmbeddingStore, export_parquet
from marsretrieval.embeddings import open_store as open_embeddings
from marsretrieval.errors import UsageError
from marsretrieval.search import exact_topk, heatmap_of, open_index
from marsretrieval.search.tiles import rows_below
from tests.search.stores import unit, write_store

ROWS = 300


def shares() -> Any:
    valid = np.linspace(0, 1, ROWS)
    valid[::3] = 0
    valid[1::10] = np.nan
    return valid


def store_of(folder: Path, valid: Any = None) -> EmbeddingStore:
    rng = np.random.default_rng(3)
    lon, lat = np.arange(ROWS) * 0.2, np.zeros(ROWS)
    return write_store(
        folder, unit(rng.normal(size=(ROWS, 16))), lon=lon, lat=lat, valid=valid, shard_rows=70
    )


def test_shares_are_stored_and_old_shards_still_open(tmp_path: Path) -> None:
    store = store_of(tmp_path / "new", shares())
    assert store.valid() == pytest.approx(shares(), abs=1e-7, nan_ok=True)
    view = open_index(tmp_path / "new")
    assert view is not None
    assert np.array_equal(view.valid(), store.valid(), equal_nan=True)
    mixed = shares()
    mixed[:70] = np.nan  # the first shard has no such column, as older versions wrote it
    store = store_of(tmp_path / "mixed", mixed)
    assert np.array_equal(store.valid() == store.valid(), ~np.isnan(mixed))
    old = store_of(tmp_path / "old")
    assert np.isnan(old.valid()).all()
    view = open_index(tmp_path / "old")
    assert view is not None and np.isnan(view.valid()).all()
    assert rows_below(old, None) is None


@pytest.mark.parametrize("view", ["build", "ignore"])
@pytest.mark.parametrize("least", [None, 0.25, 1.0])
def test_search_skips_tiles_with_too_little_data(view: Any, least: Any, tmp_path: Path) -> None:
    store = store_of(tmp_path, shares())
    if view == "build":
        open_index(tmp_path)
    query = unit(np.random.default_rng(5).normal(size=(2, 16)), np.float32)
    below = rows_below(store, least)
    assert below is not None
    data_shares = np.float32(shares())
    expected = data_shares == 0 if least is None else ~(data_shares >= least)
    assert np.array_equal(below, expected)
    ranking = exact_topk(store, query, 40, exclude=below, index=view)
    everything = exact_topk(store, query, ROWS, index=view)
    for number in range(2):
        scores, rows = everything.hits(number)
        is_allowed = ~below[rows]
        assert ranking.rows[number][: is_allowed.sum()].tolist() == rows[is_allowed][:40].tolist()
        assert np.array_equal(ranking.hits(number)[0], scores[is_allowed][:40])


def test_wrong_shares_are_refused(tmp_path: Path) -> None:
    store = store_of(tmp_path / "old")
    with pytest.raises(UsageError, match="has no shares of valid data"):
        rows_below(store, 0.5)
    assert rows_below(store, 0) is None
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="min_valid"):
            rows_below(store, share)
    with pytest.raises(UsageError, match="exclude of shape"):
        exact_topk(store, np.zeros((1, 16)), 5, exclude=np.zeros(3, dtype=bool))


def test_tiles_without_data_are_excluded_from_similar_tiles(tmp_path: Path) -> None:
    store_of(tmp_path, shares())
    store = open_store(tmp_path)
    result = store.search(like="0000002", k=ROWS)
    empty = {f"{row:07d}" for row in np.flatnonzero(shares() == 0)}
    assert not empty & {hit.id for hit in result}
    assert result.about["without_data"] == len(empty)
    everything = store.search(like="0000002", k=ROWS, min_valid=0)
    assert empty <= {hit.id for hit in everything} and everything.about["without_data"] == 0
    few = store.search(like="0000002", k=ROWS, min_valid=0.9)
    assert {hit.id for hit in few} == {
        f"{row:07d}" for row in np.flatnonzero(np.float32(shares()) >= np.float32(0.9))
    }


def test_tiles_without_data_are_blank_in_heat_maps(tmp_path: Path) -> None:
    store = store_of(tmp_path, shares())
    heat = heatmap_of(store, np.full(ROWS, 0.5), cell=0.2)
    count = int((shares() == 0).sum())
    assert heat.about["without_data"] == count
    assert heat.tiles == ROWS - count
    values = heat.values[~np.isnan(heat.values)]
    assert (values == 0.5).all()
    half = heatmap_of(store, np.full(ROWS, 0.5), cell=0.2, min_valid=0.5)
    assert half.tiles == int((np.float32(shares()) >= 0.5).sum())
    old = store_of(tmp_path / "old")
    assert "without_data" not in heatmap_of(old, np.full(ROWS, 0.5), cell=0.2).about


def test_exports_include_shares_if_available(tmp_path: Path) -> None:
    export_parquet(store_of(tmp_path / "new", shares()), tmp_path / "new.parquet")
    column = pq.read_table(tmp_path / "new.parquet")["valid"].to_pylist()
    values = np.array([np.nan if share is None else share for share in column])
    assert values == pytest.approx(shares(), abs=1e-7, nan_ok=True)
    export_parquet(store_of(tmp_path / "old"), tmp_path / "old.parquet")
    assert "valid" not in pq.read_schema(tmp_path / "old.parquet").names


def test_entries_without_warnings_are_as_before(tmp_path: Path) -> None:
    store_of(tmp_path, shares())
    entry = json.loads((tmp_path / "shards" / "000000.json").read_text())
    assert "warnings" not in entry
    assert open_embeddings(tmp_path).warnings == []


@pytest.mark.parametrize("view", [True, False])
def test_tiles_without_data_do_not_move_the_distribution(view: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    vectors = unit(rng.normal(size=(ROWS, 16)))
    vectors[::3] = unit(np.ones((1, 16)))  # empty tiles, all alike
    lon = np.arange(ROWS)[::-1] * 0.2  # a search index sorts by longitude
    write_store(tmp_path, vectors, lon=lon, lat=np.zeros(ROWS), valid=shares(), shard_rows=70)
    if view:
        open_index(tmp_path)
    store = open_store(tmp_path)
    result = store.search(like="0000002", k=5)
    expected = store.scores(result.query)[~(shares() == 0)]
    scores = result.about["scores"]
    assert scores["tiles"] == scores["sampled"] == len(expected)
    assert scores["mean"] == pytest.approx(expected.mean(), abs=1e-4)
    assert scores["std"] == pytest.approx(expected.std(), abs=1e-4)
    assert result[0].percentile == pytest.approx(
        100 * (len(expected) - 2) / len(expected), abs=1e-3
    )


def test_a_store_without_any_data_still_has_a_distribution(tmp_path: Path) -> None:
    store_of(tmp_path, np.zeros(ROWS))
    store = open_store(tmp_path)
    scores = store.search(like="0000002", min_valid=0).about["scores"]
    assert scores["tiles"] == ROWS
    assert len(store.search(like="0000002")) == 0


def test_message_without_hits_names_the_minimum_share(tmp_path: Path) -> None:
    store_of(tmp_path, np.full(ROWS, 0.5))
    result = CliRunner().invoke(
        app, ["search", "--store", str(tmp_path), "--like", "0000002", "--min-valid", "0.9"]
    )
    assert "has no other tile with 0.9 or more of its area with data" in result.stdout
