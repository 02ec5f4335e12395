"""Export results as model metadata for the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from marsretrieval.errors import DataError, MissingDependencyError, UsageError
from marsretrieval.report.columns import MAIN, Metric, main_metric, task_order, task_title
from marsretrieval.report.result_files import ResultFile, require_unlimited
from marsretrieval.report.table import Cell
from marsretrieval.report.tables import model_tables
from marsretrieval.tasks import Settings

# model-index: metadata of a model card. eval-results: files below .eval_results/ of a model.
HF_FORMATS = ("model-index", "eval-results")
# Metrics that a leaderboard on the Hub shows.
_MAIN_METRICS = {"t2i_mrr", "i2t_mrr", "mAP", "auprc", "average_precision"}


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
            remedy="A model card is of one model: name its results only.",
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
            remedy="Data that marsretrieval data download fetched are; or use model-index.",
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
