"""Strict geo-localization metrics compared with slow references and brute force."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsretrieval.geo import wrap_lon
from marsretrieval.metrics.bootstrap import block_weights
from tests.metrics import strict_reference as reference
from tests.metrics.inputs import flat, geo_input, strict_geo

few = settings(max_examples=25, deadline=None)
RADIUS = 0.5


def near_sets(tiles: np.ndarray, truth: np.ndarray) -> list[set[int]]:
    return [
        {row for row, point in enumerate(truth) if reference.arc_deg(tile, point) <= RADIUS}
        for tile in tiles
    ]


def small(seed: int, tiles: int = 6, points: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Generate tiles and points near the antimeridian, and some far away."""
    rng = np.random.default_rng(seed)
    corner = np.array([179.4, 55.0])
    return (
        corner + rng.uniform(0, 1, (tiles, 2)) * [2.5, 1.2],
        corner + rng.uniform(0, 1, (points, 2)) * [2.5, 1.2],
    )


@few
@given(st.integers(0, 10_000), st.sampled_from([7, 60, 20_000]), st.booleans())
def test_metrics_equal_the_slow_reference(seed: int, max_k: int, tied: bool) -> None:
    made = geo_input(seed, tiles=90, points=12, lat=85.0)
    scores = np.round(made["scores"], 0 if tied else 9)
    ids = [f"E{lon:.1f}_N{lat:.1f}" for lon, lat in made["corners"]]
    outcome = strict_geo(scores, made["corners"], made["truth"], ids=ids, max_k=max_k).strict
    expected = reference.geolocalization(scores, ids, made["corners"], made["truth"], RADIUS, max_k)
    assert outcome["average_precision"] == pytest.approx(expected["average_precision"], abs=1e-12)
    assert outcome["best"] == pytest.approx(expected["best"], abs=1e-12)
    by_depth = {point["k"]: point for point in expected["curve"]}
    for point in outcome["curve"]:
        assert point == pytest.approx({key: by_depth[point["k"]][key] for key in point})
    assert outcome["curve"][0]["k"] == 1 and outcome["curve"][-1]["k"] == len(by_depth)


def test_curve_is_simplified_and_metrics_are_not() -> None:
    made = geo_input(1, tiles=4000, points=60)
    outcome = strict_geo(made["scores"], made["corners"], made["truth"]).strict
    assert len(outcome["curve"]) <= 500 < len(made["scores"])
    order = np.argsort(-made["scores"])
    near = near_sets(made["corners"][order], made["truth"])
    assert outcome["average_precision"] == pytest.approx(reference.average_precision(near, 60))
    assert outcome["relevant_tiles"] == sum(map(bool, near))


@settings(max_examples=8)
@given(st.integers(0, 10_000))
def test_the_ceiling_is_the_best_of_all_rankings(seed: int) -> None:
    tiles, truth = small(seed, tiles=5)
    covered = len(set().union(*near_sets(tiles, truth))) / len(truth)
    every = [
        strict_geo(scores, tiles, truth, chance={}).strict for scores in permutations(range(5))
    ]
    ceiling = every[0]["ceiling"]
    assert ceiling["reached"] and ceiling["average_precision"] == covered
    assert max(item["average_precision"] for item in every) == pytest.approx(covered)
    assert max(item["best"]["f1"] for item in every) == pytest.approx(ceiling["f1"])


@few
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_truncated_ceiling_is_an_upper_bound(seed: int, max_k: int) -> None:
    tiles, truth = small(seed, points=8)
    near = near_sets(tiles, truth)
    covered = max(
        len(set().union(*combination)) for combination in combinations(near, max_k)
    ) / len(truth)
    outcome = strict_geo(np.arange(6.0), tiles, truth, max_k=max_k).strict
    assert (
        covered <= outcome["ceiling"]["average_precision"] <= len(set().union(*near)) / len(truth)
    )
    assert outcome["ceiling"]["reached"] == (len(set().union(*near)) <= max_k)
    if outcome["ceiling"]["reached"]:
        assert covered == outcome["ceiling"]["average_precision"]


def test_without_a_tile_near_a_point_every_metric_is_zero() -> None:
    outcome = strict_geo([3.0, 2.0], np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[90.0, 0.0]]))
    figures = dict(flat({key: outcome.strict[key] for key in ("average_precision", "normalised",
                         "relevant_tiles", "chance_precision")}))  # fmt: skip
    assert set(figures.values()) == {0.0}
    assert outcome.strict["ceiling"] == {"average_precision": 0.0, "f1": 0.0, "reached": True}
    assert outcome.ties == {}


def resampled(made: dict[str, np.ndarray], seed: int, resamples: int) -> tuple[list[float], ...]:
    """Compute average precision and best F1 per resample, with copied blocks."""
    tiles, truth = made["corners"], made["truth"]
    order = np.argsort(-made["scores"])
    near = near_sets(tiles[order], truth)

    def cells(positions: np.ndarray) -> list[tuple[int, int]]:
        lon, lat = wrap_lon(positions[:, 0]), positions[:, 1]
        return [(int(x // 4), int(y // 4)) for x, y in zip(lon, lat, strict=True)]

    of_tile, of_point = cells(tiles[order]), cells(truth)
    blocks = sorted(set(of_tile) | set(of_point))
    areas, best = [], []
    for drawn in block_weights(len(blocks), seed=seed, resamples=resamples):
        copies = dict(zip(blocks, drawn.astype(int), strict=True))
        points = sum(copies[cell] for cell in of_point)
        relevant = hits = recalled = 0
        covered: set[int] = set()
        area, f1 = 0.0, 0.0
        for cell, item in zip(of_tile, near, strict=True):
            relevant += copies[cell]
            hits += copies[cell] * bool(item)
            new = sum(copies[of_point[point]] for point in item - covered)
            covered |= item
            recalled += new
            precision = hits / relevant if relevant else 0.0
            area += precision * new / points
            recall = recalled / points
            f1 = max(
                f1, 2 * precision * recall / (precision + recall) if recalled and hits else 0.0
            )
        areas.append(area)
        best.append(f1)
    return areas, best


def test_intervals_are_those_of_resampling_block_by_block() -> None:
    made = geo_input(6, tiles=400, points=60)
    outcome = strict_geo(made["scores"], made["corners"], made["truth"], seed=3, resamples=200)
    expected: dict[str, Any] = dict(
        zip(("average_precision", "best.f1"), resampled(made, 3, 200), strict=True)
    )
    for name, values in expected.items():
        bounds = np.percentile(values, (2.5, 97.5))
        # The best F1 is looked for at the depths where a point is found and a few hundred others.
        tolerance = 1e-6 if name == "average_precision" else 2e-3
        assert outcome.intervals["strict"][name] == pytest.approx(tuple(bounds), abs=tolerance)


def test_latitude_bands_divide_the_average_precision() -> None:
    made = geo_input(3, tiles=900)
    centres = made["corners"] + 0.1
    strict = strict_geo(made["scores"], made["corners"], made["truth"], resamples=0).strict
    bands = strict["by_latitude"]
    assert sum(band["points"] for band in bands) == len(made["truth"])
    weighted = sum(b["points"] * b.get("average_precision", 0) for b in bands)
    assert weighted / len(made["truth"]) == pytest.approx(strict["average_precision"])
    covered = sum(b["points"] * b.get("recall", 0) for b in bands)
    assert covered / len(made["truth"]) == pytest.approx(strict["best"]["recall"])
    assert sum(b["tiles"] for b in bands) == strict["best"]["k"]
    hits = sum(b["tiles"] * b["precision"] for b in bands)
    assert hits / strict["best"]["k"] == pytest.approx(strict["best"]["precision"])
    for band in bands:
        low, high = map(int, band["band"].split(".."))
        lat = made["truth"][:, 1]
        assert band["points"] == np.count_nonzero((lat >= low) & (lat < high))
        assert band["tiles"] <= np.count_nonzero((centres[:, 1] >= low) & (centres[:, 1] < high))
