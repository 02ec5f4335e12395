"""Scores of every row are those of the ranking, in the order of the store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from marsretrieval.errors import UsageError
from marsretrieval.search import exact_topk, score_all
from tests.search.memory import ArraySource


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
