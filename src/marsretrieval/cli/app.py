"""The root command: registers all commands and maps errors to exit codes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import typer

from marsretrieval import __version__
from marsretrieval.cli import data, export, models, score, store
from marsretrieval.cli.compare import compare
from marsretrieval.cli.console import echo, say
from marsretrieval.cli.demo import demo
from marsretrieval.cli.embed import embed
from marsretrieval.cli.help import Command, Group
from marsretrieval.cli.models import doctor
from marsretrieval.cli.report import report
from marsretrieval.cli.run import run, tasks
from marsretrieval.cli.search import search
from marsretrieval.cli.serve import serve
from marsretrieval.errors import MarsRetrievalError, MarsRetrievalWarning

_TRACEBACK = "MARSRETRIEVAL_TRACEBACK"  # 1: show the traceback of an unexpected error


# Exceptions that typer handles itself. Usage errors derive from the base of BadParameter, which
# typer does not export.
_TYPER_EXCEPTIONS: tuple[type[Exception], ...] = (
    typer.Exit,
    typer.Abort,
    *(
        base
        for base in typer.BadParameter.__mro__
        if issubclass(base, Exception) and base is not Exception
    ),
)


class _SignalError(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised where Ctrl-C would raise KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Group(Group):
    """Root command group that prints an error as message and remedy, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with _print_warnings(), _handle_signals():
                value = super().invoke(ctx)
                sys.stdout.flush()
                return value
        except MarsRetrievalError as error:
            _print_last(f"error: {error}")
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            number = error.number if isinstance(error, _SignalError) else signal.SIGINT
            what = (
                "interrupted"
                if number == signal.SIGINT
                else f"ended by {signal.Signals(number).name}"
            )
            _print_last(f"{what}: what was finished is kept; the same command goes on from there")
            raise typer.Exit(128 + number) from error
        except _TYPER_EXCEPTIONS:
            raise
        except BrokenPipeError as error:  # the reader of a pipe, such as `head`, has exited
            _drop_stdout()
            raise typer.Exit(1) from error
        except Exception as error:
            if os.environ.get(_TRACEBACK, "0") not in ("", "0"):
                raise
            _print_last(_format_unexpected(error))
            raise typer.Exit(1) from error


def _format_unexpected(error: Exception) -> str:
    """Describe an exception that is not a MarsRetrievalError, with a remedy."""
    if isinstance(error, MemoryError):
        return "error: out of memory\n  Close other programs, or use smaller batches."
    text = " ".join(str(error).split())[:300]
    if isinstance(error, OSError) and error.errno is not None:
        file_prefix = f"{error.filename}: " if error.filename is not None else ""
        return (
            f"error: {file_prefix}{error.strerror or text}\n"
            "  Check the disk, the rights and the limits of this process (ulimit -a)."
        )
    kind = type(error).__name__
    return (
        f"error: unexpected {kind}{f': {text}' if text else ''}\n"
        f"  Set {_TRACEBACK}=1 to see where it comes from, and report it."
    )


def _print_last(text: str) -> None:
    """Print a last line on stderr; discard buffered stdout if it cannot be written."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _drop_stdout()
    with suppress(OSError, ValueError):
        say(text)
        sys.stderr.flush()


def _drop_stdout() -> None:
    """Redirect stdout to the null device, also for the flush at interpreter exit."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def _handle_signals() -> Iterator[None]:
    """Raise _SignalError on SIGTERM and SIGHUP within the block, unless the caller ignores them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise _SignalError(number)

    before = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _print_warnings() -> Iterator[None]:
    """Print each distinct MarsRetrievalWarning once, as one line on stderr."""
    shown_messages: set[str] = set()
    with warnings.catch_warnings():
        default_show = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, MarsRetrievalWarning):
                default_show(message, category, *where, **more)
            elif str(message) not in shown_messages:
                shown_messages.add(str(message))
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


_START_PANEL, _BENCHMARK_PANEL, _SEARCH_PANEL = "Start here", "Benchmark", "Images and search"

app.command(cls=Command, rich_help_panel=_START_PANEL)(demo)
app.command(cls=Command, rich_help_panel=_START_PANEL)(doctor)
app.add_typer(models.app, name="models", rich_help_panel=_START_PANEL)
app.command(cls=Command, rich_help_panel=_START_PANEL)(tasks)
app.command(cls=Command, rich_help_panel=_BENCHMARK_PANEL)(run)
app.command(cls=Command, rich_help_panel=_BENCHMARK_PANEL)(report)
app.command(cls=Command, rich_help_panel=_BENCHMARK_PANEL)(compare)
app.add_typer(score.app, name="score", rich_help_panel=_BENCHMARK_PANEL)
app.add_typer(export.app, name="export", rich_help_panel=_BENCHMARK_PANEL)
app.add_typer(data.app, name="data", rich_help_panel=_SEARCH_PANEL)
app.command(cls=Command, rich_help_panel=_SEARCH_PANEL)(embed)
app.add_typer(store.app, name="store", rich_help_panel=_SEARCH_PANEL)
app.command(cls=Command, rich_help_panel=_SEARCH_PANEL)(search)
app.command(cls=Command, rich_help_panel=_SEARCH_PANEL)(serve)
