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
        metric: Metric of the value; determines its format.
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
        """Format the value without its interval.

        Args:
            digits: Decimals.

        Returns:
            Percent for fractions; median ranks and K unscaled; the text or "" if there is no value.
        """
        return self.words if self.value is None else self._format(self.value, digits)

    def interval(self, form: str = "[{}, {}]", digits: int = 1) -> str:
        """Format the interval, with a dagger if it is coarse.

        Args:
            form: Format string of the two ends.
            digits: Decimals.

        Returns:
            The interval; empty if there is none.
        """
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
        heading: Heading of the column.
        meaning: Definition of its values.
        better: As in `Metric`.
        over: Heading above this column and its neighbours.
        is_constant: Whether its values are the same for every model, as chance is.
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
        name: Name of the model, class or metric.
        cells: In the order of the table's columns.
        section: Rows of one section and protocol are ranked together.
        protocol: "published", "strict", "both" or empty; N of a reference.
        kind: "model"; "chance" for the expectation of a random ranking; "reference" for values
            published elsewhere.
        group: Query group, or "class/NAME".
        n: Counts of the group.
        basis: Basis of the intervals, as in `Evaluation.interval_basis`.
        main: The value that orders the rows of a leaderboard.
        source: Source of a reference.
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
class ResultTable:
    """A table for any output format.

    Attributes:
        title: Title.
        labels: Heading to the row attribute that the column shows; these columns come first.
        columns: Columns of the cells.
        rows: Section by section.
        note: Note on the intervals.
        task: Task of the results.
        set_hash: Hash of their items.
        protocol: For the title, if all rows are of one.
        metric: The metric of all cells, or the one that orders the rows.
        first: Whether the page shows the table without a click.
        references: Rows of values published elsewhere, not ranked.
        sources: Descriptions of the references.
        limit: Number of items of limited results; None for results on all items.
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
    limit: int | None = None

    @property
    def sections(self) -> list[list[Row]]:
        """Rows that are ranked together, with their chance rows."""
        sections = groupby(self.rows, key=lambda row: (row.group, row.section, row.protocol))
        return [list(rows) for _, rows in sections]

    @property
    def headings(self) -> list[tuple[str, list[Column]]]:
        """Headings over the columns, with the columns below them."""
        return [(over, list(columns)) for over, columns in groupby(self.columns, lambda c: c.over)]

    @property
    def has_intervals(self) -> bool:
        """Whether any cell has an interval."""
        return any(cell.low is not None for row in self.rows for cell in row.cells)

    def folded(self) -> ResultTable:
        """Return the table with one row for both protocols in sections in which they agree."""
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
    """Select the rows of a protocol.

    Args:
        rows: Rows of a table.
        protocol: "published" or "strict".

    Returns:
        Its rows, in order.
    """
    return [row for row in rows if row.protocol == protocol]


def protocols_agree(rows: Sequence[Row]) -> bool:
    """Return whether rows are equal under both protocols.

    Args:
        rows: Rows of a query group.

    Returns:
        True if names, kinds and cells are equal.
    """
    published, strict = (
        [(row.name, row.kind, row.cells) for row in rows_of(rows, protocol)]
        for protocol in PROTOCOLS
    )
    return published == strict
