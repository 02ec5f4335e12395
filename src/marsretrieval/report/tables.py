"""One evaluation as tables: its figures under both protocols side by side, and per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from marsretrieval.report._columns import MORE, Column, evaluation_columns
from marsretrieval.report.boards import figure_of
from marsretrieval.report.console import console
from marsretrieval.results import PROTOCOLS

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["evaluation_tables", "print_evaluation"]


def evaluation_tables(evaluation: Mapping[str, Any], *, title: str | None = None) -> list[Table]:
    """The tables of an `Evaluation.to_dict()`: the figures, and the classes where it has them.

    title: above the first; default: the task and its counts.
    """
    task = evaluation["task"]
    counts = ", ".join(f"{count:,} {name}" for name, count in evaluation["n"].items())
    whole = _table(title or f"{task}: {counts}", ["", *PROTOCOLS])
    for part, columns in [*evaluation_columns(evaluation), ("", MORE.get(task, ()))]:
        for column in columns:
            name = f"{part} {column.heading}".strip()
            shown = (_cell(evaluation, column, each) for each in PROTOCOLS)
            whole.add_row(name, *shown)
        whole.add_section()
    return [whole, *_class_tables(evaluation)]


def print_evaluation(evaluation: Mapping[str, Any], *, title: str | None = None) -> None:
    """Print an `Evaluation.to_dict()` to stdout: its tables, and what ties could change."""
    out = console()
    for table in evaluation_tables(evaluation, title=title):
        out.print(table)
    for name, (worst, best) in evaluation["ties"].items():
        out.print(f"Scores tie: strict {name} is within {worst:.4f} and {best:.4f}.", markup=False)
    out.print(
        "Figures in %, [95 % bootstrap interval]; MedR, K and tiles as they are.", markup=False
    )


def _class_tables(evaluation: Mapping[str, Any]) -> list[Table]:
    """One for both protocols where they agree, else one for each."""
    from rich.markup import escape

    classes = {each: evaluation[each].get("per_class") for each in PROTOCOLS}
    if classes["strict"] is None:
        return []
    if classes["published"] == classes["strict"]:
        classes = {"both protocols": classes["strict"]}
    ((_, columns),) = evaluation_columns(evaluation)
    tables = []
    for name, figures in classes.items():
        table = _table(f"per class, {name}", ["", *(column.heading for column in columns)])
        for label, values in figures.items():
            shown = {"strict": values, "intervals": {}}
            table.add_row(escape(label), *(_cell(shown, column, "strict") for column in columns))
        tables.append(table)
    return tables


def _cell(evaluation: Mapping[str, Any], column: Column, protocol: str) -> str:
    figure = figure_of(evaluation, column, protocol)
    if figure is None:
        return ""
    interval = figure.interval(column) if column.percent else ""
    return " ".join(filter(None, (figure.text(column), interval)))


def _table(title: str, headings: Sequence[str]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    # As wide as the title, which would be broken otherwise.
    table = Table(title=escape(title), title_justify="left", min_width=len(title))
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    return table
