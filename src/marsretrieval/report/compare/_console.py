"""A comparison as tables for people."""

from __future__ import annotations

from collections.abc import Iterator

from marsretrieval.metrics.difference import Difference
from marsretrieval.report._columns import COLUMNS, METRICS
from marsretrieval.report.compare._comparison import Comparison, Group, Moved
from marsretrieval.report.console import console


def print_comparison(comparison: Comparison, *, top: int = 5) -> None:
    """Print to stdout: figures with their differences, then the `top` queries that gained and
    lost most in each group."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    out = console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("queries", "figure"):
        table.add_column(heading, overflow="fold")
    for heading in ("A", "B", "B - A", "95 % interval", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    named = len(comparison.groups) > 1
    for group in comparison.groups:
        name = escape(group.name) if named else ""
        for key, each in group.differences.items():
            heading, percent = _heading(comparison, key)
            cells = [
                _number(each.a, percent),
                _number(each.b, percent),
                _signed(each.difference, percent),
                _interval(each, percent),
                "" if each.p is None else f"{each.p:.3f}",
            ]
            if each.clear:
                cells[2] = f"[bold]{cells[2]}[/bold]"
            table.add_row(name, heading, *map(str, cells))
            name = ""
        table.add_section()
    data = comparison.data
    n = ", ".join(f"{count:,} {name}" for name, count in data["n"].items() if "/" not in name)
    out.print(
        f"\n{comparison.task}, {comparison.protocol}: {n} (set {data['set_hash'][:8]})\n"
        f"A: {comparison.a}\nB: {comparison.b}",
        markup=False,
    )
    out.print(table)
    for line in _queries(comparison, top):
        out.print(line, markup=False)
    out.print(
        f"In points of % (MedR: ranks). Paired bootstrap over {comparison.drawn}, "
        f"{comparison.resamples:,} resamples, seed {comparison.seed}; bold: the interval leaves "
        "out 0. Each p is of its own figure, not corrected for their number.",
        markup=False,
    )


def _queries(comparison: Comparison, top: int) -> Iterator[str]:
    for group in comparison.groups:
        if not group.per_query or not top:
            continue
        heading, _ = _heading(comparison, group.per_query)
        title = group.name if len(comparison.groups) > 1 else comparison.task
        same = group.queries - group.better - group.worse
        what = {"class": "classes", "query": "queries"}.get(group.unit, f"{group.unit}s")
        where = "" if group.blocks is None else f" in {group.blocks:,} blocks"
        yield (
            f"{title}: of {group.queries:,} {what}{where}, {group.better:,} better in B, "
            f"{group.worse:,} worse, {same:,} the same ({heading} of each)"
        )
        for word, moved in (("gain", group.gains(top)), ("loss", group.losses(top))):
            for each in moved:
                yield f"  {word:<5} {_moved(each, group)}"


def _moved(each: Moved, group: Group) -> str:
    told = f"{100 * each.a:.1f} -> {100 * each.b:.1f} ({_signed(each.difference, True)})"
    if each.rank_a is not None and each.rank_b is not None:
        ranks = [f"{rank:,}" if rank else "not found" for rank in (each.rank_a, each.rank_b)]
        told = f"rank {ranks[0]} -> {ranks[1]} ({_signed(each.difference, True)})"
    return f"{each.name}: {told}"


def _heading(comparison: Comparison, key: str) -> tuple[str, bool]:
    for _, columns in COLUMNS.get(comparison.task, ()):
        for column in columns:
            if key == column.key(comparison.protocol):
                return column.name(comparison.protocol), column.percent
    known = METRICS.get(key)
    return (known.heading, known.percent) if known else (key, key not in comparison.plain)


def _number(value: float, percent: bool) -> str:
    return f"{100 * value:.1f}" if percent else f"{value:,.1f}"


def _signed(value: float, percent: bool) -> str:
    return f"{100 * value:+.1f}" if percent else f"{value:+,.1f}"


def _interval(each: Difference, percent: bool) -> str:
    if each.low is None or each.high is None:
        return ""
    return rf"\[{_signed(each.low, percent)}, {_signed(each.high, percent)}]"
