"""Export results in the formats of MTEB and of the Hugging Face Hub."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval import __version__
from marsretrieval.datasets.download import find_source
from marsretrieval.errors import DataError, MissingDependencyError, UsageError
from marsretrieval.io import make_folder, write_json
from marsretrieval.report.columns import MAIN, Metric, main_metric, task_order, task_title
from marsretrieval.report.result_files import ResultFile, require_unlimited
from marsretrieval.report.table import Cell
from marsretrieval.report.tables import model_tables
from marsretrieval.tasks import Settings
from marsretrieval.text import pluralize

# Direction to the name of MTEB's task.
MTEB_TASKS: Mapping[str, str] = {
    "t2i": "MarsVLPairsT2IRetrieval",
    "i2t": "MarsVLPairsI2TRetrieval",
}
_DEPTHS = (1, 3, 5, 10, 20, 100, 1000)  # depths of MTEB's tasks, besides N
_TOLERANCE = 1e-9

# model-index: metadata of a model card. eval-results: files below .eval_results/ of a model.
HF_FORMATS = ("model-index", "eval-results")
# Metrics that a leaderboard on the Hub shows.
_MAIN_METRICS = {"t2i_mrr", "i2t_mrr", "mAP", "auprc", "average_precision"}


def mteb_results(file: ResultFile) -> dict[str, dict[str, Any]]:
    """Convert a result to MTEB's `TaskResult` format.

    With one relevant item per query, all scores of MTEB are functions of its rank, which the table
    of queries holds (ties broken as under `strict`). Values that were not measured (nAUC, time,
    MTEB's version) are omitted. Provenance is added to the scores under `marsretrieval`.

    Args:
        file: A result of paired retrieval on the frozen copy of the dataset, as in MTEB's tasks.

    Returns:
        Name of MTEB's task to its `TaskResult` as JSON data.

    Raises:
        DataError: If the result is on other data, or if its table of queries is missing or does not
            match.
    """
    result = file.result
    require_unlimited(file)
    _require_frozen_dataset(file)
    table = file.queries
    if table is None:
        raise DataError(
            f"{file.beside('queries') or result.model['id']}: missing; MTEB's scores need the "
            "rank of each query",
            remedy="Keep the .parquet files beside the result, or run it again with --force.",
        )
    task_results = {}
    strict: Mapping[str, Any] = result.metrics["all"]["strict"]
    for direction, name in MTEB_TASKS.items():
        ranks = table.column(f"{direction}_rank").to_numpy()
        scores = rank_scores(ranks)
        stored = strict[f"{direction}_mrr"]
        if (
            len(ranks) != result.data["n"]["pairs"]
            or abs(scores[f"mrr_at_{len(ranks)}"] - stored) > _TOLERANCE
        ):
            raise DataError(
                f"{file.beside('queries')}: not the table of {file.path}",
                remedy="Run the model again with --force.",
            )
        task_results[name] = {
            "dataset_revision": result.data["revision"],
            "task_name": name,
            "mteb_version": None,
            "scores": {
                "test": [
                    {
                        **scores,
                        "main_score": scores[f"mrr_at_{len(ranks)}"],
                        "hf_subset": "default",
                        "languages": ["eng-Latn"],
                        "marsretrieval": _provenance(file),
                    }
                ]
            },
            "evaluation_time": None,
            "kg_co2_emissions": None,
            "date": datetime.datetime.fromisoformat(result.created).timestamp(),
        }
    return task_results


def write_mteb(file: ResultFile, folder: str | Path) -> list[Path]:
    """Write ``TASK.json`` for each of MTEB's tasks.

    Args:
        file: A result as in `mteb_results`.
        folder: Folder of the files.

    Returns:
        Paths of the files.

    Raises:
        DataError: As in `mteb_results`.
        OutputError: If a file cannot be written.
    """
    folder = Path(folder)
    task_results = mteb_results(file)
    make_folder(folder)
    paths = []
    for name, task_result in task_results.items():
        write_json(folder / f"{name}.json", task_result)
        paths.append(folder / f"{name}.json")
    return paths


def rank_scores(ranks: npt.NDArray[np.integer]) -> dict[str, float]:
    """Compute MTEB's scores of queries with one relevant item each.

    Args:
        ranks: Rank of the relevant item per query, from 1.

    Returns:
        Name of the score to its value.
    """
    scores: dict[str, float] = {}
    for k in dict.fromkeys((*_DEPTHS, len(ranks))):
        within = ranks <= k
        reciprocal = np.where(within, 1 / ranks, 0.0).mean()
        scores |= {
            f"ndcg_at_{k}": float(np.where(within, 1 / np.log2(1 + ranks), 0.0).mean()),
            f"map_at_{k}": float(reciprocal),
            f"recall_at_{k}": float(within.mean()),
            f"precision_at_{k}": float(within.mean() / k),
            f"mrr_at_{k}": float(reciprocal),
            f"hit_rate_at_{k}": float(within.mean()),
        }
    return {**scores, "accuracy": scores["recall_at_1"]}


def _require_frozen_dataset(file: ResultFile) -> None:
    result = file.result
    if result.task != "paired-image-text":
        raise DataError(
            f"{file.path}: a result of {result.task}; MTEB has paired-image-text only",
            remedy="Choose the result of that task.",
        )
    frozen = find_source("paired", "frozen")
    data = result.data
    expected = (frozen.repository, frozen.revision, frozen.rows)
    if (data.get("repository"), data.get("revision"), data["n"].get("pairs")) != expected:
        dataset = data.get("repository") or ("synthetic data" if data.get("synthetic") else "data")
        revision = f"@{data['revision']}" if data.get("revision") else ""
        raise DataError(
            f"{file.path}: on {dataset}{revision}, "
            f"{pluralize(data['n'].get('pairs', 0), 'pair')}; MTEB's tasks "
            f"are {frozen.repository}@{frozen.revision}, {frozen.rows:,} pairs",
            remedy="marsretrieval data download paired --variant frozen, and run the model on it.",
        )


def _provenance(file: ResultFile) -> dict[str, Any]:
    result = file.result
    model = result.model
    return {
        "evaluated_by": f"marsretrieval {result.versions.get('marsretrieval', __version__)}",
        "protocol": "strict (ties by SHA-256 of the item id)",
        "model": model["id"],
        "repository": model.get("repository"),
        "revision": model.get("revision"),
        "weights_sha256": model.get("weights_sha256"),
        "dtype": model.get("dtype"),
        "prompts": (model.get("prompts") or {}).get("preset"),
        "n": result.data["n"]["pairs"],
        "set_hash": result.data["set_hash"],
    }


def hf_yaml(
    files: Sequence[ResultFile], *, layout: str = "model-index", protocol: str = "strict"
) -> str:
    """Render results as YAML for a model repository on the Hub.

    Args:
        files: Results of one model.
        layout: "model-index": every metric of the tables, for the head of README.md.
            "eval-results": the main metrics, for a file below .eval_results/; the data must be a
            dataset on the Hub.
        protocol: "published" or "strict".

    Returns:
        YAML with values in percent, and N and set hash per metric.

    Raises:
        UsageError: If the layout or protocol is unknown, or the results are none or of several
            models.
        DataError: If the data are not a dataset on the Hub ("eval-results" only).
        MissingDependencyError: If huggingface-hub is not installed.
    """
    if layout not in HF_FORMATS:
        raise UsageError(f"unknown format '{layout}'", remedy=f"Use {' or '.join(HF_FORMATS)}.")
    if protocol not in ("published", "strict"):
        raise UsageError(f"unknown protocol '{protocol}'", remedy="Use published or strict.")
    if not files:
        raise UsageError("no results to export")
    for file in files:
        require_unlimited(file)
    models = {(file.result.model["id"], file.result.model.get("weights_sha256")) for file in files}
    if len(models) > 1:
        raise UsageError(
            f"results of several models: {', '.join(sorted(name for name, _ in models))}",
            remedy="A model card describes one model: give only its results.",
        )
    files = sorted(files, key=lambda file: task_order(file.result.task))
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "huggingface-hub", "download", needed_for="a model card's metadata"
        ) from error
    if layout == "model-index":
        eval_results = [
            entry
            for file in files
            for entry in _model_index_entries(huggingface_hub, file, protocol)
        ]
        name = str(files[0].result.model.get("name") or files[0].result.model["id"])
        card = huggingface_hub.ModelCardData(model_name=name, eval_results=eval_results)
        text: str = card.to_yaml()
        return f"{text.rstrip()}\n"
    from huggingface_hub.utils import yaml_dump

    entries = [
        entry for file in files for entry in _eval_result_entries(huggingface_hub, file, protocol)
    ]
    text = yaml_dump(huggingface_hub.eval_result_entries_to_yaml(entries))
    return f"{text.rstrip()}\n"


def _table_values(file: ResultFile, protocol: str) -> Iterator[tuple[str, str, Cell]]:
    """Group, its name and value of every cell in the table of one result."""
    (table,) = model_tables([file.result], references=False)
    for row in table.rows:
        if row.protocol == protocol and row.kind == "model":
            yield from ((row.group, row.section, cell) for cell in row.cells if cell.text())


def _model_index_entries(hub: Any, file: ResultFile, protocol: str) -> Iterator[Any]:
    data = file.result.data
    synthetic = bool(data.get("synthetic"))
    for group, name, cell in _table_values(file, protocol):
        metric = cell.metric
        unit = " (%)" if metric.percent else ""
        args: dict[str, Any] = {"protocol": protocol}
        if group != "all":
            args["queries"] = group
        args |= _non_default_settings(file)
        if cell.low is not None and cell.high is not None:
            args["interval_95"] = [_rounded(cell.low, metric), _rounded(cell.high, metric)]
        yield hub.EvalResult(
            task_type="retrieval",
            task_name=task_title(file.result),
            dataset_type="synthetic" if synthetic else data.get("repository") or data["name"],
            dataset_name=f"{data['name']}{' (synthetic)' if synthetic else ''}",
            dataset_revision=data.get("revision"),
            dataset_args={"n": dict(data["n"]), "set_hash": data["set_hash"]},
            metric_type=metric.key,
            metric_name=", ".join(filter(None, [f"{metric.heading}{unit}", name, protocol])),
            metric_value=_rounded(cell.value, metric),
            metric_args=args,
        )


def _non_default_settings(file: ResultFile) -> dict[str, Any]:
    """Seed and resamples that differ from the defaults; they distinguish entries of one model."""
    settings = {"seed": file.result.seed, **file.result.settings}
    return {
        name: value for name, value in settings.items() if value != getattr(Settings(), name, value)
    }


def _eval_result_entries(hub: Any, file: ResultFile, protocol: str) -> Iterator[Any]:
    result = file.result
    data = result.data
    if data.get("synthetic") or not data.get("repository"):
        raise DataError(
            f"{file.path}: not on a dataset of the hub, which eval-results must name",
            remedy="Evaluate data from marsretrieval data download, or use model-index.",
        )
    n = ", ".join(f"{count} {name}" for name, count in data["n"].items() if "/" not in name)
    version = result.versions.get("marsretrieval", "")
    for group, _, cell in _table_values(file, protocol):
        key = cell.metric.key
        if key in (_MAIN_METRICS if result.task in MAIN else {main_metric(result)}):
            mode = f"_{group.rpartition('/')[2]}" if "/" in group else ""
            yield hub.EvalResultEntry(
                dataset_id=data["repository"],
                dataset_revision=data.get("revision"),
                task_id=f"{result.task}{mode}_{key}",
                value=_rounded(cell.value, cell.metric),
                date=result.created,
                notes=f"marsretrieval {version}, {protocol} protocol, {n}, set "
                f"{data['set_hash'][:12]}",
            )


def _rounded(value: float | None, metric: Metric) -> float:
    """Value in percent, or unchanged if it is not a fraction, rounded to 5 decimals."""
    assert value is not None
    return round(100 * value if metric.percent else value, 5)
