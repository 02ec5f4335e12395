"""What the verbs share: JSON output, tables, a progress bar on stderr."""

from __future__ import annotations

import json
import re
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

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines on stdout.")]


def print_json(value: Any, path: Path | None = None) -> None:
    """Write `value` as JSON to `path`, or to stdout when there is none."""
    if path is not None:
        from marsretrieval.io import write_json

        write_json(path, value)
    else:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        # What JSON leaves as it is, and terminals do not.
        print(re.sub(r"[\x7f-\x9f\ud800-\udfff]", lambda one: f"\\u{ord(one[0]):04x}", text))


def echo(text: object = "", *, end: str = "\n") -> None:
    """Print a line on stdout, control characters of names from data spelt out."""
    print(printable(str(text)), end=end)


def say(text: str = "") -> None:
    """A line for people: on stderr, so that stdout stays clean for what was asked."""
    print(printable(text), file=sys.stderr)


@contextmanager
def show_status(text: str) -> Iterator[None]:
    """Show that work is going on which cannot be counted, such as importing a library.

    Args:
        text: What is being done; a spinner stands beside it on a terminal, elsewhere it is a
            line on stderr.
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
    """Bars with rate and time left on stderr; where there is no terminal a line a minute. Silent
    with `quiet`."""
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

    class Rate(ProgressColumn):
        def render(self, task: RichTask) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f} {task.fields['unit']}/s" if speed else "")

    class Count(MofNCompleteColumn):
        def render(self, task: RichTask) -> Text:
            """The count; nothing for work that has no unit to count in."""
            return super().render(task) if task.fields["unit"] else Text("")

    class Bar(ProgressTask):
        def __init__(self, label: str, total: int | None, unit: str) -> None:
            self._id = bars.add_task(label, total=total, unit=unit, note="")

        def advance(self, count: int = 1) -> None:
            bars.advance(self._id, count)

        def note(self, text: str) -> None:
            bars.update(self._id, note=text)

        def __exit__(self, *exception: object) -> None:
            bars.stop_task(self._id)

    class Bars:
        def start(self, label: str, total: int | None, unit: str = "items") -> Bar:
            return Bar(label, total, unit)

    bars = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),  # a note and the rate are to fit into 80 columns
        Count(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console(stderr=True),
    )
    with bars:
        yield Bars()


_LINE_INTERVAL_S = 60.0  # short work says nothing


class PlainProgress:
    """A `Progress` on stderr: at most one line a minute of each bar."""

    def start(self, label: str, total: int | None, unit: str = "items") -> _PlainTask:
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
