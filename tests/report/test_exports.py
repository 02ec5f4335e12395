"""Exports read by MTEB's TaskResult and the hub's parsers."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCardData, parse_eval_result_entries
from huggingface_hub.repocard_data import model_index_to_eval_results
from typer.testing import CliRunner, Result

from marsretrieval.cli.app import app
from marsretrieval.datasets.download import find_source
from marsretrieval.errors import DataError, MissingDependencyError, UsageError
from marsretrieval.report.exports import MTEB_TASKS, hf_yaml, mteb_results, rank_scores
from marsretrieval.report.result_files import ResultFile
from tests.report.made import make_landform, make_paired, result, write

FROZEN = find_source("paired", "frozen")
DATA = {
    "name": "Mars-VL-Pairs", "repository": FROZEN.repository, "revision": FROZEN.revision,
    "variant": "frozen",
}  # fmt: skip


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> ResultFile:
    """Write a result over as many pairs as the frozen copy."""
    outcome = make_paired(0.9, pairs=2247)
    made = result("paired-image-text", "pe-core-l-14-336", outcome, data=DATA)
    return ResultFile.read(write(made, outcome, tmp_path_factory.mktemp("frozen")))


def call(*arguments: str | Path, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    assert "Traceback" not in done.stderr
    return done


# MTEB


def test_mteb_reads_the_export(frozen: ResultFile, tmp_path: Path) -> None:
    mteb = pytest.importorskip("mteb")
    assert frozen.path is not None
    call("mteb", frozen.path, "-o", tmp_path / "out")
    figures = frozen.result.metrics["all"]["strict"]
    for way, name in MTEB_TASKS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read = mteb.TaskResult.from_disk(tmp_path / "out" / f"{name}.json")
        with warnings.catch_warnings():  # of the task, which MTEB calls a beta
            warnings.simplefilter("ignore")
            task = mteb.get_task(name)
            scores_of_task = read.validate_and_filter_scores(task)
        assert read.task_name == name and read.eval_splits == list(task.eval_splits) == ["test"]
        assert read.dataset_revision == task.metadata.dataset["revision"]
        assert scores_of_task.get_score() == read.main_score == pytest.approx(figures[f"{way}_mrr"])
        (scores,) = read.scores["test"]
        assert scores["main_score"] == scores[task.metadata.main_score]
        assert scores["recall_at_1"] == pytest.approx(figures[f"{way}_r1"])
        assert scores["hit_rate_at_10"] == pytest.approx(figures[f"{way}_r10"])
        assert {f"ndcg_at_{k}" for k in task.k_values} == {k for k in scores if "ndcg" in k}
        assert scores["languages"] == task.metadata.eval_langs
        task_scores = scores["marsretrieval"]
        assert (
            task_scores["n"] == 2247 and task_scores["set_hash"] == frozen.result.data["set_hash"]
        )
        assert mteb.TaskResult.from_dict(read.to_dict()) == read


def test_scores_equal_mteb_on_the_same_ranking() -> None:
    metrics = pytest.importorskip("mteb._evaluators.retrieval_metrics")
    rng = np.random.default_rng(0)
    count, depths = 120, [1, 3, 5, 10, 20, 100, 1000, 120]
    scores = rng.standard_normal((count, count)) + 2.5 * np.eye(count)
    names = [f"{row:03d}" for row in range(count)]
    run = {
        name: dict(zip(names, map(float, row), strict=True))
        for name, row in zip(names, scores, strict=True)
    }
    truth = {name: {name: 1} for name in names}
    result = metrics.calculate_retrieval_scores(run, truth, depths)
    oracle = metrics.make_score_dict(
        ndcg=result.ndcg, _map=result.map, recall=result.recall, precision=result.precision,
        mrr=result.mrr, naucs={}, naucs_mrr={}, hit_rate=result.hit_rate, task_scores={},
    )  # fmt: skip
    ours = rank_scores((scores >= np.diag(scores)[:, None]).sum(axis=1))
    assert ours.keys() == oracle.keys()
    for name, value in oracle.items():
        assert ours[name] == pytest.approx(value, abs=6e-6), name  # MTEB rounds to five digits


def test_unmeasured_values_are_omitted(frozen: ResultFile) -> None:
    for value in mteb_results(frozen).values():
        assert value["mteb_version"] is None and value["evaluation_time"] is None
        assert not any("nauc" in name for name in value["scores"]["test"][0])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"synthetic": True}, "on synthetic data, 40 pairs"),
        ({"repository": "SUSTech/Mars-VL-Pairs", "revision": "1cac"}, "SUSTech/Mars-VL-Pairs@1cac"),
        (DATA, "40 pairs; MTEB's tasks are"),
        ({**DATA, "revision": "0" * 40}, "@000"),
    ],
)
def test_other_data_are_refused(tmp_path: Path, data: dict[str, Any], words: str) -> None:
    outcome = make_paired(pairs=40)
    made = result("paired-image-text", "m", outcome, data=data)
    path = write(made, outcome, tmp_path)
    done = call("mteb", path, "-o", tmp_path / "out", code=1)
    assert words in done.stderr and "--variant frozen" in done.stderr
    assert not (tmp_path / "out").exists()


def test_another_task_and_other_tables_are_refused(
    frozen: ResultFile, results: list[Path], tmp_path: Path
) -> None:
    landform = next(path for path in results if path.name == "landform.json")
    assert "a result of landform" in call("mteb", landform, "-o", tmp_path, code=1).stderr
    alone = ResultFile(frozen.result, tmp_path / "paired-image-text.json")
    with pytest.raises(DataError, match="rank of each query"):
        mteb_results(alone)
    path = write(frozen.result, make_paired(pairs=60), tmp_path)
    with pytest.raises(DataError, match="not the table of"):
        mteb_results(ResultFile.read(path))


# The hub


def test_model_card_accepts_the_model_index(results: list[Path], tmp_path: Path) -> None:
    folder = results[0].parent
    call("hf", folder, "-o", tmp_path / "index.yaml")
    value = yaml.safe_load((tmp_path / "index.yaml").read_text())
    assert list(value) == ["model-index"]
    card = ModelCardData(**value)  # raises on what it cannot read
    name, read = model_index_to_eval_results(value["model-index"])
    assert name == card.model_name == "sharp-1"
    assert [item.metric_type for item in read] == [e.metric_type for e in card.eval_results]
    assert len(read) == 8 + 4 + 3 * 3
    paired = json.loads((folder / "paired-image-text.json").read_text())
    by_type = {item.metric_type: item for item in read}
    mrr = by_type["t2i_mrr"]
    figures = paired["metrics"]["all"]
    assert mrr.metric_value == round(100 * figures["strict"]["t2i_mrr"], 5)
    low, high = figures["intervals"]["strict"]["t2i_mrr"]
    assert mrr.metric_args["interval_95"] == [round(100 * low, 5), round(100 * high, 5)]
    assert mrr.dataset_args == {"n": {"pairs": 120}, "set_hash": paired["data"]["set_hash"]}
    assert mrr.metric_name == "MRR (%), text to image, strict"
    assert by_type["t2i_medr"].metric_value == figures["strict"]["t2i_medr"]


def test_synthetic_data_are_labelled(tmp_path: Path) -> None:
    outcome = make_landform()
    made = result("landform", "m", outcome, data={"synthetic": True})
    file = ResultFile.read(write(made, outcome, tmp_path))
    _, read = model_index_to_eval_results(yaml.safe_load(hf_yaml([file]))["model-index"])
    assert {item.dataset_type for item in read} == {"synthetic"}
    assert all("(synthetic)" in item.dataset_name for item in read)
    with pytest.raises(DataError, match="not on a dataset of the hub"):
        hf_yaml([file], layout="eval-results")


@pytest.mark.parametrize("protocol", ["strict", "published"])
def test_eval_results_are_valid_for_the_hub(
    frozen: ResultFile, tmp_path: Path, protocol: str
) -> None:
    assert frozen.path is not None
    call("hf", frozen.path, "-o", tmp_path / "x.yaml", "--format", "eval-results",
         "--protocol", protocol)  # fmt: skip
    value = yaml.safe_load((tmp_path / "x.yaml").read_text())
    read = parse_eval_result_entries(value)
    assert {item.task_id for item in read} == {
        "paired-image-text_i2t_mrr", "paired-image-text_t2i_mrr",
    }  # fmt: skip
    for item in read:
        key = item.task_id.removeprefix("paired-image-text_")
        assert item.value == round(100 * frozen.result.metrics["all"][protocol][key], 5)
        assert (item.dataset_id, item.dataset_revision) == (FROZEN.repository, FROZEN.revision)
        assert item.date == frozen.result.created
        assert item.notes is not None and "2247 pairs" in item.notes and protocol in item.notes
    model = pytest.importorskip("mteb._hf_integration.eval_result_model")
    assert len(model.HFEvalResults.model_validate(value)) == 2  # extra keys would be refused


def test_invalid_model_cards_are_refused(
    frozen: ResultFile, results: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [ResultFile.read(path) for path in results]
    with pytest.raises(UsageError, match=r"several models: blurred-2, eyes-only, sharp-1"):
        hf_yaml(files)
    with pytest.raises(UsageError, match="unknown format"):
        hf_yaml(files[:1], layout="card")
    with pytest.raises(UsageError, match="unknown protocol"):
        hf_yaml(files[:1], protocol="both")
    with pytest.raises(UsageError, match="no results"):
        hf_yaml([])
    local = replace(frozen.result, data={**frozen.result.data, "repository": None})
    with pytest.raises(DataError, match="not on a dataset"):
        hf_yaml([ResultFile(local, frozen.path)], layout="eval-results")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"marsretrieval\[download\]"):
        hf_yaml(files[:1])
