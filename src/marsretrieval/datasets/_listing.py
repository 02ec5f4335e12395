"""Files of a folder in a fixed order, and fingerprints that move when they may have changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from marsretrieval.files import sha256_json

__all__ = ["file_fingerprint", "files_fingerprint", "visible"]


def visible(folder: Path) -> list[Path]:
    """Entries of a folder, sorted by name, hidden ones left out."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def file_fingerprint(path: Path) -> str:
    """From size and modification time: cheap, and moves whenever the file is written."""
    return files_fingerprint([path])


def files_fingerprint(paths: Iterable[Path], *extra: Sequence[int]) -> str:
    stats = [(path.name, path.stat()) for path in paths]
    facts = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
    return sha256_json([facts, *extra])
