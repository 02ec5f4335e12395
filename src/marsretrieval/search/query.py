"""From what someone types, shows or points at to one query vector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from marsretrieval.embeddings import QueryEncoder

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


TEMPLATES = (
    "a photo of {}, a type of martian terrain",
    "a satellite photo of {}.",
    "a high-resolution remote sensing image of {} on Mars.",
)


def landform_prompts(name: str) -> list[str]:
    """Prompts of landform retrieval; underscores and hyphens of the class name become spaces."""
    return [template.format(name.replace("_", " ").replace("-", " ")) for template in TEMPLATES]


def geolocalization_prompts(name: str) -> list[str]:
    """Prompts of geo-localization; underscores become spaces, hyphens stay."""
    return [template.format(name.replace("_", " ")) for template in TEMPLATES]


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
