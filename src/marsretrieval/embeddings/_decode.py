"""Decode images and run the preprocessing of each model on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from marsretrieval.datasets import (
    ItemWarning,
    Record,
    Skipped,
    content_hash,
    decode_image,
    decode_rgb,
)
from marsretrieval.embeddings._shards import Item
from marsretrieval.errors import ImageError, MarsRetrievalError, describe_exception

__all__ = ["Answers", "Decoded", "Preprocess", "decode"]

Preprocess = Callable[[Image.Image], Any]


@dataclass(frozen=True, slots=True)
class Decoded:
    """One image, ready for every model that wants it.

    `features` has what each model's preprocessing gave, or a Skipped where it failed.
    """

    item: Item
    features: tuple[Any, ...]
    seconds: float  # spent decoding and preprocessing, in its worker
    warnings: tuple[ItemWarning, ...] = ()


Answers = list[Decoded | Skipped]


def decode(records: Sequence[Record], preprocess: Sequence[Preprocess]) -> Answers:
    """Each record for each of the models; what cannot be decoded is a Skipped."""
    return [_decode(record, preprocess) for record in records]


def _decode(record: Record, preprocess: Sequence[Preprocess]) -> Decoded | Skipped:
    start = time.perf_counter()
    try:
        grey = any(_accepts_grey(function) for function in preprocess)
        image = (decode_image if grey else decode_rgb)(record.data, record.source)
    except ImageError as error:
        return Skipped(record.id, record.source, error.message)
    features = tuple(_features(image, function, record) for function in preprocess)
    item = Item(
        id=record.id,
        source=record.source,
        content=content_hash(record.data),
        lon=record.lon,
        lat=record.lat,
        width_deg=record.width_deg,
        height_deg=record.height_deg,
        valid=record.valid,
    )
    return Decoded(item, features, time.perf_counter() - start, record.warnings)


def _features(image: Image.Image, preprocess: Preprocess, record: Record) -> Any | Skipped:
    try:
        if image.mode == "L" and not _accepts_grey(preprocess):
            image = image.convert("RGB")
        return preprocess(image)
    except MemoryError as error:  # no fault of this image: next time there may be enough
        raise MarsRetrievalError(
            f"{record.source}: no memory left to prepare it for the model",
            remedy="Use fewer --workers, a smaller --batch-size, or fewer models at once.",
        ) from error
    except Exception as error:  # a user's encoder may raise anything, for one odd image too
        reason = f"the model's preprocessing failed: {describe_exception(error)}"
        return Skipped(record.id, record.source, reason)


def _accepts_grey(preprocess: Preprocess) -> bool:
    """Check for `accepts_grey`, see `marsretrieval.encoders.Encoder.preprocess`."""
    return getattr(preprocess, "accepts_grey", False) is True
