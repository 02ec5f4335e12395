"""Is a store still what was written?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from marsretrieval.embeddings._manifest import vectors_path
from marsretrieval.embeddings._shards import Block, open_block
from marsretrieval.errors import StoreError
from marsretrieval.files import sha256_file
from marsretrieval.progress import Progress

if TYPE_CHECKING:
    from marsretrieval.embeddings._store import EmbeddingStore

__all__ = ["problems"]

_UNIT_TOLERANCE = 1e-2  # far above the rounding of float16, far below any real fault


def problems(store: EmbeddingStore, progress: Progress) -> list[str]:
    """Missing shards, files changed since they were written, impossible values, repeated ids."""
    found = [f"shard {name}: not embedded yet" for name in store.missing]
    seen: dict[str, str] = {}
    start = 0
    with progress.start("verify", len(store.entries), "shards") as bar:
        for entry in store.entries:
            path = vectors_path(store.path, entry.shard)
            try:
                block = open_block(store.path, entry, start, store.dimension, store.dtype)
                if sha256_file(path) != entry.sha256:
                    raise StoreError(f"{path}: changed since it was written (SHA-256 differs)")
            except StoreError as error:
                found.append(f"shard {entry.shard}: {error.message}")
            else:
                found += [f"shard {entry.shard}: {text}" for text in _faults(block)]
                for name in block.ids:
                    if name in seen:
                        found.append(f"shard {entry.shard}: id {name} is also in {seen[name]}")
                    seen[name] = f"shard {entry.shard}"
            start += entry.rows
            bar.advance()
    return found


def _faults(block: Block) -> Iterator[str]:
    norms = np.linalg.norm(block.vectors.astype(np.float32), axis=1)
    wrong = int((~(np.abs(norms - 1) < _UNIT_TOLERANCE)).sum())  # NaN counts as wrong
    if wrong:
        yield f"{wrong} of {len(block)} vectors are not of unit length"
    if (np.abs(block.lat) > 90).any() or np.isinf(block.lon).any():
        yield "a position is off the planet"
