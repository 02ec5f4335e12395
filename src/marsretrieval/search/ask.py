"""From what someone types or shows to one query vector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from marsretrieval.datasets import decode_rgb
from marsretrieval.errors import DataError, UsageError
from marsretrieval.search.prompts import geolocalization_prompts
from marsretrieval.search.queries import hybrid_query, image_query, text_query

__all__ = ["QueryEncoder", "make_query", "read_images"]


class QueryEncoder(Protocol):
    """The part of an encoder that queries need."""

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]: ...

    def encode_texts(
        self, texts: Sequence[str], *, role: Literal["query", "caption"] = "query"
    ) -> npt.NDArray[np.float32]: ...


def make_query(
    encoder: QueryEncoder,
    *,
    text: str | None = None,
    images: Sequence[Image.Image] = (),
    raw: bool = False,
    mix: float = 0.3,
) -> npt.NDArray[Any]:
    """(dimension,) of unit length, for a text, example images, or both.

    A text goes through the three published templates unless `raw`; `mix` is the share of the
    images where there is a text too. Raises UsageError without either, ModalityError for a text
    asked of a vision-only model.
    """
    if text is None and not images:
        raise UsageError("a search needs a text, an image, or both")
    examples = encoder.encode_images(images) if images else None
    if text is None:
        assert examples is not None
        return image_query(examples)
    prompts = [text] if raw else geolocalization_prompts(text)
    words = text_query(encoder.encode_texts(prompts, role="query"))
    return words if examples is None else hybrid_query(examples, words, mix=mix)


def read_images(paths: Sequence[Path]) -> list[Image.Image]:
    """Decode image files. Raises DataError or ImageError naming the file."""
    images = []
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        images.append(decode_rgb(data, str(path)))
    return images
