"""MTEB's evaluator and this package give the same metrics for the same ranking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from marsretrieval.embeddings import EmbeddingStore, build_store, open_store
from marsretrieval.encoders.torch_imports import ensure_torchvision
from marsretrieval.errors import UsageError
from marsretrieval.tasks import Settings, Task, find_task
from tests.fakes import FakeEncoder

ensure_torchvision()

pytestmark = pytest.mark.slow  # the import of mteb takes seconds


def evaluate_here(
    task: Task, encoder: Any, planet: Path, folder: Path
) -> tuple[EmbeddingStore, Any]:
    """Embed and evaluate as `run` does."""
    data = task.open(planet)
    assert data.source is not None
    build_store(encoder, data.source, folder / "store", dtype=task.vector_dtype)
    store = open_store(folder / "store")
    return store, task.evaluate(data, encoder, store, folder, Settings(resamples=0)).groups


def scores_of(result: Any) -> dict[str, float]:
    (of_task,) = result.task_results
    (scores,) = of_task.scores["test"]
    return dict(scores)


def test_landforms_have_the_same_metrics(tiny_planet: Path, tmp_path: Path) -> None:
    mteb = pytest.importorskip("mteb")
    from marsretrieval.mteb_tasks import EncoderAdapter, landform_task

    encoder = FakeEncoder()
    task = landform_task(tiny_planet)
    result = mteb.evaluate(EncoderAdapter(encoder), task, cache=None, show_progress_bar=False)
    scores = scores_of(result)
    _, groups = evaluate_here(find_task("landform"), encoder, tiny_planet, tmp_path)
    expected = {k: v for k, v in groups["all"].strict.items() if k != "per_class"}
    assert {key: scores[key] for key in expected} == expected
    # By MTEB's own evaluator, which rounds all but the main score.
    assert scores["main_score"] == scores["map_at_all"] == pytest.approx(expected["mAP"], abs=1e-15)
    pairs = {
        f"map_at_{task.data.counts['images']}": "mAP", "map_at_10": "mAP@10",
        "map_at_100": "mAP@100", "ndcg_at_10": "ndcg@10", "hit_rate_at_10": "hit@10",
        "precision_at_5": "precision@5",
    }  # fmt: skip
    for mtebs, ours in pairs.items():
        assert scores[mtebs] == pytest.approx(expected[ours], abs=0.50001e-5), mtebs


def test_points_have_the_same_metrics(tiny_planet: Path, tmp_path: Path) -> None:
    mteb = pytest.importorskip("mteb")
    from marsretrieval.mteb_tasks import EncoderAdapter, StoreSearch, geolocalization_task

    encoder = FakeEncoder()
    store, groups = evaluate_here(find_task("geo"), encoder, tiny_planet, tmp_path)
    task = geolocalization_task(tiny_planet, store)
    search = StoreSearch(encoder, store)  # type: ignore[arg-type]
    scores = scores_of(mteb.evaluate(search, task, cache=None, show_progress_bar=False))
    mean = groups["mean over landforms/text"]
    assert scores["main_score"] == mean.strict["average_precision"]
    assert scores["best_f1"] == mean.strict["best"]["f1"]
    assert scores["published_auprc"] == mean.published["auprc"]
    for group, evaluation in groups.items():
        name, _, mode = group.partition("/")
        if mode == "text" and name != "mean over landforms":
            value = evaluation.strict["average_precision"]
            assert scores[f"average_precision/{name}"] == value
    with pytest.raises(UsageError, match="MTEB would embed"):
        mteb.evaluate(EncoderAdapter(encoder), geolocalization_task(tiny_planet, store), cache=None)
