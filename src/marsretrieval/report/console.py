"""Where tables are printed: stdout, wide enough also when it is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console"]

_WIDTH = 110  # of a pipe or a file, for which rich would assume 80


def console(*, stderr: bool = False) -> Console:
    """A console that spells out control characters of the texts it is given.

    Args:
        stderr: Whether it prints there, as wide as the terminal.

    Returns:
        A console of rich.
    """
    from rich.console import Console
    from rich.segment import Segment

    from marsretrieval._words import printable

    class SafeConsole(Console):
        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                if segment.control or segment.text.isprintable():
                    yield segment
                else:
                    yield Segment(printable(segment.text), segment.style)

    if stderr:
        return SafeConsole(stderr=True)
    return SafeConsole(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
