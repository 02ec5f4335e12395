"""One evaluation as tables: its figures under both protocols side by side, and per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from marsretrieval.report._columns import MORE, Column, evaluation_columns
from marsretrieval.report.boards import figure_of
from marsretrieval.report.chance import chance_of, interval_note
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
    chance = _chance_columns(evaluation)
    whole = _table(title or f"{task}: {counts}", ["", *PROTOCOLS, *(head for head, *_ in chance)])
    for part, columns in [*evaluation_columns(evaluation), ("", MORE.get(task, ()))]:
        for column in columns:
            name = f"{part} {column.heading}".strip()
            shown = (_cell(evaluation, column, each) for each in PROTOCOLS)
            expected = (_cell(row, column, protocol) for _, row, protocol in chance)
            whole.add_row(name, *shown, *expected)
        whole.add_section()
    return [whole, *_class_tables(evaluation)]


def print_evaluation(evaluation: Mapping[str, Any], *, title: str | None = None) -> None:
    """Print an `Evaluation.to_dict()` to stdout: its tables, and what ties could change."""
    out = console()
    for table in evaluation_tables(evaluation, title=title):
        out.print(table)
    for name, (worst, best) in evaluation["ties"].items():
        out.print(f"Scores tie: strict {name} is within {worst:.4f} and {best:.4f}.", markup=False)
    note = interval_note([("all", evaluation)])
    if note:
        out.print(note, markup=False)
    if evaluation.get("chance"):
        out.print("Chance: the expectation of a random ranking.", markup=False)
    out.print(
        "Figures in %, [95 % bootstrap interval]; MedR, K and tiles as they are.", markup=False
    )


def _chance_columns(evaluation: Mapping[str, Any]) -> list[tuple[str, dict[str, Any], str]]:
    """(heading, evaluation, protocol): one column for both protocols where they agree."""
    columns = []
    for name, row in chance_of({"": evaluation}):
        if row["published"] == row["strict"]:
            columns.append((name, row, "strict"))
        else:
            columns += [(f"{name}, {protocol}", row, protocol) for protocol in PROTOCOLS]
    return columns


def _class_tables(evaluation: Mapping[str, Any]) -> list[Table]:
    """One for both protocols where they agree, else one for each."""
    from rich.markup import escape

    classes = {each: evaluation[each].get("per_class") for each in PROTOCOLS}
    if classes["strict"] is None:
        return []
    if classes["published"] == classes["strict"]:
        classes = {"both protocols": classes["strict"]}
    ((_, columns),) = evaluation_columns(evaluation)
    chances = {
        protocol: evaluation.get("chance", {}).get(protocol, {}).get("per_class", {})
        for protocol in PROTOCOLS
    }
    tables = []
    for name, figures in classes.items():
        chance = chances["strict" if name == "both protocols" else name]
        heads = ["", *(column.heading for column in columns)]
        if chance:
            heads += [f"{column.heading} by chance" for column in columns]
        table = _table(f"per class, {name}", heads)
        for label, values in figures.items():
            cells = [_cell(_strict(values), column, "strict") for column in columns]
            if chance:
                expected = _strict(chance.get(label, {}))
                cells += [_cell(expected, column, "strict") for column in columns]
            table.add_row(escape(label), *cells)
        tables.append(table)
    return tables


def _strict(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {"strict": metrics, "intervals": {}}


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
