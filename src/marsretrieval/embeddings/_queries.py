"""A few texts or images through a model, in batches that fit it, without a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from marsretrieval.embeddings._forward import Forward, batch_sizes, quote_text

if TYPE_CHECKING:
    from marsretrieval.encoders import TextRole

Vectors = npt.NDArray[np.float32]


class QueryEncoder(Protocol):
    """The part of an encoder that queries need."""

    @property
    def id(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors: ...

    def encode_texts(self, texts: Sequence[str], *, role: TextRole = "query") -> Vectors: ...


def embed_images(encoder: QueryEncoder, images: Sequence[Image.Image]) -> Vectors:
    """(n, dimension) of n images, one at least. Raises ModelLoadError whatever goes wrong in the
    model."""
    return _forward(encoder, encoder.encode_images)(images)


def embed_texts(
    encoder: QueryEncoder, texts: Sequence[str], *, role: TextRole = "query"
) -> Vectors:
    """(n, dimension) of n texts, one at least. Raises ModelLoadError whatever goes wrong in the
    model."""
    return _forward(encoder, partial(encoder.encode_texts, role=role), quote_text)(texts)


def _forward(
    encoder: QueryEncoder,
    embed: Callable[[Sequence[Any]], Vectors],
    describe: Callable[[Any], str] | None = None,
) -> Forward:
    size, limit = batch_sizes(encoder)
    return Forward(
        embed,
        name=encoder.id,
        dimension=encoder.dimension,
        size=size,
        limit=limit,
        describe=describe,
    )
