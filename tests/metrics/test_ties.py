"""Equal scores: the defined order, the bounds over all orders, and constant scorers."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsretrieval.metrics import landform, paired, ranking
from tests.metrics.inputs import strict_geo, unit
from tests.metrics.strict_reference import average_precision

few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 10_000)


@few
@given(seeds, st.integers(1, 40))
def test_counted_ranks_equal_sorted_ranks(seed: int, rows_at_once: int) -> None:
    rng = np.random.default_rng(seed)
    # Few distinct directions: many exact ties.
    vectors = unit(rng.integers(-1, 2, (25, 3)) + np.array([4, 0, 0]))
    order = rng.permutation(25)
    corpus = vectors[rng.permutation(25)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_AT_ONCE", 25 * rows_at_once)
        both = ranking.own_ranks(vectors, corpus, order)
    scores = ranking.cosines(vectors, corpus)
    for ranks, scored in zip(both, (scores, scores.T), strict=True):
        for row in range(25):
            by_row = np.argsort(-scored[row], kind="stable")
            stated = ranking.ranked(scored[row], order)
            assert ranks.stated[row] == list(stated).index(row) + 1
            assert ranks.by_row[row] == list(by_row).index(row) + 1
            assert ranks.best[row] == 1 + (scored[row] > scored[row, row]).sum()
            assert ranks.worst[row] == (scored[row] >= scored[row, row]).sum()


def test_the_order_of_ids_is_fixed_and_blind_to_names() -> None:
    ids = [f"class {row // 100}/{row:03d}" for row in range(1000)]
    order = ranking.id_order(ids)
    assert sorted(order) == list(range(1000))
    # SHA-256 of "a" begins ca97, of "b" 3e23, of "c" 2e7d.
    assert ranking.id_order(["a", "b", "c"]).tolist() == [2, 1, 0]
    assert ranking.id_order(["b", "a", "b"]).tolist() == [0, 2, 1]
    for start in range(0, 1000, 100):
        assert np.mean(order[start : start + 100]) == pytest.approx(500, abs=120)


@pytest.mark.parametrize(("count", "dimension"), [(200, 4), (1009, 768)])
def test_constant_scorer_of_pairs_is_at_chance_and_reports_ties(count: int, dimension: int) -> None:
    row = unit(np.random.default_rng(0).standard_normal((1, dimension)))
    same = np.repeat(row, count, axis=0)
    outcome = paired.evaluate(same, same, resamples=0)
    harmonic = np.mean(1 / np.arange(1, count + 1))
    for protocol in (outcome.published, outcome.strict):
        for direction in ("i2t", "t2i"):
            assert protocol[f"{direction}_r1"] == pytest.approx(1 / count)
            assert protocol[f"{direction}_r10"] == pytest.approx(10 / count)
            assert protocol[f"{direction}_mrr"] == pytest.approx(harmonic)
            assert protocol[f"{direction}_medr"] == pytest.approx((count + 1) / 2)
    assert outcome.ties["i2t_mrr"] == (pytest.approx(1 / count), 1.0)
    assert outcome.ties["t2i_medr"] == (count, 1.0)
    assert outcome.ties["t2i_r1"] == (0.0, 1.0)


def test_a_constant_scorer_of_landforms_is_at_chance_also_where_ids_sort_by_class() -> None:
    labels = [f"class {row // 200}" for row in range(1000)]
    same = unit(np.ones((1000, 4)))
    outcome = landform.evaluate(
        same, same[:5], labels=labels,
        image_ids=[f"{label}/{row:04d}" for row, label in enumerate(labels)],
        query_names=[f"class {row}" for row in range(5)], resamples=0,
    )  # fmt: skip
    for name, share in (("mAP", 0.2), ("r_precision", 0.2)):
        assert outcome.strict[name] == pytest.approx(share, abs=0.02)
    worst, best = outcome.ties["mAP"]
    assert worst < outcome.strict["mAP"] < best == 1.0
    assert outcome.ties["hit@10"] == (0.0, 1.0)


@few
@given(seeds)
def test_tie_bounds_of_landforms_are_worst_and_best_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    directions = unit(np.array([[1, 0, 0.2], [1, 0.6, 0], [1, 2, 0]]))
    rows = rng.integers(0, 3, 6)
    labels = [str(label) for label in rng.integers(0, 2, 6)]
    query = unit(np.array([[1.0, 0, 0]]))
    outcome = landform.evaluate(
        directions[rows], query, labels=["0", *labels[1:]], image_ids=list("abcdef"),
        query_names=["0"], resamples=0,
    )  # fmt: skip
    (scores,) = ranking.cosines(query, directions[rows])
    relevant = np.array([label == "0" for label in ["0", *labels[1:]]])
    orders = [np.lexsort((order, -scores)) for order in permutations(range(6))]
    for name, figure in (("mAP", ranking.average_precision), ("r_precision", ranking.r_precision),
                         ("ndcg@10", lambda hits: ranking.ndcg_at(hits, 10))):  # fmt: skip
        values = [figure(relevant[order]) for order in orders]
        if max(values) - min(values) > 1e-12:
            assert outcome.ties[name] == pytest.approx((min(values), max(values)))
        assert min(values) - 1e-12 <= outcome.strict[name] <= max(values) + 1e-12


def test_constant_scorer_of_tiles_is_at_chance_with_ids_sorted_by_position() -> None:
    grid = np.array(list(product(np.arange(0, 60, 0.5), np.arange(-30, 30, 0.5))))
    truth = np.random.default_rng(1).uniform([0, -30], [6, 30], (300, 2))  # all in the west
    ids = [f"E{lon:04.1f}_N{lat + 90:04.1f}" for lon, lat in grid]
    outcome = strict_geo(np.ones(len(grid)), grid, truth, ids=ids)
    # Precision is the same at every depth, and recall ends at the ceiling.
    ceiling = outcome.strict["ceiling"]["average_precision"]
    chance = outcome.strict["chance_precision"] * ceiling
    assert outcome.strict["average_precision"] == pytest.approx(chance, rel=0.15)
    low, high = outcome.ties["average_precision"]
    assert low < outcome.strict["average_precision"] < high
    assert high == pytest.approx(ceiling)


@few
@given(seeds, st.integers(1, 7))
def test_average_precision_is_within_its_bounds_whatever_the_luck(seed: int, max_k: int) -> None:
    rng = np.random.default_rng(seed)
    tiles = np.column_stack([0.4 * rng.integers(0, 8, 6), np.zeros(6)])
    truth = np.column_stack([0.4 * rng.integers(0, 8, 4), np.zeros(4)])
    scores = rng.integers(0, 3, 6).astype(float)
    outcome = strict_geo(scores, tiles, truth, max_k=max_k)
    near = [set(np.flatnonzero(np.abs(truth[:, 0] - lon) <= 0.5)) for lon in tiles[:, 0]]
    values = set()
    for order in permutations(range(6)):
        ranked = np.lexsort((order, -scores))[:max_k]
        values.add(round(average_precision([near[row] for row in ranked], 4), 12))
    if len(values) > 1:
        low, high = outcome.ties["average_precision"]
        assert low - 1e-9 <= min(values) <= max(values) <= high + 1e-9


@few
@given(seeds)
def test_no_ties_are_reported_without_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tiles = rng.uniform(-40, 40, (50, 2))
    assert strict_geo(rng.permutation(50).astype(float), tiles, tiles[:9]).ties == {}
    vectors = unit(rng.standard_normal((30, 8)))
    assert paired.evaluate(vectors, unit(rng.standard_normal((30, 8))), resamples=0).ties == {}
