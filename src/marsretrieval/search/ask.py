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


def make_query(
    encoder: QueryEncoder | None,
    *,
    text: str | Sequence[str] | None = None,
    images: Sequence[Any] = (),
    tiles: npt.ArrayLike | None = None,
    not_text: Sequence[str] = (),
    not_images: Sequence[Any] = (),
    not_tiles: npt.ArrayLike | None = None,
    raw: bool = False,
    mix: float = MIX,
    not_weight: float = NOT_WEIGHT,
) -> npt.NDArray[np.float32]:
    """(dimension,) of unit length, for a text, example images, stored tiles, or all of them, away
    from others (see `queries.compose`).

    A text goes through the three published templates unless `raw`; of several texts the vectors
    are averaged. images: Pillow images or arrays (`datasets.rgb_of`). tiles: (n, dimension) vectors
    of the store, taken as images; with nothing but tiles there is no need of an encoder. Raises
    UsageError without a wanted part, ModalityError for a text asked of a vision-only model.
    """
    texts = [text] if isinstance(text, str) else list(text or ())
    if not texts and not len(images) and tiles is None:
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
        text=_texts_vector(encoder, texts, raw=raw) if texts else None,
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

    prompts = prompts_of(text, raw=raw)
    return text_query(embed_texts(_needed(encoder), prompts))


def prompts_of(text: str, *, raw: bool = False) -> list[str]:
    """What is sent to the model for a text: the three published templates, or it alone."""
    return [text] if raw else list(geolocalization_prompts(text))


def _texts_vector(
    encoder: QueryEncoder | None, texts: Sequence[str], *, raw: bool
) -> npt.NDArray[np.float32]:
    """(dimension,) of unit length, the mean of the texts' vectors."""
    vectors = [text_vector(encoder, text, raw=raw) for text in texts]
    return vectors[0] if len(vectors) == 1 else text_query(np.stack(vectors))


def read_images(items: Sequence[Any]) -> list[Image]:
    """Read images as RGB.

    Args:
        items: Paths, Pillow images or arrays, each converted by the same rules.

    Returns:
        One RGB image per item.

    Raises:
        DataError: If a file cannot be read.
        ImageError: If an item is no image; it names the file.
    """
    from marsretrieval.datasets import MAX_BYTES, decode_rgb, read_regular, rgb_of

    images = []
    for number, item in enumerate(items, 1):
        if not isinstance(item, str | Path):
            images.append(rgb_of(item, f"image {number}"))
            continue
        path = Path(item)
        try:
            data = read_regular(path, MAX_BYTES)
        except ValueError as error:
            raise DataError(f"{path}: {error}", remedy="Name an image file.") from error
        images.append(decode_rgb(data, str(path)))
    return images


def _image_vectors(encoder: QueryEncoder | None, images: Sequence[Any]) -> npt.NDArray[np.float32]:
    from marsretrieval.embeddings import embed_images

    return embed_images(_needed(encoder), read_images(images))


def _needed(encoder: QueryEncoder | None) -> QueryEncoder:
    if encoder is None:
        raise UsageError("texts and images need the model of the store")
    return encoder


def _unit_rows(vectors: npt.ArrayLike) -> npt.NDArray[Any]:
    """Stored vectors are rounded: of unit length again."""
    rows = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12))
