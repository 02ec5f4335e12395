"""Properties of the metrics for arbitrary inputs."""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from marsretrieval.errors import DataError
from marsretrieval.metrics import geolocalization, landform, paired, ranking
from marsretrieval.results import Evaluation
from tests.metrics.inputs import flat, geo_input, landform_input, paired_input, strict_geo

seeds = st.integers(0, 10_000)
few = settings(max_examples=25, deadline=None)


def figures(evaluation: Evaluation, protocol: str = "strict") -> dict[str, float]:
    return dict(flat(getattr(evaluation, protocol)))


# Oracles


@few
@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_ranking_metrics_equal_trec_eval(relevant: list[bool]) -> None:
    if not any(relevant):
        return
    names = [f"{row:03d}" for row in range(len(relevant))]
    truth = {"q": {name: int(hit) for name, hit in zip(names, relevant, strict=True)}}
    run = {"q": {name: float(-row) for row, name in enumerate(names)}}
    measures = {"map", "Rprec", "ndcg_cut_10", "success_10", "P_5", "map_cut_10"}
    oracle = pytrec_eval.RelevanceEvaluator(truth, measures).evaluate(run)["q"]
    hits = np.array(relevant)
    assert ranking.average_precision(hits) == pytest.approx(oracle["map"], abs=1e-4)
    assert ranking.r_precision(hits) == pytest.approx(oracle["Rprec"], abs=1e-4)
    assert ranking.ndcg_at(hits, 10) == pytest.approx(oracle["ndcg_cut_10"], abs=1e-4)
    assert ranking.hit_at(hits, 10) == oracle["success_10"]
    assert ranking.precision_at(hits, 5) == pytest.approx(oracle["P_5"], abs=1e-4)
    assert ranking.average_precision_at(hits, 10) == pytest.approx(oracle["map_cut_10"], abs=1e-4)


@few
@given(seeds)
def test_reciprocal_ranks_equal_trec_eval(seed: int) -> None:
    made = paired_input(seed, pairs=30)
    scores = made["images"] @ made["texts"].T
    names = [f"{row:03d}" for row in range(30)]
    truth = {name: {name: 1} for name in names}
    run = {
        name: dict(zip(names, map(float, row), strict=True))
        for name, row in zip(names, scores, strict=True)
    }
    oracle = pytrec_eval.RelevanceEvaluator(truth, {"recip_rank"}).evaluate(run)
    mean = np.mean([item["recip_rank"] for item in oracle.values()])
    outcome = paired.evaluate(**made, ids=names, resamples=0)
    assert outcome.strict["i2t_mrr"] == pytest.approx(mean, abs=1e-4)


# Pairs


@few
@given(seeds)
def test_metrics_do_not_depend_on_pair_order(seed: int) -> None:
    made = paired_input(seed, pairs=40)
    ids = [f"{row:03d}" for row in range(40)]
    order = np.random.default_rng(seed).permutation(40)
    first = paired.evaluate(**made, ids=ids, resamples=0)
    second = paired.evaluate(
        made["images"][order], made["texts"][order], ids=[ids[row] for row in order], resamples=0
    )
    assert figures(first) == pytest.approx(figures(second))


def test_perfect_pairs_score_one() -> None:
    made = paired_input(noise=0.0)
    for protocol in ("published", "strict"):
        outcome = figures(paired.evaluate(**made, resamples=0), protocol)
        assert set(outcome.values()) == {1.0}


# Landforms


@few
@given(seeds)
def test_metrics_do_not_depend_on_image_or_class_order(seed: int) -> None:
    made = landform_input(seed, images=90)
    rng = np.random.default_rng(seed)
    images, classes = rng.permutation(90), rng.permutation(9)
    moved = {
        "images": made["images"][images],
        "queries": made["queries"][classes],
        "labels": [made["labels"][row] for row in images],
        "image_ids": [made["image_ids"][row] for row in images],
        "query_names": [made["query_names"][row] for row in classes],
    }
    first = landform.evaluate(**made, resamples=0)
    second = landform.evaluate(**moved, resamples=0)
    assert figures(first) == pytest.approx(figures(second))


def test_perfect_landforms_score_one() -> None:
    labels = [f"class {row % 4}" for row in range(60)]
    images = np.eye(4, dtype=np.float32)[np.arange(60) % 4]
    outcome = landform.evaluate(
        images, np.eye(4), labels=labels, image_ids=[str(row) for row in range(60)],
        query_names=[f"class {row}" for row in range(4)], resamples=0,
    )  # fmt: skip
    assert set(figures(outcome, "published").values()) == {1.0}
    cut = {k: v for k, v in figures(outcome).items() if k.endswith("mAP@10")}
    assert set(cut.values()) == {10 / 15}  # of 15 relevant images, the first ten
    assert {v for k, v in figures(outcome).items() if k not in cut} == {1.0}


def test_class_without_images_has_no_metric() -> None:
    made = landform_input()
    more = {**made, "queries": np.concatenate([made["queries"], made["queries"][:1]]),
            "query_names": [*made["query_names"], "nowhere"]}  # fmt: skip
    assert figures(landform.evaluate(**more)) == figures(landform.evaluate(**made))
    with pytest.raises(DataError, match="no query name matches"):
        landform.evaluate(**{**made, "query_names": [f"x{name}" for name in made["query_names"]]})


# Points


@few
@given(seeds)
def test_metrics_do_not_depend_on_tile_or_point_order(seed: int) -> None:
    made = geo_input(seed, tiles=300, points=30)
    rng = np.random.default_rng(seed)
    tiles, points = rng.permutation(len(made["scores"])), rng.permutation(30)
    ids = [f"{row:06d}" for row in range(len(tiles))]
    first = strict_geo(made["scores"], made["corners"], made["truth"], ids=ids)
    second = strict_geo(
        made["scores"][tiles], made["corners"][tiles], made["truth"][points],
        ids=[ids[row] for row in tiles],
    )  # fmt: skip
    assert figures(first) == pytest.approx(figures(second))


@few
@given(seeds, st.floats(-360, 360))
def test_metrics_do_not_depend_on_rotation_in_longitude(seed: int, shift: float) -> None:
    made = geo_input(seed, tiles=300, points=30)

    def moved(positions: np.ndarray) -> np.ndarray:
        lon = (positions[:, 0] + shift + 180) % 360 - 180
        return np.column_stack([lon, positions[:, 1]])

    first = figures(strict_geo(made["scores"], made["corners"], made["truth"]))
    second = figures(strict_geo(made["scores"], moved(made["corners"]), moved(made["truth"])))
    assert first == pytest.approx(second)


@few
@given(seeds)
def test_only_the_order_of_scores_matters(seed: int) -> None:
    made = geo_input(seed, tiles=300, points=30)
    first = strict_geo(made["scores"], made["corners"], made["truth"])
    second = strict_geo(np.tanh(made["scores"] / 3) * 5 - 2, made["corners"], made["truth"])
    assert figures(first) == figures(second)


def test_a_perfect_ranking_reaches_the_ceiling() -> None:
    made = geo_input(2, tiles=900)
    near = np.hypot(*(made["corners"][:, None] - made["truth"][None]).transpose(2, 0, 1)).min(1)
    ordinary = strict_geo(made["scores"], made["corners"], made["truth"])
    ceiling = ordinary.strict["ceiling"]
    outcome = strict_geo(-near, made["corners"], made["truth"])
    assert ordinary.strict["average_precision"] < ceiling["average_precision"] <= 1
    assert outcome.strict["average_precision"] == pytest.approx(
        ceiling["average_precision"], rel=0.05
    )


def test_tiles_at_the_points_score_one() -> None:
    truth = np.column_stack([np.arange(-150, 150, 10.0), np.linspace(-70, 70, 30)])
    far = np.column_stack([np.arange(-145, 155, 10.0), np.linspace(70, -70, 30)])
    scores = np.concatenate([np.linspace(1, 0.6, 30), np.linspace(0.4, 0, 30)])
    outcome = strict_geo(scores, np.concatenate([truth, far]), truth)
    assert outcome.strict["average_precision"] == pytest.approx(1)
    assert outcome.strict["best"] == {"k": 30, "f1": 1.0, "precision": 1.0, "recall": 1.0}
    assert outcome.strict["ceiling"] == {"average_precision": 1.0, "f1": 1.0, "reached": True}
    assert outcome.strict["chance_precision"] == pytest.approx(0.5)


@few
@given(seeds, st.floats(-3, 3))
def test_far_false_tile_never_raises_a_metric(seed: int, score: float) -> None:
    made = geo_input(seed, tiles=300, points=30)
    before = strict_geo(made["scores"], made["corners"], made["truth"]).strict
    after = strict_geo(
        np.append(made["scores"], score),
        np.concatenate([made["corners"], [[0.0, -89.0]]]),
        made["truth"],
    ).strict
    assert after["average_precision"] <= before["average_precision"] + 1e-12
    assert after["best"]["f1"] <= before["best"]["f1"] + 1e-12


def test_distance_is_the_arc_on_the_sphere() -> None:
    # Half a degree of longitude at 60 degrees latitude is a quarter of a degree of arc.
    truth = np.array([[10.0, 60.0]])
    for lon, near in ((10.9, True), (11.1, False)):
        outcome = strict_geo([1.0], np.array([[lon, 60.0]]), truth)
        assert outcome.strict["average_precision"] == float(near)
    across = strict_geo([1.0], np.array([[-179.9, 0.0]]), np.array([[179.9, 0.0]]))
    assert across.strict["average_precision"] == 1
    assert across.published["auprc"] == 0 and across.published["best"]["f1"] == 0


def test_ceiling_counts_all_tiles() -> None:
    made = geo_input(3, tiles=900)
    order = np.argsort(-made["scores"])[:100]
    ids = [f"{row:06d}" for row in order]
    outcome = geolocalization.evaluate(
        made["scores"][order], ids=ids, published_lonlat=made["corners"][order],
        centre_lonlat=made["corners"][order], truth_lonlat=made["truth"],
        all_centre_lonlat=made["corners"], resamples=0,
    )  # fmt: skip
    complete = strict_geo(made["scores"], made["corners"], made["truth"])
    assert outcome.strict["ceiling"] == complete.strict["ceiling"]
    assert outcome.n["tiles"] == len(made["corners"])


# Intervals


@pytest.mark.parametrize("protocol", ["published", "strict"])
def test_intervals_contain_the_metric_and_depend_on_the_seed(protocol: str) -> None:
    made = geo_input(5, tiles=900)
    runs = [
        strict_geo(made["scores"], made["corners"], made["truth"], resamples=300, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert runs[0].intervals == runs[1].intervals != runs[2].intervals
    area = {"published": "auprc", "strict": "average_precision"}[protocol]
    low, high = runs[0].intervals[protocol][area]
    assert low < getattr(runs[0], protocol)[area] < high
    for evaluation in (paired.evaluate(**paired_input()), landform.evaluate(**landform_input())):
        for name, (low, high) in evaluation.intervals[protocol].items():
            assert low <= getattr(evaluation, protocol)[name] <= high


def test_the_interval_of_a_mean_is_the_known_one() -> None:
    made = paired_input(pairs=2000, noise=2.5)
    outcome = paired.evaluate(**made, resamples=2000)
    rate = outcome.strict["i2t_r10"]
    width = 2 * 1.96 * np.sqrt(rate * (1 - rate) / 2000)
    low, high = outcome.intervals["strict"]["i2t_r10"]
    assert high - low == pytest.approx(width, rel=0.1)
    assert paired.evaluate(**made, resamples=0).intervals["strict"] == {}


# Wrong input


def test_wrong_input_is_named() -> None:
    good = paired_input(pairs=20)
    bad = {name: array.copy() for name, array in good.items()}
    bad["images"][3, 2] = np.nan
    cases = [
        ({**good, "images": bad["images"]}, "images: NaN or infinity in 1 of "),
        ({**good, "texts": good["texts"][:-1]}, "counts do not match: 20 images, 19 texts"),
        ({**good, "texts": 2 * good["texts"]}, "not of unit length"),
        ({**good, "images": good["images"][:, :5]}, "unit length|dimensions"),
        ({**good, "images": good["images"].ravel()}, "shape"),
        ({**good, "images": np.zeros((0, 16))}, "shape"),
    ]
    for arguments, words in cases:
        with pytest.raises(DataError, match=words):
            paired.evaluate(**arguments)
    made = geo_input(0, tiles=60, points=5)
    with pytest.raises(DataError, match="latitude 95"):
        strict_geo(made["scores"], made["corners"], [[10.0, 95.0]])
    with pytest.raises(DataError, match="scores: 1 are NaN"):
        strict_geo([np.nan], [[1.0, 1.0]], [[1.0, 1.0]])
    for radius in (0, np.nan, 181):
        with pytest.raises(DataError, match="at most 180 degrees"):
            strict_geo(made["scores"], made["corners"], made["truth"], radius_deg=radius)
    with pytest.raises(DataError, match="max_k 0"):
        strict_geo(made["scores"], made["corners"], made["truth"], max_k=0)
    with pytest.raises(DataError, match="ground truth: no points"):
        strict_geo(made["scores"], made["corners"], np.empty((0, 2)))
    with pytest.raises(DataError, match="tile centres: row 1 has no position"):
        strict_geo([2.0, 1.0], [[1.0, 1.0], [np.nan, 1.0]], [[1.0, 1.0]])
    classes = landform_input(images=90)
    with pytest.raises(DataError, match="query_names: 'class_00' appears more than once"):
        landform.evaluate(**{**classes, "query_names": ["class_00", *classes["query_names"][:-1]]})
    with pytest.raises(DataError, match="89 labels"):
        landform.evaluate(**{**classes, "labels": classes["labels"][:-1]})
