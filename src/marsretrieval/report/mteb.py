"""Export a result of paired retrieval as MTEB results, one per direction."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval import __version__
from marsretrieval.datasets.download import find_source
from marsretrieval.errors import DataError
from marsretrieval.io import make_folder, write_json
from marsretrieval.report.result_files import ResultFile, require_unlimited

# Direction to the name of MTEB's task.
MTEB_TASKS: Mapping[str, str] = {
    "t2i": "MarsVLPairsT2IRetrieval",
    "i2t": "MarsVLPairsI2TRetrieval",
}
_DEPTHS = (1, 3, 5, 10, 20, 100, 1000)  # depths of MTEB's tasks, besides N
_TOLERANCE = 1e-9


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
            f"{file.beside('queries') or result.model['id']}: not there; MTEB's scores need the "
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
            f"{file.path}: on {dataset}{revision}, {data['n'].get('pairs', 0):,} pairs; MTEB's "
            f"tasks are {frozen.repository}@{frozen.revision}, {frozen.rows:,} pairs",
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
