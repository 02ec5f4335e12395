"""Paired differences: properties, a slow reference and the false positive rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsretrieval.errors import DataError
from marsretrieval.metrics import bootstrap, geolocalization
from marsretrieval.metrics.bootstrap import block_weights, seed_of
from marsretrieval.metrics.difference import (
    Difference,
    PointComparison,
    RankedTiles,
    bootstrap_points,
    mean_over,
    over_queries,
)
from tests.metrics.inputs import geo_input

seeds = st.integers(0, 10_000)
few = settings(max_examples=20, deadline=None)
PROTOCOLS = ("strict", "published")


def columns(seed: int, queries: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    ranks = rng.integers(1, 60, queries)
    return {"mrr": 1 / ranks, "medr": ranks.astype(float), "r10": (ranks <= 10).astype(float)}


def rankings(seed: int, tiles: int = 400) -> tuple[RankedTiles, RankedTiles, np.ndarray]:
    """Create two models of different quality on the same tiles."""
    made = geo_input(seed, tiles, points=25)
    rng = np.random.default_rng(seed + 1)
    ids = [f"{row:06d}" for row in range(len(made["corners"]))]
    worse = made["scores"] + 0.5 * rng.standard_normal(len(ids))
    pair = [RankedTiles(scores, ids, made["corners"]) for scores in (made["scores"], worse)]
    return pair[0], pair[1], made["truth"]


def of_points(a: RankedTiles, b: RankedTiles, truth: np.ndarray, **more: Any) -> PointComparison:
    return bootstrap_points(
        a, b, truth, **{"radius_deg": 0.5, "max_k": 20_000, "resamples": 60, **more}
    )


def assert_flipped(one: Difference, other: Difference) -> None:
    assert (one.a, one.b, one.p) == (other.b, other.a, other.p)
    assert one.difference == -other.difference
    assert one.low is not None and other.high is not None
    assert one.low == pytest.approx(-other.high, abs=1e-12)
    assert one.high == pytest.approx(-other.low, abs=1e-12)


@few
@given(seeds, seeds)
def test_swapping_the_models_flips_the_signs(first: int, second: int) -> None:
    a, b = columns(first), columns(second)
    forward = over_queries(a, b, statistics={"medr": np.median}, resamples=200)
    back = over_queries(b, a, statistics={"medr": np.median}, resamples=200)
    for name, item in forward.items():
        assert_flipped(item, back[name])


@settings(max_examples=6, deadline=None)
@given(seeds, st.sampled_from(PROTOCOLS))
def test_swapping_two_rankings_flips_the_signs(seed: int, protocol: str) -> None:
    a, b, truth = rankings(seed)
    forward = of_points(a, b, truth, protocol=protocol)
    back = of_points(b, a, truth, protocol=protocol)
    for name, item in forward.figures.items():
        assert_flipped(item, back.figures[name])
    assert (forward.rank_a == back.rank_b).all()


@few
@given(seeds, seeds)
def test_the_mean_of_the_differences_is_the_difference_of_the_means(a: int, b: int) -> None:
    one, other = columns(a), columns(b)
    for name, item in over_queries(one, other, resamples=2).items():
        assert item.difference == pytest.approx((other[name] - one[name]).mean(), abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_contributions_of_points_sum_to_average_precision(seed: int) -> None:
    a, b, truth = rankings(seed)
    comparison = of_points(a, b, truth)
    delta = comparison.figures["average_precision"]
    assert delta.difference == pytest.approx(
        (comparison.value_b - comparison.value_a).mean(), abs=1e-12
    )
    assert delta.a == pytest.approx(comparison.value_a.mean(), abs=1e-12)
    assert ((comparison.rank_a == 0) == (comparison.value_a == 0)).all()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_model_compared_with_itself_has_no_differences(protocol: str) -> None:
    a, _, truth = rankings(3)
    one = columns(3)
    both = [*over_queries(one, one).values()]
    both += of_points(a, a, truth, protocol=protocol).figures.values()
    for item in both:
        assert (item.difference, item.low, item.high, item.p) == (0, 0, 0, 1)
        assert not item.clear


def test_resamples_equal_those_of_single_model_intervals() -> None:
    one = columns(5)
    nothing = {name: np.zeros_like(column) for name, column in one.items()}
    apart = over_queries(nothing, one, seed=7, resamples=300)
    alone = bootstrap.over_queries(one, seed=7, resamples=300)
    for name, (low, high) in alone.items():
        assert (apart[name].low, apart[name].high) == (low, high)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_metrics_equal_the_evaluation(protocol: str) -> None:
    a, b, truth = rankings(6, tiles=900)
    comparison = of_points(a, b, truth, protocol=protocol, resamples=0).figures
    for side, ranking in (("a", a), ("b", b)):
        complete = geolocalization.evaluate(
            ranking.scores, ids=ranking.ids, published_lonlat=ranking.lonlat,
            centre_lonlat=ranking.lonlat, truth_lonlat=truth, resamples=0,
        )  # fmt: skip
        figures = getattr(complete, protocol)
        area = "average_precision" if protocol == "strict" else "auprc"
        assert getattr(comparison[area], side) == pytest.approx(figures[area], abs=1e-12)
        assert getattr(comparison["best.f1"], side) == pytest.approx(
            figures["best"]["f1"], abs=1e-12
        )
        assert comparison[area].low is None and comparison[area].p is None


def test_blocks_are_resampled_jointly_for_both_models() -> None:
    """Compare with a loop that repeats every block as often as it was sampled."""
    a, b, truth = rankings(8, tiles=250)
    resamples, seed = 12, 4
    cells = {}
    for lon, lat in np.concatenate([a.lonlat, b.lonlat, truth]):
        cells.setdefault((np.floor(lon / 4), np.floor(lat / 4)))
    order = sorted(cells)
    weights = block_weights(len(order), seed=seed, resamples=resamples)

    def weight(location: np.ndarray, drawn: np.ndarray) -> float:
        return float(drawn[order.index((np.floor(location[0] / 4), np.floor(location[1] / 4)))])

    def area(ranking: RankedTiles, drawn: np.ndarray) -> float:
        tiles = ranking.lonlat[np.argsort(-ranking.scores, kind="stable")]
        near = [[_arc(tile, point) <= 0.5 for point in truth] for tile in tiles]
        is_covered = np.zeros(len(truth), bool)
        hits = total = covered = last = value = 0.0
        everything = sum(weight(point, drawn) for point in truth)
        for tile, row in zip(tiles, near, strict=True):
            here = weight(tile, drawn)
            total += here
            hits += here * any(row)
            for number, point in enumerate(truth):
                if row[number] and not is_covered[number]:
                    is_covered[number] = True
                    covered += weight(point, drawn)
            recall = covered / everything
            value += (hits / total if total else 0.0) * (recall - last)
            last = recall
        return value

    apart = [area(b, drawn) - area(a, drawn) for drawn in weights]
    delta = of_points(a, b, truth, resamples=resamples, seed=seed).figures["average_precision"]
    assert delta.low == pytest.approx(np.percentile(apart, 2.5), abs=1e-6)
    assert delta.high == pytest.approx(np.percentile(apart, 97.5), abs=1e-6)


def _arc(one: np.ndarray, other: np.ndarray) -> float:
    lon, lat = np.radians([one[0], other[0]]), np.radians([one[1], other[1]])
    chord = np.sin(lat[0]) * np.sin(lat[1])
    chord += np.cos(lat[0]) * np.cos(lat[1]) * np.cos(lon[0] - lon[1])
    return float(np.degrees(np.arccos(np.clip(chord, -1, 1))))


def test_false_positive_rate_is_low_and_power_is_high() -> None:
    rng = np.random.default_rng(0)
    chance = []
    for _ in range(120):
        hard = rng.standard_normal(80)
        one, other = (hard + rng.standard_normal(80) for _ in range(2))
        chance.append(over_queries({"x": one}, {"x": other}, resamples=200)["x"])
    assert 0 <= sum(item.p < 0.05 for item in chance) <= 15  # 6 are expected
    for item in chance:
        assert item.clear == (item.p < 0.05) or abs(item.p - 0.05) < 0.02
    hard = rng.standard_normal(80)
    skill = over_queries({"x": hard}, {"x": hard + 0.3 + 0.5 * rng.standard_normal(80)})["x"]
    assert skill.clear and skill.p == pytest.approx(2 / 1001)


def test_unpairable_results_are_refused() -> None:
    with pytest.raises(DataError, match="r10"):
        over_queries(columns(0), {"mrr": np.zeros(40), "medr": np.zeros(40)})
    with pytest.raises(DataError, match="40"):
        over_queries(columns(0), columns(0, queries=41))


def test_one_query_has_no_interval() -> None:
    one = over_queries({"x": np.array([0.5])}, {"x": np.array([1.0])})["x"]
    assert (one.difference, one.low, one.high, one.p) == (0.5, None, None, None)


def test_resample_without_points_is_ignored() -> None:
    """All points are in one of four blocks: a third of the resamples have none."""
    tiles = np.array([[lon, 0.5] for lon in (0.5, 5.0, 9.0, 13.0)])
    good, bad = (
        RankedTiles(np.array(scores), list("abcd"), tiles)
        for scores in ([4, 3, 2, 1], [1, 2, 3, 4])
    )
    comparison = of_points(bad, good, tiles[:1], resamples=500).figures["best.f1"]
    assert comparison.low is not None and comparison.low > 0
    alone = geolocalization.evaluate(
        good.scores, ids=good.ids, published_lonlat=tiles, centre_lonlat=tiles,
        truth_lonlat=tiles[:1],
    )  # fmt: skip
    assert alone.intervals["strict"]["best.f1"] == (1, 1)


def test_a_mean_over_catalogues_is_resampled_catalogue_by_catalogue() -> None:
    statistics = []
    for number in range(4):
        a, b, truth = rankings(number)
        statistics.append(bootstrap_points(a, b, truth, radius_deg=0.5, max_k=400,
                                 seed=seed_of(0, str(number)), resamples=400))  # fmt: skip
    for key, mean in mean_over(statistics).items():
        apart = [item.figures[key].difference for item in statistics]
        assert mean.difference == pytest.approx(np.mean(apart), abs=1e-12)
        drawn = np.stack([item.samples[key] for item in statistics])
        assert np.isfinite(drawn).all()
        ends = np.percentile(drawn.mean(axis=0), [2.5, 97.5])
        assert [mean.low, mean.high] == pytest.approx(list(ends), abs=1e-12)
        # Independent strata: variances add up, and the mean is the surer for it.
        together = np.sqrt((drawn.std(axis=1) ** 2).sum()) / 4
        assert drawn.mean(axis=0).std() == pytest.approx(together, rel=0.2)


def test_strata_have_stable_seeds() -> None:
    assert seed_of(0, "cones") == seed_of(0, "cones")
    assert len({seed_of(0, "cones"), seed_of(1, "cones"), seed_of(0, "yardangs")}) == 3
