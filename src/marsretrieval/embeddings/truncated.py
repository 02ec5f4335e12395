"""Truncated vectors of a model or store: the first dimensions, scaled to unit length again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL.Image import Image

from marsretrieval.embeddings.shards import Block
from marsretrieval.embeddings.store import EmbeddingStore
from marsretrieval.encoders.base import Encoder, Features, Modality, TextRole, Vectors
from marsretrieval.errors import DataError, UsageError


def truncate(vectors: npt.NDArray[Any], dim: int) -> npt.NDArray[Any]:
    """Keep the first dimensions of vectors and scale the rows to unit length.

    Kusupati et al. 2022, Matryoshka Representation Learning.

    Args:
        vectors: Array of shape (n, dimension).
        dim: Number of dimensions to keep.

    Returns:
        Array of shape (n, dim) in the dtype of `vectors`, computed in float32.

    Raises:
        UsageError: If the vectors have no more than `dim` dimensions.
        DataError: If a truncated row is zero.
    """
    if dim >= vectors.shape[1]:
        raise UsageError(f"{dim:,} dimensions of vectors that have {vectors.shape[1]:,}")
    rows = vectors[:, :dim].astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (norms > 0).all():
        row = int(np.flatnonzero(~(norms[:, 0] > 0))[0])
        raise DataError(f"row {row}: the first {dim} dimensions are zero")
    return np.asarray(rows / norms, dtype=vectors.dtype)


class TruncatedEncoder:
    """An encoder whose vectors are truncated.

    Attributes:
        encoder: The encoder of the full vectors.
    """

    def __init__(self, encoder: Encoder, dim: int) -> None:
        """Wrap an encoder.

        Args:
            encoder: The encoder.
            dim: Number of dimensions to keep.

        Raises:
            UsageError: If the encoder has no more than `dim` dimensions.
        """
        if dim >= encoder.dimension:
            raise UsageError(f"--dim {dim}: {encoder.id} has {encoder.dimension} dimensions")
        self.encoder = encoder
        self._dim = dim

    @property
    def id(self) -> str:
        """Id of the model."""
        return self.encoder.id

    @property
    def dimension(self) -> int:
        """Dimension of the truncated vectors."""
        return self._dim

    @property
    def modalities(self) -> frozenset[Modality]:
        """Inputs that the encoder embeds."""
        return self.encoder.modalities

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Identity of the vectors."""
        return {**self.encoder.fingerprint, "dim": self._dim}

    @property
    def preprocess(self) -> Callable[[Image], Features]:
        """Preprocessing of the encoder."""
        return self.encoder.preprocess

    def encode_preprocessed(self, features: Sequence[Features]) -> Vectors:
        """Embed preprocessed images.

        Args:
            features: Return values of `preprocess` for n images.

        Returns:
            float32 array of shape (n, dimension), unit rows.
        """
        return truncate(self.encoder.encode_preprocessed(features), self._dim)

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """Embed images.

        Args:
            images: n RGB images.

        Returns:
            float32 array of shape (n, dimension), unit rows.
        """
        return truncate(self.encoder.encode_images(images), self._dim)

    def encode_texts(self, texts: Sequence[str], *, role: TextRole = "query") -> Vectors:
        """Embed texts.

        Args:
            texts: n texts.
            role: Whether the texts are queries or captions.

        Returns:
            float32 array of shape (n, dimension), unit rows.
        """
        return truncate(self.encoder.encode_texts(texts, role=role), self._dim)

    def count_truncated(self, texts: Sequence[str], *, role: TextRole = "query") -> int | None:
        """Count the texts that exceed the model's context length.

        Args:
            texts: The texts.
            role: Whether the texts are queries or captions.

        Returns:
            Number of truncated texts. None if unknown.
        """
        return self.encoder.count_truncated(texts, role=role)

    def __getattr__(self, name: str) -> Any:
        # Attributes beyond the interface, such as device and context_length.
        if name == "encoder":
            raise AttributeError(name)
        return getattr(self.encoder, name)


class TruncatedStore(EmbeddingStore):
    """A store in memory with the truncated vectors of another one, searched without an index."""

    def __init__(self, store: EmbeddingStore, dim: int) -> None:
        """Wrap a store.

        Args:
            store: The store of the full vectors.
            dim: Number of dimensions to keep.
        """
        # A path that does not exist: an index of the full vectors must not be used.
        path = Path(f"{store.path} (first {dim} dimensions)")
        super().__init__(path, replace(store.manifest, dimension=dim), store.entries)
        self._store = store

    def _block(self, index: int) -> Block:
        block = self._blocks.get(index)
        if block is None:
            block = _TruncatedBlock(self._store._block(index), self.dimension)
            self._blocks[index] = block
        return block


class _TruncatedBlock(Block):
    """Rows of a shard with truncated vectors, computed at first use."""

    def __init__(self, block: Block, dim: int) -> None:
        super().__init__(block.batch, block.start, dim)
        self._full = block
        self._truncated: npt.NDArray[Any] | None = None

    @property
    def vectors(self) -> npt.NDArray[Any]:
        """(n, dimension) in the dtype of the store."""
        if self._truncated is None:
            self._truncated = truncate(self._full.vectors, self.dimension)
        return self._truncated
