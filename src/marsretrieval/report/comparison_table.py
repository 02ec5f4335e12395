"""Print a comparison of two models to the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from marsretrieval.metrics.difference import Difference
from marsretrieval.report.columns import METRICS, Metric
from marsretrieval.report.compare import Comparison, GroupDelta, QueryDelta
from marsretrieval.report.render import console, rich_table
from marsretrieval.report.table import Cell, Column, ResultTable, Row
from marsretrieval.results import describe_options


def print_comparison(comparison: Comparison, *, top: int = 5) -> None:
    """Print a comparison to stdout: metric differences, then the queries that moved most.

    Args:
        comparison: Two models on the same items.
        top: Number of queries to name per group, gains and losses each.
    """
    out = console()
    data = comparison.data
    n = ", ".join(f"{count:,} {name}" for name, count in data["n"].items() if "/" not in name)
    limit = f", limited to {data['limit']['count']:,}" if data.get("limit") else ""
    options = describe_options(comparison.options)
    limit += f", {options}" if options else ""
    out.print(
        f"\n{comparison.task}, {comparison.protocol}: {n} (set {data['set_hash'][:8]}){limit}\n"
        f"A: {comparison.a}\nB: {comparison.b}",
        markup=False,
    )
    out.print(rich_table(_build_table(comparison)))
    for line in _query_lines(comparison, top):
        out.print(line, markup=False)
    out.print(
        f"In points of % (MedR: ranks). Paired bootstrap over {comparison.resampling_units}, "
        f"{comparison.resamples:,} resamples, seed {comparison.seed}; bold: the interval excludes "
        "0. p values are per metric, not corrected for multiple comparisons.",
        markup=False,
    )


def _build_table(comparison: Comparison) -> ResultTable:
    is_named = len(comparison.groups) > 1
    rows = [
        Row(
            metric.heading,
            _difference_cells(difference, metric.percent),
            group.name if is_named else "",
        )
        for group in comparison.groups
        for key, difference in group.differences.items()
        for metric in [_find_metric(comparison, key)]
    ]
    labels = ({"queries": "section"} if is_named else {}) | {"metric": "name"}
    return ResultTable("", labels, [*map(Column, ("A", "B", "B - A", "95 % interval", "p"))], rows)


def _difference_cells(difference: Difference, percent: bool) -> list[Cell]:
    interval = ""
    if difference.low is not None and difference.high is not None:
        low, high = (_format_signed(x, percent) for x in (difference.low, difference.high))
        interval = f"[{low}, {high}]"
    return [
        *(
            Cell(words=f"{100 * value:.1f}" if percent else f"{value:,.1f}")
            for value in (difference.a, difference.b)
        ),
        Cell(words=_format_signed(difference.difference, percent), best=difference.clear),
        Cell(words=interval),
        Cell(words="" if difference.p is None else f"{difference.p:.3f}"),
    ]


def _query_lines(comparison: Comparison, top: int) -> Iterator[str]:
    for group in comparison.groups:
        if not group.per_query or not top:
            continue
        heading = _find_metric(comparison, group.per_query).heading
        title = group.name if len(comparison.groups) > 1 else comparison.task
        same = group.queries - group.better - group.worse
        unit_plural = {"class": "classes", "query": "queries"}.get(group.unit, f"{group.unit}s")
        block_count = "" if group.blocks is None else f" in {group.blocks:,} blocks"
        yield (
            f"{title}: of {group.queries:,} {unit_plural}{block_count}, {group.better:,} better "
            f"in B, {group.worse:,} worse, {same:,} the same (by {heading})"
        )
        for label, deltas in (("gain", group.gains(top)), ("loss", group.losses(top))):
            for delta in deltas:
                yield f"  {label:<5} {_format_delta(delta, group)}"


def _format_delta(delta: QueryDelta, group: GroupDelta) -> str:
    change = (
        f"{100 * delta.a:.1f} -> {100 * delta.b:.1f} ({_format_signed(delta.difference, True)})"
    )
    if delta.rank_a is not None and delta.rank_b is not None:
        ranks = [f"{rank:,}" if rank else "not found" for rank in (delta.rank_a, delta.rank_b)]
        change = f"rank {ranks[0]} -> {ranks[1]} ({_format_signed(delta.difference, True)})"
    return f"{delta.name}: {change}"


def _find_metric(comparison: Comparison, key: str) -> Metric:
    return METRICS.get(key) or Metric(key, key, "", percent=key not in comparison.plain)


def _format_signed(value: float, percent: bool) -> str:
    return f"{100 * value:+.1f}" if percent else f"{value:+,.1f}"
