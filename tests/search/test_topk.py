"""Exact top-k compared with a full sort, with ties, thresholds, boxes and bounds."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsretrieval.errors import StoreError, UsageError
from marsretrieval.geo import Box
from marsretrieval.search import exact_topk, kernels, scan, score_all, topk
from tests.search.memory import ArraySource


def unit(rows: Any, dtype: Any = np.float16) -> Any:
    rows = np.asarray(rows, dtype=np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)


def by_sorting(source: ArraySource, query: Any, k: int) -> tuple[list[float], list[int]]:
    """Reference: score in float64, round, sort by score and id."""
    wide = source.matrix.astype(np.float64) * np.asarray(query, dtype=np.float64)
    scores = wide.sum(axis=1).astype(np.float32)
    ids = source.ids(range(source.rows))
    order = sorted(range(source.rows), key=lambda row: (-scores[row], ids[row]))[:k]
    return scores[order].tolist(), order


def assert_exact(source: ArraySource, queries: Any, k: int, **options: Any) -> None:
    ranking = exact_topk(source, queries, k, **options)
    assert ranking.scores.dtype == np.float32 and ranking.rows.dtype == np.int64
    for number, query in enumerate(np.atleast_2d(queries)):
        scores, rows = by_sorting(source, query, k)
        assert ranking.rows[number].tolist() == rows
        assert ranking.scores[number].tolist() == scores


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 120),
    dimension=st.integers(1, 40),
    k=st.integers(1, 150),
    dtype=st.sampled_from([np.float16, np.float32]),
    distinct=st.sampled_from([1, 2, 5, 1000]),
    data=st.data(),
)
@settings(max_examples=150)
def test_equals_a_full_sort(
    seed: int, rows: int, dimension: int, k: int, dtype: Any, distinct: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    kinds = unit(rng.standard_normal((distinct, dimension)), dtype)
    source = ArraySource(
        kinds[rng.integers(0, distinct, rows)],
        names=[f"{number:03d}" for number in rng.permutation(rows)],
        cuts=data.draw(st.lists(st.integers(0, rows), max_size=5)),
    )
    assert_exact(source, unit(rng.standard_normal((3, dimension)), np.float32), k)


@pytest.mark.parametrize("k", [1, 7, 100, 999, 1000])
@pytest.mark.parametrize("slack", [1, 50])
def test_small_buffers_lose_nothing(monkeypatch: pytest.MonkeyPatch, k: int, slack: int) -> None:
    monkeypatch.setattr(scan, "_PIECE_ROWS", 64)
    monkeypatch.setattr(topk, "_SLACK", slack)
    monkeypatch.setattr(topk, "_MANY", slack)
    monkeypatch.setattr(kernels, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(topk, "_EXACT_ROWS", 7)
    monkeypatch.setattr(topk, "_QUERIES_AT_ONCE", 2)
    rng = np.random.default_rng(k)
    source = ArraySource(unit(rng.standard_normal((1000, 24))), cuts=[3, 400, 400, 999])
    assert_exact(source, unit(rng.standard_normal((5, 24)), np.float32), k)


def test_a_constant_model_is_ordered_by_id_in_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scan, "_PIECE_ROWS", 64)
    monkeypatch.setattr(topk, "_SLACK", 16)
    monkeypatch.setattr(topk, "_MANY", 16)
    names = [f"{number:05d}" for number in np.random.default_rng(0).permutation(5000)]
    source = ArraySource(unit(np.ones((5000, 8))), names=names)
    ranking = exact_topk(source, unit(np.ones((1, 8)), np.float32), 10)
    assert source.ids(ranking.rows[0]) == [f"{number:05d}" for number in range(10)]
    held = 2 * (4 * 10 + 16) + 64  # candidates at any time
    assert sum(source.lookups) > 5000 - held  # too alike for bounds: scored exactly, in turn
    assert max(source.lookups) <= held


def test_near_ties_are_ordered_by_exact_scores() -> None:
    # Neighbours in float32: the float32 pass cannot order them, and may order them wrongly.
    rng = np.random.default_rng(3)
    base = unit(rng.standard_normal((1, 512)), np.float32)
    noise = rng.standard_normal((4000, 512)).astype(np.float32) * 1e-7
    source = ArraySource(unit(base + noise, np.float32), cuts=[17, 1234])
    assert_exact(source, base, 50)


def test_result_depends_only_on_vectors_and_query() -> None:
    rng = np.random.default_rng(1)
    matrix = unit(rng.standard_normal((3000, 96)))
    matrix[1::3] = matrix[::3]  # many exact duplicates
    queries = unit(rng.standard_normal((40, 96)), np.float32)
    complete = exact_topk(ArraySource(matrix), queries, 700)
    cut = exact_topk(ArraySource(matrix, cuts=range(0, 3000, 7)), queries, 700)
    np.testing.assert_array_equal(complete.rows, cut.rows)
    np.testing.assert_array_equal(complete.scores, cut.scores)
    for number in (0, 39):
        alone = exact_topk(ArraySource(matrix), queries[number], 700)
        np.testing.assert_array_equal(alone.rows[0], complete.rows[number])
        np.testing.assert_array_equal(alone.scores[0], complete.scores[number])
    fewer = exact_topk(ArraySource(matrix), queries, 10)
    np.testing.assert_array_equal(fewer.rows, complete.rows[:, :10])


def test_k_larger_than_the_store_returns_all_tiles() -> None:
    source = ArraySource(unit(np.eye(4)))
    assert exact_topk(source, np.eye(4, dtype=np.float32)[0], 9).rows.tolist() == [[0, 1, 2, 3]]
    empty = ArraySource(np.empty((0, 4), np.float16))
    assert exact_topk(empty, np.ones((2, 4), np.float32), 3).rows.shape == (2, 0)


def test_box_filters_before_ranking() -> None:
    rng = np.random.default_rng(5)
    lon, lat = rng.uniform(-180, 180, 2000), rng.uniform(-80, 80, 2000)
    lon[::10] = np.nan
    matrix = unit(rng.standard_normal((2000, 16)))
    source = ArraySource(matrix, cuts=[100, 700], lon=lon, lat=lat)
    query = unit(rng.standard_normal((1, 16)), np.float32)
    for box in (Box(170, -60, -150, 60), Box(0, 0, 20, 30), Box(-180, -90, 180, 90)):
        inside = np.flatnonzero(box.contains(lon, lat))
        expected = [row for row in by_sorting(source, query[0], 2000)[1] if row in inside][:30]
        assert exact_topk(source, query, 30, region=box).rows[0].tolist() == expected
    nowhere = exact_topk(source, query, 30, region=Box(0, 85, 1, 86))
    assert nowhere.rows.shape == (1, 0)


def test_min_score_applies_per_query() -> None:
    source = ArraySource(unit([[1, 0], [0.8, 0.6], [0, 1]], np.float32))
    queries = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    ranking = exact_topk(source, queries, 3, min_score=0.6)
    assert ranking.rows.tolist() == [[0, 1], [2, 1], [-1, -1]]
    assert ranking.scores[1, 1] == np.float32(0.6)  # the bound itself is enough
    assert ranking.scores[2].tolist() == [-np.inf, -np.inf]
    scores, rows = ranking.hits(0)
    assert rows.tolist() == [0, 1] and scores.tolist() == [1.0, np.float32(0.8)]
    assert len(ranking.hits(2)[1]) == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, 100.0])
def test_damaged_vector_is_an_error(dtype: Any, wrong: float) -> None:
    rng = np.random.default_rng(0)
    source = ArraySource(unit(rng.standard_normal((500, 64)), dtype))
    source.matrix[77] *= dtype(wrong)
    query = unit(rng.standard_normal((1, 64)), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(StoreError, match="not of unit length"):
            exact_topk(source, query, 10)
        with pytest.raises(StoreError, match="not of unit length"):
            score_all(source, query[0])


@pytest.mark.parametrize("scale", [0.0, 1e-45, 1e-39, 1e-20, 1e20])
def test_queries_of_any_length(scale: float) -> None:
    rng = np.random.default_rng(0)
    source = ArraySource(unit(rng.standard_normal((300, 48))))
    query = (scale * unit(rng.standard_normal((1, 48)), np.float64)).astype(np.float32)
    assert_exact(source, query, 40)


def test_every_half_is_converted_exactly() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(-1, 4)
    converted = np.empty(halves.shape, np.float32)
    kernels.widen(halves, converted)
    np.testing.assert_array_equal(converted, halves.astype(np.float32))
    convert = kernels.Converter(4)
    for start in range(0, len(halves), convert.rows):
        part = halves[start : start + convert.rows]
        np.testing.assert_array_equal(convert(part), part.astype(np.float32))


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (np.ones((1, 4)), 0, "at least 1"),
        (np.ones((1, 3)), 1, "vectors of 4 numbers"),
        (np.ones((1, 1, 4)), 1, "vectors of 4 numbers"),
        ([[np.nan, 0, 0, 1]], 1, "NaN"),
    ],
)
def test_usage_errors(queries: Any, k: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        exact_topk(ArraySource(unit(np.eye(4))), queries, k)
