"""Sanity checks of a loaded model on two images and two texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from marsretrieval.errors import MarsRetrievalError, describe_exception

if TYPE_CHECKING:
    from marsretrieval.encoders.base import Encoder, Vectors

_Value = TypeVar("_Value")

_TEXTS = ("a satellite photo of pitted cones.", "sand")  # different lengths require padding

_UNIT = 1e-3
# Largest difference of a coordinate between a batch and one item at a time. Half precision rounds
# differently in batches of other shapes; a wrong mask or padding side has far larger effects.
_BATCH = 1e-4
_BATCH_HALF = 2e-2


def check_encoder(encoder: Encoder) -> dict[str, Any]:
    """Embed two images and two texts, together and one at a time, and compare the vectors.

    One image is wide and the other tall, one text is long and the other short, so that batches
    require padding.

    Args:
        encoder: The model.

    Returns:
        JSON-ready measurements. `problems` lists all faults; a failure of the encoder is listed,
        not raised.
    """
    problems: list[str] = []
    report: dict[str, Any] = {
        "id": encoder.id,
        "dimension": encoder.dimension,
        "modalities": sorted(encoder.modalities),
    }
    fingerprint = dict(_try(lambda: encoder.fingerprint, problems, "fingerprint") or {})
    limit = _limit(fingerprint)
    images = _try(
        lambda: _embed(encoder.encode_images, _test_images(), limit, problems, "images"),
        problems,
        "images",
    )
    if images is not None:
        report["images"] = images[1]
    if "text" in encoder.modalities:
        texts = _try(
            lambda: _embed(encoder.encode_texts, list(_TEXTS), limit, problems, "texts"),
            problems,
            "texts",
        )
        if texts is not None:
            cut = _try(lambda: encoder.count_truncated(_TEXTS), problems, "count_truncated")
            report["texts"] = {
                **texts[1],
                "embedded": list(_TEXTS),
                "cut_at_context_length": cut,
            }
        if images is not None and texts is not None:
            cosines = images[0] @ texts[0].T
            report["cosines"] = [[round(float(cosine), 4) for cosine in row] for row in cosines]
    return {**report, "fingerprint": fingerprint, "problems": problems}


def check_batches(encoder: Encoder) -> list[str]:
    """Compare batches of two images and two texts with one at a time, before a benchmark.

    Args:
        encoder: The model.

    Returns:
        One line per problem. Texts that the encoder rejects are not a problem, since it may support
        the texts of its task only.
    """
    problems: list[str] = []
    limit = _limit(_try(lambda: encoder.fingerprint, problems, "fingerprint") or {})
    _try(
        lambda: _embed(encoder.encode_images, _test_images(), limit, problems, "images"),
        problems,
        "images",
    )
    if "text" in encoder.modalities:
        _try(
            lambda: _embed(encoder.encode_texts, list(_TEXTS), limit, problems, "texts"),
            [],
            "texts",
        )
    return problems


def _limit(fingerprint: Mapping[str, Any]) -> float:
    return _BATCH if fingerprint.get("dtype", "float32") == "float32" else _BATCH_HALF


def _try(function: Callable[[], _Value], problems: list[str], what: str) -> _Value | None:
    """Call a function of an encoder and append its failure to the problems."""
    try:
        return function()
    except MarsRetrievalError as error:
        problems.append(f"{what}: {error.message}")
    except Exception as error:
        problems.append(f"{what}: {describe_exception(error)}")
    return None


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
        problems.append(f"{what}: batch and single vectors differ by {difference:.1e}")
    if np.array_equal(together[0], together[1]):
        problems.append(f"{what}: two different inputs have the same vector")
    return together, {
        "seconds": round(seconds, 3),
        "off_unit_length": length,
        "batch_difference": difference,
    }


def _test_images() -> list[Image.Image]:
    """Create a wide image, brighter to the right, and a tall one with rings."""
    ramp = np.tile(np.linspace(0, 255, 256).astype(np.uint8), (192, 1))
    down, across = np.mgrid[-1:1:256j, -0.5:0.5:128j]
    rings = (127.5 + 127.5 * np.cos(20 * np.hypot(down, across))).astype(np.uint8)
    return [Image.fromarray(pixels).convert("RGB") for pixels in (ramp, rings)]
