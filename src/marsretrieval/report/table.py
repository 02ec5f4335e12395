"""Data model of result tables for any output format: cells, columns, rows and tables.

Includes the rows of chance, the notes on intervals and the values published elsewhere, which are
shown with their source and never ranked with results.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any

from marsretrieval.report.columns import Metric
from marsretrieval.results import MEAN, PROTOCOLS, RunResult
from marsretrieval.text import pluralize

CHANCE = "chance"  # name of the chance row
MIN_UNITS = 10  # an interval from fewer blocks, classes or pairs is marked
DAGGER = "\N{DAGGER}"

_MEAN_NAME = "the mean over landforms"
_DIGITS = 9  # significant digits when comparing the chance of two results

BOTH = "both"  # protocol of rows that are equal under both
_COUNT = Metric("", "", "", percent=False, better=0)


def chance_of(evaluations: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Build the chance rows below the models of a table.

    Args:
        evaluations: Model name to `Evaluation.to_dict()`, all of the same queries.

    Returns:
        (name, evaluation) per row: one row named "chance" if it is the same for all models; no row
        if no result states it, as in results of older versions. An evaluation has the expected
        metrics under `published` and `strict`, and no intervals.
    """
    models: dict[str, list[str]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for model, evaluation in evaluations.items():
        expected = evaluation.get("chance")
        if expected:
            key = repr(_rounded(expected))
            models.setdefault(key, []).append(model)
            rows[key] = {"published": {}, "strict": {}, **expected, "intervals": {}}
    if len(rows) == 1:
        return [(CHANCE, row) for row in rows.values()]
    return [(f"{CHANCE} ({', '.join(models[key])})", row) for key, row in rows.items()]


def is_coarse(evaluation: Mapping[str, Any], protocol: str) -> bool:
    """Return whether the intervals come from fewer than `MIN_UNITS` units.

    Args:
        evaluation: `Evaluation.to_dict()`.
        protocol: "published" or "strict".

    Returns:
        True if tables mark the intervals as unreliable; False if the basis is unknown.
    """
    basis = evaluation.get("interval_basis", {}).get(protocol)
    return basis is not None and basis["count"] < MIN_UNITS


def interval_note(evaluations: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """Describe what the intervals of a table resample, with the counts.

    Args:
        evaluations: Query group and `Evaluation.to_dict()` of every model and group shown.

    Returns:
        One or more sentences; empty if no result states the basis of its intervals.
    """
    counts: dict[str, dict[str, int]] = {}
    for group, evaluation in evaluations:
        for basis in evaluation.get("interval_basis", {}).values():
            of_unit = counts.setdefault(str(basis["unit"]), {})
            name = _name(group)
            of_unit[name] = min(int(basis["count"]), of_unit.get(name, int(basis["count"])))
    sentences = []
    for unit, of_unit in counts.items():
        if list(of_unit) == [""]:
            sentences.append(f"Intervals are from {_marked(of_unit[''])} {unit}.")
        else:
            parts = [
                f"{'at least ' * (name == _MEAN_NAME)}{_marked(count)} for {name}"
                for name, count in of_unit.items()
            ]
            sentences.append(f"Intervals are from {unit}: {', '.join(parts)}.")
        if min(of_unit.values()) < MIN_UNITS:
            sentences.append(f"{DAGGER} Unreliable: from fewer than {MIN_UNITS} {unit}.")
    return " ".join(sentences)


def _name(group: str) -> str:
    """Landform of a query group; its blocks are the same for all kinds of query."""
    if group.startswith(MEAN):
        return _MEAN_NAME
    return "" if group == "all" else group.rpartition("/")[0] or group


def _marked(count: int) -> str:
    return f"{count:,}{DAGGER if count < MIN_UNITS else ''}"


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(part) for key, part in sorted(value.items())}
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else value


@dataclass(frozen=True, slots=True)
class Reference:
    """Metric values of a model from another publication.

    Other code ranked and scored (`evaluated_by`), so the values belong to neither protocol. The two
    differ under ties only; `protocol` names the columns that show them.

    Attributes:
        task: Name of the task.
        dataset: Name of the dataset.
        model: Name of the model, as published.
        pairs: Number of image-text pairs.
        captions: Which captions were used.
        evaluated_by: The code that ranked and scored.
        title: Title of the publication.
        url: Its address.
        date: Its date.
        data: Repository and revision of the data.
        notes: Remarks.
        metrics: Values, keyed as `Evaluation.published`.
        protocol: Protocol whose columns show the values.
        group: Query group; empty for all.
    """

    task: str
    dataset: str
    model: str
    pairs: int
    captions: str
    evaluated_by: str
    title: str
    url: str
    date: datetime.date
    data: str
    notes: str
    metrics: Mapping[str, float]
    protocol: str = "published"
    group: str = ""

    @property
    def n(self) -> str:
        """Count of the items as text."""
        return pluralize(self.pairs, "pair")

    @property
    def source(self) -> str:
        """Title, date and address of the publication."""
        return f"{self.title}, {self.date}, {self.url}"

    @property
    def description(self) -> str:
        """Source of the values and their items, on one line."""
        return (
            f"{self.model}: {self.source}; evaluated by {self.evaluated_by} on {self.n} "
            f"({self.captions}, {self.data}). {self.notes}"
        )


@cache
def published_elsewhere() -> tuple[Reference, ...]:
    """Return all references, in the order of references.toml."""
    text = files("marsretrieval.report").joinpath("references.toml").read_text(encoding="utf-8")
    return tuple(Reference(**entry) for entry in tomllib.loads(text)["reference"])


def references_for(results: Iterable[RunResult], *, show: bool | None) -> list[Reference]:
    """Select the references to show with results.

    Args:
        results: Results in any order.
        show: True: all references of their tasks. False: none. None: those on the datasets of the
            results; synthetic data of the same name, limited results and those measured with other
            options do not count.

    Returns:
        The references.
    """
    if show is False:
        return []
    datasets = [
        (result.task, result.data.get("name"), bool(result.data.get("synthetic")))
        for result in results
        if result.limit is None and not result.measure_options
    ]
    return [
        reference
        for reference in published_elsewhere()
        if any(
            reference.task == task and (show or (reference.dataset == name and not synthetic))
            for task, name, synthetic in datasets
        )
    ]


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
        spread: Sample standard deviation over seeds, if the value is their mean.
        words: Text instead of a value.
    """

    value: float | None = None
    metric: Metric = field(default=_COUNT, compare=False)
    low: float | None = None
    high: float | None = None
    best: bool = False
    coarse: bool = False
    spread: float | None = None
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
            A mean over seeds is followed by ± and its standard deviation unless it is 0.
        """
        if self.value is None:
            return self.words
        if not self.spread:
            return self._format(self.value, digits)
        return f"{self._format(self.value, digits)} ± {self._format(self.spread, digits)}"

    def interval(self, form: str = "[{}, {}]", digits: int = 1) -> str:
        """Format the interval, with a dagger if it is coarse.

        Args:
            form: Format string of the two ends.
            digits: Decimals.

        Returns:
            The interval; empty if none exists.
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
        seeds: Number of seeds that the values are the mean of; 0 for one run.
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
    seeds: int = 0
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
        options: Options that all results share, in words; empty for the published protocol.
        remarks: Other notes.
        models_in_columns: Whether the columns are models, and the rows parts of the items.
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
    options: str = ""
    remarks: str = ""
    models_in_columns: bool = False

    @property
    def notes(self) -> str:
        """Remarks and the note on the intervals."""
        return " ".join(filter(None, (self.remarks, self.note)))

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

    def without_intervals(self) -> ResultTable:
        """Return the table without intervals and the note on them."""
        rows = [
            replace(row, cells=[replace(cell, low=None, high=None) for cell in row.cells])
            for row in self.rows
        ]
        return replace(self, rows=rows, note="")

    def folded(self) -> ResultTable:
        """Return the table with one row for both protocols in sections in which they agree."""
        if self.models_in_columns:
            return self  # of one protocol
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
