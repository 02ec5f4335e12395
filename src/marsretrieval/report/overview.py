"""Table over all tasks: one row per model, one main metric per task, and the mean rank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from marsretrieval.report.columns import Metric, main_metric, task_columns
from marsretrieval.report.grouping import MODES, ResultSet, result_sets, seeds_note
from marsretrieval.report.result_files import ResultFile
from marsretrieval.report.table import (
    CHANCE,
    Cell,
    Column,
    ResultTable,
    Row,
    chance_of,
    interval_note,
)
from marsretrieval.report.tables import best_value, metric_value
from marsretrieval.results import MEAN, RunResult
from marsretrieval.text import pluralize

_PARAMETERS = Metric("parameters", "params (M)", "millions of parameters", percent=False, better=0)
_DIMENSION = Metric("dimension", "dim", "dimension of the vectors", percent=False, better=0)
_MEAN_RANK = Metric(
    "mean_rank",
    "mean rank",
    "mean, over the tasks, of the rank among the models that have a value for every task",
    percent=False,
    better=-1,
)


@dataclass(frozen=True, slots=True)
class _TaskColumn:
    """The main metric of one task: its set of items, query group and cells by model."""

    result_set: ResultSet
    group: str
    metric: Metric
    cells: Mapping[str, Cell]
    evaluations: Mapping[str, Mapping[str, Any]]

    @property
    def heading(self) -> str:
        """Metric, with the kind of query if there are several."""
        if self.result_set.task == "paired-image-text":
            return f"{self.metric.heading}, text to image"
        mode = self.group.removeprefix(MEAN)
        return self.metric.heading if mode == "all" else f"{self.metric.heading}, {mode}"


def overview_table(
    results: Iterable[ResultFile | RunResult], *, protocol: str = "strict"
) -> ResultTable | None:
    """Build the table over all tasks.

    A task is represented by its set of items with the most models; limited results are used only
    for tasks without others. Geo-localization is represented by the kind of query that most models
    have (text before image before hybrid), as the mean over landforms.

    The mean rank is that of Demsar 2006 (Journal of Machine Learning Research 7, section 3.2.2):
    models are ranked on every task, ties receive average ranks, and the ranks are averaged. Only
    models with a value for every task are ranked. Rows with options of the system, such as other
    templates, are not ranked unless all rows have options: they would change the ranks of models.

    Args:
        results: Results in any order.
        protocol: Protocol of the metrics.

    Returns:
        The table, models in the order of their mean rank and chance last; None if no task has a
        main metric under this protocol.
    """
    columns: list[_TaskColumn] = []
    other_results = 0
    sets = result_sets(results)
    for result_set in sets:
        if any(column.result_set.task == result_set.task for column in columns):
            other_results += len(result_set.entries)
        elif (column := _task_column(result_set, protocol)) is not None:
            columns.append(column)
    if not columns:
        return None
    labels = dict.fromkeys(label for column in columns for label in column.cells)
    models = _models(columns)
    changed = {label for label in labels if models[label].system_note}
    unranked = changed if len(changed) < len(labels) else set()
    ranks = mean_ranks(
        [
            {label: value for label, value in _values(column).items() if label not in unranked}
            for column in columns
        ]
    )
    order = sorted(
        labels,
        key=lambda label: (
            ranks.get(label, float("inf")),
            -sum(label in column.cells for column in columns),
            label,
        ),
    )
    rows = [
        Row(
            label,
            [
                _count(models[label].model.get("parameters"), _PARAMETERS, 1e-6),
                _count(models[label].model.get("dimension"), _DIMENSION),
                *(column.cells.get(label, Cell()) for column in columns),
                *([Cell(ranks.get(label), _MEAN_RANK)] if len(columns) > 1 else []),
            ],
            protocol=protocol,
        )
        for label in order
    ]
    rows = _mark_best(rows)
    chance = [_chance_cell(column, protocol) for column in columns]
    if any(cell.has_value for cell in chance):
        padding = [Cell()] if len(columns) > 1 else []
        rows.append(
            Row(CHANCE, [Cell(), Cell(), *chance, *padding], protocol=protocol, kind="chance")
        )
    headings = [
        *(Column(m.heading, m.meaning, m.better) for m in (_PARAMETERS, _DIMENSION)),
        *(
            Column(c.heading, c.metric.meaning, c.metric.better, over=c.result_set.task)
            for c in columns
        ),
    ]
    if len(columns) > 1:
        headings.append(Column(_MEAN_RANK.heading, _MEAN_RANK.meaning, _MEAN_RANK.better))
    return ResultTable(
        f"Overview, {protocol} protocol",
        {"model": "name"},
        headings,
        rows,
        interval_note(
            (column.group, evaluation)
            for column in columns
            for evaluation in column.evaluations.values()
        ),
        task="overview",
        protocol=protocol,
        remarks=_remarks(columns, other_results, has_unranked=bool(unranked)),
    )


def mean_ranks(columns: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average the ranks of models over tasks.

    Args:
        columns: Per task, model to value; higher is better.

    Returns:
        Mean rank, from 1, of the models that have a value in every column. Equal values receive
        the average of their ranks.
    """
    if not columns:
        return {}
    complete = [name for name in columns[0] if all(name in column for column in columns)]
    means = {}
    for name in complete:
        ranks = []
        for column in columns:
            values = [column[other] for other in complete]
            greater = sum(value > column[name] for value in values)
            ranks.append(1 + greater + (values.count(column[name]) - 1) / 2)
        means[name] = sum(ranks) / len(ranks)
    return means


def _task_column(result_set: ResultSet, protocol: str) -> _TaskColumn | None:
    """The main metric of a set of results; None if it has none under the protocol."""
    main = main_metric(result_set.results[0])
    metrics = [
        metric
        for _, pairs in task_columns(result_set.results)
        for pair in pairs
        if pair.strict is not None
        and pair.strict.key == main
        and (metric := pair.metric(protocol)) is not None
    ]
    if not metrics:
        return None
    group = _main_group(result_set)
    evaluations = {
        entry.label: entry.metrics[group] for entry in result_set.entries if group in entry.metrics
    }
    cells = {
        label: cell
        for label, evaluation in evaluations.items()
        if (cell := metric_value(evaluation, metrics[0], protocol)).has_value
    }
    return _TaskColumn(result_set, group, metrics[0], cells, evaluations) if cells else None


def _main_group(result_set: ResultSet) -> str:
    """The query group that represents a task."""
    counts = Counter(group for entry in result_set.entries for group in entry.metrics)
    means = [group for mode in MODES if (group := f"{MEAN}{mode}") in counts]
    if means:
        return max(means, key=lambda group: counts[group])  # the first of equals
    return "all" if "all" in counts else next(iter(counts), "")


def _values(column: _TaskColumn) -> dict[str, float]:
    sign = -1.0 if column.metric.better < 0 else 1.0
    return {
        label: sign * cell.value for label, cell in column.cells.items() if cell.value is not None
    }


def _models(columns: Sequence[_TaskColumn]) -> dict[str, RunResult]:
    """A result of every model, for its number of parameters and dimension."""
    return {
        entry.label: entry.file.result
        for column in reversed(columns)
        for entry in column.result_set.entries
    }


def _count(value: int | None, metric: Metric, scale: float = 1.0) -> Cell:
    return Cell() if value is None else Cell(value * scale, metric)


def _mark_best(rows: Sequence[Row]) -> list[Row]:
    best = [best_value(column) for column in zip(*(row.cells for row in rows), strict=True)]
    return [
        replace(
            row,
            cells=[
                replace(cell, best=cell.has_value and cell.value == top)
                for cell, top in zip(row.cells, best, strict=True)
            ],
        )
        for row in rows
    ]


def _chance_cell(column: _TaskColumn, protocol: str) -> Cell:
    rows = chance_of(column.evaluations)
    if len(rows) != 1:
        return Cell()  # models with different chance values have them in the table of the task
    return metric_value(rows[0][1], column.metric, protocol)


def _remarks(columns: Sequence[_TaskColumn], other_results: int, *, has_unranked: bool) -> str:
    sets = "; ".join(column.result_set.caption for column in columns)
    sentences = [f"Parameters in millions. Items: {sets}."]
    if len(columns) > 1:
        without = ", without the rows with options in brackets" if has_unranked else ""
        sentences.append(
            f"Mean rank: over the tasks, of models with a value for each of them{without}."
        )
    if any(column.group.startswith(MEAN) for column in columns):
        sentences.append("Geo-localization: mean over landforms, for the kind of query named.")
    seeds = seeds_note(result for column in columns for result in column.result_set.results)
    if seeds:
        sentences.append(seeds)
    if other_results:
        sentences.append(
            f"{pluralize(other_results, 'result')} on other items: only in the tables below."
        )
    return " ".join(sentences)
