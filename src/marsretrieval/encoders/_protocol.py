"""What an encoder is: the only thing that tasks, stores and searches know of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

Vectors = npt.NDArray[np.float32]  # (n, dimension), every row of unit length
Modality = Literal["image", "text"]

# A query is what someone types ("pitted cones"); a caption describes one image.
# Some models put a different prompt before each.
TextRole = Literal["query", "caption"]

# Whatever `preprocess` makes of one image and `encode_preprocessed` takes: opaque to everyone else.
Features = Any


@runtime_checkable
class Encoder(Protocol):
    """Embeds images, and for most models texts, into one space where cosine ranks.

    All vectors are float32 of unit length; a batch gives the same rows as one item at a time.
    """

    @property
    def id(self) -> str:
        """Catalogue id, or what the user named it by."""

    @property
    def dimension(self) -> int: ...

    @property
    def modalities(self) -> frozenset[Modality]: ...

    @property
    def fingerprint(self) -> dict[str, Any]:
        """JSON-ready identity of the vectors: id, loader, revision, weights_sha256, dtype,
        preprocessing, prompts. Two encoders with equal fingerprints give the same vectors."""

    @property
    def preprocess(self) -> Callable[[Image.Image], Features]:
        """A picklable callable, RGB image to model input, so that loader workers can run it.

        If the callable has an attribute `accepts_grey` that is True, stores are built from grey
        images in mode L. It must then return, bit for bit, what it returns for the same image
        converted to RGB.
        """

    def encode_preprocessed(self, features: Sequence[Features]) -> Vectors:
        """Embed what `preprocess` returned for each of n images: (n, dimension).

        A built-in encoder has a method `collate` as well: it takes the same n features and returns
        what `encode_preprocessed` takes in their place. It runs on the host beside the batch that
        is in work: joining, casting, pinning memory.
        """

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Embed n RGB images: (n, dimension)."""

    def encode_texts(self, texts: Sequence[str], *, role: TextRole = "query") -> Vectors:
        """Embed n texts: (n, dimension). Raises ModalityError on a vision-only model."""

    def count_truncated(self, texts: Sequence[str], *, role: TextRole = "query") -> int | None:
        """How many of the texts are cut at the model's context length; None if unknown."""
