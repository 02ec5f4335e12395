"""Tables of results as text for papers, READMEs and other programs: Markdown, LaTeX, CSV.

All are made of the rows of `boards`; none computes a figure of its own.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from marsretrieval._words import printable, table_cell
from marsretrieval.report.boards import Board, Column, Figure, Row, boards
from marsretrieval.report.chance import DAGGER
from marsretrieval.results import RunResult

__all__ = ["FORMATS", "SUFFIXES", "latex", "markdown", "tidy_csv"]

CSV_COLUMNS = ("model", "task", "set_hash", "n", "group", "protocol", "metric", "value", "low",
               "high", "source", "interval_unit", "interval_count")  # fmt: skip
RANDOM = "random ranking"  # source of chance in the CSV
_FOOT = (
    "In %; MedR and K as they are. In brackets the 95 % bootstrap interval; in bold the best "
    "model, for the same queries under the same protocol. Chance: the expectation of a random "
    "ranking."
)
_ELSEWHERE = (
    "Published elsewhere, over items that cannot be checked here: not ranked with the above."
)

_ADDRESS = re.compile(r"https://[\w./:%?=&#+,;@'()-]*")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    DAGGER: r"\textdagger{}",
}  # fmt: skip


def markdown(
    results: Iterable[RunResult], *, details: bool = False, references: bool | None = None
) -> str:
    """A table for each task and set of items, in percent; references below, apart."""
    found = boards(results, details=details, references=references)
    return "\n\n".join(map(_markdown_board, found)) + "\n"


def latex(
    results: Iterable[RunResult], *, details: bool = False, references: bool | None = None
) -> str:
    """A `table` with booktabs for each task and set of items, in percent."""
    found = boards(results, details=details, references=references)
    tables = [_latex_board(board, number) for number, board in enumerate(found, 1)]
    return "\n\n".join(["% \\usepackage{booktabs,textcomp}", *tables]) + "\n"


def tidy_csv(
    results: Iterable[RunResult], *, details: bool = False, references: bool | None = None
) -> str:
    """Long form, a figure a line, as it is in the result: shares in 0..1, all its digits.

    A line of each protocol stands for itself even where the two agree. `source` is empty for
    results, "random ranking" for chance, and the address for figures from elsewhere, whose protocol
    is empty: theirs is not ours. `interval_unit` and `interval_count` say what an interval
    resamples.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for board in boards(results, details=details, more=True, references=references):
        for row in board.rows:
            writer.writerows(_csv_lines(board, row))
        for reference in board.references:
            for key, value in reference.figures.items():
                where = (reference.model, board.task, "", f"pairs={reference.pairs}")
                line = [*where, reference.group or "all", "", key]
                ends = [repr(value), "", "", reference.url, "", ""]
                writer.writerow([*map(table_cell, line), *ends])
    return out.getvalue()


FORMATS: Mapping[str, Callable[..., str]] = {
    "md": markdown,
    "latex": latex,
    "csv": tidy_csv,
}
SUFFIXES = {".md": "md", ".markdown": "md", ".tex": "latex", ".csv": "csv"}


def _csv_lines(board: Board, row: Row) -> Iterable[list[str]]:
    n = ";".join(f"{name}={count}" for name, count in row.n.items())
    for protocol in ("published", "strict") if row.protocol == "both" else (row.protocol,):
        for column, figure in row.cells():
            key = column.key(protocol)
            if figure is not None and key is not None:
                ends = ["" if x is None else repr(float(x)) for x in (figure.low, figure.high)]
                source = RANDOM if row.chance else ""
                basis = row.basis.get(protocol, {}) if figure.low is not None else {}
                line = [row.model, board.task, board.set_hash, n, row.group, protocol, key]
                rest = [source, str(basis.get("unit", "")), str(basis.get("count", ""))]
                yield [*map(table_cell, line), repr(figure.value), *ends, *rest]


def _markdown_board(board: Board) -> str:
    named = any(row.name for row in board.rows)
    heads = [*(["queries"] if named else []), "protocol", "model"]
    lines = [
        f"### {_md(board.title)}",
        "",
        *_md_head(heads, board.columns),
    ]
    for row in board.rows:
        cells = [_md_cell(figure, column) for column, figure in row.cells()]
        first = [row.name] if named else []
        lines.append(_md_row([*map(_md, [*first, row.protocol, row.model]), *cells]))
    lines += ["", _FOOT, *(["", _md(board.note)] if board.note else [])]
    if board.references:
        lines += ["", _ELSEWHERE, "", *_md_head(["queries", "model", "N"], board.columns)]
        for reference, part, figures in board.reference_rows:
            cells = [_md_cell(f, c) for f, c in zip(figures, board.columns, strict=True)]
            lines.append(_md_row([*map(_md, [part, reference.model, reference.n]), *cells]))
        lines += ["", *(f"- {_md(each.told)}" for each in board.references)]
    return "\n".join(lines)


def _foot(board: Board) -> str:
    return f"{_FOOT} {board.note}" if board.note else _FOOT


def _md_head(names: Sequence[str], columns: Sequence[Column]) -> list[str]:
    rule = ["---"] * len(names) + ["---:"] * len(columns)
    return [_md_row([*names, *(column.heading for column in columns)]), _md_row(rule)]


def _md_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _md(text: str) -> str:
    """Escaped where Markdown or HTML would take it as markup; addresses stay whole."""
    words = (
        word if _ADDRESS.fullmatch(word) else re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", word)
        for word in re.split(r"(\s+)", printable(text.replace("\n", " "), one_line=True))
    )
    return "".join(words)


def _md_cell(figure: Figure | None, column: Column) -> str:
    if figure is None:
        return ""
    text = figure.text(column)
    return " ".join(filter(None, (f"**{text}**" if figure.best else text, figure.interval(column))))


def _latex_board(board: Board, number: int) -> str:
    named = any(row.name for row in board.rows)
    first = 3 if named else 2
    columns = "l" * first + "r" * len(board.columns)
    heads = [*(["queries"] if named else []), "protocol", "model"]
    heads += [_tex(column.heading) for column in board.columns]
    caption = _tex(f"{board.title}. {_foot(board)}")
    body: list[str] = []
    for section in board.sections:
        body.append(r"\midrule")
        for row in section:
            cells = [_tex_cell(figure, column) for column, figure in row.cells()]
            name = [_tex(row.name)] if named else []
            body.append(_tex_row([*name, row.protocol, _tex(row.model), *cells]))
    notes: list[str] = []
    if board.references:
        body += [r"\midrule", rf"\multicolumn{{{len(columns)}}}{{l}}{{\emph{{{_ELSEWHERE}}}}} \\"]
        for reference, part, figures in board.reference_rows:
            cells = [_tex_cell(f, c) for f, c in zip(figures, board.columns, strict=True)]
            name = [_tex(part)] if named else []
            body.append(_tex_row([*name, reference.n, _tex(reference.model), *cells]))
        notes = [rf"\par\footnotesize {_tex(each.told)}" for each in board.references]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{board.task}-{number}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _tex_row(heads),
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *notes,
            r"\end{table}",
        ]
    )


def _tex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tex(text: str) -> str:
    line = printable(text, one_line=True)
    return "".join(_LATEX.get(letter, letter) for letter in line)


def _tex_cell(figure: Figure | None, column: Column) -> str:
    if figure is None:
        return ""
    text = figure.text(column)
    text = rf"\textbf{{{text}}}" if figure.best else text
    interval = _tex(figure.interval(column))
    return rf"{text} {{\scriptsize {interval}}}" if interval else text
