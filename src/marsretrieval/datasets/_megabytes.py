"""Files on their way, several at once, on one bar that counts megabytes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from marsretrieval.progress import ProgressTask

MEGABYTE = 10**6


class Megabytes:
    def __init__(self, bar: ProgressTask) -> None:
        self._bar = bar
        self._sizes: dict[str, int] = {}
        self._shown = 0
        self._lock = threading.Lock()

    def of(self, name: str) -> Callable[[int, int | None], None]:
        """What to call with the bytes there are of a file, and those there will be."""

        def told(size: int, total: int | None) -> None:
            with self._lock:
                self._sizes[name] = size
                whole = sum(self._sizes.values()) // MEGABYTE
                if whole > self._shown:
                    self._bar.advance(whole - self._shown)
                    self._shown = whole
                    of = f" of {total // MEGABYTE:,}" if total else ""
                    self._bar.note(f"{name}: {size // MEGABYTE:,}{of} MB")

        return told
