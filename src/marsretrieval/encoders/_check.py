"""Does a loaded model behave? Two images, two texts, and what must hold of their vectors."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from marsretrieval.encoders._protocol import Encoder, Vectors

__all__ = ["check_encoder"]

_TEXTS = ("a satellite photo of pitted cones.", "sand")  # of different lengths: padding shows

_UNIT = 1e-3
# Largest difference of a coordinate between a batch and one item at a time. Half precision
# rounds otherwise in batches of other shapes; a wrong mask or padding side moves far more.
_BATCH = 1e-4
_BATCH_HALF = 2e-2


def check_encoder(encoder: Encoder) -> dict[str, Any]:
    """JSON-ready: what was seen, and in `problems` what must not be.

    An image is wide and the other tall, a text is long and the other short, so that a batch has
    something to pad.
    """
    fingerprint = encoder.fingerprint
    limit = _BATCH if fingerprint.get("dtype", "float32") == "float32" else _BATCH_HALF
    found: dict[str, Any] = {
        "id": encoder.id,
        "dimension": encoder.dimension,
        "modalities": sorted(encoder.modalities),
    }
    problems: list[str] = []
    images, found["images"] = _embed(encoder.encode_images, _pictures(), limit, problems, "images")
    if "text" in encoder.modalities:
        texts, found["texts"] = _embed(encoder.encode_texts, list(_TEXTS), limit, problems, "texts")
        found["texts"]["embedded"] = list(_TEXTS)
        found["texts"]["cut_at_context_length"] = encoder.count_truncated(_TEXTS)
        found["cosines"] = [[round(float(each), 4) for each in row] for row in images @ texts.T]
    return {**found, "fingerprint": fingerprint, "problems": problems}


def _embed(
    encode: Callable[[Sequence[Any]], Vectors],
    items: list[Any],
    limit: float,
    problems: list[str],
    what: str,
) -> tuple[Vectors, dict[str, Any]]:
    start = time.perf_counter()
    together = encode(items)
    seconds = time.perf_counter() - start
    alone = np.concatenate([encode([item]) for item in items])
    length = float(np.abs(np.linalg.norm(together, axis=1) - 1).max())
    difference = float(np.abs(together - alone).max())
    if not length <= _UNIT:
        problems.append(f"{what}: vectors are not of unit length (off by {length:.1e})")
    if not difference <= limit:
        problems.append(f"{what}: a batch differs from one by one by {difference:.1e}")
    if np.array_equal(together[0], together[1]):
        problems.append(f"{what}: two different ones gave the same vector")
    return together, {
        "seconds": round(seconds, 3),
        "off_unit_length": length,
        "batch_difference": difference,
    }


def _pictures() -> list[Image.Image]:
    """A wide one, brighter to the right, and a tall one with rings."""
    ramp = np.tile(np.linspace(0, 255, 256).astype(np.uint8), (192, 1))
    down, across = np.mgrid[-1:1:256j, -0.5:0.5:128j]
    rings = (127.5 + 127.5 * np.cos(20 * np.hypot(down, across))).astype(np.uint8)
    return [Image.fromarray(each).convert("RGB") for each in (ramp, rings)]
