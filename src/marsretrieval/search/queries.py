"""Query vectors as the paper makes them: of prompts, of example images, and of both.

All are (dimension,) float32 of unit length; inputs are (n, dimension) with unit rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import UsageError

__all__ = ["hybrid_query", "image_query", "text_query"]

Vector = npt.NDArray[np.float32]


def text_query(prompt_vectors: npt.ArrayLike) -> Vector:
    """Mean of the prompts' vectors, of unit length."""
    return _unit(_rows(prompt_vectors).mean(axis=0))


def image_query(image_vectors: npt.ArrayLike) -> Vector:
    """Mean of the example images' vectors, of unit length."""
    return _unit(_rows(image_vectors).mean(axis=0))


def hybrid_query(
    image_vectors: npt.ArrayLike,
    text_query: npt.ArrayLike,
    mix: float = 0.3,
    temperature: float = 0.1,
) -> Vector:
    """Example images weighted by how well they fit the text, mixed with the text.

    With w = softmax(images @ text / temperature) and u(x) = x / |x|:
    u(mix * u(sum of w_i image_i) + (1 - mix) * text). `mix` is the share of the images, 0 to 1.
    """
    if not 0 <= mix <= 1:
        raise UsageError(f"mix {mix:g} is not within 0..1", remedy="It is the share of the images.")
    if not temperature > 0:
        raise UsageError(f"temperature {temperature:g} is not above 0")
    images = _rows(image_vectors)
    text = np.asarray(text_query, dtype=np.float64)
    logits = images @ text / temperature
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    return _unit(mix * _unit64(weights @ images) + (1 - mix) * text)


def _rows(vectors: npt.ArrayLike) -> npt.NDArray[np.float64]:
    rows = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
    if not rows.size:
        raise UsageError("a query needs at least one prompt or image")
    return rows


def _unit64(vector: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length < 1e-12:
        raise UsageError("the parts of the query cancel each other out: there is nothing to find")
    return np.asarray(vector / length, dtype=np.float64)


def _unit(vector: npt.NDArray[Any]) -> Vector:
    return _unit64(vector).astype(np.float32)
