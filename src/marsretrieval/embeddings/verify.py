"""Verify the files of a store against their checksums, and remove damaged shards on request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marsretrieval.embeddings.manifest import (
    Entry,
    Manifest,
    entry_path,
    read_entry,
    read_error,
    read_manifest,
    require_own_shards,
    vectors_path,
)
from marsretrieval.embeddings.shards import Block, open_block
from marsretrieval.errors import OutputError, StoreError
from marsretrieval.io import is_damage, sha256_file
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.text import pluralize, verb

_UNIT_TOLERANCE = 1e-2  # far above the rounding of float16, far below any real fault


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of a shard.

    Attributes:
        shard: Name of the shard.
        text: Description of the problem.
        cured: Whether embedding the shard again removes the problem.
        pending: Whether the shard has not been embedded yet.
    """

    shard: str
    text: str
    cured: bool = True
    pending: bool = False

    def __str__(self) -> str:
        return f"shard {self.shard}: {self.text}"


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of a verification.

    Attributes:
        rows: Number of rows.
        shards: Number of finished shards.
        problems: The problems.
        dropped: Shards whose entries were removed, to be embedded again.
    """

    rows: int
    shards: int
    problems: tuple[Problem, ...]
    dropped: tuple[str, ...] = ()

    @property
    def to_embed(self) -> tuple[str, ...]:
        """Shards that the build command embeds when it is run again."""
        missing = [problem.shard for problem in self.problems if problem.pending]
        return tuple(sorted({*missing, *self.dropped}))


def verify_store(
    path: str | Path, *, repair: bool = False, progress: Progress = NO_PROGRESS
) -> Verification:
    """Check a store for missing or changed shards, impossible values and repeated ids.

    With `repair`, the entries of damaged shards are removed, so that the build command embeds them
    again; their vectors stay until then, but are not used.

    Args:
        path: Folder of the store.
        repair: Remove the entries of damaged shards.
        progress: Progress display.

    Returns:
        The problems, and the shards to be embedded again.

    Raises:
        StoreError: If there is no readable manifest, or if the operating system fails to read a
            file (disk, permissions, memory, file descriptors). Nothing is removed then.
        OutputError: If an entry cannot be removed.
    """
    path = Path(path)
    manifest = read_manifest(path)
    if repair:
        require_own_shards(path)
    problems: list[Problem] = []
    shard_of_id: dict[str, str] = {}
    rows = shards = 0
    with progress.start("verify", len(manifest.shards), "shards") as bar:
        for name in manifest.shards:
            try:
                entry = read_entry(path, name)
            except StoreError as error:
                if not is_damage(error):
                    raise
                problems.append(Problem(name, error.message))
            else:
                if entry is None or not entry.fits(manifest):
                    problems.append(Problem(name, "not embedded yet", pending=True))
                else:
                    problems += _shard_problems(path, manifest, entry, rows, shard_of_id)
                    rows += entry.rows
                    shards += 1
            bar.advance()
    dropped = []
    if repair:
        dropped = sorted(
            {problem.shard for problem in problems if problem.cured and not problem.pending}
        )
        for name in dropped:
            _remove_entry(entry_path(path, name))
    return Verification(rows, shards, tuple(problems), tuple(dropped))


def _shard_problems(
    store: Path, manifest: Manifest, entry: Entry, start: int, shard_of_id: dict[str, str]
) -> Iterator[Problem]:
    path = vectors_path(store, entry.shard)
    try:
        block = open_block(store, entry, start, manifest.dimension, manifest.dtype)
        if sha256_file(path) != entry.sha256:
            raise StoreError(
                f"{path}: changed since it was written (SHA-256 differs)",
                remedy="Restore the file, or run store verify --repair and embed again.",
            )
    except (StoreError, OSError) as error:
        if not is_damage(error):
            if isinstance(error, StoreError):
                raise
            raise read_error(path, error) from error
        yield Problem(entry.shard, error.message if isinstance(error, StoreError) else str(error))
        return
    for text in _block_problems(block):
        yield Problem(entry.shard, text)
    for name in block.ids:
        if name in shard_of_id:
            # The source repeats the id: embedding it again does not help.
            yield Problem(entry.shard, f"id {name} is also in {shard_of_id[name]}", cured=False)
        shard_of_id[name] = f"shard {entry.shard}"


def _block_problems(block: Block) -> Iterator[str]:
    norms = np.linalg.norm(block.vectors.astype(np.float32), axis=1)
    wrong = int((~(np.abs(norms - 1) < _UNIT_TOLERANCE)).sum())  # NaN counts as wrong
    if wrong:
        vectors = pluralize(len(block), "vector")
        yield f"{wrong} of {vectors} {verb(wrong, 'is', 'are')} not of unit length"
    if (np.abs(block.lat) > 90).any() or np.isinf(block.lon).any():
        yield "a position is out of range"


def _remove_entry(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be removed ({error.strerror or error})",
            remedy="Repairing requires write permission for the store.",
        ) from error
