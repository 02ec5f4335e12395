"""Files of a folder in a fixed order, and fingerprints that move when they may have changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from marsretrieval.errors import DataError
from marsretrieval.files import sha256_json

__all__ = ["file_fingerprint", "files_below", "files_fingerprint", "visible"]


def visible(folder: Path) -> list[Path]:
    """Entries of a folder, sorted by name, hidden ones left out. Raises DataError naming it."""
    return [folder / entry.name for entry in _entries(folder)]


def files_below(root: Path) -> list[Path]:
    """All files of a folder at any depth, in the order of their paths, hidden ones left out.

    Links are followed, but not from a folder into one that holds it. A link to nowhere is listed:
    reading it says what is wrong. Raises DataError naming a folder that cannot be listed.
    """
    return list(_walk(root, frozenset()))


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    stat = folder.stat()
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        return
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _walk(folder / entry.name, above | {here})
        elif entry.is_file() or entry.is_symlink():
            yield folder / entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror})", remedy="Check who may read it."
        ) from error
    return sorted(entries, key=lambda entry: entry.name)


def file_fingerprint(path: Path) -> str:
    """From size and modification time: cheap, and moves whenever the file is written."""
    return files_fingerprint([path])


def files_fingerprint(paths: Iterable[Path], *extra: Sequence[int]) -> str:
    return sha256_json([[_facts(path) for path in paths], *extra])


def _facts(path: Path) -> list[str | int | None]:
    """Name, size and time; a file that is gone by now has neither."""
    try:
        stat = path.stat()
    except OSError:
        return [path.name, None, None]
    return [path.name, stat.st_size, stat.st_mtime_ns]
