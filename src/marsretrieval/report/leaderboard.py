"""Several results as one table per task, both protocols side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from marsretrieval.report.console import console
from marsretrieval.results import PROTOCOLS, RunResult

__all__ = ["COLUMNS", "Column", "Row", "cell", "leaderboards", "rows"]


@dataclass(frozen=True, slots=True)
class Column:
    """A figure: its heading, and where each protocol keeps it ("best.f1"); percent or as it is."""

    heading: str
    published: str | None
    strict: str | None
    percent: bool = True

    def key(self, protocol: str) -> str | None:
        return self.published if protocol == "published" else self.strict


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a leaderboard: a model, a group of queries, a protocol, its figures."""

    model: str
    group: str
    protocol: str
    figures: tuple[str, ...]


def _both(heading: str, key: str, *, percent: bool = True) -> Column:
    return Column(heading, key, key, percent)


# Task to the parts of its table: (part, columns).
COLUMNS: Mapping[str, Sequence[tuple[str, Sequence[Column]]]] = {
    "paired-image-text": [
        (
            direction,
            [
                _both("R@1", f"{key}_r1"),
                _both("R@10", f"{key}_r10"),
                _both("MRR", f"{key}_mrr"),
                _both("MedR", f"{key}_medr", percent=False),
            ],
        )
        for direction, key in (("image to text", "i2t"), ("text to image", "t2i"))
    ],
    "landform": [
        (
            "",
            [
                _both("mAP", "mAP"),
                _both("nDCG@10", "ndcg@10"),
                _both("Hit@10", "hit@10"),
                _both("R-Prec", "r_precision"),
            ],
        )
    ],
    "geolocalization": [
        (
            "",
            [
                Column("AUPRC / AP", "auprc", "average_precision"),
                Column("ceiling", None, "ceiling.average_precision"),
                Column("best F1", "best.f1", "best.f1"),
                Column("at K", "best.k", "best.k", percent=False),
            ],
        )
    ],
}


def rows(result: RunResult) -> Iterator[Row]:
    """The lines of one result, in the order of its groups."""
    for group, figures in result.metrics.items():
        for part, columns in COLUMNS[result.task]:
            for protocol in PROTOCOLS:
                yield Row(
                    model=result.model["id"],
                    group=part or ("" if group == "all" else group),
                    protocol=protocol,
                    figures=tuple(cell(figures, column, protocol) for column in columns),
                )


def leaderboards(results: Iterable[RunResult]) -> None:
    """Print a table for each task and set of items; results over different sets never share one."""
    from rich.table import Table

    out = console()
    ordered = sorted(results, key=lambda each: (each.task, each.data["set_hash"]))
    for (task, set_hash), group in groupby(
        ordered, key=lambda each: (each.task, each.data["set_hash"])
    ):
        of_set = list(group)
        n = ", ".join(
            f"{count:,} {name}" for name, count in of_set[0].data["n"].items() if "/" not in name
        )
        out.print(f"\n{task}: {n} (set {set_hash[:8]})")
        table = Table()
        table.add_column("model")
        table.add_column("queries")
        table.add_column("protocol")
        for column in COLUMNS[task][0][1]:
            table.add_column(column.heading, justify="right")
        for result in of_set:
            for row in rows(result):
                table.add_row(row.model, row.group, row.protocol, *row.figures)
            table.add_section()
        out.print(table)
    out.print("Figures in %, with 95 % bootstrap intervals. MedR and K as they are.")


def cell(figures: Mapping[str, Any], column: Column, protocol: str) -> str:
    """One figure of an evaluation as text, with its interval where there is one."""
    key = column.key(protocol)
    if key is None:
        return ""
    value = _look_up(figures[protocol], key)
    if value is None:
        return "n/a"
    if not column.percent:
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
    interval = figures["intervals"].get(protocol, {}).get(key)
    shown = f"{100 * value:.1f}"
    return f"{shown} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else shown


def _look_up(figures: Mapping[str, Any], key: str) -> Any:
    value: Any = figures
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value
