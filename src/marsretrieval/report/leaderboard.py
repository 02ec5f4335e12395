"""Several results on the terminal: a table for each task and set of items."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from marsretrieval.report._columns import COLUMNS, Column
from marsretrieval.report.boards import Board, Figure, boards
from marsretrieval.report.console import console
from marsretrieval.results import RunResult

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["COLUMNS", "leaderboards"]


def leaderboards(
    results: Iterable[RunResult], *, details: bool = False, references: bool | None = False
) -> None:
    """Print the tables to stdout; nothing where there are no results."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    out = console()
    found = boards(results, details=details, references=references)
    for board in found:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("queries", "protocol", "model"):
            # A name may take several lines; a figure that is cut short would be a false one.
            table.add_column(heading, no_wrap=heading == "protocol", overflow="fold")
        for column in board.columns:
            table.add_column(column.heading, justify="right", no_wrap=True)
        shown = ""
        for section in board.sections:
            for row in section:
                cells = [_console_cell(figure, column) for column, figure in row.cells()]
                name = escape(row.name) if row.name != shown else ""
                style = "dim" if row.chance else None
                table.add_row(name, row.protocol, escape(row.model), *cells, style=style)
                shown = row.name
            table.add_section()
        out.print(f"\n{board.title}", markup=False)
        out.print(table)
        if board.note:
            out.print(board.note, markup=False)
        if board.references:
            out.print(_references_table(board))
            for each in board.references:
                out.print(each.told, markup=False)
    if found:
        out.print(
            "Figures in %, [95 % bootstrap interval], the best in bold; MedR and K as they are.",
            markup=False,
        )
        if any(row.chance for board in found for row in board.rows):
            out.print("Chance: the expectation of a random ranking.", markup=False)


def _console_cell(figure: Figure | None, column: Column) -> str:
    from rich.markup import escape

    if figure is None:
        return ""
    interval = figure.interval(column, digits=0) if column.percent else ""
    text = escape(" ".join(filter(None, (figure.text(column), interval))))
    return f"[bold]{text}[/bold]" if figure.best else text


def _references_table(board: Board) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    title = "Published elsewhere, over items that cannot be checked here: not ranked with the above"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for heading in ("queries", "model", "N"):
        table.add_column(heading, no_wrap=heading == "N", overflow="fold")
    for column in board.columns:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for reference, part, figures in board.reference_rows:
        cells = [_console_cell(f, c) for f, c in zip(figures, board.columns, strict=True)]
        table.add_row(part, escape(reference.model), reference.n, *cells)
    return table
