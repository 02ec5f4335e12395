"""Leaderboards as the page shows them: both protocols side by side, the best of each in bold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marsretrieval.report._columns import Metric
from marsretrieval.report.chance import chance_of, interval_note
from marsretrieval.report.html._figures import BOARDS, Board, Value, look_up, task_boards
from marsretrieval.report.html._sets import Entry, ResultSet
from marsretrieval.report.references import Reference
from marsretrieval.results import MEAN, PROTOCOLS


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure as text; `value` is what sorting goes by."""

    text: str
    interval: str = ""
    value: float | None = None
    best: bool = False


@dataclass(frozen=True, slots=True)
class Whisker:
    """A figure and its interval on a common scale from 0 to 100."""

    value: float
    low: float | None
    high: float | None
    told: str


@dataclass(frozen=True, slots=True)
class Line:
    """A row; `source` and `n` only for figures from elsewhere."""

    entry: Entry | None
    label: str
    cells: Sequence[Cell]
    whisker: Whisker | None = None
    source: str = ""
    n: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Rows that are ranked among each other. chance: rows below them, not ranked."""

    name: str
    lines: Sequence[Line]
    chance: Sequence[Line] = ()


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a protocol, or of both where they agree."""

    name: str
    protocol: str
    figures: Sequence[Metric]


@dataclass(frozen=True, slots=True)
class BoardView:
    title: str
    columns: Sequence[Columns]
    main: Metric
    sections: Sequence[Section]
    references: Sequence[Section]
    told: Sequence[str] = ()  # of the references: a line each
    note: str = ""  # what the intervals resample

    @property
    def width(self) -> int:
        """Columns in all, the model and its whisker included."""
        return 2 + sum(len(each.figures) for each in self.columns)

    @property
    def intervals(self) -> bool:
        """Whether any figure has one: not where too little was there to resample."""
        return any(
            cell.interval for each in self.sections for line in each.lines for cell in line.cells
        )


def boards(found: ResultSet, references: Sequence[Reference]) -> list[BoardView]:
    """The leaderboards of a set, best first by the strict main figure."""
    mine = [each for each in references if each.task == found.task]
    return [_board(board, found, mine) for board in task_boards(found.results)]


def _board(board: Board, found: ResultSet, references: Sequence[Reference]) -> BoardView:
    keys = {figure.key for each in PROTOCOLS for figure in board.figures(each)}
    mine = [each for each in references if keys & set(each.figures)]
    columns = _columns(board, found, together=not mine)
    sections = []
    shown: list[tuple[str, Mapping[str, Any]]] = []
    for group, name in _groups(found):
        having = [entry for entry in found.entries if group in entry.metrics]
        values = [_values(columns, entry.metrics[group]) for entry in having]
        best = [best_of(column, figure) for column, figure in
                zip(zip(*values, strict=True), _flat(columns), strict=True)]  # fmt: skip
        lines = [
            Line(
                entry,
                entry.label,
                [_cell(v, f, b) for v, f, b in zip(row, _flat(columns), best, strict=True)],
                _whisker(look_up(entry.metrics[group], "strict", board.main), board.main),
            )
            for entry, row in zip(having, values, strict=True)
        ]
        lines.sort(key=lambda line: -(line.whisker.value if line.whisker else -1))
        chance = chance_of({entry.label: entry.metrics[group] for entry in having})
        sections.append(
            Section(name, lines, [_chance_line(label, row, columns) for label, row in chance])
        )
        shown += [(group, entry.metrics[group]) for entry in having]
    told = list(dict.fromkeys(each.told for each in mine))
    return BoardView(
        board.title,
        columns,
        board.main,
        sections,
        _elsewhere(mine, columns),
        told,
        interval_note(shown),
    )


def _chance_line(label: str, chance: Mapping[str, Any], columns: Sequence[Columns]) -> Line:
    values = zip(_values(columns, chance), _flat(columns), strict=True)
    return Line(None, label, [_cell(value, figure, None) for value, figure in values])


def best_of(values: Iterable[Value | None], figure: Metric) -> float | None:
    """The best of several; None where there is nothing to compare."""
    there = [each.value for each in values if each is not None]
    if len(there) < 2 or not figure.better:
        return None
    return max(there) if figure.better > 0 else min(there)


def _groups(found: ResultSet) -> list[tuple[str, str]]:
    """Query groups that stand in the leaderboard, and their names."""
    if found.task not in BOARDS:
        groups = dict.fromkeys(group for entry in found.entries for group in entry.metrics)
        return [(group, "" if group == "all" else group) for group in groups]
    if found.task != "geolocalization":
        return [("all", "")]
    return [(f"{MEAN}{mode}", f"{mode} queries") for mode in found.modes]


def _columns(board: Board, found: ResultSet, *, together: bool) -> list[Columns]:
    if together and board.published == board.strict and _agree(board, found):
        return [Columns("both protocols (they agree)", "strict", board.strict)]
    return [Columns(each, each, board.figures(each)) for each in PROTOCOLS]


def _agree(board: Board, found: ResultSet) -> bool:
    evaluations = [each for entry in found.entries for each in entry.metrics.values()]
    chances = [row for each in evaluations for _, row in chance_of({"": each})]
    return all(
        look_up(evaluation, "published", figure) == look_up(evaluation, "strict", figure)
        for evaluation in [*evaluations, *chances]
        for figure in board.strict
    )


def _flat(columns: Sequence[Columns]) -> list[Metric]:
    return [figure for each in columns for figure in each.figures]


def _values(columns: Sequence[Columns], evaluation: Mapping[str, Any]) -> list[Value | None]:
    return [look_up(evaluation, each.protocol, f) for each in columns for f in each.figures]


def _cell(value: Value | None, figure: Metric, best: float | None) -> Cell:
    if value is None:
        return Cell("–")
    return Cell(value.shown(figure), value.interval(figure), value.value, value.value == best)


def _whisker(value: Value | None, figure: Metric) -> Whisker | None:
    if value is None:
        return None
    interval = value.interval(figure)
    told = f"{value.shown(figure)} %" + (f", interval {interval}" if interval else "")
    low, high = (None if end is None else 100 * end for end in (value.low, value.high))
    return Whisker(100 * value.value, low, high, told)


def _elsewhere(references: Sequence[Reference], columns: Sequence[Columns]) -> list[Section]:
    groups: dict[str, list[Line]] = {}
    for each in references:
        cells = [
            Cell(Value(each.figures[f.key]).shown(f), "", each.figures[f.key])
            if group.protocol == each.protocol and f.key in each.figures
            else Cell("–")
            for group in columns
            for f in group.figures
        ]
        line = Line(None, each.model, cells, None, each.source, each.n)
        groups.setdefault(f"{each.group} queries" if each.group else "", []).append(line)
    return [Section(name, lines) for name, lines in groups.items()]
