"""Benchmark models from Python, and read the results."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval.encoders import LoadOptions, ModelSpec
from marsretrieval.encoders.base import PromptPreset
from marsretrieval.encoders.identity import variant
from marsretrieval.encoders.loading import ModelLike, ResolvedModel, resolve_model, reuse
from marsretrieval.errors import (
    DataError,
    MarsRetrievalError,
    MissingDependencyError,
    ModalityError,
    UsageError,
    as_int,
    as_optional,
    as_path,
)
from marsretrieval.evaluation.jobs import Job, plan
from marsretrieval.evaluation.runner import Finished, run
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.results import (
    PROTOCOLS,
    RunResult,
    describe_options,
    find_results,
    read_result,
)
from marsretrieval.tasks import TASKS, Settings, Task, find_task
from marsretrieval.tasks.ablation import Ablation
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)


class Results:
    """Results of models on tasks, as a sequence of `RunResult`.

    Attributes:
        paths: The result files, in the order of the results.
    """

    def __init__(self, results: Iterable[tuple[Path, RunResult]]) -> None:
        pairs = list(results)
        self.paths = [path for path, _ in pairs]
        self._results = [result for _, result in pairs]

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[RunResult]:
        return iter(self._results)

    def __getitem__(self, key: int | str) -> RunResult:
        """Return a result by its number, or the only result of a task by the task's name.

        Raises:
            UsageError: If there is no result of the task, or more than one.
        """
        if isinstance(key, int):
            return self._results[key]
        chosen = self.select(task=key)
        if len(chosen) != 1:
            labels = ", ".join(_label(result) for result in chosen) or "none"
            raise UsageError(
                f"{pluralize(len(chosen), 'result')} of task {key} ({labels})",
                remedy="Choose one with select(task=..., model=...)[0].",
            )
        return chosen[0]

    def __repr__(self) -> str:
        names = ", ".join(f"{_label(result)} on {_title(result)}" for result in self._results)
        return f"<Results: {names or 'none'}>"

    def select(self, *, task: str | None = None, model: str | None = None) -> Results:
        """Select the results of a task, of a model, or of both.

        Args:
            task: Name or alias of a task.
            model: Name of a model in tables, or its id.

        Returns:
            The results selected.
        """
        name = task if task is None else _task_name(task)
        return Results(
            (path, result)
            for path, result in zip(self.paths, self._results, strict=True)
            if name in (None, result.task)
            and model in (None, _label(result), result.model.get("id"))
        )

    def to_dataframe(self) -> pd.DataFrame:
        """Convert to a table with one row per metric.

        Returns:
            Columns model, task, data, set_hash, group, protocol, metric, value, low, high, limit,
            options, seed, n.
            Groups are those of the result; metrics of a single class have the group ``class/NAME``.
            `low` and `high` bound the 95 % interval, NaN without one. `limit` is the number of
            items of a limited run, NaN for a result on all items. `options` describes settings that
            differ from the published protocol; empty for that protocol. `n` counts the items of the
            group, such as ``images=48 classes=6``.

        Raises:
            MissingDependencyError: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingDependencyError("pandas", "gis", needed_for="data frames") from error
        rows = [row for result in self._results for row in _rows(result)]
        return pd.DataFrame(rows, columns=list(_COLUMNS))

    def _repr_html_(self) -> str:
        """Show the strict main metrics in notebooks."""
        rows = "".join(
            f"<tr><td>{escape(_label(result))}</td><td>{escape(_title(result))}</td>"
            f"<td>{escape(metric)}</td><td>{value:.4f}</td></tr>"
            for result in self._results
            for metric, value in _main_metrics(result)
        )
        head = "<tr><th>model</th><th>task</th><th>metric</th><th>value</th></tr>"
        return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def evaluate(
    models: ModelLike | Sequence[ModelLike],
    tasks: str | Task | Sequence[str | Task] = "all",
    *,
    data: str | Path = "data",
    results: str | Path = "results",
    name: str | None = None,
    tiles_store: str | Path | None = None,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    prompts: PromptPreset = "paper",
    offline: bool = False,
    trust_remote_code: bool = False,
    seed: int | Sequence[int] = 0,
    resamples: int = 1000,
    limit: int | None = None,
    caption: str | None = None,
    templates: str | int | Path | Sequence[str] | None = None,
    class_names: str | Path | Mapping[str, str | None] | None = None,
    queries: str | None = None,
    radius: float | None = None,
    depth: int | None = None,
    image_weight: float | None = None,
    examples: int | None = None,
    dim: int | None = None,
    confirm_dim: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
    strict: bool = False,
    force: bool = False,
    progress: Progress = NO_PROGRESS,
) -> Results:
    """Benchmark one or several models; what is already done is kept.

    The same as ``marsretrieval run``, with the same files in the same folders. Messages go to the
    logger ``marsretrieval``.

    Args:
        models: A name, ``"module:Class"``, a class, an object with `encode_images` (and
            `encode_texts`), or a list of these.
        tasks: ``"paired-image-text"``, ``"landform"``, ``"geolocalization"``, ``"all"``,
            ``"module:Class"``, a task object, or a list of these.
        data: Folder that holds the datasets, or one dataset (folder or file).
        results: Folder for results and embeddings.
        name: Name of the model in tables and folders; for one model.
        tiles_store: A finished store of tiles for geo-localization.
        checkpoint: Local weights in place of the published ones; for models given by name.
        device: As of `load_model`.
        dtype: As of `load_model`.
        prompts: As of `load_model`.
        offline: As of `load_model`.
        trust_remote_code: As of `load_model`.
        seed: Seed of the bootstrap and of drawn examples, or several with a result for each.
        resamples: Number of bootstrap resamples.
        limit: Evaluate on this number of pairs, images or tiles only, for a quick trial; the
            results are marked, and never compared with those on all items.
        caption: "refined" or "original" captions (paired image-text retrieval).
        templates: Number of published prompt templates (1 to 10; published: 3), a file with one
            template per line, or the templates (landform retrieval, geo-localization).
        class_names: Label to class name, or a file of names; None as a name marks a distractor
            (landform retrieval).
        queries: "images" for every image as a query, in place of "text" (landform retrieval).
        radius: Tolerance in degrees; published: 0.5 (geo-localization).
        depth: Depth of the rankings; published: 20,000 (geo-localization).
        image_weight: Weight of the images in hybrid queries; published: 0.3 (geo-localization).
        examples: Number of example images per landform, drawn by the seed; published: all
            (geo-localization).
        dim: Number of leading dimensions of the vectors to evaluate, scaled to unit length.
        confirm_dim: Accept `dim` for models that are not known to be trained for it.
        batch_size: Images per batch; default: chosen for the device.
        workers: Threads that decode images; default: one per CPU.
        strict: Fail if an image cannot be read or embedded.
        force: Embed and evaluate again what is done.
        progress: Shows the progress of the work.

    Returns:
        The results of all pairs of models and tasks that apply.

    Raises:
        ModalityError: If a task that is named needs a modality that a model lacks.
        UsageError: If an option applies to none of the tasks, or not to a model.
        DataError: If the data of a task are missing or invalid.
        MarsRetrievalError: The first error of a pair; the results of the others are written.
    """
    data, results = as_path(data, "data"), as_path(results, "results")
    tiles_store = as_optional(as_path, tiles_store, "tiles_store")
    resamples, limit = as_int(resamples, "resamples"), as_optional(as_int, limit, "limit")
    dim, workers = as_optional(as_int, dim, "dim"), as_optional(as_int, workers, "workers")
    batch_size = as_optional(as_int, batch_size, "batch_size")
    model_list = models if isinstance(models, (list, tuple)) else [models]
    options = LoadOptions(
        device=device,
        dtype=dtype,
        checkpoint=as_optional(as_path, checkpoint, "checkpoint"),
        prompts=prompts,
        offline=offline,
        trust_remote_code=trust_remote_code,
    )
    if not model_list:
        raise UsageError("no models are given", remedy="See marsretrieval.list_models().")
    resolved = [resolve_model(model, options) for model in model_list]
    if name is not None and len(resolved) != 1:
        raise UsageError("name is for one model", remedy="Evaluate the models one by one.")
    _require_distinct_names(resolved)
    chosen, named = _tasks(tasks)
    ablation = Ablation(
        caption=caption, templates=templates, class_names=class_names, queries=queries,
        radius=radius, depth=depth, image_weight=image_weight, examples=examples,
    )  # fmt: skip
    chosen = ablation.apply(chosen)
    seed_list = seed if isinstance(seed, Iterable) and not isinstance(seed, str) else [seed]
    seeds = tuple(dict.fromkeys(as_int(value, "seed") for value in seed_list))
    if not seeds:
        raise UsageError("no seed", remedy="Give a number, or several.")

    def skip(spec: ModelSpec, task: Task, reason: str) -> bool:
        if task.name in named:
            return False
        _LOG.warning("%s on %s: skipped: %s", spec.id, task.name, reason)
        return True

    pairs = []
    error: MarsRetrievalError | None = None
    with reuse(resolved):
        jobs: list[Job] = []
        for model in resolved:
            jobs += plan(
                [model.spec],
                chosen,
                data=data,
                results=results,
                options=model.options,
                settings=Settings(seed=seeds[0], resamples=resamples, limit=limit),
                seeds=seeds,
                dim=dim,
                confirm_dim=confirm_dim,
                tiles_store=tiles_store,
                force=force,
                name=name,
                skip=skip,
            )
        for note in dict.fromkeys(note for job in jobs for note in job.data.notes):
            _LOG.info("%s", note)
        if not jobs:
            raise ModalityError(
                "no task can be run with these models on these data",
                remedy="Choose another model: marsretrieval.list_models()",
            )
        for finished in run(
            jobs,
            batch_size=batch_size,
            workers=workers,
            strict=strict,
            progress=progress,
            say=_say,
        ):
            if finished.result is not None and finished.path is not None:
                pairs.append((finished.path, finished.result))
                _log_skipped(finished)
            elif finished.error is not None:
                _LOG.warning("%s on %s: %s", finished.job.name, finished.job.task.name,
                             finished.error)  # fmt: skip
                error = error or finished.error
    if error is not None:
        raise error
    return Results(pairs)


def load_results(*paths: str | Path) -> Results:
    """Read results that were written before.

    Args:
        paths: Result files, or folders of results at any depth.

    Returns:
        The results, sorted by path within each folder.

    Raises:
        DataError: If a path does not exist, holds no result, or a file is damaged.
    """
    files = find_results([as_path(path, "path") for path in paths])
    if not files:
        raise DataError(f"{', '.join(map(str, paths)) or 'no path'}: no results")
    return Results((path, read_result(path)) for path in files)


def _require_distinct_names(models: Sequence[ResolvedModel]) -> None:
    """Refuse models that would share a folder of results, such as two objects of one class."""
    names = [variant(model.spec, model.options) for model in models]
    for folder in names:
        if names.count(folder) > 1:
            raise UsageError(
                f"{names.count(folder)} models would share the folder {folder}",
                remedy="Evaluate them one by one, with name=...",
            )


def _log_skipped(finished: Finished) -> None:
    assert finished.result is not None
    skipped = finished.result.data.get("skipped", ())
    if skipped:
        first = skipped[0]
        _LOG.warning("%s on %s: %s skipped (first: %s: %s)", finished.job.name,
                     finished.job.task.name, pluralize(len(skipped), "item"), first["source"],
                     first["reason"])  # fmt: skip


def _say(line: str) -> None:
    level = logging.WARNING if "warning:" in line else logging.INFO
    _LOG.log(level, "%s", line.removeprefix("warning: "))


_COLUMNS = (
    "model", "task", "data", "set_hash", "group", "protocol", "metric", "value", "low", "high",
    "limit", "options", "seed", "n",
)  # fmt: skip


def _tasks(tasks: str | Task | Sequence[str | Task]) -> tuple[list[Task], set[str]]:
    """The tasks, and the names of those that were named one by one."""
    keys: list[Any] = list(tasks) if isinstance(tasks, (list, tuple)) else [tasks]
    if not keys:
        raise UsageError("no tasks are given", remedy="Name tasks, or leave tasks out for all.")
    for key in keys:
        if not isinstance(key, str) and not isinstance(getattr(key, "name", None), str):
            raise UsageError(
                f"{key!r} is not a task",
                remedy="Give a name, a task object, or a list of these; see marsretrieval tasks.",
            )
    explicit: list[Task] = [
        find_task(key) if isinstance(key, str) else key for key in keys if key != "all"
    ]
    chosen = {task.name: task for task in (*(TASKS if "all" in keys else ()), *explicit)}
    return list(chosen.values()), {task.name for task in explicit}


def _task_name(task: str) -> str:
    names = {alias: item.name for item in TASKS for alias in (item.name, *item.aliases)}
    return names.get(task.lower(), task)


def _label(result: RunResult) -> str:
    return str(result.model.get("label") or result.model["id"])


def _title(result: RunResult) -> str:
    return result.task + (f" ({result.settings_note})" if result.settings_note else "")


def _main_metrics(result: RunResult) -> list[tuple[str, float]]:
    metric = next((task.main_metric for task in TASKS if task.name == result.task), None)
    evaluation: Mapping[str, Any] = result.metrics.get("all") or {}
    value = evaluation.get("strict", {}).get(metric)
    return [(metric, value)] if metric is not None and isinstance(value, float) else []


def _rows(result: RunResult) -> Iterator[tuple[Any, ...]]:
    base = (_label(result), result.task, result.data.get("name"), result.data["set_hash"])
    limit = float("nan") if result.limit is None else result.limit
    for group, evaluation in result.metrics.items():
        fields: Mapping[str, Any] = evaluation
        counts = " ".join(f"{name}={count}" for name, count in fields["n"].items())
        more = (limit, describe_options(result.options), result.seed, counts)
        for protocol in PROTOCOLS:
            intervals = fields["intervals"].get(protocol) or {}
            for metric, value in fields[protocol].items():
                if metric == "per_class":
                    for name, metrics in value.items():
                        for key, number in metrics.items():
                            if _is_number(number):
                                nan = float("nan")
                                row = (f"class/{name}", protocol, key, number, nan, nan, *more)
                                yield (*base, *row)
                elif _is_number(value):
                    low, high = intervals.get(metric) or (float("nan"), float("nan"))
                    yield (*base, group, protocol, metric, float(value), low, high, *more)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
