"""The published protocol does not change.

Metrics are compared with those printed by the paper's code, and with committed values of the slow
reference, which reproduces the former.

To write the committed values again: python -m tests.metrics.test_published
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marsretrieval.metrics import geolocalization, landform, paired
from tests.metrics import published_reference as reference
from tests.metrics.inputs import flat, geo_input, landform_input, paired_input
from tests.shared import shared_file

COMMITTED = Path(__file__).parent / "golden" / "published.json"


def geo(scores: Any, lonlat: Any, truth: Any, **more: Any) -> dict[str, Any]:
    ids = [f"{row:06d}" for row in range(len(lonlat))]
    evaluation = geolocalization.evaluate(
        scores, ids=ids, published_lonlat=lonlat, centre_lonlat=lonlat, truth_lonlat=truth,
        resamples=0, **more,
    )  # fmt: skip
    return dict(evaluation.published)


def assert_same(actual: Any, expected: Any, tolerance: float = 1e-9) -> None:
    actual, expected = dict(flat(actual)), dict(flat(expected))
    assert actual.keys() == expected.keys()
    worst = max(abs(actual[key] - expected[key]) for key in expected)
    assert worst <= tolerance, worst


def found_cases() -> dict[str, Any]:
    cases: dict[str, Any] = {}
    for seed in (0, 1):
        cases[f"paired {seed}"] = paired.evaluate(**paired_input(seed), resamples=0).published
        cases[f"landform {seed}"] = landform.evaluate(**landform_input(seed), resamples=0).published
        made = geo_input(seed)
        cases[f"geolocalization {seed}"] = geo(
            made["scores"], made["corners"], made["truth"], max_k=1700
        )
    return cases


def reference_cases() -> dict[str, Any]:
    cases: dict[str, Any] = {}
    for seed in (0, 1):
        cases[f"paired {seed}"] = reference.paired(**paired_input(seed))
        cases[f"landform {seed}"] = reference.landform(**landform_input(seed))
        made = geo_input(seed)
        order = np.argsort(-made["scores"], kind="stable")
        cases[f"geolocalization {seed}"] = reference.geolocalization(
            made["corners"][order], made["truth"], 0.5, 1700
        )
    return cases


def test_metrics_equal_the_committed_values() -> None:
    assert_same(found_cases(), json.loads(COMMITTED.read_text()), 1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_the_slow_reference(seed: int) -> None:
    pairs = paired_input(seed, pairs=80)
    assert_same(paired.evaluate(**pairs, resamples=0).published, reference.paired(**pairs))
    classes = landform_input(seed)
    assert_same(landform.evaluate(**classes, resamples=0).published, reference.landform(**classes))
    made = geo_input(seed, tiles=900)
    order = np.argsort(-made["scores"], kind="stable")
    for max_k in (30, 500, 20_000):
        expected = reference.geolocalization(made["corners"][order], made["truth"], 0.5, max_k)
        assert_same(geo(made["scores"], made["corners"], made["truth"], max_k=max_k), expected)


def _golden(task: str) -> list[dict[str, Any]]:
    cases = json.loads(shared_file("golden/golden.json").read_text())
    return [case for case in cases if case["task"] == task]


def test_published_metrics_of_pairs() -> None:
    for case in _golden("paired"):
        arrays = np.load(shared_file(f"golden/{case['file']}"))
        images, texts = arrays["image_features"], arrays["text_features"]
        assert_same(paired.evaluate(images, texts).published, case["metrics"], 1e-6)
        assert_same(reference.paired(images, texts), case["metrics"], 1e-6)


def test_published_metrics_of_landforms() -> None:
    for case in _golden("landform"):
        arrays = np.load(shared_file(f"golden/{case['file']}"))
        record = json.loads(shared_file(f"golden/{case['labels']}").read_text())
        arguments = (arrays["image_features"], arrays["query_features"])
        assert_same(landform.evaluate(*arguments, **record).published, case["metrics"], 1e-6)
        assert_same(reference.landform(*arguments, **record), case["metrics"], 1e-6)


def test_published_metrics_of_points() -> None:
    for case in _golden("geolocalization"):
        with shared_file(f"golden/{case['predictions']}").open() as file:
            rows = list(csv.DictReader(file))
        lonlat = np.array([[float(row["lon"]), float(row["lat"])] for row in rows])
        truth = np.loadtxt(shared_file(f"golden/{case['ground_truth']}"), delimiter=",", skiprows=1)
        radius, max_k = case["radius_deg"], case["max_k"]
        scores = [float(row["similarity"]) for row in rows]
        outcome = geo(scores, lonlat, truth, radius_deg=radius, max_k=max_k)
        assert_same(outcome, case["metrics"], 1e-6)
        assert_same(reference.geolocalization(lonlat, truth, radius, max_k), case["metrics"], 1e-6)


def test_tiles_unreadable_by_the_published_code_are_skipped() -> None:
    made = geo_input(4, tiles=400)
    unread = made["corners"].copy()
    unread[::3] = np.nan
    readable = np.isfinite(unread[:, 0])
    ids = [f"{row:06d}" for row in range(len(unread))]
    outcome = geolocalization.evaluate(
        made["scores"], ids=ids, published_lonlat=unread, centre_lonlat=made["corners"],
        truth_lonlat=made["truth"], resamples=0,
    )  # fmt: skip
    expected = geo(made["scores"][readable], made["corners"][readable], made["truth"])
    assert_same(outcome.published, expected)


if __name__ == "__main__":
    COMMITTED.write_text(json.dumps(reference_cases(), indent=1) + "\n")
