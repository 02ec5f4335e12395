"""Render tables and comparisons as text for the terminal, and tables as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from marsretrieval.report.columns import METRICS, Metric
from marsretrieval.report.grouping import describe_items
from marsretrieval.report.table import DAGGER, Cell, Column, ResultTable, Row
from marsretrieval.report.tables import evaluation_tables
from marsretrieval.results import describe_options
from marsretrieval.text import pluralize, printable, table_cell

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

    from marsretrieval.metrics.difference import Difference
    from marsretrieval.report.compare import Comparison, GroupDelta, QueryDelta


_WIDTH = 110  # of a pipe or a file; rich assumes 80
CSV_COLUMNS = ("model", "task", "set_hash", "n", "group", "protocol", "metric", "value", "low",
               "high", "source", "interval_unit", "interval_count", "limit", "options",
               "spread", "seeds")  # fmt: skip
RANDOM = "random ranking"  # source of chance in the CSV
_CHANCE_NOTE = "Chance: expected value for a random ranking."
_FOOTNOTE = "In %, except MedR and K."
_OVERVIEW_FOOTNOTE = "Metrics in %."
_INTERVAL_FOOTNOTE = " Brackets: 95 % bootstrap interval."
_BEST_FOOTNOTE = f" Bold: the best model for the same queries and protocol. {_CHANCE_NOTE}"
_REFERENCE_NOTE = "Published results on items that cannot be verified: not ranked with the above."

_ADDRESS = re.compile(r"https://[\w./:%?=&#+,;@'()-]*")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    DAGGER: r"\textdagger{}",
}  # fmt: skip


def console(*, stderr: bool = False) -> Console:
    """Return a rich console that escapes control characters.

    Args:
        stderr: Print to stderr, as wide as the terminal.

    Returns:
        A console of rich.
    """
    from rich.console import Console
    from rich.segment import Segment

    class SafeConsole(Console):
        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            """Render segments with their control characters escaped.

            Args:
                renderable: As for `Console`.
                options: As for `Console`.

            Yields:
                The segments.
            """
            for segment in super().render(renderable, options):
                if segment.control or segment.text.isprintable():
                    yield segment
                else:
                    yield Segment(printable(segment.text), segment.style)

    if stderr:
        return SafeConsole(stderr=True)
    return SafeConsole(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)


def print_tables(tables: Sequence[ResultTable]) -> None:
    """Print tables of models to stdout; nothing if there are none.

    Args:
        tables: Tables of `model_tables`.
    """
    out = console()
    for table in map(ResultTable.folded, tables):
        out.print(f"\n{table.title}", markup=False)
        out.print(_fitting_table(out, table))
        if table.notes:
            out.print(table.notes, markup=False)
        if table.references:
            out.print(_REFERENCE_NOTE, markup=False)
            out.print(rich_table(_reference_table(table)))
            for source in table.sources:
                out.print(source.description, markup=False)
    if tables:
        intervals = any(table.has_intervals for table in tables)
        out.print(
            f"Metrics in %{' with [95 % bootstrap interval]' if intervals else ''}, "
            "except MedR and K; the best in bold.",
            markup=False,
        )
        if any(row.kind == "chance" for table in tables for row in table.rows):
            out.print(_CHANCE_NOTE, markup=False)


def print_evaluation(evaluation: Mapping[str, Any], *, title: str | None = None) -> None:
    """Print an evaluation to stdout: its tables, and the effect of ties.

    Args:
        evaluation: `Evaluation.to_dict()` of a built-in task.
        title: Title of the first table; by default the task and its counts.
    """
    out = console()
    tables = evaluation_tables(evaluation, title=title)
    for table in tables:
        out.print(table.title, markup=False)
        out.print(rich_table(table, digits=1))
    for name, (worst, best) in evaluation["ties"].items():
        out.print(
            f"Tied scores: strict {name} is between {worst:.4f} and {best:.4f}.", markup=False
        )
    if tables[0].note:
        out.print(tables[0].note, markup=False)
    if evaluation.get("chance"):
        out.print(_CHANCE_NOTE, markup=False)
    out.print(
        "Metrics in % with [95 % bootstrap interval], except MedR, K and tiles.", markup=False
    )


def _fitting_table(out: Console, table: ResultTable) -> RichTable:
    """The table with intervals after the values, or below them if it would be too wide."""
    from rich.measure import Measurement

    rich = rich_table(table)
    unlimited = out.options.update(max_width=10_000)
    if Measurement.get(out, unlimited, rich).minimum <= out.width:
        return rich
    return rich_table(table, stacked=True)


def rich_table(table: ResultTable, *, digits: int = 0, stacked: bool = False) -> RichTable:
    """Build a table for the terminal.

    Args:
        table: Any table; its references are left out.
        digits: Decimals of the ends of intervals.
        stacked: Whether intervals are in a line of their own below the values.

    Returns:
        A table of rich, without its title.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable

    rich = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, attribute in table.labels.items():
        # Names may wrap; a truncated value would be wrong.
        rich.add_column(heading, no_wrap=attribute == "protocol", overflow="fold")
    for column in table.columns:
        heading = f"{column.heading}\n{column.over}" if column.over else column.heading
        rich.add_column(heading, justify="right", no_wrap=True)
    previous = ""
    for section in table.sections:
        for row in section:
            names = [escape(name) for name in _labels(table, row)]
            if row.section and row.section == previous:
                names[0] = ""
            previous = row.section
            cells = [_console_cell(cell, digits, stacked) for cell in row.cells]
            rich.add_row(*names, *cells, style="dim" if row.kind == "chance" else None)
        rich.add_section()
    return rich


def _console_cell(cell: Cell, digits: int, stacked: bool) -> str:
    from rich.markup import escape

    interval = cell.interval(digits=digits) if cell.metric.percent else ""
    text = escape(("\n" if stacked else " ").join(filter(None, (cell.text(), interval))))
    return f"[bold]{text}[/bold]" if cell.best else text


def _labels(table: ResultTable, row: Row) -> list[str]:
    return [getattr(row, attribute) for attribute in table.labels.values()]


def _reference_table(table: ResultTable) -> ResultTable:
    """Build a table of the references of a table of models."""
    labels = {"queries": "section", "model": "name", "N": "protocol"}
    return ResultTable(_REFERENCE_NOTE, labels, table.columns, table.references)


def render_markdown(tables: Sequence[ResultTable]) -> str:
    """Render tables of models as Markdown, in percent, with references in a separate table.

    Args:
        tables: Tables of `model_tables`.

    Returns:
        Text that ends with a line break.
    """
    return "\n\n".join(_markdown(table.folded()) for table in tables) + "\n"


def _markdown(table: ResultTable) -> str:
    lines = [f"### {_escape_markdown(table.title)}", "", *_markdown_lines(table), ""]
    lines.append(_footnote(table))
    if table.notes:
        lines += ["", _escape_markdown(table.notes)]
    if table.references:
        lines += ["", _REFERENCE_NOTE, "", *_markdown_lines(_reference_table(table)), ""]
        lines += [f"- {_escape_markdown(source.description)}" for source in table.sources]
    return "\n".join(lines)


def _footnote(table: ResultTable) -> str:
    first = _OVERVIEW_FOOTNOTE if table.task == "overview" else _FOOTNOTE
    return f"{first}{_INTERVAL_FOOTNOTE if table.has_intervals else ''}{_BEST_FOOTNOTE}"


def _full_heading(column: Column) -> str:
    return f"{column.over}: {column.heading}" if column.over else column.heading


def _markdown_lines(table: ResultTable) -> Iterable[str]:
    yield _markdown_row([*table.labels, *map(_full_heading, table.columns)])
    yield _markdown_row(["---"] * len(table.labels) + ["---:"] * len(table.columns))
    for row in table.rows:
        yield _markdown_row(
            [*map(_escape_markdown, _labels(table, row)), *map(_markdown_cell, row.cells)]
        )


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape_markdown(text: str) -> str:
    """Escape Markdown and HTML markup; addresses stay unchanged."""
    words = (
        word if _ADDRESS.fullmatch(word) else re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", word)
        for word in re.split(r"(\s+)", printable(text.replace("\n", " "), one_line=True))
    )
    return "".join(words)


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text()}**" if cell.best else cell.text()
    return " ".join(filter(None, (text, cell.interval())))


def render_latex(tables: Sequence[ResultTable]) -> str:
    """Render tables of models as a LaTeX `table` with booktabs each, in percent.

    Args:
        tables: Tables of `model_tables`.

    Returns:
        Text that ends with a line break; its first line names the packages.
    """
    floats = [_latex(table.folded(), number) for number, table in enumerate(tables, 1)]
    return "\n\n".join(["% \\usepackage{booktabs,textcomp}", *floats]) + "\n"


def _latex(table: ResultTable, number: int) -> str:
    first = len(table.labels)
    caption = " ".join(filter(None, (f"{table.title}. {_footnote(table)}", table.notes)))
    body: list[str] = []
    for section in table.sections:
        body += [r"\midrule", *(_latex_row(table, row) for row in section)]
    if table.references:
        width = first + len(table.columns)
        body += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\emph{{{_REFERENCE_NOTE}}}}} \\"]
        body += [_latex_row(table, row) for row in table.references]
    heads = [*table.labels, *(_escape_latex(_full_heading(column)) for column in table.columns)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape_latex(caption)}}}",
            rf"\label{{tab:{table.task}-{number}}}",
            rf"\begin{{tabular}}{{{'l' * first}{'r' * len(table.columns)}}}",
            r"\toprule",
            f"{' & '.join(heads)} \\\\",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *(
                rf"\par\footnotesize {_escape_latex(source.description)}"
                for source in table.sources
            ),
            r"\end{table}",
        ]
    )


def _latex_row(table: ResultTable, row: Row) -> str:
    cells = [*map(_escape_latex, _labels(table, row)), *map(_latex_cell, row.cells)]
    return f"{' & '.join(cells)} \\\\"


def _escape_latex(text: str) -> str:
    line = printable(text, one_line=True)
    return "".join(_LATEX.get(letter, letter) for letter in line)


def _latex_cell(cell: Cell) -> str:
    text = rf"\textbf{{{cell.text()}}}" if cell.best else cell.text()
    interval = _escape_latex(cell.interval())
    return rf"{text} {{\scriptsize {interval}}}" if interval else text


def render_csv(tables: Sequence[ResultTable]) -> str:
    """Render tables of models in long format: one metric value per row, with all its digits.

    Each protocol has its rows even if the two agree. `source` is empty for results, "random
    ranking" for chance, and the address for references, whose protocol is empty. `interval_unit`
    and `interval_count` state what an interval resamples; `limit` is empty for results on all
    items, `options` for the published protocol. The value of several seeds is their mean; `spread`
    is its sample standard deviation and `seeds` their number. Options of the evaluated system, such
    as other templates, are part of the model's name.

    Args:
        tables: Tables of `model_tables`.

    Returns:
        CSV with a header line.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for table in tables:
        for row in table.rows:
            n = ";".join(f"{name}={count}" for name, count in row.n.items())
            for column, cell in zip(table.columns, row.cells, strict=True):
                if cell.value is None or (table.models_in_columns and column.is_constant):
                    continue
                model = column.heading if table.models_in_columns else row.name
                group = f"{row.group}/latitude {row.name}" if table.models_in_columns else row.group
                texts = [model, table.task, table.set_hash, n, group, row.protocol]
                ends = ["" if x is None else repr(float(x)) for x in (cell.low, cell.high)]
                basis = row.basis if cell.low is not None else {}
                rest = [RANDOM if row.kind == "chance" else "",
                        str(basis.get("unit", "")), str(basis.get("count", "")),
                        "" if table.limit is None else str(table.limit), table.options,
                        "" if cell.spread is None else repr(float(cell.spread)),
                        str(row.seeds or "")]  # fmt: skip
                values = [repr(cell.value), *ends, *rest]
                writer.writerow([*map(table_cell, [*texts, cell.metric.key]), *values])
        for source in table.sources:
            for key, value in source.metrics.items():
                texts = [source.model, table.task, "", f"pairs={source.pairs}"]
                texts += [source.group or "all", "", key]
                writer.writerow(
                    [*map(table_cell, texts), repr(value), "", "", source.url, *[""] * 6]
                )
    return out.getvalue()


FORMATS: Mapping[str, Callable[[Sequence[ResultTable]], str]] = {
    "md": render_markdown,
    "latex": render_latex,
    "csv": render_csv,
}
SUFFIXES = {".md": "md", ".markdown": "md", ".tex": "latex", ".csv": "csv"}


def print_comparison(comparison: Comparison, *, top: int = 5) -> None:
    """Print a comparison to stdout: metric differences, then the queries that moved most.

    Args:
        comparison: Two models on the same items.
        top: Number of queries to name per group, gains and losses each.
    """
    out = console()
    data = comparison.data
    limit = f", limited to {data['limit']['count']:,}" if data.get("limit") else ""
    options = describe_options(comparison.options)
    limit += f", {options}" if options else ""
    out.print(
        f"\n{comparison.task}, {comparison.protocol}: {describe_items(data)}{limit}\n"
        f"A: {comparison.a}\nB: {comparison.b}",
        markup=False,
    )
    out.print(rich_table(_comparison_table(comparison)))
    for line in _query_lines(comparison, top):
        out.print(line, markup=False)
    out.print(
        f"In points of % (MedR: ranks). Paired bootstrap over {comparison.resampling_units}, "
        f"{comparison.resamples:,} resamples, seed {comparison.seed}; bold: the interval excludes "
        "0. p values are per metric, not corrected for multiple comparisons.",
        markup=False,
    )


def _comparison_table(comparison: Comparison) -> ResultTable:
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
        block_count = "" if group.blocks is None else f" in {pluralize(group.blocks, 'block')}"
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
