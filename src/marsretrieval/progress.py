"""Interface of progress displays; the command line implements it."""

from __future__ import annotations

from typing import Protocol, Self


class ProgressTask(Protocol):
    """A progress bar; as a base class, one that shows nothing."""

    def advance(self, count: int = 1) -> None:
        """Count finished items.

        Args:
            count: Number of items.
        """
        return

    def note(self, text: str) -> None:
        """Show a short text beside the bar, such as the number of skipped items.

        Args:
            text: The text; it replaces the previous one.
        """
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return


class Progress(Protocol):
    """A display of progress bars."""

    def start(self, label: str, total: int | None, unit: str = "items") -> ProgressTask:
        """Open a bar.

        Args:
            label: Name of the work.
            total: Number of items; None shows a count without remaining time.
            unit: Plural noun of the items.

        Returns:
            The bar, a context manager.
        """


def time_left(elapsed: float, share: float) -> str:
    """Format the remaining time, for the note of a bar whose total is unknown.

    Args:
        elapsed: Seconds since the start.
        share: Finished share of the work, 0 to 1.

    Returns:
        Hours, minutes and seconds, then "left"; empty if nothing is finished.
    """
    if not share:
        return ""
    minutes, seconds = divmod(round(elapsed * (1 - share) / share), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"


class _NullProgress(ProgressTask):
    def start(self, label: str, total: int | None, unit: str = "items") -> Self:
        return self


NO_PROGRESS = _NullProgress()
