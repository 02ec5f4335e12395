"""Is there room for it: asked before the first byte is fetched."""

from __future__ import annotations

import shutil
from pathlib import Path

from marsretrieval.errors import OutputError

__all__ = ["check_space", "free_bytes", "readable_bytes"]

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
    """In the unit that reads best: 758 MB, 3.2 GB."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
