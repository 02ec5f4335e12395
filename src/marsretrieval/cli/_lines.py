"""Progress where there is no terminal: a line now and then, for the logs of long jobs."""

from __future__ import annotations

import sys
import time
from threading import Lock

from marsretrieval._words import printable
from marsretrieval.progress import ProgressTask

_EVERY_S = 60.0  # short work says nothing


class Lines:
    """A `Progress` on stderr: at most one line a minute of each bar."""

    def start(self, label: str, total: int | None, unit: str = "items") -> _Line:
        return _Line(label, total, unit)


class _Line(ProgressTask):
    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self._label = label
        self._of = f" of {total:,}" if total is not None else ""
        self._unit = unit
        self._note = ""
        self._count = 0
        self._started = self._said = time.monotonic()
        self._lock = Lock()  # several threads may advance one bar

    def advance(self, count: int = 1) -> None:
        with self._lock:
            self._count += count
            now = time.monotonic()
            if now - self._said < _EVERY_S:
                return
            self._said = now
            rate = self._count / (now - self._started)
            told = f"{self._label}: {self._count:,}{self._of} {self._unit} ({rate:,.1f}/s)"
            line = printable(f"{told} {self._note}".rstrip())
            print(line, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        self._note = text
