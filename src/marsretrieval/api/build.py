"""Build a store of embeddings from Python."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from marsretrieval import embeddings
from marsretrieval.api.store import Store, open_store
from marsretrieval.datasets import open_sources
from marsretrieval.embeddings import ModelRequest
from marsretrieval.encoders import LoadOptions
from marsretrieval.encoders.base import PromptPreset
from marsretrieval.encoders.loading import ModelLike, resolve_model
from marsretrieval.errors import (
    as_optional,
    as_path,
    as_paths,
)
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.text import pluralize

_LOG = logging.getLogger(__name__)


def build_store(
    model: ModelLike,
    images: str | Path | Sequence[str | Path],
    store: str | Path,
    *,
    vectors: str = "float16",
    batch_size: int | None = None,
    workers: int | None = None,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    prompts: PromptPreset = "paper",
    offline: bool = False,
    trust_remote_code: bool = False,
    strict: bool = False,
    force: bool = False,
    progress: Progress = NO_PROGRESS,
) -> Store:
    """Embed images into a store; an interrupted build resumes.

    The same as ``marsretrieval embed``. Messages go to the logger ``marsretrieval``.

    Args:
        model: A name, ``"module:Class"``, a class, or an object with `encode_images`.
        images: Folder, WebDataset tars, Parquet files or tables of pairs, or a list of these.
        store: Folder of the store.
        vectors: Precision of the stored vectors, ``"float16"`` or ``"float32"``.
        batch_size: Images per batch; default: chosen for the device.
        workers: Threads that decode images; default: one per CPU.
        checkpoint: Local weights in place of the published ones.
        device: As of `load_model`.
        dtype: As of `load_model`.
        prompts: As of `load_model`.
        offline: As of `load_model`.
        trust_remote_code: As of `load_model`.
        strict: Fail if an image cannot be read or embedded.
        force: Embed again what is done.
        progress: Shows the progress of the work.

    Returns:
        The store, ready to be searched.

    Raises:
        DataError: If there are no images, or, with `strict`, if one cannot be used.
        StoreMismatchError: If the store was made by another model or from other images.
        ModelLoadError: If the model cannot be loaded.
    """
    options = LoadOptions(
        device=device,
        dtype=dtype,
        checkpoint=as_optional(as_path, checkpoint, "checkpoint"),
        prompts=prompts,
        offline=offline,
        trust_remote_code=trust_remote_code,
    )
    resolved = resolve_model(model, options)
    target = as_path(store, "store")
    source = open_sources(as_paths(images, "images"))
    encoder = resolved.load()
    report = embeddings.build_store(
        encoder,
        source,
        target,
        dtype=vectors,
        batch_size=batch_size,
        workers=workers,
        strict=strict,
        force=force,
        request=ModelRequest.from_spec(resolved.spec, resolved.options),
        progress=progress,
    )
    for item in report.skipped:
        _LOG.warning("%s: left out: %s", item.source, item.reason)
    for warning in report.warnings:
        _LOG.warning("%s: %s", warning.source, warning.reason)
    if report.skipped:
        _LOG.warning("%s: %s left out", store, pluralize(len(report.skipped), "image"))
    return open_store(store, encoder=encoder)
