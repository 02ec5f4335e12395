"""Data model of a result table: cells, columns, rows and tables for any output format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from marsretrieval.report.chance import DAGGER
from marsretrieval.report.columns import Metric
from marsretrieval.report.references import Reference
from marsretrieval.results import PROTOCOLS

BOTH = "both"  # protocol of rows that are equal under both
_COUNT = Metric("", "", "", percent=False, better=0)


@dataclass(frozen=True, slots=True)
class Cell:
    """A metric value with its 95 % interval, or a text.

    Attributes:
        value: As in the result; None if the cell is empty or a text.
        metric: Of the value; says how it is written.
        low: Lower end of the interval, if there is one.
        high: Upper end.
        best: Whether it is the best of its column among the models; never if there is only one
            model or no value is better.
        coarse: Whether the interval is from too few blocks, classes or pairs.
        words: Text instead of a value.
    """

    value: float | None = None
    metric: Metric = field(default=_COUNT, compare=False)
    low: float | None = None
    high: float | None = None
    best: bool = False
    coarse: bool = False
    words: str = ""

    @property
    def has_value(self) -> bool:
        """Whether the cell holds a metric value."""
        return self.value is not None

    def text(self, digits: int = 1) -> str:
        """The value without its interval: percent, or median ranks and K as they are."""
        return self.words if self.value is None else self._format(self.value, digits)

    def interval(self, form: str = "[{}, {}]", digits: int = 1) -> str:
        """The interval, with a dagger if it is coarse; empty if there is none."""
        if self.low is None or self.high is None:
            return ""
        ends = form.format(self._format(self.low, digits), self._format(self.high, digits))
        return f"{ends}{DAGGER}" if self.coarse else ends

    def _format(self, value: float, digits: int) -> str:
        if self.metric.percent:
            return f"{100 * value:.{digits}f}"
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.{digits}f}"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of cells.

    Attributes:
        heading: Of the column.
        meaning: What its values are.
        better: As in `Metric`.
        over: Heading above this column and its neighbours.
        fact: Whether its values are equal for every model, as chance is.
    """

    heading: str
    meaning: str = ""
    better: int = 1
    over: str = ""
    is_constant: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Attributes:
        name: Of the model, class or metric.
        cells: In the order of the table's columns.
        section: Rows of one section and protocol are ranked among each other.
        protocol: "published", "strict", "both" or empty; of a reference its N.
        kind: "model"; "chance" for the expectation of a random ranking; "reference" for values
            that others published.
        group: Query group, or "class/NAME".
        n: Counts of the group.
        basis: Of the intervals, as in `Evaluation.interval_basis`.
        main: The value that orders the rows of a leaderboard.
        source: Of a reference.
    """

    name: str
    cells: Sequence[Cell]
    section: str = ""
    protocol: str = ""
    kind: str = "model"
    group: str = ""
    n: Mapping[str, int] = field(default_factory=dict)
    basis: Mapping[str, Any] = field(default_factory=dict)
    main: Cell = Cell()
    source: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table for any format.

    Attributes:
        title: Of the table.
        labels: Heading to the attribute of a row that is in the column; these come first.
        columns: Of the cells.
        rows: Section by section.
        note: On the intervals.
        task: Task of the results.
        set_hash: Hash of their items.
        protocol: For the title, if all rows are of one.
        metric: That all cells are of, or that orders the rows.
        first: Whether the page shows the table at once.
        references: Rows of values that others published, not ranked.
        sources: Descriptions of the references.
    """

    title: str
    labels: Mapping[str, str]
    columns: Sequence[Column]
    rows: Sequence[Row]
    note: str = ""
    task: str = ""
    set_hash: str = ""
    protocol: str = ""
    metric: Metric = _COUNT
    first: bool = True
    references: Sequence[Row] = ()
    sources: Sequence[Reference] = ()

    @property
    def sections(self) -> list[list[Row]]:
        """The rows that are ranked among each other, with their chance."""
        sections = groupby(self.rows, key=lambda row: (row.group, row.section, row.protocol))
        return [list(rows) for _, rows in sections]

    @property
    def headings(self) -> list[tuple[str, list[Column]]]:
        """The headings over the columns, with the columns below them."""
        return [(over, list(columns)) for over, columns in groupby(self.columns, lambda c: c.over)]

    @property
    def has_intervals(self) -> bool:
        """Whether any value has one."""
        return any(cell.low is not None for row in self.rows for cell in row.cells)

    def folded(self) -> Table:
        """The table with one row for both protocols in sections in which they agree."""
        rows: list[Row] = []
        for _, section in groupby(self.rows, key=lambda row: (row.group, row.section)):
            section_rows = list(section)
            if protocols_agree(section_rows):
                section_rows = [
                    replace(row, protocol=BOTH) for row in rows_of(section_rows, "strict")
                ]
            rows += [
                row
                for row in section_rows
                if row.kind == "model" or any(cell.has_value for cell in row.cells)
            ]
        return replace(self, rows=rows)


def rows_of(rows: Sequence[Row], protocol: str) -> list[Row]:
    return [row for row in rows if row.protocol == protocol]


def protocols_agree(rows: Sequence[Row]) -> bool:
    """Whether the rows of a query group are equal under both protocols."""
    published, strict = (
        [(row.name, row.kind, row.cells) for row in rows_of(rows, protocol)]
        for protocol in PROTOCOLS
    )
    return published == strict
