"""Is there room for it, and does nobody else write there: asked before the first byte comes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from marsretrieval.errors import OutputError, UsageError
from marsretrieval.files import locked

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
    """Hold a folder's lock, so that two runs do not write to the same files.

    Args:
        folder: An existing folder.
        otherwise: What to do but wait.

    Raises:
        UsageError: If another run holds the lock.
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


@contextmanager
def only_alike(folder: Path, key: str, otherwise: str) -> Iterator[None]:
    """Let several runs write to one folder at once, as long as all have the same settings.

    Args:
        folder: An existing folder.
        key: Stands for the settings, part of a file name.
        otherwise: What to do but wait.

    Raises:
        UsageError: If a run with other settings is under way there.
    """
    mine = folder / f".writing-{key}.lock"
    with ExitStack() as lock:
        with locked(folder):
            for other in folder.glob(".writing-*.lock"):
                if other != mine and not _unused(other):
                    raise UsageError(
                        f"{folder}: another run with other options writes into this folder",
                        remedy=f"Wait for it, or {otherwise}.",
                    )
            mine.touch()
            lock.enter_context(locked(mine, shared=True))
        try:
            yield
        finally:
            lock.close()
            with suppress(OSError), locked(folder):
                _unused(mine)


def _unused(path: Path) -> bool:
    """Whether no run holds this lock file, which is then removed."""
    try:
        with locked(path, wait=False):
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass
    return True
