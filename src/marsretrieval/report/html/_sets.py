"""Results sorted into sets that may be compared, with a name and a colour for each model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from marsretrieval.report._columns import task_order, task_title
from marsretrieval.report.boards import comparable, counts_text, labels, main_of
from marsretrieval.report.result_file import ResultFile
from marsretrieval.results import MEAN, RunResult

__all__ = ["HUES", "MODES", "Entry", "ResultSet", "result_sets"]

HUES = 6  # models that have a colour of their own; more could not be told apart
MODES = ("text", "image", "hybrid")  # kinds of query of geo-localization, as in all tables


@dataclass(frozen=True)
class Entry:
    """One model in a set. `hue` is 1 to HUES, or 0 for those without a colour of their own."""

    label: str
    file: ResultFile
    hue: int = 0

    @property
    def metrics(self) -> Mapping[str, Any]:
        return self.file.result.metrics


@dataclass(frozen=True)
class ResultSet:
    """Results of one task over the same items, the best first: these may be compared.
    number: of the set on the page."""

    task: str
    entries: Sequence[Entry]
    number: int = 1

    @property
    def first(self) -> ResultFile:
        return self.entries[0].file

    @property
    def data(self) -> Mapping[str, Any]:
        return self.first.result.data

    @property
    def title(self) -> str:
        """Of the task, for people."""
        return task_title(self.first.result)

    @property
    def set_hash(self) -> str:
        return str(self.data["set_hash"])

    @property
    def key(self) -> str:
        """For anchors: unique on the page."""
        return f"{self.task}-{self.number}"

    @property
    def results(self) -> list[RunResult]:
        """The results, the best first."""
        return [entry.file.result for entry in self.entries]

    @cached_property
    def n(self) -> str:
        """Counts for people; the points of all landforms as one number."""
        return counts_text(self.data)

    @cached_property
    def modes(self) -> list[str]:
        """Kinds of query that any model has; for geo-localization only."""
        found = {group.rpartition("/")[2] for each in self.entries for group in each.metrics}
        return [mode for mode in MODES if mode in found] + sorted(found - {*MODES, "all"})

    @cached_property
    def landforms(self) -> list[str]:
        """Landforms of geo-localization, in order of their name."""
        groups = (group for each in self.entries for group in each.metrics)
        return sorted({g.rpartition("/")[0] for g in groups if "/" in g and not g.startswith(MEAN)})


def result_sets(files: Sequence[ResultFile]) -> list[ResultSet]:
    """All results, by task and set of items: the tasks in their usual order, then the set with
    most models."""
    groups: dict[tuple[Any, ...], list[ResultFile]] = defaultdict(list)
    for file in files:
        groups[comparable(file.result)].append(file)
    label = _labels(groups.values())
    ranked = {key: sorted(group, key=lambda f: (-main_of(f.result), label(f))) for key, group in
              groups.items()}  # fmt: skip
    hues = _hues([[label(file) for file in group] for group in ranked.values()])
    sets = [
        ResultSet(key[0], [Entry(label(f), f, hues.get(label(f), 0)) for f in group])
        for key, group in ranked.items()
    ]
    sets.sort(key=lambda s: (task_order(s.task), -len(s.entries), s.set_hash, s.n))
    return [replace(found, number=number) for number, found in enumerate(sets, 1)]


def _labels(groups: Iterable[Sequence[ResultFile]]) -> Callable[[ResultFile], str]:
    """The names that the tables use, by file."""
    names = {
        id(file): name
        for group in groups
        for file, name in zip(group, labels([file.result for file in group]), strict=True)
    }
    return lambda file: names[id(file)]


def _hues(sets: Sequence[Sequence[str]]) -> dict[str, int]:
    """A colour for those that stand highest over all sets: the same on the whole page."""
    places: dict[str, list[float]] = defaultdict(list)
    for names in sets:
        for place, label in enumerate(names):
            places[label].append(place / len(names))
    order = sorted(places, key=lambda label: (sum(places[label]) / len(places[label]), label))
    return {label: hue for hue, label in enumerate(order[:HUES], 1)}
