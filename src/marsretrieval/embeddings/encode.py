"""Embed queries and texts in batches, in memory or into a text store."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from marsretrieval.embeddings.batches import BatchRunner, batch_sizes, quote_text
from marsretrieval.errors import DataError, ModalityError
from marsretrieval.io import sha256_json
from marsretrieval.progress import NO_PROGRESS, Progress

if TYPE_CHECKING:
    from marsretrieval.embeddings.builder import BuildReport
    from marsretrieval.encoders import Encoder, TextRole

Vectors = npt.NDArray[np.float32]
_ROWS_PER_SHARD = 4096
_TEXTS_PER_BATCH = 64


class QueryEncoder(Protocol):
    """The part of the Encoder interface that queries need."""

    @property
    def id(self) -> str:
        """Model id."""

    @property
    def dimension(self) -> int:
        """Vector dimension."""

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Embed images.

        Args:
            images: n RGB images.

        Returns:
            float32 array of shape (n, dimension), unit rows.
        """

    def encode_texts(self, texts: Sequence[str], *, role: TextRole = "query") -> Vectors:
        """Embed texts.

        Args:
            texts: n texts.
            role: Whether the texts are queries or captions.

        Returns:
            float32 array of shape (n, dimension), unit rows.
        """


def embed_images(encoder: QueryEncoder, images: Sequence[Image.Image]) -> Vectors:
    """Embed images in batches that fit into memory.

    Args:
        encoder: The model.
        images: At least one RGB image.

    Returns:
        float32 array of shape (n, dimension), unit rows.

    Raises:
        ModelLoadError: If the model fails on an image.
    """
    return _batch_runner(encoder, encoder.encode_images)(images)


def embed_texts(
    encoder: QueryEncoder, texts: Sequence[str], *, role: TextRole = "query"
) -> Vectors:
    """Embed texts in batches that fit into memory.

    Args:
        encoder: The model.
        texts: At least one text.
        role: Whether the texts are queries or captions.

    Returns:
        float32 array of shape (n, dimension), unit rows.

    Raises:
        ModelLoadError: If the model fails on a text.
    """
    return _batch_runner(encoder, partial(encoder.encode_texts, role=role), quote_text)(texts)


def build_text_store(
    encoder: Encoder,
    items: Sequence[tuple[str, str]],
    path: str | Path,
    *,
    role: TextRole,
    dtype: str = "float32",
    batch_size: int | None = None,
    force: bool = False,
    progress: Progress = NO_PROGRESS,
) -> BuildReport:
    """Embed texts into a store; texts that are already stored are not embedded again.

    The texts of a shard are sorted by length before they are batched, which reduces padding. The
    rows keep the order of `items`.

    Args:
        encoder: The model.
        items: Pairs of id and text.
        path: Folder of the store.
        role: Whether the texts are queries or captions.
        dtype: Vector dtype, float16 or float32.
        batch_size: Batch size. None means 64.
        force: Replace an existing store.
        progress: Progress display.

    Returns:
        The report of the build.

    Raises:
        ModalityError: If the model has no text encoder.
        DataError: If two texts have the same id.
        StoreMismatchError: If the store holds vectors of another encoder.
        OutputError: If the store cannot be written.
    """
    from marsretrieval.datasets.base import Shard, content_hash
    from marsretrieval.embeddings.builder import BuildReport
    from marsretrieval.embeddings.manifest import Entry
    from marsretrieval.embeddings.plan import create_or_validate, plan_shards
    from marsretrieval.embeddings.shards import Item, write_shard

    path = Path(path)
    if "text" not in encoder.modalities:
        raise ModalityError(f"{encoder.id} is a vision-only model and cannot embed text")
    if len({key for key, _ in items}) != len(items):
        raise DataError(f"{path}: two texts have the same id")
    shards: list[Shard] = []
    items_by_shard = {}
    for first in range(0, len(items), _ROWS_PER_SHARD):
        rows = items[first : first + _ROWS_PER_SHARD]
        fingerprint = sha256_json([[key, text] for key, text in rows])
        shards.append(Shard(f"texts-{len(shards):06d}", fingerprint, len(rows)))
        items_by_shard[shards[-1].name] = rows
    plan = plan_shards(
        shards,
        path,
        name="texts",
        dataset_kind="texts",
        kind="text",
        dtype=dtype,
        force=force,
        may_shrink=True,
    )
    manifest = create_or_validate(plan, encoder, request=None, role=role)
    runner = BatchRunner(
        lambda texts: encoder.encode_texts(texts, role=role),
        name=encoder.id,
        dimension=encoder.dimension,
        size=batch_size or _TEXTS_PER_BATCH,
        describe=quote_text,
    )
    seconds = {"embed": 0.0, "write": 0.0}
    start = time.perf_counter()
    written = []
    with progress.start("embed texts", plan.todo_rows, "texts") as bar:
        for shard in plan.todo:
            texts = items_by_shard[shard.name]
            began = time.perf_counter()
            vectors = np.empty((len(texts), encoder.dimension), dtype=np.float32)
            order = np.argsort([len(text) for _, text in texts], kind="stable")
            done = 0
            while done < len(order):
                batch = order[done : done + runner.size]
                vectors[batch] = runner([texts[row][1] for row in batch])
                done += len(batch)
                bar.advance(len(batch))
            spent = time.perf_counter() - began
            seconds["embed"] += spent
            began = time.perf_counter()
            entry = Entry(
                shard=shard.name,
                fingerprint=shard.fingerprint,
                made_by=manifest.made_by,
                seconds={"embed": round(spent, 6)},
            )
            stored = [Item(key, "text", content_hash(text.encode())) for key, text in texts]
            written.append(write_shard(path, entry, stored, vectors, manifest.dtype))
            seconds["write"] += time.perf_counter() - began
    if written:
        seconds["total"] = time.perf_counter() - start
    return BuildReport.from_entries(
        plan.done, written, runner.size if written else None, seconds if written else {}
    )


def _batch_runner(
    encoder: QueryEncoder,
    embed: Callable[[Sequence[Any]], Vectors],
    describe: Callable[[Any], str] | None = None,
) -> BatchRunner:
    size, limit = batch_sizes(encoder)
    return BatchRunner(
        embed,
        name=encoder.id,
        dimension=encoder.dimension,
        size=size,
        limit=limit,
        describe=describe,
    )
