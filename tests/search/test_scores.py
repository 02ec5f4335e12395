"""Scores of every row are those of the ranking, in the order of the store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsretrieval.errors import UsageError
from marsretrieval.search import (
    SearchIndex,
    approximate_scores,
    exact_from_approximate,
    exact_topk,
    make_index,
    score_all,
)
from tests.search.memory import ArraySource
from tests.search.stores import unit, write_store


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_every_row_has_the_score_of_the_ranking(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3000, 96))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    source = ArraySource(rows.astype(dtype), cuts=[1, 700, 700, 2999])
    query = rng.standard_normal(96).astype(np.float32)
    scores = score_all(source, query)
    assert scores.shape == (3000,) and scores.dtype == np.float32
    ranking = exact_topk(source, query, 3000)
    np.testing.assert_array_equal(scores[ranking.rows[0]], ranking.scores[0])


def test_usage_errors() -> None:
    source = ArraySource(np.eye(4, dtype=np.float16))
    with pytest.raises(UsageError, match="vectors of 4 numbers"):
        score_all(source, np.ones((1, 4)))
    with pytest.raises(UsageError, match="NaN"):
        score_all(source, [np.nan, 0, 0, 1])
    assert score_all(ArraySource(np.empty((0, 4), np.float16)), np.ones(4)).shape == (0,)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    """4,000 rows, a third of them duplicates, whose ids are not in the order of the rows."""
    rng = np.random.default_rng(3)
    vectors = unit(rng.standard_normal((4000, 32)) + 0.7, np.float16)
    vectors[1::3] = vectors[0]
    names = [f"{number:05d}" for number in rng.permutation(4000)]
    lon, lat = rng.uniform(-180, 180, 4000), rng.uniform(-90, 90, 4000)
    folder = tmp_path_factory.mktemp("scores") / "store"
    return make_index(write_store(folder, vectors, lon=lon, lat=lat, names=names, shard_rows=900))


@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.sampled_from([1, 2, 50, 1333, 1400, 3999, 5000]),
    offset=st.sampled_from([0.0, 0.7, 5.0]),
    share=st.sampled_from([None, 0.0, 0.4, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_the_best_of_approximate_scores_are_those_of_an_exact_search(
    index: SearchIndex, seed: int, k: int, offset: float, share: float | None
) -> None:
    rng = np.random.default_rng(seed)
    query = (rng.standard_normal(32) + offset).astype(np.float32)
    excluded = None if share is None else rng.random(4000) < share
    approximate = approximate_scores(index, query)
    error = np.abs(index.by_row(approximate.scores) - score_all(index, query))
    assert error.max() <= approximate.bound
    ranking = exact_from_approximate(
        index, query, approximate.scores, approximate.bound, k,
        exclude=None if excluded is None else excluded[index.row_of],
    )  # fmt: skip
    expected = exact_topk(index, query, k, exclude=excluded)
    np.testing.assert_array_equal(ranking.rows, expected.rows)
    np.testing.assert_array_equal(ranking.scores, expected.scores)


def test_approximate_scores_of_another_shape_are_refused(index: SearchIndex) -> None:
    query = np.ones(32, np.float32)
    scores = approximate_scores(index, query).scores
    with pytest.raises(UsageError, match="at least 1"):
        exact_from_approximate(index, query, scores, 0.1, 0)
    with pytest.raises(UsageError, match=r"scores of shape \(3,\) instead of \(4000,\)"):
        exact_from_approximate(index, query, scores[:3], 0.1, 1)
