"""Compose a query vector from texts, example images and example tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError, UsageError
from marsretrieval.text import has_control_characters, printable

if TYPE_CHECKING:
    from PIL.Image import Image

    from marsretrieval.encoders.base import QueryEncoder

Vector = npt.NDArray[np.float32]

MIX = 0.3  # weight of the images in a text+image query
NOT_WEIGHT = 0.25  # weight of the negative parts; the positive ones have weight 1
MIN_EXAMPLES = 3  # examples in all, from which a search learns instead of averaging

# Templates of the published ablation, in its order: its steps use the first 1, 3, 5, 7 and 10
# (github.com/Claydon-Wang/MarsRetriveal, branch ablation).
PUBLISHED_TEMPLATES = (
    "a photo of {}, a type of martian terrain",
    "a satellite photo of {}.",
    "a high-resolution remote sensing image of {} on Mars.",
    "a detailed satellite view of {} geomorphic feature from Mars.",
    "an aerial perspective of {} morphological structure on Mars.",
    "high-definition remote sensing photo of {} on the red planet.",
    "a CTX or HiRISE image showing {} terrain on Mars.",
    "an orbital image of {} landform on the Martian surface.",
    "Martian {} as captured in space-based imagery.",
    "planetary-scale capture of {} in Martian geology.",
)
TEMPLATES = PUBLISHED_TEMPLATES[:3]  # of the published evaluation

_MAX_TEMPLATES_BYTES = 2**20


def compose(
    *,
    text: npt.ArrayLike | None = None,
    examples: npt.ArrayLike | None = None,
    against: npt.ArrayLike | None = None,
    mix: float = MIX,
    not_weight: float = NOT_WEIGHT,
) -> Vector:
    """Compose one query vector from the vectors of its parts.

    Text and examples are combined by `hybrid_query`; `away_query` subtracts the negative parts.

    Args:
        text: Vector of shape (dim,), from `text_query`.
        examples: Vectors of images or stored tiles, shape (n, dim).
        against: Vectors of negative texts, images or tiles, shape (m, dim).
        mix: Weight of the examples in a text+image query, 0 to 1.
        not_weight: Weight of the negative parts, 0 to 1.

    Returns:
        float32 array of shape (dim,), unit length.

    Raises:
        UsageError: If there is neither text nor example, a weight is out of range, or the parts
            cancel each other out.
    """
    if text is None and examples is None:
        raise UsageError(
            "a search needs a text, an image or a tile to look for",
            remedy="Give a text, an example image or an example tile.",
        )
    if text is None:
        query = image_query(_as_rows(examples))
    elif examples is None:
        query = text_query(_as_rows(text))
    else:
        query = hybrid_query(examples, text, mix=mix)
    return query if against is None else away_query(query, against, not_weight)


def read_vector(path: str | Path) -> Vector:
    """Read a query vector, such as the one that an inventory has learned.

    Args:
        path: NumPy file (.npy) of shape (dim,) or (1, dim).

    Returns:
        float32 array of shape (dim,), unit length.

    Raises:
        DataError: If the file cannot be read or holds something else.
    """
    path = Path(path)
    try:
        values = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file", remedy="Name a .npy file.") from error
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{path}: not readable as a NumPy array ({reason})", remedy="Name a .npy file."
        ) from error
    except (ValueError, EOFError) as error:  # numpy's text recommends unsafe options
        raise DataError(f"{path}: not a NumPy array", remedy="Name a .npy file.") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise DataError(f"{path}: not an array of numbers", remedy="Name a .npy file.")
    vector = values.astype(np.float64).reshape(-1) if values.ndim == 2 else values
    if vector.ndim != 1 or (values.ndim == 2 and len(values) != 1):
        raise DataError(
            f"{path}: shape {values.shape}, not one vector",
            remedy="Save one vector of shape (dim,) or (1, dim).",
        )
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(length) or length < 1e-12:
        raise DataError(
            f"{path}: the vector is zero, NaN or infinite",
            remedy="Save a vector of finite numbers that are not all 0.",
        )
    return np.asarray(vector / length, dtype=np.float32)


def text_query(prompt_vectors: npt.ArrayLike) -> Vector:
    """Average prompt vectors.

    Args:
        prompt_vectors: Array of shape (n, dim) or (dim,).

    Returns:
        The mean, scaled to unit length, shape (dim,).

    Raises:
        UsageError: If there are no vectors, or their mean is zero.
    """
    return _unit(_as_rows(prompt_vectors).mean(axis=0))


def image_query(image_vectors: npt.ArrayLike) -> Vector:
    """Average the vectors of example images.

    Args:
        image_vectors: Array of shape (n, dim) or (dim,).

    Returns:
        The mean, scaled to unit length, shape (dim,).

    Raises:
        UsageError: If there are no vectors, or their mean is zero.
    """
    return _unit(_as_rows(image_vectors).mean(axis=0))


def hybrid_query(
    image_vectors: npt.ArrayLike,
    text_query: npt.ArrayLike,
    mix: float = MIX,
    temperature: float = 0.1,
) -> Vector:
    """Combine example images, weighted by their similarity to the text, with the text.

    With w = softmax(images @ text / temperature) and u(x) = x / norm(x), the query is
    u(mix * u(sum of w_i image_i) + (1 - mix) * text).

    Args:
        image_vectors: Array of shape (n, dim).
        text_query: Array of shape (dim,).
        mix: Weight of the images, 0 to 1.
        temperature: Softmax temperature, above 0.

    Returns:
        float32 array of shape (dim,), unit length.

    Raises:
        UsageError: If a parameter is out of range, or the parts cancel each other out.
    """
    if not 0 <= mix <= 1:
        raise UsageError(
            f"mix {mix:g} is not within 0..1", remedy="It is the weight of the example images."
        )
    if not temperature > 0:
        raise UsageError(
            f"temperature {temperature:g} is not above 0", remedy="Give a positive number."
        )
    images = _as_rows(image_vectors)
    text = np.asarray(text_query, dtype=np.float64)
    logits = images @ text / temperature
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    return _unit(mix * _unit64(weights @ images) + (1 - mix) * text)


def away_query(query: npt.ArrayLike, against: npt.ArrayLike, weight: float = NOT_WEIGHT) -> Vector:
    """Move a query away from negative examples: u(query - weight * u(mean of against)).

    Rocchio's relevance feedback (in Salton, The SMART Retrieval System, 1971, ch. 14; Manning,
    Raghavan and Schuetze, Introduction to Information Retrieval, 2008, sec. 9.1.1) with the query
    for alpha q + beta (mean of relevant) and `weight` for gamma, and with mean vectors of unit
    length, so that the weight does not depend on how similar the parts are.

    Args:
        query: Array of shape (dim,).
        against: Vectors of negative parts, shape (m, dim).
        weight: Weight of the negative parts, 0 to 1; 0 has no effect.

    Returns:
        float32 array of shape (dim,), unit length.

    Raises:
        UsageError: If the weight is out of range, or the parts cancel each other out.
    """
    if not 0 <= weight <= 1:
        raise UsageError(
            f"weight {weight:g} of the negative examples is not within 0..1",
            remedy="The weight of the positive examples is 1.",
        )
    mean = _unit64(_as_rows(against).mean(axis=0))
    return _unit(_unit64(np.asarray(query, dtype=np.float64)) - weight * mean)


def _as_rows(vectors: npt.ArrayLike | None) -> npt.NDArray[np.float64]:
    rows = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
    if not rows.size:
        raise UsageError("a query needs at least one prompt or image")
    return rows


def _unit64(vector: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length < 1e-12:
        raise UsageError(
            "the parts of the query cancel out",
            remedy="Change the examples or the weights.",
        )
    return np.asarray(vector / length, dtype=np.float64)


def _unit(vector: npt.NDArray[Any]) -> Vector:
    return _unit64(vector).astype(np.float32)


def landform_prompts(name: str, templates: Sequence[str] = TEMPLATES) -> list[str]:
    """Return the prompts of landform retrieval.

    Args:
        name: Class name; underscores and hyphens become spaces.
        templates: Prompt templates with {} for the name.

    Returns:
        One prompt per template.
    """
    phrase = name.replace("_", " ").replace("-", " ")
    return [template.replace("{}", phrase) for template in templates]


def geolocalization_prompts(name: str, templates: Sequence[str] = TEMPLATES) -> list[str]:
    """Return the prompts of geo-localization.

    Args:
        name: Landform name; underscores become spaces, hyphens stay.
        templates: Prompt templates with {} for the name.

    Returns:
        One prompt per template.
    """
    phrase = name.replace("_", " ")
    return [template.replace("{}", phrase) for template in templates]


def choose_templates(choice: str | int | Path | Sequence[str]) -> tuple[str, ...]:
    """Choose the prompt templates of an evaluation.

    Args:
        choice: Number of the published templates, from the first; or a text file with one template
            per line; or the templates.

    Returns:
        Templates, each with one {}.

    Raises:
        UsageError: If there are not as many published templates, or a template lacks {}.
        DataError: If the file cannot be read or is empty.
    """
    if isinstance(choice, int) or (isinstance(choice, str) and choice.isdecimal()):
        count = int(choice)
        if not 1 <= count <= len(PUBLISHED_TEMPLATES):
            raise UsageError(
                f"{count} templates: {len(PUBLISHED_TEMPLATES)} are published",
                remedy=f"Give 1 to {len(PUBLISHED_TEMPLATES)}, or a file with one template per "
                "line.",
            )
        return PUBLISHED_TEMPLATES[:count]
    remedy = "Write one template per line, with {} for the name of the landform."
    if isinstance(choice, str | Path):
        source = str(choice)
        templates = _read_lines(Path(choice), remedy)
    else:
        source, templates = "templates", tuple(choice)
    for number, template in enumerate(templates, 1):
        if template.count("{}") != 1:
            raise UsageError(
                f"{source}: template {number} has {template.count('{}')} {{}}: {template!r}",
                remedy=remedy,
            )
    if len(set(templates)) < len(templates):
        raise UsageError(f"{source}: a template appears twice", remedy="Remove one of them.")
    if not templates:
        raise DataError(f"{source}: no template", remedy=remedy)
    return templates


def name_templates(templates: Sequence[str]) -> int | list[str]:
    """Name the templates of an evaluation, for its settings.

    Args:
        templates: Prompt templates.

    Returns:
        Their number if they are the first of the published templates, else the templates.
    """
    published = tuple(templates) == PUBLISHED_TEMPLATES[: len(templates)]
    return len(templates) if published else list(templates)


def _read_lines(path: Path, remedy: str) -> tuple[str, ...]:
    try:
        if not path.is_file() or path.stat().st_size > _MAX_TEMPLATES_BYTES:
            raise DataError(f"{path}: not a file of templates", remedy=remedy)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})", remedy=remedy) from error
    return tuple(line.strip() for line in text.splitlines() if line.strip())


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
    """Embed texts and images and compose one query vector; see `compose`.

    Args:
        encoder: The encoder of the store; not needed if the query consists of tiles only.
        text: Text, or several whose vectors are averaged.
        images: Example images: paths, Pillow images or arrays (see `datasets.rgb_of`).
        tiles: Vectors of example tiles of the store, shape (n, dim), treated as images.
        not_text: Negative texts.
        not_images: Negative images.
        not_tiles: Vectors of negative tiles, shape (m, dim).
        raw: Embed texts without the three published prompt templates.
        mix: Weight of the examples in a text+image query, 0 to 1.
        not_weight: Weight of the negative parts, 0 to 1.

    Returns:
        float32 array of shape (dim,), unit length.

    Raises:
        UsageError: If there is no text, image or tile to search for, or a weight is out of range.
        ModalityError: If the query has text and the model has no text encoder.
    """
    parts = query_parts(
        encoder, text=text, images=images, tiles=tiles, not_text=not_text, not_images=not_images,
        not_tiles=not_tiles, raw=raw,
    )  # fmt: skip
    return parts.compose(mix=mix, not_weight=not_weight)


@dataclass(frozen=True, slots=True, eq=False)
class QueryParts:
    """Vectors of the parts of a query.

    Attributes:
        text: Shape (dim,); None without a text.
        examples: Images and tiles, shape (n, dim); None without any.
        negative_texts: Shape (m, dim); None without any.
        negative_examples: Images and tiles, shape (m, dim); None without any.
    """

    text: npt.NDArray[Any] | None
    examples: npt.NDArray[Any] | None
    negative_texts: npt.NDArray[Any] | None
    negative_examples: npt.NDArray[Any] | None

    def compose(self, *, mix: float = MIX, not_weight: float = NOT_WEIGHT) -> Vector:
        """Compose one query vector; see `search.compose`.

        Args:
            mix: Weight of the examples in a text+image query, 0 to 1.
            not_weight: Weight of the negative parts, 0 to 1.

        Returns:
            float32 array of shape (dim,), unit length.
        """
        against = [
            part for part in (self.negative_texts, self.negative_examples) if part is not None
        ]
        return compose(
            text=self.text,
            examples=self.examples,
            against=np.concatenate(against) if against else None,
            mix=mix,
            not_weight=not_weight,
        )


def query_parts(
    encoder: QueryEncoder | None,
    *,
    text: str | Sequence[str] | None = None,
    images: Sequence[Any] = (),
    tiles: npt.ArrayLike | None = None,
    not_text: Sequence[str] = (),
    not_images: Sequence[Any] = (),
    not_tiles: npt.ArrayLike | None = None,
    raw: bool = False,
) -> QueryParts:
    """Embed the parts of a query; arguments as of `make_query`.

    Args:
        encoder: The encoder of the store.
        text: Text, or several whose vectors are averaged.
        images: Example images.
        tiles: Vectors of example tiles.
        not_text: Negative texts.
        not_images: Negative images.
        not_tiles: Vectors of negative tiles.
        raw: Embed texts without the prompt templates.

    Returns:
        The vectors.

    Raises:
        UsageError: If there is no text, image or tile to search for.
    """
    texts = [text] if isinstance(text, str) else list(text or ())
    if not texts and not len(images) and tiles is None:
        raise UsageError(
            "a search needs a text, an image or a tile to look for",
            remedy="Negative examples need a positive query.",
        )
    negative_texts = [text_vector(encoder, negative, raw=raw) for negative in not_text]
    negatives = [
        *([_image_vectors(encoder, not_images)] if not_images else []),
        *([_unit_rows(not_tiles)] if not_tiles is not None else []),
    ]
    examples = [
        *([_image_vectors(encoder, images)] if images else []),
        *([_unit_rows(tiles)] if tiles is not None else []),
    ]
    return QueryParts(
        text=_texts_vector(encoder, texts, raw=raw) if texts else None,
        examples=np.concatenate(examples) if examples else None,
        negative_texts=np.stack(negative_texts) if negative_texts else None,
        negative_examples=np.concatenate(negatives) if negatives else None,
    )


def check_text(text: object) -> None:
    """Check a query text.

    Args:
        text: The text.

    Raises:
        UsageError: If it is no string, is empty, or has line ends or control characters.
    """
    if not isinstance(text, str):
        raise UsageError(f"{text!r} is not a text", remedy="Give strings.")
    if not text.strip():
        raise UsageError("the query text is empty", remedy="Give a text to search for.")
    if has_control_characters(text):
        raise UsageError(
            f"the query text '{printable(text, one_line=True)}' has control characters",
            remedy="Write it on one line, without tabs; give several texts separately.",
        )


def text_vector(
    encoder: QueryEncoder | None, text: str, *, raw: bool = False
) -> npt.NDArray[np.float32]:
    """Embed a text.

    Args:
        encoder: The encoder.
        text: The text.
        raw: Embed the text alone instead of averaging over the prompt templates.

    Returns:
        float32 array of shape (dim,), unit length.

    Raises:
        UsageError: If the text is empty or has control characters, or there is no encoder.
    """
    check_text(text)
    from marsretrieval.embeddings import embed_texts

    prompts = prompts_of(text, raw=raw)
    return text_query(embed_texts(_require_encoder(encoder), prompts))


def prompts_of(text: str, *, raw: bool = False) -> list[str]:
    """Return the prompts for a text.

    Args:
        text: The text.
        raw: Return the text alone.

    Returns:
        The text in the three published templates, or the text alone.
    """
    return [text] if raw else list(geolocalization_prompts(text))


def _texts_vector(
    encoder: QueryEncoder | None, texts: Sequence[str], *, raw: bool
) -> npt.NDArray[np.float32]:
    """Return the mean of the texts' vectors, shape (dim,), unit length."""
    vectors = [text_vector(encoder, text, raw=raw) for text in texts]
    return vectors[0] if len(vectors) == 1 else text_query(np.stack(vectors))


def is_learnable(positives: int, negatives: int) -> bool:
    """Check whether a search with examples learns from them instead of averaging.

    Args:
        positives: Number of example images and tiles.
        negatives: Number of negative images and tiles.

    Returns:
        True for three or more in all, with both kinds among them.
    """
    return positives > 0 and negatives > 0 and positives + negatives >= MIN_EXAMPLES


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
    if not items:
        return []
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

    return embed_images(_require_encoder(encoder), read_images(images))


def _require_encoder(encoder: QueryEncoder | None) -> QueryEncoder:
    if encoder is None:
        raise UsageError("texts and images need the model of the store")
    return encoder


def _unit_rows(vectors: npt.ArrayLike) -> npt.NDArray[Any]:
    """Scale stored vectors, which are rounded, back to unit length."""
    rows = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12))
