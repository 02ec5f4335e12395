"""Group comparable results: one task over the same items, the best model first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from marsretrieval.io import sha256_json
from marsretrieval.report.columns import look_up, main_metric, task_order, task_title
from marsretrieval.report.result_files import ResultFile
from marsretrieval.results import MEAN, RunResult, describe_options

HUES = 6  # models with a colour of their own; more colours are hard to distinguish
MODES = ("text", "image", "hybrid")  # query kinds of geo-localization, in table order


@dataclass(frozen=True)
class ResultEntry:
    """One model in a result set.

    Attributes:
        label: Name of the model, unique in the set.
        file: The result.
        hue: Number of the model's colour, 1 to `HUES`; 0 if it has none of its own.
    """

    label: str
    file: ResultFile
    hue: int = 0

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Query group to `Evaluation.to_dict()`."""
        return self.file.result.metrics


@dataclass(frozen=True)
class ResultSet:
    """Results of one task over the same items, the best first.

    Attributes:
        task: Name of the task.
        entries: The models.
        number: Position of the set among all, from 1.
    """

    task: str
    entries: Sequence[ResultEntry]
    number: int = 1

    def entry(self, label: str) -> ResultEntry:
        """Return the entry of a model.

        Args:
            label: Name of the model.

        Returns:
            The entry.

        Raises:
            KeyError: If no model has this name.
        """
        return {entry.label: entry for entry in self.entries}[label]

    @property
    def data(self) -> Mapping[str, Any]:
        """The items, as the first result describes them."""
        return self.entries[0].file.result.data

    @property
    def title(self) -> str:
        """The title of the task."""
        return task_title(self.entries[0].file.result)

    @property
    def caption(self) -> str:
        """Task, data, N and set hash, which every table must state."""
        synthetic = ", synthetic" if self.data.get("synthetic") else ""
        items = _points_hash(self.data)
        points = f", points {items[:8]}" if items else ""
        name = f"{self.task}: {self.data.get('name', '')}{synthetic}"
        note = f", {self.note}" if self.note else ""
        return f"{name}, {self.n} (set {self.set_hash[:8]}{points}){note}"

    @property
    def note(self) -> str:
        """Limit and other settings that all results of the set share, such as "radius 1 deg"."""
        result = self.entries[0].file.result
        return ", ".join(
            filter(None, (result.limit_note, describe_options(result.measure_options)))
        )

    @property
    def set_hash(self) -> str:
        """Hash of the items."""
        return str(self.data["set_hash"])

    @property
    def key(self) -> str:
        """Identifier for anchors, unique on the page."""
        return f"{self.task}-{self.number}"

    @property
    def results(self) -> list[RunResult]:
        """The results, the best first."""
        return [entry.file.result for entry in self.entries]

    @cached_property
    def n(self) -> str:
        """Counts as text; the points of all landforms as one number."""
        counts = {name: count for name, count in self.data["n"].items() if "/" not in name}
        points = [count for name, count in self.data["n"].items() if name.startswith("points/")]
        if points:
            covered = "covered points" if self.data.get("covered_only") else "points"
            counts |= {"landforms": len(points), covered: sum(points)}
        return ", ".join(f"{count:,} {name}" for name, count in counts.items())

    @cached_property
    def modes(self) -> list[str]:
        """Kinds of query that any model has; for geo-localization only."""
        modes = {group.rpartition("/")[2] for entry in self.entries for group in entry.metrics}
        return [mode for mode in MODES if mode in modes] + sorted(modes - {*MODES, "all"})

    @cached_property
    def landforms(self) -> list[str]:
        """Landforms of geo-localization, in order of their name."""
        groups = (group for entry in self.entries for group in entry.metrics)
        return sorted({g.rpartition("/")[0] for g in groups if "/" in g and not g.startswith(MEAN)})


def result_sets(results: Iterable[ResultFile | RunResult]) -> list[ResultSet]:
    """Group results by task and set of items.

    Args:
        results: Results in any order, with or without the tables beside them.

    Returns:
        The tasks in their usual order, then the set with most models, limited results and those of
        other settings last; the
        models of a set in the order of its main metric, each with a name of its own.
    """
    groups: dict[tuple[Any, ...], list[ResultFile]] = defaultdict(list)
    for result in results:
        file = result if isinstance(result, ResultFile) else ResultFile(result)
        groups[comparable(file.result)].append(file)
    sets = []
    for files in groups.values():
        names = labels([file.result for file in files])
        entries = [ResultEntry(name, file) for name, file in zip(names, files, strict=True)]
        entries.sort(key=lambda entry: (-_main_metric_value(entry.file.result), entry.label))
        sets.append(ResultSet(entries[0].file.result.task, entries))
    hues = _hues(sets)
    sets.sort(
        key=lambda s: (
            task_order(s.task), bool(s.note), -len(s.entries), s.set_hash, s.n, s.note,
        )
    )  # fmt: skip
    return [
        replace(s, number=number, entries=[replace(e, hue=hues.get(e.label, 0)) for e in s.entries])
        for number, s in enumerate(sets, 1)
    ]


def _hues(sets: Sequence[ResultSet]) -> dict[str, int]:
    """A colour for the models that rank highest over all sets: the same on the whole page."""
    ranks: dict[str, list[float]] = defaultdict(list)
    for result_set in sets:
        for rank, entry in enumerate(result_set.entries):
            ranks[entry.label].append(rank / len(result_set.entries))
    order = sorted(ranks, key=lambda label: (sum(ranks[label]) / len(ranks[label]), label))
    return {label: hue for hue, label in enumerate(order[:HUES], 1)}


def comparable(result: RunResult) -> tuple[Any, ...]:
    """Return the key that two results must share to be in one table.

    Args:
        result: A result.

    Returns:
        Task, limit, options that change what is measured, set hash, hash of the points and counts.
        The set hash of geo-localization
        covers only the tiles, so the hash of the points (`items_hash`) is part of its key.
    """
    data = result.data
    counts = sorted(data["n"].items())
    options = sha256_json(result.measure_options) if result.measure_options else ""
    return result.task, result.limit, options, data["set_hash"], _points_hash(data), *counts


def _points_hash(data: Mapping[str, Any]) -> str:
    """Hash of the points of geo-localization; empty for other tasks and older results."""
    has_points = any(name.startswith("points/") for name in data["n"])
    return str(data.get("items_hash") or "") if has_points else ""


def labels(results: Sequence[RunResult]) -> list[str]:
    """Name the models of a table so that no two rows share a name.

    Args:
        results: Results over the same items.

    Returns:
        A name per result: that of the model, with options of the system ("5 templates") and, if
        several results share it, the differences (precision, seed, resamples, time) in brackets.
    """
    names = [_name_with_options(result) for result in results]
    for name in {name for name in names if names.count(name) > 1}:
        rows = [row for row, other in enumerate(names) if other == name]
        notes = _distinguishing_notes([results[row] for row in rows])
        for row, note in zip(rows, notes, strict=True):
            names[row] = f"{name} ({note})" if note else name
    return names


def _name_with_options(result: RunResult) -> str:
    elsewhere = ""
    if result.computed_elsewhere:
        elsewhere = f"{'ranking ' if result.from_ranking else ''}computed elsewhere"
    note = ", ".join(filter(None, (elsewhere, result.system_note)))
    return f"{name_of(result)} [{note}]" if note else name_of(result)


def _distinguishing_notes(results: Sequence[RunResult]) -> list[str]:
    """Shortest descriptions that differ from each other, one per result."""
    properties = [_distinguishing_properties(result) for result in results]
    differing = [key for key in properties[0] if len({values[key] for values in properties}) > 1]
    notes = [", ".join(values[key] for key in differing if values[key]) for values in properties]
    if len(set(notes)) == len(notes):
        return notes
    timed = [
        ", ".join(filter(None, (note, str(result.created))))
        for note, result in zip(notes, results, strict=True)
    ]
    if len(set(timed)) == len(timed):
        return timed
    return [f"{note} #{number}".strip() for number, note in enumerate(notes, 1)]


def _distinguishing_properties(result: RunResult) -> dict[str, str]:
    """Properties that may differ between two results of one name; empty if unknown."""
    settings: Mapping[str, Any] = result.settings or {}
    checkpoint = str(result.model.get("checkpoint") or "").rstrip("/").rpartition("/")[2]
    resamples = settings.get("resamples")
    return {
        "checkpoint": checkpoint,
        "dtype": str(result.model.get("dtype") or ""),
        "seed": f"seed {result.seed}",
        "resamples": "" if resamples is None else f"{resamples} resamples",
    }


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


def _main_metric_value(result: RunResult) -> float:
    """The strict main metric; of geo-localization its mean for the best kind of query."""
    means = [group for group in result.metrics if group.startswith(MEAN)]
    values = [
        look_up(result.metrics[group]["strict"], main_metric(result))
        for group in means or result.metrics
    ]
    return max((float(value) for value in values if isinstance(value, int | float)), default=-1.0)
