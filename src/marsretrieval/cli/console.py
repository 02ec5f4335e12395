"""Console output shared by the commands: JSON, lines and progress bars."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

import typer

from marsretrieval.progress import NO_PROGRESS, Progress, ProgressTask
from marsretrieval.text import printable

_LINE_INTERVAL_S = 60.0

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def print_json(value: Any, path: Path | None = None) -> None:
    """Write a value as JSON to a file or to stdout.

    Args:
        value: JSON-serializable data without NaN or infinity.
        path: File to write; None for stdout.

    Raises:
        OutputError: If the file cannot be written.
    """
    if path is not None:
        from marsretrieval.io import write_json

        write_json(path, value)
    else:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        # Characters that JSON allows unescaped but terminals interpret.
        print(re.sub(r"[\x7f-\x9f\ud800-\udfff]", lambda one: f"\\u{ord(one[0]):04x}", text))


def echo(text: object = "", *, end: str = "\n") -> None:
    """Print a line on stdout, with control characters escaped.

    Args:
        text: What to print, converted by `str`.
        end: Line terminator.
    """
    print(printable(str(text)), end=end)


def say(text: str = "") -> None:
    """Print a message for people on stderr, with control characters escaped.

    Args:
        text: The message.
    """
    print(printable(text), file=sys.stderr)


def command_line(context: typer.Context) -> str:
    """Return the running command with the options that were given, quoted for a shell.

    Args:
        context: Context of the command.

    Returns:
        A shell command that starts with `marsretrieval`.
    """
    words = ["marsretrieval"]
    level: Any = context
    while level.parent is not None:
        words.insert(1, str(level.info_name))
        level = level.parent
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE":
            continue
        value, option = context.params[name], max(parameter.opts, key=len)
        if isinstance(value, bool):
            words.append(option)
            continue
        for item in value if isinstance(value, list | tuple) else [value]:
            text = str(item)
            words += [f"{option}={text}"] if text.startswith("-") else [option, text]
    return shlex.join(words)


@contextmanager
def show_status(text: str) -> Iterator[None]:
    """Show that work without countable progress is running, such as importing a library.

    Args:
        text: Description of the work: beside a spinner on a terminal, otherwise a line on stderr.
    """
    if not sys.stderr.isatty():
        say(text)
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


@contextmanager
def show_progress(*, quiet: bool = False) -> Iterator[Progress]:
    """Show progress bars with rate and remaining time on stderr.

    Without a terminal, each bar prints at most one line per minute.

    Args:
        quiet: Show nothing.

    Yields:
        The progress display.
    """
    if quiet:
        yield NO_PROGRESS
        return
    if not sys.stderr.isatty():
        yield PlainProgress()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress
    from rich.progress import Task as RichTask
    from rich.text import Text

    from marsretrieval.report.render import console

    class _Rate(ProgressColumn):
        def render(self, task: RichTask) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f} {task.fields['unit']}/s" if speed else "")

    class _Count(MofNCompleteColumn):
        def render(self, task: RichTask) -> Text:
            return super().render(task) if task.fields["unit"] else Text("")

    class _Bar(ProgressTask):
        def __init__(self, label: str, total: int | None, unit: str) -> None:
            self._id = bars.add_task(label, total=total, unit=unit, note="")

        def advance(self, count: int = 1) -> None:
            bars.advance(self._id, count)

        def note(self, text: str) -> None:
            bars.update(self._id, note=text)

        def __exit__(self, *exception: object) -> None:
            bars.stop_task(self._id)

    class _Bars:
        def start(self, label: str, total: int | None, unit: str = "items") -> _Bar:
            return _Bar(label, total, unit)

    bars = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),  # leaves room for the note and the rate in 80 columns
        _Count(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console(stderr=True),
    )
    with bars:
        yield _Bars()


class PlainProgress:
    """Progress display for log files: at most one line per minute for each bar."""

    def start(self, label: str, total: int | None, unit: str = "items") -> _PlainTask:
        """Open a bar.

        Args:
            label: Name of the work.
            total: Number of items; None if unknown.
            unit: Plural noun of the items.

        Returns:
            The bar.
        """
        return _PlainTask(label, total, unit)


class _PlainTask(ProgressTask):
    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self._label = label
        self._total_text = f" of {total:,}" if total is not None else ""
        self._unit = unit
        self._note = ""
        self._count = 0
        self._started = self._printed_at = time.monotonic()
        self._lock = Lock()  # several threads may advance one bar

    def advance(self, count: int = 1) -> None:
        with self._lock:
            self._count += count
            now = time.monotonic()
            if now - self._printed_at < _LINE_INTERVAL_S:
                return
            self._printed_at = now
            rate = self._count / (now - self._started)
            status_line = (
                f"{self._label}: {self._count:,}{self._total_text} {self._unit} ({rate:,.1f}/s)"
            )
            line = printable(f"{status_line} {self._note}".rstrip())
            print(line, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        self._note = text
