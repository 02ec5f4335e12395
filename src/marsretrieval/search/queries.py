"""Query vectors: of prompts, of example images and of both, as the paper makes them; and away
from what is not wanted.

All are (dimension,) float32 of unit length; inputs are (n, dimension) with unit rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import UsageError

Vector = npt.NDArray[np.float32]

MIX = 0.3  # share of the images beside a text
NOT_WEIGHT = 0.25  # of what is not wanted, the wanted being 1


def compose(
    *,
    text: npt.ArrayLike | None = None,
    examples: npt.ArrayLike | None = None,
    against: npt.ArrayLike | None = None,
    mix: float = MIX,
    not_weight: float = NOT_WEIGHT,
) -> Vector:
    """The one query of all its parts.

    text: (dimension,), from `text_query`. examples: (n, dimension) of images or stored tiles.
    against: (m, dimension), one row for each text, image or tile that is not wanted. The wanted
    parts make `hybrid_query`, or the one there is; `away_query` turns it from the others. Raises
    UsageError without a wanted part.
    """
    if text is None and examples is None:
        raise UsageError("a search needs a text, an image or a tile to look for")
    if text is None:
        wanted = image_query(_rows(examples))
    elif examples is None:
        wanted = text_query(_rows(text))
    else:
        wanted = hybrid_query(examples, text, mix=mix)
    return wanted if against is None else away_query(wanted, against, not_weight)


def text_query(prompt_vectors: npt.ArrayLike) -> Vector:
    """Mean of the prompts' vectors, of unit length."""
    return _unit(_rows(prompt_vectors).mean(axis=0))


def image_query(image_vectors: npt.ArrayLike) -> Vector:
    """Mean of the example images' vectors, of unit length."""
    return _unit(_rows(image_vectors).mean(axis=0))


def hybrid_query(
    image_vectors: npt.ArrayLike,
    text_query: npt.ArrayLike,
    mix: float = MIX,
    temperature: float = 0.1,
) -> Vector:
    """Example images weighted by how well they fit the text, mixed with the text.

    With w = softmax(images @ text / temperature) and u(x) = x / norm(x):
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


def away_query(wanted: npt.ArrayLike, against: npt.ArrayLike, weight: float = NOT_WEIGHT) -> Vector:
    """A query turned away from what is not wanted: u(wanted - weight * u(mean of against)).

    Rocchio's relevance feedback (in Salton, The SMART Retrieval System, 1971, ch. 14; Manning,
    Raghavan and Schuetze, Introduction to Information Retrieval, 2008, sec. 9.1.1) with the wanted
    query for alpha q + beta (mean of relevant) and `weight` for gamma, and with mean vectors of
    unit length, so that the weight does not depend on how alike the parts are. 0 changes nothing.
    """
    if not 0 <= weight <= 1:
        raise UsageError(
            f"weight {weight:g} of what is not wanted is not within 0..1",
            remedy="The weight of what is wanted is 1.",
        )
    mean = _unit64(_rows(against).mean(axis=0))
    return _unit(_unit64(np.asarray(wanted, dtype=np.float64)) - weight * mean)


def _rows(vectors: npt.ArrayLike | None) -> npt.NDArray[np.float64]:
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
