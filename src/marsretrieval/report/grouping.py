"""Group comparable results, best model first, and average those that differ only in their seed."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from marsretrieval.io import sha256_json
from marsretrieval.report.columns import look_up, main_metric, task_order, task_title
from marsretrieval.report.result_files import ResultFile
from marsretrieval.results import MEAN, PROTOCOLS, RunResult, describe_options

HUES = 6  # models with a colour of their own; more colours are hard to distinguish
MODES = ("text", "image", "hybrid")  # query kinds of geo-localization, in table order

_NOT_IDENTITY = {"warnings", "label"}  # of a model, besides its name


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
        name = f"{self.task}: {self.data.get('name', '')}{synthetic}"
        note = f", {self.note}" if self.note else ""
        return f"{name}, {describe_items(self.data)}{note}"

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
        return _describe_counts(self.data)

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


def describe_items(data: Mapping[str, Any]) -> str:
    """Describe the items of a result, as every table must.

    Args:
        data: `RunResult.data`.

    Returns:
        Counts, set hash and, for geo-localization, hash of the points, such as
        "800 tiles, 5 landforms, 85 points (set d205d2c5, points 6f1c2a90)".
    """
    items = _points_hash(data)
    points = f", points {items[:8]}" if items else ""
    return f"{_describe_counts(data)} (set {data['set_hash'][:8]}{points})"


def _describe_counts(data: Mapping[str, Any]) -> str:
    counts = {name: count for name, count in data["n"].items() if "/" not in name}
    points = [count for name, count in data["n"].items() if name.startswith("points/")]
    if points:
        covered = "covered points" if data.get("covered_only") else "points"
        counts |= {"landforms": len(points), covered: sum(points)}
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


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


def average_seeds(files: Iterable[ResultFile]) -> list[ResultFile]:
    """Replace results that differ only in their seed by one result with their mean.

    Results belong together if the model, task, items, options, limit, number of resamples and
    protocol versions are equal and every seed occurs once. The metrics, chance and the ends of the
    intervals are averaged; every evaluation receives `spread`, the sample standard deviation per
    protocol and metric. Timings, hardware and the tables of the result are those of the first
    seed.

    Args:
        files: Results in any order.

    Returns:
        The results, in the order of their first seed; those without another seed are unchanged.
    """
    groups: dict[str, list[ResultFile]] = defaultdict(list)
    for file in files:
        groups[_identity(file.result)].append(file)
    averaged: list[ResultFile] = []
    for group in groups.values():
        seeds = {file.result.seed for file in group}
        if len(group) > 1 and len(seeds) == len(group):
            averaged.append(_average(sorted(group, key=lambda file: file.result.seed)))
        else:
            averaged += group
    return averaged


def seeds_of(result: RunResult) -> list[int]:
    """Return the seeds that a result is the mean of.

    Args:
        result: A result of `average_seeds`.

    Returns:
        The seeds in ascending order; empty for the result of one run.
    """
    return [int(seed) for seed in (result.settings or {}).get("seeds", ())]


def seeds_note(results: Iterable[RunResult]) -> str:
    """Describe the values with a spread in a table.

    Args:
        results: Results of a table.

    Returns:
        One sentence; empty if no result is the mean over seeds.
    """
    counts = sorted({len(seeds) for result in results if (seeds := seeds_of(result))})
    if not counts:
        return ""
    return (
        f"Means over {' or '.join(map(str, counts))} seeds ± sample standard deviation; values "
        "without ± are equal for all seeds. The ends of intervals are means, too."
    )


def _identity(result: RunResult) -> str:
    """Hash of everything that results of several seeds share."""
    settings = {name: v for name, v in (result.settings or {}).items() if name != "seed"}
    model = {name: v for name, v in dict(result.model).items() if name not in _NOT_IDENTITY}
    return sha256_json(
        [
            list(comparable(result)),
            name_of(result),
            model,
            settings,
            dict(result.protocol_versions or {}),
        ]
    )


def _average(files: Sequence[ResultFile]) -> ResultFile:
    results = [file.result for file in files]
    first = results[0]
    groups = [
        group
        for group in dict.fromkeys(name for result in results for name in result.metrics)
        if all(group in result.metrics for result in results)
    ]
    metrics: dict[str, Any] = {}
    for group in groups:
        evaluations: list[Any] = [dict(result.metrics[group]) for result in results]
        spread = {
            protocol: _spread([evaluation[protocol] for evaluation in evaluations])
            for protocol in PROTOCOLS
        }
        averaged = {
            name: _mean([evaluation.get(name) for evaluation in evaluations])
            for name in ("published", "strict", "intervals", "ties", "chance")
            if all(name in evaluation for evaluation in evaluations)
        }
        metrics[group] = {**evaluations[0], **averaged, "spread": spread, "seeds": len(results)}
    settings = {
        **(first.settings or {}),
        "seed": first.seed,
        "seeds": [result.seed for result in results],
    }
    return replace(files[0], result=replace(first, metrics=metrics, settings=settings))


def _mean(values: Sequence[Any]) -> Any:
    """Average numbers of the same structure; parts that not all have are left out."""
    first = values[0]
    if all(_is_number(value) for value in values):
        # The mean of equal numbers may differ from them in the last digit.
        return first if all(value == first for value in values) else statistics.fmean(values)
    if all(isinstance(value, Mapping) for value in values):
        return {
            name: _mean([value[name] for value in values])
            for name in first
            if all(name in value for value in values)
        }
    if all(isinstance(value, list | tuple) for value in values):
        if all(isinstance(part, Mapping) and "band" in part for value in values for part in value):
            return _mean_bands(values)
        if len({len(value) for value in values}) == 1:
            return [_mean(parts) for parts in zip(*values, strict=True)]
    return first if all(value == first for value in values) else None


def _mean_bands(values: Sequence[Sequence[Mapping[str, Any]]]) -> list[Any]:
    """Average latitude bands by name; a band without tiles of some seeds counts with 0 tiles."""
    by_band = [{str(part["band"]): part for part in value} for value in values]
    names = sorted(
        {name for bands in by_band for name in bands}, key=lambda n: int(n.split("..")[0])
    )
    averaged = []
    for name in names:
        parts = [bands.get(name, {"band": name, "points": 0, "tiles": 0, "precision": 0.0})
                 for bands in by_band]  # fmt: skip
        averaged.append(_mean(parts))
    return averaged


def _spread(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sample standard deviation of all numbers that all values have."""
    spreads: dict[str, Any] = {}
    for name in values[0]:
        parts = [value.get(name) for value in values]
        if all(_is_number(part) for part in parts):
            spreads[name] = statistics.stdev(float(part) for part in parts if part is not None)
        elif all(isinstance(part, Mapping) for part in parts):
            spreads[name] = _spread([part for part in parts if isinstance(part, Mapping)])
    return spreads


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
