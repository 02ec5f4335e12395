"""Several results as one table per task, both protocols side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from marsretrieval.report.console import console
from marsretrieval.results import MEAN, PROTOCOLS, RunResult

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


def rows(result: RunResult, *, details: bool = False) -> Iterator[Row]:
    """The lines of one result. Where there are means over groups, they stand for the groups
    unless `details` are wanted; where both protocols agree, one line stands for both."""
    means = [group for group in result.metrics if group.startswith(MEAN)]
    for group, figures in result.metrics.items():
        if means and not details and group not in means:
            continue
        for part, columns in COLUMNS[result.task]:
            name = part or ("" if group == "all" else group.removeprefix(MEAN))
            cells = {
                protocol: tuple(cell(figures, column, protocol) for column in columns)
                for protocol in PROTOCOLS
            }
            if len(set(cells.values())) == 1:
                yield Row(result.model["id"], name, "both", cells["strict"])
            else:
                for protocol, shown in cells.items():
                    yield Row(result.model["id"], name, protocol, shown)


def leaderboards(results: Iterable[RunResult], *, details: bool = False) -> None:
    """Print a table for each task and set of items; results over different sets never share one."""
    from rich import box
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
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("model", "queries", "protocol"):
            table.add_column(heading, no_wrap=True)
        for column in COLUMNS[task][0][1]:
            table.add_column(column.heading, justify="right", no_wrap=True)
        for result in of_set:
            shown = ("", "")
            for row in rows(result, details=details):
                now = (row.model, row.group)
                model = "" if row.model == shown[0] else row.model
                table.add_row(model, "" if now == shown else row.group, row.protocol, *row.figures)
                shown = now
            table.add_section()
        out.print(table)
    out.print("Figures in %, [95 % bootstrap interval]; MedR and K as they are.", markup=False)


def cell(figures: Mapping[str, Any], column: Column, protocol: str, *, digits: int = 0) -> str:
    """One figure of an evaluation as text, with its interval to `digits` where there is one."""
    key = column.key(protocol)
    if key is None:
        return ""
    value = _look_up(figures[protocol], key)
    if value is None:
        return ""
    if not column.percent:
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
    interval = figures["intervals"].get(protocol, {}).get(key)
    shown = f"{100 * value:.1f}"
    if not interval:
        return shown
    low, high = (100 * each for each in interval)
    return f"{shown} [{low:.{digits}f}, {high:.{digits}f}]"


def _look_up(figures: Mapping[str, Any], key: str) -> Any:
    value: Any = figures
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value
