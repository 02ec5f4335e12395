"""Is there room for it, and does nobody else write there: asked before the first byte comes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from marsretrieval.errors import OutputError, UsageError
from marsretrieval.files import locked

__all__ = ["check_space", "free_bytes", "only_one", "readable_bytes"]

_SPARE = 64 * 2**20


def free_bytes(folder: Path) -> int:
    """Free space where `folder` is or will be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def check_space(folder: Path, needed: int) -> None:
    """Raises OutputError unless `needed` bytes, and some to spare, fit where `folder` lies."""
    free = free_bytes(folder)
    if needed and free < needed + _SPARE:
        raise OutputError(
            f"{folder}: {readable_bytes(needed)} are needed there, {readable_bytes(free)} are free",
            remedy="Free some space, or choose a folder on another disk with --out.",
        )


def readable_bytes(count: int) -> str:
    """In the unit that reads best: 758 MB, 3.2 GB, 6.2 TB."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB" if value < 1000 else f"{value / 1000:.1f} TB"


@contextmanager
def only_one(folder: Path, otherwise: str) -> Iterator[None]:
    """Two runs must not write to the same half-fetched files.

    otherwise: what to do but wait. Raises UsageError when another run holds the lock.
    """
    with ExitStack() as lock:
        try:
            lock.enter_context(locked(folder, wait=False))
        except BlockingIOError as error:
            raise UsageError(
                f"{folder}: another run fetches into this folder",
                remedy=f"Wait for it, or {otherwise}.",
            ) from error
        yield
