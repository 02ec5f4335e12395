"""Sphinx directives for pages made from the code: the command line and the model table."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from typing import Any

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from marsretrieval.cli.app import app
from marsretrieval.cli.help import examples, sections
from marsretrieval.encoders import ModelSpec, all_specs

__all__ = ["catalogue", "command_line", "commands", "setup"]


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
    parts = []
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


def catalogue() -> str:
    """Every model that comes with the package, as its record says."""
    lines = [
        "| id | name in its paper | pixels | dimension | parameters | licence | revision | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(record) for record in all_specs() if record.loader.startswith("marsretrieval.")]
    lines.append("\n## What was tried\n")
    lines += [f"- `{record.id}`: {_text(record.tried)}." for record in all_specs() if record.tried]
    return "\n".join(lines) + "\n"


def _row(record: ModelSpec) -> str:
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


class _Markdown(SphinxDirective):
    """Insert Markdown made at build time where the directive stands."""

    make: Callable[[], str]

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(type(self).make(), allow_section_headings=True)


class CommandLine(_Markdown):
    """Every command with its usage, examples and options."""

    make = staticmethod(command_line)


class ModelTable(_Markdown):
    """Every model that comes with the package."""

    make = staticmethod(catalogue)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives with Sphinx."""
    app.add_directive("command-line", CommandLine)
    app.add_directive("model-table", ModelTable)
    return {"parallel_read_safe": True}
