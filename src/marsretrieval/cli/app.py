"""The root command: registers all commands and maps errors to exit codes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer

from marsretrieval import __version__
from marsretrieval.cli import RESUME
from marsretrieval.cli.console import echo, say
from marsretrieval.cli.help import Command, Group
from marsretrieval.errors import MarsRetrievalError, MarsRetrievalWarning

_START_PANEL, _BENCHMARK_PANEL, _SEARCH_PANEL = "Start here", "Benchmark", "Images and search"

# Module in `cli/`, function or app, and help section of each command, in the order of `--help`.
_COMMANDS = {
    "demo": ("demo", "demo", _START_PANEL),
    "doctor": ("models", "doctor", _START_PANEL),
    "tasks": ("run", "tasks", _START_PANEL),
    "run": ("run", "run", _BENCHMARK_PANEL),
    "report": ("report", "report", _BENCHMARK_PANEL),
    "compare": ("compare", "compare", _BENCHMARK_PANEL),
    "results": ("results", "app", _BENCHMARK_PANEL),
    "embed": ("embed", "embed", _SEARCH_PANEL),
    "search": ("search", "search", _SEARCH_PANEL),
    "models": ("models", "app", _START_PANEL),
    "score": ("score", "app", _BENCHMARK_PANEL),
    "export": ("export", "app", _BENCHMARK_PANEL),
    "data": ("data", "app", _SEARCH_PANEL),
    "store": ("store", "app", _SEARCH_PANEL),
    "serve": ("serve", "serve", _SEARCH_PANEL),
    "inventory": ("inventory", "app", _SEARCH_PANEL),
}

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


class _LazyCommands(Mapping[str, Any]):
    """The commands by name, each loaded from its module when it is used."""

    def __init__(self, registered: Mapping[str, Any]) -> None:
        self._registered = registered

    def __getitem__(self, name: str) -> Any:
        return self._registered[name] if name in self._registered else _load_command(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*_COMMANDS, *self._registered]))

    def __len__(self) -> int:
        return len({*_COMMANDS, *self._registered})


@cache
def _load_command(name: str) -> Any:
    """Import a command and create its parser, once for all calls in a process."""
    module, attribute, panel = _COMMANDS[name]
    target = getattr(import_module(f"marsretrieval.cli.{module}"), attribute)
    parent = typer.Typer(add_completion=False, rich_markup_mode=None)
    parent.callback()(lambda: None)
    if isinstance(target, typer.Typer):
        parent.add_typer(target, name=name, rich_help_panel=panel)
    else:
        parent.command(name, cls=Command, rich_help_panel=panel)(target)
    group: Any = typer.main.get_command(parent)
    return group.commands[name]


class _Group(Group):
    """Root command group that prints an error as message and remedy, without a traceback."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = _LazyCommands(self.commands)

    def make_context(self, *args: Any, **options: Any) -> Any:
        try:
            return super().make_context(*args, **options)
        except KeyboardInterrupt as error:  # typer would exit without a message
            _print_last(f"interrupted: {RESUME}")
            raise typer.Exit(128 + signal.SIGINT) from error

    def invoke(self, ctx: Any) -> Any:
        try:
            with _print_warnings(), _print_log(), _handle_signals():
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
            _print_last(f"{what}: {RESUME}")
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
            "  Check the disk, the permissions and the limits of this process (ulimit -a)."
        )
    kind = type(error).__name__
    return (
        f"error: unexpected {kind}{f': {text}' if text else ''}\n"
        f"  Set {_TRACEBACK}=1 to show the traceback, and report the error."
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


class _Lines(logging.Handler):
    """Handler that prints the messages of the library on stderr, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record as one line.

        Args:
            record: A record of a logger below ``marsretrieval``.
        """
        line = f"{record.levelname.lower()}: {record.getMessage()}"
        if line not in self._shown:
            self._shown.add(line)
            say(line)


@contextmanager
def _print_log() -> Iterator[None]:
    """Print the warnings that the library logs within the block."""
    logger, handler = logging.getLogger("marsretrieval"), _Lines()
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


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
