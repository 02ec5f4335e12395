"""Formulas of the estimates, beside independent computations."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binomtest, chi2, hypergeom, poisson

from marsretrieval.inventory.estimates import (
    Interval,
    completeness,
    correct_for_misses,
    elusion_limit,
    estimate_places,
    estimate_tiles,
    gamma_interval,
    stratified_limits,
    wilson_interval,
)


@pytest.mark.parametrize("count", [0, 1, 3, 10, 100])
def test_with_one_weight_the_gamma_interval_is_the_exact_poisson_interval(count: int) -> None:
    low, high = gamma_interval(count, count, 1)
    # Garwood (1936): P(X >= x | low) = P(X <= x | high) = 0.025.
    if count:
        assert poisson.sf(count - 1, float(low)) == pytest.approx(0.025)
    else:
        assert low == 0
    assert poisson.cdf(count, float(high)) == pytest.approx(0.025)


def test_gamma_interval_scales_with_the_weight() -> None:
    low, high = gamma_interval(7 * 12, 7 * 12**2, 12)
    assert float(low) == pytest.approx(12 * chi2.ppf(0.025, 14) / 2)
    assert float(high) == pytest.approx(12 * chi2.ppf(0.975, 16) / 2)


def test_gamma_interval_of_a_directly_standardized_rate() -> None:
    """A sum of three weighted counts, computed step by step from Fay and Feuer's equations."""
    weights, counts = np.array([0.5, 2.0, 8.0]), np.array([20, 6, 1])
    total, variance = weights @ counts, weights**2 @ counts
    low, high = gamma_interval(total, variance, weights.max())
    assert total == 30 and variance == 93
    # (3): v/(2y) chi2^-1(alpha/2; 2y^2/v); (4): with y + w and v + w^2.
    assert float(low) == pytest.approx(93 / 60 * chi2.ppf(0.025, 2 * 900 / 93))
    assert float(high) == pytest.approx(157 / 76 * chi2.ppf(0.975, 2 * 38**2 / 157))


def test_everything_marked_is_exact() -> None:
    interval = estimate_tiles([30, 100], [30, 100], [12, 3], known=5)
    assert (interval.estimate, interval.low, interval.high) == (20, 20, 20)
    empty = estimate_tiles([], [], [], known=5)
    assert (empty.estimate, empty.low, empty.high) == (5, 5, 5)


def test_no_positives_give_a_positive_upper_limit() -> None:
    interval = estimate_tiles([300, 1200], [20, 20], [0, 0])
    assert interval.estimate == interval.low == 0
    weight = 60 * math.sqrt(1 - 20 / 1200)
    assert interval.high == pytest.approx(weight * chi2.ppf(0.975, 2) / 2)


def test_an_exhausted_stratum_adds_no_uncertainty() -> None:
    one = estimate_tiles([1200], [100], [4])
    two = estimate_tiles([300, 1200], [300, 100], [40, 4])
    assert two.estimate == one.estimate + 40  # type: ignore[operator]
    assert two.half_width >= one.half_width  # the exact part has no variance of its own
    assert two.low >= 44


def test_limits_stay_within_what_the_marks_allow() -> None:
    interval = estimate_tiles([50], [45], [44])
    assert interval.low >= 44
    assert interval.high <= 49


def test_more_positives_raise_all_limits() -> None:
    rows = [estimate_tiles([300, 1200], [60, 60], [x, 2]) for x in range(40)]
    for name in ("estimate", "low", "high"):
        values = [getattr(row, name) for row in rows]
        assert values == sorted(values)


def test_the_estimate_is_unbiased() -> None:
    """Expectation over all outcomes of the draw, by the hypergeometric distribution."""
    sizes, sampled, positives = (40, 90), (10, 15), (12, 5)
    expected = 0.0
    for x in range(11):
        for y in range(6):
            probability = hypergeom.pmf(x, 40, 12, 10) * hypergeom.pmf(y, 90, 5, 15)
            total = 40 / 10 * x + 90 / 15 * y
            expected += probability * total
            estimate, _, _ = stratified_limits(sizes, sampled, (x, y))
            assert estimate == pytest.approx(np.clip(total, x + y, 130 - (25 - x - y)))
    assert expected == pytest.approx(sum(positives))


def test_places_with_one_tile_each_are_tiles() -> None:
    tiles = estimate_tiles([300, 1200], [60, 60], [9, 2], known=4)
    place_count = estimate_places([300, 1200], [60, 60], [0] * 9 + [1] * 2, np.ones(11), known=4)
    assert place_count.to_dict() == tiles.to_dict()


def test_a_place_counts_once_however_large_it_is() -> None:
    """All samples of 3 of 8 tiles: places of 4, 1 and 1 tiles."""
    from itertools import combinations

    size_of = [4, 4, 4, 4, 1, 1, 0, 0]
    estimates = []
    for drawn in combinations(range(8), 3):
        shares = [1 / size_of[tile] for tile in drawn if size_of[tile]]
        interval = estimate_places([8], [3], [0] * len(shares), shares)
        assert interval.low <= interval.estimate <= interval.high  # type: ignore[operator]
        estimates.append(8 / 3 * sum(shares))
    assert np.mean(estimates) == pytest.approx(3)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (1, 20), (81, 263), (10, 10)])
def test_wilson_interval(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    interval = wilson_interval(successes, trials)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_wilson_interval_of_newcombes_example() -> None:
    """81 of 263: 0.2553 to 0.3662 (Newcombe 1998, Stat. Med. 17:857, table I)."""
    interval = wilson_interval(81, 263)
    assert interval is not None
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)
    assert wilson_interval(0, 0) is None


def test_elusion_limit_of_an_empty_sample_is_the_rule_of_three() -> None:
    high = elusion_limit(100_000, 300, 0)
    assert high == pytest.approx(100_000 * (1 - 0.05 ** (1 / 300)))
    assert high == pytest.approx(100_000 * 3 / 300, rel=0.01)


def test_elusion_limit_with_positives_is_clopper_and_pearsons() -> None:
    exact = binomtest(4, 300, alternative="less").proportion_ci(0.95, method="exact")
    assert elusion_limit(50_000, 300, 4) == pytest.approx(50_000 * exact.high)


def test_elusion_limit_at_the_edges() -> None:
    assert elusion_limit(0, 0, 0) == 0
    assert elusion_limit(500, 0, 0) == 500
    assert elusion_limit(20, 20, 3) == 3
    assert elusion_limit(10, 10, 10) == 10


def test_completeness_of_the_confirmed_list() -> None:
    recall = completeness(400, Interval(500, 420, 800))
    assert (recall.estimate, recall.low, recall.high) == (0.8, 0.5, 400 / 420)
    assert completeness(0, Interval(0, 0, 0)) == Interval(None, 0.0, 1.0)
    assert completeness(0, Interval(9, 2, 20)) == Interval(0.0, 0.0, 0.0)


def test_correction_for_misses() -> None:
    corrected = correct_for_misses(Interval(100, 90, 120), Interval(0.8, 0.6, 0.9))
    assert corrected is not None
    assert (corrected.estimate, corrected.low, corrected.high) == pytest.approx((125, 100, 200))
    assert correct_for_misses(Interval(100, 90, 120), None) is None


def test_confidence_is_that_of_the_normal_quantile() -> None:
    interval = wilson_interval(50, 100, confidence=0.9)
    assert interval is not None
    z = NormalDist().inv_cdf(0.95)
    half = z / (1 + z * z / 100) * math.sqrt(0.25 / 100 + z * z / 40_000)
    assert interval.half_width == pytest.approx(half)
