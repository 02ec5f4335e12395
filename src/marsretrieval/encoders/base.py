"""What an encoder is: the only thing that tasks, stores and searches know of a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from marsretrieval.errors import UsageError
from marsretrieval.io import Constraint

Vectors = npt.NDArray[np.float32]  # (n, dimension), every row of unit length
Modality = Literal["image", "text"]

# A query is what someone types ("pitted cones"); a caption describes one image.
# Some models put a different prompt before each.
TextRole = Literal["query", "caption"]

# Whatever `preprocess` makes of one image and `encode_preprocessed` takes: opaque to everyone else.
Features = Any
PromptPreset = Literal["paper", "official"]

# What a TOML file may hold; a spec of an unregistered model may hold less.
_Text = Annotated[str, Constraint(min_length=1)]
_Commit = Annotated[str, Constraint(pattern="^[0-9a-f]{40}$")]
_Count = Annotated[int, Constraint(gt=0, le=2**62)]
_DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d{1,4})?")
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@runtime_checkable
class Encoder(Protocol):
    """Embeds images, and for most models texts, into one space where cosine ranks.

    All vectors are float32 of unit length; a batch gives the same rows as one item at a time.
    """

    @property
    def id(self) -> str:
        """Catalogue id, or what the user named it by."""

    @property
    def dimension(self) -> int:
        """Vector dimension."""

    @property
    def modalities(self) -> frozenset[Modality]:
        """Inputs that the encoder embeds."""

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


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One entry of the catalogue.

    `loader` is ``package.module:function``, called as ``loader(spec, options)`` and returning an
    Encoder. `settings` holds what only that loader understands (architecture, pooling, templates).
    """

    id: str
    name: _Text  # as the paper writes it
    family: _Text  # open_clip, two_tower, vision_only, multimodal_lm, nano
    loader: Annotated[str, Constraint(pattern="^[^:]+:.+$")]
    repository: _Text  # Hugging Face repository, or where the weights come from
    revision: _Commit | None  # pinned; None: not known to us, recorded when loaded
    image_size: _Count | None  # pixels; None: dynamic
    dimension: _Count
    parameters: _Count | None
    licence: _Text
    paper: str
    code: str
    tried: _Text  # what was tried, in words: never more than was done
    modalities: frozenset[Modality] = frozenset({"image", "text"})
    context_length: _Count | None = None  # tokens
    gated: bool = False
    notes: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def unregistered(cls, id: str, *, name: str, family: str, loader: str, **more: Any) -> Self:
        """The spec of a model that nothing is known of but how to load it."""
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
    def gpu_dtype(self) -> str:
        """Precision of the weights on a GPU, where the user asks for none."""
        return str(self.settings.get("gpu_dtype", "float32"))

    def weights_gib(self, dtype: str) -> float | None:
        """Memory of the weights alone, in GiB; None where their number is not known."""
        return self.parameters * _BYTES.get(dtype, 4) / 2**30 if self.parameters else None


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How the user wants a model loaded."""

    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    dtype: str = "auto"  # auto: the spec's precision on a GPU, float32 on a CPU
    checkpoint: Path | None = None  # local weights in place of the repository
    prompts: PromptPreset = "paper"
    offline: bool = False
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            raise UsageError(
                f"unknown device '{self.device}'", remedy="Use auto, cpu, cuda, cuda:0 or mps."
            )
