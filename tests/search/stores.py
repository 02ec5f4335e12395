"""Small stores on disk with given vectors and positions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marsretrieval.embeddings import EmbeddingStore, open_store
from marsretrieval.embeddings.manifest import Entry, Manifest, write_manifest
from marsretrieval.embeddings.shards import Item, write_shard


def unit(rows: Any, dtype: Any = np.float16) -> Any:
    rows = np.asarray(rows, dtype=np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)


def write_store(
    folder: Path,
    vectors: Any,
    *,
    lon: Any = None,
    lat: Any = None,
    names: Sequence[str] | None = None,
    valid: Any = None,
    shard_rows: int = 100,
) -> EmbeddingStore:
    """Write a complete store of (n, d) vectors; float32 vectors are stored as float32."""
    dtype: Any = "float16" if vectors.dtype == np.float16 else "float32"
    starts = range(0, max(1, len(vectors)), shard_rows)
    shards = tuple(f"{number:06d}" for number in range(len(starts)))
    dataset = {"name": "made up", "kind": "folder", "fingerprint": "x"}
    made = Manifest("image", {"id": "made-up"}, dataset, vectors.shape[1], dtype, shards)
    write_manifest(folder, made)
    for shard, start in zip(shards, starts, strict=True):
        rows = range(start, min(start + shard_rows, len(vectors)))
        items = [
            Item(
                names[row] if names else f"{row:07d}",
                f"tiles-{row // 40 % 9}.tar",
                bytes(16),
                None if lon is None or np.isnan(lon[row]) else float(lon[row]),
                None if lat is None or np.isnan(lat[row]) else float(lat[row]),
                None if row % 13 == 0 else 0.2,
                None if row % 13 == 0 else 0.1 + row % 3,
                None if valid is None or np.isnan(valid[row]) else float(valid[row]),
            )
            for row in rows
        ]
        write_shard(
            folder, Entry(shard, "x", made.made_by), items, vectors[rows.start : rows.stop], dtype
        )
    return open_store(folder)
