"""Chance: expected metrics against all permutations, and against independent simulations."""

from __future__ import annotations

from itertools import combinations, pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsretrieval.errors import DataError
from marsretrieval.metrics import chance, geolocalization, landform, paired, ranking
from marsretrieval.results import Evaluation
from tests.metrics.inputs import geo_input, landform_input, paired_input, strict_geo, unit
from tests.metrics.strict_reference import arc_deg, average_precision

few = settings(max_examples=25, deadline=None)


@pytest.mark.parametrize("items", [1, 2, 3, 5, 7])
def test_closed_forms_are_the_means_over_all_rankings(items: int) -> None:
    for relevant in range(items + 1):
        # Every set of ranks of the relevant items belongs to equally many permutations.
        ranks = np.arange(items)
        rankings = [np.isin(ranks, chosen) for chosen in combinations(range(items), relevant)]

        def mean(metric: Any, *more: int, rankings: list[np.ndarray] = rankings) -> float:
            return float(np.mean([metric(row, *more) for row in rankings]))

        expected = chance.expect_average_precision(items, relevant)
        assert expected == pytest.approx(mean(ranking.average_precision))
        assert chance.expect_r_precision(items, relevant) == pytest.approx(
            mean(ranking.r_precision)
        )
        for k in (1, 3, 10):
            assert chance.expect_hit_at(items, relevant, k) == pytest.approx(
                mean(ranking.hit_at, k)
            )
            assert chance.expect_ndcg_at(items, relevant, k) == pytest.approx(
                mean(ranking.ndcg_at, k)
            )
            assert chance.expect_precision_at(items, relevant, k) == pytest.approx(
                mean(ranking.precision_at, k)
            )
            assert chance.expect_average_precision_at(items, relevant, k) == pytest.approx(
                mean(ranking.average_precision_at, k)
            )


@pytest.mark.parametrize("pairs", [1, 2, 5, 12])
def test_pairs_by_chance(pairs: int) -> None:
    vectors = unit(np.eye(pairs, dtype=np.float32))
    outcome = paired.evaluate(vectors, vectors, resamples=0)
    for protocol in ("published", "strict"):
        assert outcome.chance[protocol].keys() == getattr(outcome, protocol).keys()
    assert outcome.chance["published"].items() <= outcome.chance["strict"].items()
    # Every rank of a query is as probable as any other, so their means are the expectations.
    ranks = np.arange(1, pairs + 1)
    for way in ("i2t", "t2i"):
        values = {
            key: outcome.chance["strict"][f"{way}_{key}"] for key in ("r1", "r5", "r10", "mrr")
        }
        assert values == pytest.approx(
            {
                "r1": np.mean(ranks <= 1),
                "r5": np.mean(ranks <= 5),
                "r10": np.mean(ranks <= 10),
                "mrr": np.mean(1 / ranks),
            }
        )
    drawn = np.random.default_rng(1).integers(1, pairs + 1, (40_000, pairs))
    expected = np.median(drawn, axis=1).mean()
    assert outcome.chance["strict"]["t2i_medr"] == pytest.approx(expected, rel=0.01)


def test_a_constant_scorer_of_pairs_is_at_chance() -> None:
    same = unit(np.ones((4000, 8)))
    outcome = paired.evaluate(same, same, resamples=0)
    for key, expected in outcome.chance["strict"].items():
        assert outcome.strict[key] == pytest.approx(expected, rel=0.25, abs=5e-4), key


def test_landforms_by_chance() -> None:
    made = landform_input(3, images=120, classes=5)
    made["query_names"][-1] = "class without an image"
    outcome = landform.evaluate(**made, resamples=0)
    per_class = outcome.chance["strict"]["per_class"]
    assert per_class.keys() == outcome.strict["per_class"].keys()
    rng = np.random.default_rng(0)
    labels = np.array(made["labels"])
    for name, expected in per_class.items():
        rows = [rng.permutation(labels == name) for _ in range(3000)]
        for key, values in (
            ("mAP", [ranking.average_precision(row) for row in rows]),
            ("ndcg@10", [ranking.ndcg_at(row, 10) for row in rows]),
            ("hit@10", [ranking.hit_at(row, 10) for row in rows]),
        ):
            error = 4 * np.std(values) / np.sqrt(len(values))
            assert expected[key] == pytest.approx(np.mean(values), abs=error), (name, key)
    for key in ("mAP", "hit@10", "r_precision", "ndcg@10"):
        mean = np.mean([item[key] for item in per_class.values()])
        assert outcome.chance["strict"][key] == pytest.approx(mean)


# Points


def small_planet(seed: int) -> dict[str, Any]:
    """Generate up to seven tiles and four points on a strip, some of them isolated."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 8))
    lon = rng.choice(12, count, replace=False) * 0.4
    truth = rng.uniform(0, 4.8, int(rng.integers(1, 5)))
    return {
        "centres": np.column_stack([lon, np.zeros(count)]),
        "truth": np.column_stack([truth, np.zeros(len(truth))]),
        "max_k": int(rng.integers(1, 9)),
    }


@few
@given(st.integers(0, 10_000))
def test_areas_of_points_are_the_means_over_all_rankings(seed: int) -> None:
    made = small_planet(seed)
    centres, truth, max_k = made["centres"], made["truth"], made["max_k"]
    near = [{p for p, point in enumerate(truth) if arc_deg(tile, point) <= 0.5} for tile in centres]
    strict, published = [], []
    for order in permutations(range(len(centres))):
        ranked = [near[row] for row in order][:max_k]
        strict.append(average_precision(ranked, len(truth)))
        published.append(trapezoid(ranked, len(truth)))
    outcome = geolocalization.expect_random(centres, centres, truth, max_k=max_k)
    assert outcome["strict"]["average_precision"] == pytest.approx(np.mean(strict), abs=1e-12)
    assert outcome["published"]["auprc"] == pytest.approx(np.mean(published), abs=1e-12)


def trapezoid(near: list[set[int]], points: int) -> float:
    """Compute the area over every depth; with fewer than 200 tiles every depth is a threshold."""
    curve = [
        (
            len(set().union(*near[:k])) / points,
            sum(bool(covered) for covered in near[:k]) / k,
        )
        for k in range(1, len(near) + 1)
    ]
    return sum((right - left) * (low + high) / 2 for (left, low), (right, high) in pairwise(curve))


@pytest.mark.parametrize("max_k", [150, 20_000])
def test_chance_of_points_is_the_mean_of_evaluated_random_scores(max_k: int) -> None:
    made = geo_input(2, tiles=900, points=60)
    rng = np.random.default_rng(5)
    draws: list[Evaluation] = [
        strict_geo(
            rng.permutation(len(made["corners"])), made["corners"], made["truth"], max_k=max_k,
            chance={},
        )
        for _ in range(300)
    ]  # fmt: skip
    outcome = strict_geo(made["scores"], made["corners"], made["truth"], max_k=max_k)
    for protocol, area in (("published", "auprc"), ("strict", "average_precision")):
        expected = outcome.chance[protocol]
        values = np.array([getattr(draw, protocol)[area] for draw in draws])
        error = 4 * values.std() / np.sqrt(len(values))
        assert expected[area] == pytest.approx(values.mean(), abs=error)
        for key in ("k", "f1", "precision", "recall"):
            values = np.array([getattr(draw, protocol)["best"][key] for draw in draws])
            # Both sides are means of samples.
            error = 4 * values.std() * np.sqrt(1 / len(values) + 1 / chance.PERMUTATIONS)
            assert expected["best"][key] == pytest.approx(values.mean(), abs=error), key
    assert expected["normalised"] == pytest.approx(
        expected["average_precision"] / outcome.strict["ceiling"]["average_precision"]
    )


def test_chance_does_not_depend_on_the_model_or_the_seed() -> None:
    made = geo_input(4, tiles=600)
    first = strict_geo(made["scores"], made["corners"], made["truth"], seed=0)
    second = strict_geo(-made["scores"], made["corners"], made["truth"], seed=9)
    assert first.chance == second.chance


def test_chance_does_not_depend_on_the_order_of_the_tiles() -> None:
    tiles, truth = (geo_input(4, tiles=600)[name] for name in ("corners", "truth"))
    moved = np.random.default_rng(0).permutation(tiles)
    first = geolocalization.expect_random(tiles, tiles, truth)
    assert geolocalization.expect_random(moved, moved, truth) == first


def test_chance_of_truncated_rankings() -> None:
    made = geo_input(3, tiles=900)
    order = np.argsort(-made["scores"])[:100]
    head = {
        "ids": [f"{row:06d}" for row in order],
        "published_lonlat": made["corners"][order],
        "centre_lonlat": made["corners"][order],
        "truth_lonlat": made["truth"],
        "all_centre_lonlat": made["corners"],
        "max_k": 100,
        "resamples": 0,
    }
    assert geolocalization.evaluate(made["scores"][order], **head).chance == {}
    complete = strict_geo(made["scores"], made["corners"], made["truth"], max_k=100).chance
    expected = geolocalization.expect_random(
        made["corners"], made["corners"], made["truth"], max_k=100
    )
    outcome = geolocalization.evaluate(made["scores"][order], **head, chance=expected)
    assert outcome.chance == complete == expected


def test_catalogue_without_reachable_tiles_has_no_chance() -> None:
    outcome = strict_geo([2.0, 1.0], [[0.0, 0.0], [1.0, 0.0]], [[90.0, 0.0]])
    assert outcome.chance["strict"]["average_precision"] == 0
    assert outcome.chance["strict"]["normalised"] == 0
    assert outcome.chance["published"]["auprc"] == 0
    assert outcome.chance["strict"]["best"] == {"k": 1, "f1": 0, "precision": 0, "recall": 0}


def test_chance_needs_a_position() -> None:
    with pytest.raises(DataError, match="none of the tiles has one"):
        geolocalization.expect_random([[np.nan, np.nan]], [[0.0, 0.0]], [[0.0, 0.0]])


# What intervals rest on


def test_intervals_name_the_resampled_unit() -> None:
    outcome = paired.evaluate(**paired_input(pairs=30), resamples=20)
    assert outcome.interval_basis["strict"] == {"unit": "pairs", "count": 30}
    outcome = landform.evaluate(**landform_input(images=90, classes=6), resamples=20)
    assert outcome.interval_basis["published"] == {"unit": "classes", "count": 6}
    # Three of the four blocks hold a point; 179.9 and -180.1 lie in one block.
    centres = [[0.5, 0.5], [10.5, 0.5], [179.9, 0.5], [50.5, 0.5]]
    truth = [[0.5, 0.5], [1.5, 0.5], [10.5, 0.5], [179.9, 0.5], [-180.1 + 360, 0.6]]
    points = strict_geo([4.0, 3.0, 2.0, 1.0], centres, truth, resamples=20)
    assert points.interval_basis["strict"] == {"unit": "spatial blocks", "count": 3}
    assert points.to_dict()["interval_basis"]["strict"]["count"] == 3
    assert strict_geo([1.0], [[0.0, 0.0]], [[0.0, 0.0]], resamples=20).interval_basis == {}
