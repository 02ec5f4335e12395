"""Pages made from the code at build time, so that they are never stale."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

import typer

import marsretrieval.errors
from marsretrieval.cli._app import app
from marsretrieval.cli._help import examples, sections
from marsretrieval.encoders import ModelRecord, all_records

__all__ = ["catalogue", "command_line", "commands", "errors"]

_INTRO = """# Command line

This page is made from the program itself. Exit codes: 0 done, 1 could not, 2 wrong use, 130
interrupted. Progress goes to stderr; `--json` puts JSON on stdout and nothing else.
"""


def commands() -> Iterator[tuple[str, Any, typer.Context]]:
    """(full name, command, context) of every verb, groups before their members."""
    top = typer.main.get_command(app)
    yield from _walk("marsretrieval", top, typer.Context(top, info_name="marsretrieval"))


def _walk(name: str, command: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    yield name, command, context
    for each, inner in getattr(command, "commands", {}).items():
        nested = type(context)(inner, info_name=each, parent=context)
        yield from _walk(f"{name} {each}", inner, nested)


def command_line() -> str:
    parts = [_INTRO]
    for name, command, context in commands():
        level = min(len(name.split()), 3)
        heading = f"{'#' * level} {name}\n\n" if level > 1 else ""
        usage = " ".join(command.collect_usage_pieces(context))
        parts.append(f"{heading}{_text(command.help or '')}\n\n```\n{name} {usage}\n```\n")
        lines = [line for line in examples(context) if line]
        if lines:
            parts.append("\n".join(["```bash", *lines, "```\n"]))
        for title, rows in sections(command, context):
            rows = [row for row in rows if not row[0].endswith("--help")]
            if rows:
                parts.append(f"| {title} | |\n|---|---|")
                parts += [f"| {_code(left)} | {_cell(_text(right))} |" for left, right in rows]
                parts.append("")
        parts.append("")
    return "\n".join(parts)


def _text(text: str) -> str:
    """Help text as Markdown: names in capitals and dashes stay as they are written."""
    return text.replace("<", "&lt;").replace("*", r"\*").replace("_", r"\_").strip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str) -> str:
    """A cell of code; in backquotes a bar that is no border would keep its backslash."""
    return f"<code>{html.escape(' '.join(text.split())).replace('|', '&#124;')}</code>"


def errors() -> str:
    """The tree of errors, as their module tells it."""
    return "\n".join((marsretrieval.errors.__doc__ or "").strip().splitlines()[2:])


def catalogue() -> str:
    """Every model that comes with the package, as its record says."""
    lines = [
        "---\nhide: [toc]\n---\n\n# Catalogue\n",  # the table takes the whole width
        "This page is made from the records in `src/marsretrieval/encoders/catalogue`. "
        "How each model is prompted and pooled: [Models](MODELS.md). A revision that is not pinned "
        "is recorded when the model is loaded.\n",
        "| id | name in its paper | pixels | dimension | parameters | licence | revision | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        _row(record) for record in all_records() if record.loader.startswith("marsretrieval.")
    ]
    lines.append("\n## What was tried\n")
    lines += [
        f"- `{record.id}`: {_text(record.tried)}." for record in all_records() if record.tried
    ]
    return "\n".join(lines) + "\n"


def _row(record: ModelRecord) -> str:
    links = ", ".join(
        f"[{name}]({address})"
        for name, address in (("paper", record.paper), ("code", record.code))
        if address.startswith("http")
    )
    cells = [
        f"`{record.id}`",
        record.name if "text" in record.modalities else f"{record.name} (images only)",
        str(record.image_size or "any"),
        f"{record.dimension:,}" if record.dimension else "",
        f"{record.parameters / 1e6:,.1f} M" if record.parameters else "",
        record.licence,
        f"`{record.revision[:7]}`" if record.revision else "not pinned",
        links,
    ]
    return "| " + " | ".join(_cell(each) for each in cells) + " |"
