"""Embed texts into a store of the same format as images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from marsretrieval.datasets import Shard, content_hash
from marsretrieval.embeddings._claim import claim_store
from marsretrieval.embeddings._forward import Forward, quote_text
from marsretrieval.embeddings._manifest import Entry
from marsretrieval.embeddings._plan import plan_shards
from marsretrieval.embeddings._report import BuildReport
from marsretrieval.embeddings._shards import Item, write_shard
from marsretrieval.errors import DataError, ModalityError
from marsretrieval.files import sha256_json
from marsretrieval.progress import NO_PROGRESS, Progress

if TYPE_CHECKING:
    from marsretrieval.encoders import Encoder, TextRole

_SHARD_ROWS = 4096
_BATCH = 64


@dataclass(frozen=True, slots=True)
class _Part:
    shard: Shard
    items: Sequence[tuple[str, str]]


def build_text_store(
    encoder: Encoder,
    items: Sequence[tuple[str, str]],
    path: Path,
    *,
    role: TextRole,
    dtype: str = "float32",
    batch_size: int | None = None,
    force: bool = False,
    progress: Progress = NO_PROGRESS,
) -> BuildReport:
    """Embed (id, text) pairs as `role`; texts that are there already are not embedded again.

    Within a shard the texts go through the model sorted by length, so that a batch holds little
    padding; the order of rows is that of `items`. Raises StoreMismatchError, OutputError,
    ModalityError on a vision-only model, DataError when an id comes twice.
    """
    if "text" not in encoder.modalities:
        raise ModalityError(f"{encoder.id} is a vision-only model and cannot embed text")
    if len({key for key, _ in items}) != len(items):
        raise DataError(f"{path}: two texts have the same id")
    parts = {part.shard.name: part for part in _parts(items)}
    plan = plan_shards(
        [part.shard for part in parts.values()],
        path,
        name="texts",
        dataset_kind="texts",
        kind="text",
        dtype=dtype,
        force=force,
        may_shrink=True,
    )
    manifest = claim_store(plan, encoder, request=None, role=role)
    forward = Forward(
        lambda texts: encoder.encode_texts(texts, role=role),
        name=encoder.id,
        dimension=encoder.dimension,
        size=batch_size or _BATCH,
        describe=quote_text,
    )
    seconds = {"embed": 0.0, "write": 0.0}
    start = time.perf_counter()
    embedded = 0
    with progress.start("embed texts", plan.todo_rows, "texts") as bar:
        for shard in plan.todo:
            part = parts[shard.name]
            began = time.perf_counter()
            vectors = np.empty((len(part.items), encoder.dimension), dtype=np.float32)
            order = np.argsort([len(text) for _, text in part.items], kind="stable")
            done = 0
            while done < len(order):
                rows = order[done : done + forward.size]
                vectors[rows] = forward([part.items[row][1] for row in rows])
                done += len(rows)
                bar.advance(len(rows))
            spent = time.perf_counter() - began
            seconds["embed"] += spent
            began = time.perf_counter()
            write_shard(
                path,
                Entry(
                    shard=shard.name,
                    fingerprint=shard.fingerprint,
                    made_by=manifest.made_by,
                    seconds={"embed": round(spent, 6)},
                ),
                [Item(key, "text", content_hash(text.encode())) for key, text in part.items],
                vectors,
                manifest.dtype,
            )
            seconds["write"] += time.perf_counter() - began
            embedded += len(part.items)
    reused = sum(entry.rows for entry in plan.done)
    return BuildReport(
        rows=embedded + reused,
        embedded=embedded,
        reused=reused,
        skipped=[],
        batch_size=forward.size if embedded else None,
        seconds={**seconds, "total": time.perf_counter() - start} if embedded else {},
    )


def _parts(items: Sequence[tuple[str, str]]) -> list[_Part]:
    parts: list[_Part] = []
    for start in range(0, len(items), _SHARD_ROWS):
        some = items[start : start + _SHARD_ROWS]
        fingerprint = sha256_json([[key, text] for key, text in some])
        parts.append(_Part(Shard(f"texts-{len(parts):06d}", fingerprint, len(some)), some))
    return parts
