"""Encoder interface, model specs, load options, and encoders with truncated vectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from marsretrieval.errors import DataError, UsageError
from marsretrieval.io import Constraint
from marsretrieval.text import pluralize

PLUGIN_FAMILY = "plugin"  # family of the models of plugins and of `module:Class`
# Loader in the spec of an object, which exists in one process only.
OBJECT_LOADER = "marsretrieval.encoders.loading:refuse_to_load"
LIBRARIES = (
    "oc",
    "hf",
    "timm",
)  # prefixes of models under the names of open_clip, transformers, timm
Vectors = npt.NDArray[np.float32]  # (n, dimension), every row of unit length
Modality = Literal["image", "text"]

# A query is typed by a user ("pitted cones"); a caption describes one image. Some models use
# different prompts for them.
TextRole = Literal["query", "caption"]

# Return value of `preprocess` for one image, which only `encode_preprocessed` interprets.
Features = Any
PromptPreset = Literal["paper", "official"]

# Constraints of the TOML files. The spec of an unregistered model may leave fields empty.
_Text = Annotated[str, Constraint(min_length=1)]
_Commit = Annotated[str, Constraint(pattern="^[0-9a-f]{40}$")]
_Count = Annotated[int, Constraint(gt=0, le=2**62)]
_DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d{1,4})?")
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class QueryEncoder(Protocol):
    """The part of the Encoder interface that queries need."""

    @property
    def id(self) -> str:
        """Id in the registry, or the name that the user gave."""

    @property
    def dimension(self) -> int:
        """Vector dimension."""

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Embed images.

        Args:
            images: n RGB images.

        Returns:
            float32 array of shape (n, dimension), unit rows.
        """

    def encode_texts(self, texts: Sequence[str], *, role: TextRole = "query") -> Vectors:
        """Embed texts.

        Args:
            texts: n texts.
            role: Whether the texts are queries or captions.

        Returns:
            float32 array of shape (n, dimension), unit rows.

        Raises:
            ModalityError: If the model has no text encoder.
        """


@runtime_checkable
class Encoder(QueryEncoder, Protocol):
    """Interface of a model that embeds images, and usually texts, into one space.

    Similarity is the cosine. All vectors are float32 of unit length, and a batch gives the same
    rows as one item at a time.
    """

    @property
    def modalities(self) -> frozenset[Modality]:
        """Inputs that the encoder embeds."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """JSON-ready identity of the vectors.

        Keys: id, loader, revision, weights_sha256, dtype, preprocessing, prompts. Two encoders with
        equal fingerprints give the same vectors.
        """

    @property
    def preprocess(self) -> Callable[[Image.Image], Features]:
        """Picklable callable that turns an RGB image into model input, for decoding workers.

        If the callable has an attribute `accepts_grey` that is True, stores are built from grey
        images in mode L. It must then return, bit for bit, what it returns for the same image
        converted to RGB.
        """

    def encode_preprocessed(self, features: Sequence[Features]) -> Vectors:
        """Embed preprocessed images.

        A built-in encoder also has a method `collate`, which takes the same features and returns an
        input for this method. It joins, casts and pins them on the host while the device is busy.

        Args:
            features: Return values of `preprocess` for n images.

        Returns:
            float32 array of shape (n, dimension), unit rows.
        """

    def count_truncated(self, texts: Sequence[str], *, role: TextRole = "query") -> int | None:
        """Count the texts that exceed the model's context length.

        Args:
            texts: The texts.
            role: Whether the texts are queries or captions.

        Returns:
            Number of truncated texts. None if unknown.
        """


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Specification of a model in the registry.

    Attributes:
        id: Id in the registry.
        name: Name in the model's paper.
        family: open_clip, two_tower, vision_only, multimodal_lm, nano, or a plugin's.
        loader: ``package.module:function``, called as ``loader(spec, options)``. Returns an
            Encoder.
        repository: Hugging Face repository, or another source of the weights.
        revision: Commit of the repository. None if it is not pinned; the loaded one is recorded.
        image_size: Pixels. None for models with dynamic resolution.
        dimension: Vector dimension.
        parameters: Number of parameters.
        licence: Licence of the weights.
        paper: URL of the paper.
        code: URL of the code.
        tried: Which tests of the model were done, in words.
        modalities: Inputs that the model embeds.
        context_length: Largest number of tokens of a text.
        gated: Whether the repository requires accepting its licence.
        notes: Remarks for the user.
        trained_on: What is known of the training images, and of their overlap with the benchmark.
        verified_by: Who or what confirmed that the vectors are those of the model's authors.
        settings: Options that only the loader interprets (architecture, pooling, templates).
    """

    id: str
    name: _Text
    family: _Text
    loader: Annotated[str, Constraint(pattern="^[^:]+:.+$")]
    repository: _Text
    revision: _Commit | None
    image_size: _Count | None
    dimension: _Count
    parameters: _Count | None
    licence: _Text
    paper: str
    code: str
    tried: _Text
    modalities: frozenset[Modality] = frozenset({"image", "text"})
    context_length: _Count | None = None
    gated: bool = False
    notes: str = ""
    trained_on: str = ""
    verified_by: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def unregistered(cls, id: str, *, name: str, family: str, loader: str, **more: Any) -> Self:
        """Create the spec of a model of which only the loader is known.

        Args:
            id: Id of the model.
            name: Name of the model.
            family: Family of the model.
            loader: ``package.module:function``.
            **more: Other fields, if known.

        Returns:
            The spec.
        """
        unknown: dict[str, Any] = {
            "repository": name,
            "revision": None,
            "image_size": None,
            "dimension": 0,
            "parameters": None,
            "licence": "its author's",
            "paper": "",
            "code": "",
            "tried": "",
        }
        return cls(id=id, name=name, family=family, loader=loader, **{**unknown, **more})

    @property
    def library(self) -> str:
        """Prefix of a name that selects a library (``oc``, ``hf``, ...). Empty in the registry."""
        return self.id.partition(":")[0] if ":" in self.id else ""

    @property
    def gpu_dtype(self) -> str:
        """Default precision of the weights on a GPU."""
        return str(self.settings.get("gpu_dtype", "float32"))

    def weights_gib(self, dtype: str) -> float | None:
        """Estimate the memory of the weights.

        Args:
            dtype: Precision of the weights.

        Returns:
            GiB, without activations. None if the number of parameters is unknown.
        """
        return self.parameters * _BYTES.get(dtype, 4) / 2**30 if self.parameters else None


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Options for loading a model.

    Attributes:
        device: auto, cpu, cuda, cuda:1 or mps.
        dtype: Precision of the weights. "auto" is the default of the spec on a GPU and float32 on
            a CPU.
        checkpoint: Local weights that replace those of the repository.
        prompts: Prompt preset.
        offline: Use only local files and the Hugging Face cache.
        trust_remote_code: Run code from the model's repository.
    """

    device: str = "auto"
    dtype: str = "auto"
    checkpoint: Path | None = None
    prompts: PromptPreset = "paper"
    offline: bool = False
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name in ("device", "dtype"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise UsageError(f"{name} is {value!r}, not a text", remedy="Use auto.")
        if not _DEVICE.fullmatch(self.device):
            raise UsageError(
                f"unknown device '{self.device}'", remedy="Use auto, cpu, cuda, cuda:0 or mps."
            )
        if self.prompts not in get_args(PromptPreset):
            raise UsageError(
                f"unknown prompts '{self.prompts}'",
                remedy=f"Use {' or '.join(get_args(PromptPreset))}.",
            )


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
        raise UsageError(f"{pluralize(dim, 'dimension')} of vectors that have {vectors.shape[1]:,}")
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
    def preprocess(self) -> Callable[[Image.Image], Features]:
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

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
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
