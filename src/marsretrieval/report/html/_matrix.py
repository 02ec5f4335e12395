"""Tables of one figure: classes or landforms down, models across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marsretrieval.report._columns import Metric
from marsretrieval.report.chance import interval_note
from marsretrieval.report.html._boards import Cell, best_of
from marsretrieval.report.html._figures import PER_CLASS, PER_LANDFORM, Value, look_up
from marsretrieval.report.html._sets import Entry, ResultSet
from marsretrieval.results import MEAN


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """facts: what holds for the row whatever the model."""

    name: str
    cells: Sequence[Cell]
    facts: Sequence[Cell] = ()


@dataclass(frozen=True, slots=True)
class Matrix:
    """sections: name to rows. main: shown at once; the others can be opened. note: what the
    intervals resample."""

    protocol: str
    figure: Metric
    heads: Sequence[str]
    sections: Sequence[tuple[str, Sequence[MatrixRow]]]
    facts: Sequence[str] = ()
    main: bool = False
    note: str = ""

    @property
    def title(self) -> str:
        return f"{self.figure.heading}, {self.protocol}"

    @property
    def narrow(self) -> bool:
        """Few enough columns that their names can be written across."""
        return len(self.heads) <= 4


def class_matrices(found: ResultSet) -> list[Matrix]:
    """A table for each figure of the classes, for each protocol where they differ."""
    per_class = {
        protocol: [
            (entry, entry.metrics.get("all", {}).get(protocol, {}).get("per_class") or {})
            for entry in found.entries
        ]
        for protocol in ("strict", "published")
    }
    same = all(
        strict == published for (_, strict), (_, published) in zip(*per_class.values(), strict=True)
    )
    if same:
        per_class = {"both protocols": per_class["strict"]}
    return [
        _of_classes(entries, figure, protocol, main=not number and protocol != "published")
        for protocol, entries in per_class.items()
        for number, figure in enumerate(PER_CLASS)
        if any(classes for _, classes in entries)
    ]


def landform_matrices(found: ResultSet) -> list[Matrix]:
    """A table for each figure of the landforms; the strict average precision stands beside what
    no ranking exceeds."""
    return [
        _of_landforms(found, protocol, figure, main=protocol == "strict" and not number)
        for protocol in ("strict", "published")
        for number, figure in enumerate(PER_LANDFORM.figures(protocol))
    ]


def _of_classes(
    entries: Sequence[tuple[Entry, Mapping[str, Any]]], figure: Metric, protocol: str, *, main: bool
) -> Matrix:
    values = {
        name: [look_up({"strict": found.get(name) or {}}, "strict", figure) for _, found in entries]
        for name in dict.fromkeys(name for _, found in entries for name in found)
    }
    # From the class that is found best to the one that is hardest.
    names = sorted(values, key=lambda name: (-_mean(values[name]), name))
    chance = _class_chances(entries, figure)
    rows = [
        _row(name, values[name], figure, [_plain_cell(chance.get(name), figure)] if chance else ())
        for name in names
    ]
    heads = [entry.label for entry, _ in entries]
    facts = ("by chance",) if chance else ()
    return Matrix(protocol, figure, heads, [("", rows)], facts, main=main)


def _class_chances(
    entries: Sequence[tuple[Entry, Mapping[str, Any]]], figure: Metric
) -> dict[str, Value | None]:
    """Class to chance, which is the same under both protocols; empty where no result states it."""
    for entry, _ in entries:
        expected = entry.metrics.get("all", {}).get("chance", {}).get("strict", {})
        classes = expected.get("per_class")
        if classes:
            return {
                name: look_up({"strict": values}, "strict", figure)
                for name, values in classes.items()
            }
    return {}


def _of_landforms(found: ResultSet, protocol: str, figure: Metric, *, main: bool) -> Matrix:
    sections = []
    for mode in found.modes:
        rows = []
        for landform in found.landforms:
            group = f"{landform}/{mode}"
            having = [entry.metrics.get(group) or {} for entry in found.entries]
            if any(having):
                values = [look_up(each, protocol, figure) for each in having]
                some = next(filter(None, having))
                rows.append(_row(landform, values, figure, _facts(some, protocol, figure, main)))
        sections.append((f"{mode} queries", rows))
    heads = [entry.label for entry in found.entries]
    facts = ("points", "tiles near a point", "by chance", "ceiling") if main else ("by chance",)
    shown = [
        (group, evaluation)
        for entry in found.entries
        for group, evaluation in entry.metrics.items()
        if not group.startswith(MEAN)
    ]
    return Matrix(protocol, figure, heads, sections, facts, main, interval_note(shown))


def _plain_cell(value: Value | None, figure: Metric) -> Cell:
    return Cell("–") if value is None else Cell(value.shown(figure), value=value.value)


def _facts(evaluation: Mapping[str, Any], protocol: str, figure: Metric, main: bool) -> list[Cell]:
    """What the tiles and points allow: the same for every model."""
    expected = look_up(evaluation.get("chance", {}), protocol, figure)
    if not main:
        return [_plain_cell(expected, figure)]
    strict, points = evaluation["strict"], evaluation["n"].get("points")
    near = strict.get("relevant_tiles")
    ceiling = (strict.get("ceiling") or {}).get("average_precision")
    return [
        *(Cell("–" if v is None else f"{v:,}", value=v) for v in (points, near)),
        _plain_cell(expected, figure),
        Cell("–" if ceiling is None else f"{100 * ceiling:.1f}", value=ceiling),
    ]


def _row(
    name: str, values: Sequence[Value | None], figure: Metric, facts: Sequence[Cell] = ()
) -> MatrixRow:
    best = best_of(values, figure)
    cells = [
        Cell("–")
        if each is None
        else Cell(each.shown(figure), each.interval(figure), each.value, each.value == best)
        for each in values
    ]
    return MatrixRow(name, cells, facts)


def _mean(values: Sequence[Value | None]) -> float:
    there = [each.value for each in values if each is not None]
    return sum(there) / len(there) if there else -1.0
