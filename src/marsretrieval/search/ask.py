"""From what someone types, shows or points at to one query vector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError, UsageError
from marsretrieval.search.prompts import geolocalization_prompts
from marsretrieval.search.queries import MIX, NOT_WEIGHT, compose, text_query

if TYPE_CHECKING:
    from PIL.Image import Image

    from marsretrieval.embeddings import QueryEncoder

__all__ = ["make_query", "read_images", "text_vector"]


def make_query(
    encoder: QueryEncoder | None,
    *,
    text: str | None = None,
    images: Sequence[Image] = (),
    tiles: npt.ArrayLike | None = None,
    not_text: Sequence[str] = (),
    not_images: Sequence[Image] = (),
    not_tiles: npt.ArrayLike | None = None,
    raw: bool = False,
    mix: float = MIX,
    not_weight: float = NOT_WEIGHT,
) -> npt.NDArray[np.float32]:
    """(dimension,) of unit length, for a text, example images, stored tiles, or all of them, away
    from others (see `queries.compose`).

    A text goes through the three published templates unless `raw`. tiles: (n, dimension) vectors
    of the store, taken as images; with nothing but tiles there is no need of an encoder. Raises
    UsageError without a wanted part, ModalityError for a text asked of a vision-only model.
    """
    if text is None and not images and tiles is None:
        raise UsageError(
            "a search needs a text, an image or a tile to look for",
            remedy="What is not wanted comes on top of it.",
        )
    against = [
        *(text_vector(encoder, each, raw=raw)[None] for each in not_text),
        *([_image_vectors(encoder, not_images)] if not_images else []),
        *([_unit_rows(not_tiles)] if not_tiles is not None else []),
    ]
    examples = [
        *([_image_vectors(encoder, images)] if images else []),
        *([_unit_rows(tiles)] if tiles is not None else []),
    ]
    return compose(
        text=None if text is None else text_vector(encoder, text, raw=raw),
        examples=np.concatenate(examples) if examples else None,
        against=np.concatenate(against) if against else None,
        mix=mix,
        not_weight=not_weight,
    )


def text_vector(
    encoder: QueryEncoder | None, text: str, *, raw: bool = False
) -> npt.NDArray[np.float32]:
    """(dimension,): the mean over the three published templates, or the text alone with `raw`."""
    if not text.strip():
        raise UsageError("an empty text finds nothing", remedy="Name what to look for.")
    from marsretrieval.embeddings import embed_texts

    prompts = [text] if raw else geolocalization_prompts(text)
    return text_query(embed_texts(_needed(encoder), prompts))


def read_images(paths: Sequence[Path]) -> list[Image]:
    """Decode image files. Raises DataError or ImageError naming the file."""
    from marsretrieval.datasets import MAX_BYTES, decode_rgb, read_regular

    images = []
    for path in paths:
        try:
            data = read_regular(path, MAX_BYTES)
        except ValueError as error:
            raise DataError(f"{path}: {error}", remedy="Name an image file.") from error
        images.append(decode_rgb(data, str(path)))
    return images


def _image_vectors(
    encoder: QueryEncoder | None, images: Sequence[Image]
) -> npt.NDArray[np.float32]:
    from marsretrieval.embeddings import embed_images

    return embed_images(_needed(encoder), images)


def _needed(encoder: QueryEncoder | None) -> QueryEncoder:
    if encoder is None:
        raise UsageError("texts and images need the model of the store")
    return encoder


def _unit_rows(vectors: npt.ArrayLike) -> npt.NDArray[Any]:
    """Stored vectors are rounded: of unit length again."""
    rows = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12))
