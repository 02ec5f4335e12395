"""One evaluation as a table: its figures under both protocols, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marsretrieval.report.console import console
from marsretrieval.report.leaderboard import COLUMNS, cell

__all__ = ["print_evaluation"]


def print_evaluation(evaluation: Mapping[str, Any]) -> None:
    """Print an `Evaluation.to_dict()` to stdout."""
    from rich.table import Table

    task = evaluation["task"]
    counts = ", ".join(f"{count:,} {name}" for name, count in evaluation["n"].items())
    table = Table()
    for heading in ("", "published", "strict"):
        table.add_column(heading, justify="left" if not heading else "right")
    for part, columns in COLUMNS[task]:
        for column in columns:
            name = f"{part} {column.heading}" if part else column.heading
            table.add_row(
                name, *(cell(evaluation, column, each) for each in ("published", "strict"))
            )
        table.add_section()
    out = console()
    out.print(f"{task}: {counts}")
    out.print(table)
    for name, (worst, best) in evaluation["ties"].items():
        out.print(f"Scores tie: strict {name} is {worst:.4f} at worst and {best:.4f} at best.")
    out.print("Figures in %, with 95 % bootstrap intervals; MedR and K as they are.")
