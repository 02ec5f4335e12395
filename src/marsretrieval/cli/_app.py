"""The verbs put together, and the one place where errors become exit codes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from marsretrieval import __version__
from marsretrieval.cli import data, export, models, score, store
from marsretrieval.cli._help import Command, Group
from marsretrieval.cli._shared import echo, say
from marsretrieval.cli.compare import compare
from marsretrieval.cli.demo import demo
from marsretrieval.cli.doctor import doctor
from marsretrieval.cli.embed import embed
from marsretrieval.cli.report import report
from marsretrieval.cli.run import run, tasks
from marsretrieval.cli.search import search
from marsretrieval.errors import MarsRetrievalError, MarsRetrievalWarning

__all__ = ["app"]

_INTERRUPTED = 130


class _Group(Group):
    """Shows an error as its message and remedy, never as a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with _plain_warnings():
                return super().invoke(ctx)
        except MarsRetrievalError as error:
            say(f"error: {error}")
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            say("interrupted: what was finished is kept; the same command goes on from there")
            raise typer.Exit(_INTERRUPTED) from error


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Shows a warning of ours as one line, and the same one once."""
    told: set[str] = set()
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, MarsRetrievalWarning):
                usual(message, category, *where, **more)
            elif str(message) not in told:
                told.add(str(message))
                say(f"warning: {message}")

        warnings.showwarning = show
        warnings.simplefilter("always", MarsRetrievalWarning)
        yield


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Benchmark vision-language models on Mars orbital imagery, and search Mars with them.",
)


def _show_version(value: bool) -> None:
    if value:
        echo(f"marsretrieval {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


_START, _BENCHMARK, _SEARCH = "Start here", "Benchmark", "Images and search"

app.command(cls=Command, rich_help_panel=_START)(demo)
app.command(cls=Command, rich_help_panel=_START)(doctor)
app.add_typer(models.app, name="models", rich_help_panel=_START)
app.command(cls=Command, rich_help_panel=_START)(tasks)
app.command(cls=Command, rich_help_panel=_BENCHMARK)(run)
app.command(cls=Command, rich_help_panel=_BENCHMARK)(report)
app.command(cls=Command, rich_help_panel=_BENCHMARK)(compare)
app.add_typer(score.app, name="score", rich_help_panel=_BENCHMARK)
app.add_typer(export.app, name="export", rich_help_panel=_BENCHMARK)
app.add_typer(data.app, name="data", rich_help_panel=_SEARCH)
app.command(cls=Command, rich_help_panel=_SEARCH)(embed)
app.add_typer(store.app, name="store", rich_help_panel=_SEARCH)
app.command(cls=Command, rich_help_panel=_SEARCH)(search)
