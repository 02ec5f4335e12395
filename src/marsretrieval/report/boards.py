"""Results sorted into tables of models that may be compared: the rows behind every format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeVar

from marsretrieval.report._columns import (
    COLUMNS,
    MORE,
    Column,
    look_up,
    main_metric,
    task_columns,
    task_order,
)
from marsretrieval.report.chance import DAGGER, chance_of, interval_note, is_coarse
from marsretrieval.report.references import Reference, references_for
from marsretrieval.results import MEAN, PROTOCOLS, RunResult

__all__ = [
    "BOTH",
    "COLUMNS",
    "Board",
    "Column",
    "Figure",
    "Row",
    "boards",
    "comparable",
    "counts_text",
    "figure_of",
    "labels",
    "look_up",
    "main_of",
    "name_of",
]

_T = TypeVar("_T")
BOTH = "both"  # in place of a protocol, where the two agree for every model of the table


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as it is in the result, with its 95 % interval; `best` of its column among the
    models of the table (never where there is one model, or where neither end is better).
    coarse: whether the interval comes from too few blocks, classes or pairs."""

    value: float
    low: float | None = None
    high: float | None = None
    best: bool = False
    coarse: bool = False

    def text(self, column: Column, *, digits: int = 1) -> str:
        """As people read it, without the interval: percent, or median ranks and K as they are."""
        return _shown(self.value, column, digits)

    def interval(self, column: Column, *, digits: int = 1) -> str:
        """ "[low, high]", with a dagger where it is coarse, or empty."""
        if self.low is None or self.high is None:
            return ""
        ends = f"[{_shown(self.low, column, digits)}, {_shown(self.high, column, digits)}]"
        return f"{ends}{DAGGER}" if self.coarse else ends


@dataclass(frozen=True, slots=True)
class Row:
    """A model's figures for a group of queries under a protocol, or under both.

    group: as the result has it, or "class/NAME". name: of the group, for people. chance: whether
    the row is the expectation of a random ranking, `model` being "chance". basis: of the intervals,
    as in `Evaluation.interval_basis`.
    """

    model: str
    group: str
    name: str
    protocol: str
    n: Mapping[str, int]
    columns: Sequence[Column]
    figures: Sequence[Figure | None]
    chance: bool = False
    basis: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def cells(self) -> Iterator[tuple[Column, Figure | None]]:
        yield from zip(self.columns, self.figures, strict=True)


@dataclass(frozen=True, slots=True)
class Board:
    """A table: one task over one set of items. Rows come group by group, then protocol by
    protocol, the models in the order of the task's main figure, best first, and chance below them.
    note: what the intervals resample."""

    task: str
    set_hash: str
    data: Mapping[str, Any]
    columns: Sequence[Column]  # of the rows; in another part of the table with other keys
    rows: Sequence[Row]
    references: Sequence[Reference] = ()
    note: str = ""

    @property
    def sections(self) -> list[list[Row]]:
        """The rows that are ranked among each other."""
        key = attrgetter("group", "name", "protocol")
        return [list(rows) for _, rows in groupby(self.rows, key=key)]

    @property
    def reference_rows(self) -> Iterator[tuple[Reference, str, list[Figure | None]]]:
        """Figures of others: reference, name of the part, figures in the order of `columns`."""
        shown = {column.heading for column in self.columns}
        for part, parted in COLUMNS.get(self.task, ()):
            columns = [column for column in parted if column.heading in shown]
            for each in self.references:
                keys = [column.key(each.protocol) for column in columns]
                found = [each.figures.get(key) if key else None for key in keys]
                if any(value is not None for value in found):
                    yield each, part, [None if v is None else Figure(float(v)) for v in found]

    @property
    def title(self) -> str:
        """Task, data, N and set hash: what every table has to say of itself."""
        name = self.data.get("name", "")
        synthetic = ", synthetic" if self.data.get("synthetic") else ""
        items = str(self.data.get("items_hash") or "") if _has_points(self.data) else ""
        points = f", points {items[:8]}" if items else ""
        n = counts_text(self.data)
        return f"{self.task}: {name}{synthetic}, {n} (set {self.set_hash[:8]}{points})"


def counts_text(data: Mapping[str, Any]) -> str:
    """Counts of a result's `data` for people; the points of all landforms as one number."""
    counts = {name: count for name, count in data["n"].items() if "/" not in name}
    points = [count for name, count in data["n"].items() if name.startswith("points/")]
    if points:
        covered = "covered points" if data.get("covered_only") else "points"
        counts |= {"landforms": len(points), covered: sum(points)}
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _has_points(data: Mapping[str, Any]) -> bool:
    return any(name.startswith("points/") for name in data["n"])


def boards(
    results: Iterable[RunResult],
    *,
    details: bool = False,
    more: bool = False,
    references: bool | None = None,
) -> list[Board]:
    """A table for each task and set of items; results over different sets never share one.

    details: every class and landform, where otherwise the mean over them stands alone. more: the
    figures that a table has no room for as well. references: figures of others, as
    `references_for` chooses them for each table.
    """
    sets: dict[tuple[Any, ...], list[RunResult]] = {}
    for result in results:
        sets.setdefault(comparable(result), []).append(result)
    found = [
        _board(of_set, details=details, more=more, references=references)
        for of_set in sets.values()
    ]
    return sorted(found, key=lambda board: (task_order(board.task), board.set_hash))


def comparable(result: RunResult) -> tuple[Any, ...]:
    """What two results must share to stand in one table. The set hash of geo-localization is
    that of its tiles, so the points (`items_hash`) and their number count as well."""
    items = str(result.data.get("items_hash") or "") if _has_points(result.data) else ""
    return result.task, result.data["set_hash"], items, *sorted(result.data["n"].items())


def labels(results: Sequence[RunResult]) -> list[str]:
    """Name the models of a table so that no two rows share a name.

    Args:
        results: Results over the same items.

    Returns:
        A name per result: that of the model where it stands alone; rows that share a name get
        in brackets what tells them apart (precision, seed, resamples, time), the others nothing.
    """
    names = [name_of(result) for result in results]
    for name in {name for name in names if names.count(name) > 1}:
        rows = [row for row, other in enumerate(names) if other == name]
        notes = _notes([results[row] for row in rows])
        for row, note in zip(rows, notes, strict=True):
            names[row] = f"{name} ({note})" if note else name
    return names


def _notes(results: Sequence[RunResult]) -> list[str]:
    """The shortest description of each result that tells it from the others."""
    facts = [_facts(result) for result in results]
    differing = [key for key in facts[0] if len({fact[key] for fact in facts}) > 1]
    notes = [", ".join(fact[key] for key in differing if fact[key]) for fact in facts]
    if len(set(notes)) == len(notes):
        return notes
    timed = [
        ", ".join(filter(None, (note, str(result.created))))
        for note, result in zip(notes, results, strict=True)
    ]
    if len(set(timed)) == len(timed):
        return timed
    return [f"{note} #{number}".strip() for number, note in enumerate(notes, 1)]


def _facts(result: RunResult) -> dict[str, str]:
    """What may differ between two results of one name, in words; empty where it is not known."""
    settings: Mapping[str, Any] = result.settings or {}
    checkpoint = str(result.model.get("checkpoint") or "").rstrip("/").rpartition("/")[2]
    resamples = settings.get("resamples")
    return {
        "checkpoint": checkpoint,
        "dtype": str(result.model.get("dtype") or ""),
        "seed": f"seed {result.seed}",
        "resamples": "" if resamples is None else f"{resamples} resamples",
    }


def figure_of(evaluation: Mapping[str, Any], column: Column, protocol: str) -> Figure | None:
    """A figure of an `Evaluation.to_dict()`; None where it has none."""
    key = column.key(protocol)
    value = None if key is None else look_up(evaluation[protocol], key)
    if key is None or value is None:
        return None
    low, high = evaluation["intervals"].get(protocol, {}).get(key) or (None, None)
    coarse = low is not None and is_coarse(evaluation, protocol)
    return Figure(float(value), low, high, coarse=coarse)


def _board(
    of_set: Sequence[RunResult], *, details: bool, more: bool, references: bool | None
) -> Board:
    first = of_set[0]
    names = labels(of_set)
    ranked = sorted(zip(names, of_set, strict=True), key=lambda each: (-main_of(each[1]), each[0]))
    rows: list[Row] = []
    extra = MORE.get(first.task, ()) if more else ()
    shown_groups: list[tuple[str, Mapping[str, Any]]] = []
    parts = task_columns(of_set)
    for group in _groups(of_set, details=details):
        evaluations = {
            name: found for name, result in ranked if (found := _evaluation(result, group))
        }
        shown_groups += [(group, evaluation) for evaluation in evaluations.values()]
        for part, columns in parts:
            rows += _section(group, part, [*columns, *extra], evaluations)
    models = [row.figures for row in rows if not row.chance]
    filled = [any(column) for column in zip(*models, strict=True)]
    rows = [
        replace(row, columns=_where(row.columns, filled), figures=_where(row.figures, filled))
        for row in rows
    ]
    columns = _where([*parts[0][1], *extra], filled)
    shown = references_for(of_set, wanted=references)
    note = interval_note(shown_groups)
    return Board(first.task, first.data["set_hash"], first.data, columns, rows, shown, note)


def _where(values: Sequence[_T], wanted: Sequence[bool]) -> list[_T]:
    return [value for value, want in zip(values, wanted, strict=True) if want]


def _section(
    group: str, part: str, columns: Sequence[Column], evaluations: Mapping[str, Mapping[str, Any]]
) -> Iterator[Row]:
    """The rows that are ranked among each other, protocol by protocol."""
    if not evaluations:
        return
    figures = {
        protocol: {
            model: [figure_of(each, column, protocol) for column in columns]
            for model, each in evaluations.items()
        }
        for protocol in PROTOCOLS
    }
    chance = chance_of(evaluations)
    expected = {
        protocol: {
            name: [figure_of(row, column, protocol) for column in columns] for name, row in chance
        }
        for protocol in PROTOCOLS
    }
    agree = all(by_protocol["published"] == by_protocol["strict"]
                for by_protocol in (figures, expected))  # fmt: skip
    title = part or ("" if group == "all" else group.removeprefix(MEAN).removeprefix("class/"))
    for protocol in (BOTH,) if agree else PROTOCOLS:
        found = figures["strict" if agree else protocol]
        by_column = zip(zip(*found.values(), strict=True), columns, strict=True)
        best = [_best(values, column) for values, column in by_column]
        for model, values in found.items():
            marked = [
                replace(value, best=True) if value and value.value == top else value
                for value, top in zip(values, best, strict=True)
            ]
            n = evaluations[model]["n"]
            basis = evaluations[model].get("interval_basis", {})
            yield Row(model, group, title, protocol, n, columns, marked, basis=basis)
        n = next((evaluation["n"] for evaluation in evaluations.values()), {})
        for name, values in expected["strict" if agree else protocol].items():
            if any(values):
                yield Row(name, group, title, protocol, n, columns, values, chance=True)


def _groups(of_set: Sequence[RunResult], *, details: bool) -> list[str]:
    groups = list(dict.fromkeys(group for result in of_set for group in result.metrics))
    means = [group for group in groups if group.startswith(MEAN)]
    if not details:
        return means or groups
    classes = dict.fromkeys(
        f"class/{name}"
        for result in of_set
        if "all" in result.metrics
        for name in result.metrics["all"]["strict"].get("per_class") or ()
    )
    return [*groups, *classes]


def _evaluation(result: RunResult, group: str) -> Mapping[str, Any] | None:
    """An evaluation of the result, or one made of what it holds of a class."""
    if group in result.metrics:
        return result.metrics[group]
    whole: Mapping[str, Any] = result.metrics.get("all") or {}
    per_class = {each: whole.get(each, {}).get("per_class") or {} for each in PROTOCOLS}
    name = group.removeprefix("class/")
    if any(name not in classes for classes in per_class.values()):
        return None
    figures = {each: classes[name] for each, classes in per_class.items()}
    expected = {
        protocol: metrics["per_class"][name]
        for protocol, metrics in whole.get("chance", {}).items()
        if name in (metrics.get("per_class") or {})
    }
    return {**figures, "n": whole["n"], "intervals": {}, "chance": expected}


def _best(values: Sequence[Figure | None], column: Column) -> float | None:
    there = [each.value for each in values if each is not None]
    if len(there) < 2 or not column.better:
        return None
    return max(there) if column.better > 0 else min(there)


def main_of(result: RunResult) -> float:
    """The strict figure that orders models; of geo-localization that of the best kind of query."""
    means = [group for group in result.metrics if group.startswith(MEAN)]
    found = [
        look_up(result.metrics[group]["strict"], main_metric(result))
        for group in means or result.metrics
    ]
    return max((float(each) for each in found if each is not None), default=-1.0)


def name_of(result: RunResult) -> str:
    """Name the model of a result as its folder is named.

    Args:
        result: A result; those of older versions do not hold the name of their folder.

    Returns:
        The name for tables, pages and `compare`.
    """
    label = result.model.get("label")
    if isinstance(label, str) and label:
        return label
    parts = [str(result.model["id"]).replace(":", "-").replace("/", "-")]
    preset = (result.model.get("prompts") or {}).get("preset", "paper")
    if preset == "official":
        parts.append(preset)
    if result.model.get("checkpoint"):
        parts.append(str(result.model["checkpoint"]).rstrip("/").rpartition("/")[2])
    return "+".join(parts)


def _shown(value: float, column: Column, digits: int) -> str:
    if column.percent:
        return f"{100 * value:.{digits}f}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
