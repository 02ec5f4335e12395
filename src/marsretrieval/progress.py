"""What long work needs of a progress display; the command line supplies a real one."""

from __future__ import annotations

from typing import Protocol, Self


class ProgressTask(Protocol):
    """A bar; as a base class, one that shows nothing."""

    def advance(self, count: int = 1) -> None:
        """Count finished items."""
        return

    def note(self, text: str) -> None:
        """Show a short text beside the bar (items left out, device share)."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return


class Progress(Protocol):
    def start(self, label: str, total: int | None, unit: str = "items") -> ProgressTask:
        """Open a bar; `total` None shows a count without time left."""


def time_left(elapsed: float, share: float) -> str:
    """In words, after so many seconds for a share of the work: for a note on a bar that cannot
    tell, since its total is not known. Empty while nothing is done."""
    if not share:
        return ""
    minutes, seconds = divmod(round(elapsed * (1 - share) / share), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"


class _NullProgress(ProgressTask):
    def start(self, label: str, total: int | None, unit: str = "items") -> Self:
        return self


NO_PROGRESS = _NullProgress()
