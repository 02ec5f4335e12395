"""What all torch encoders share: device and precision, unit vectors, the hash of the weights."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from marsretrieval.encoders.base import (
    Features,
    LoadOptions,
    Modality,
    ModelSpec,
    TextRole,
    Vectors,
)
from marsretrieval.errors import ModalityError, ModelLoadError, UsageError

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


Inputs = Mapping[str, Any]  # tensors of n images by name; what is no tensor is left as it is


@dataclass(frozen=True, slots=True)
class Collated:
    """The inputs of `count` images on the host, in the precision of the model."""

    inputs: Inputs
    count: int

    def __len__(self) -> int:
        return self.count


class TorchEncoder(ABC):
    """Base of the built-in encoders. A family implements `_join`, `_embed_images`, `_embed_texts`
    and `preprocessing`; device, precision, normalisation and identity are handled here."""

    def __init__(
        self,
        spec: ModelSpec,
        options: LoadOptions,
        model: torch.nn.Module,
        *,
        device: torch.device,
        dtype: torch.dtype | None,
        revision: str | None,
    ) -> None:
        """dtype None: in the precision that the model is in."""
        self.spec = spec
        self.options = options
        self.device = device
        if dtype is not None:
            _cast_parameters(model, dtype)  # before the move: half the memory of the device
        self.dtype = _majority_dtype(model) if dtype is None else dtype
        try:
            self.model = model.to(device).eval().requires_grad_(False)
        except torch.OutOfMemoryError as error:
            raise ModelLoadError(
                f"{spec.id} does not fit into the memory of {device}",
                remedy="Free some, or try --dtype bfloat16, or --device cpu.",
            ) from error
        self.revision = revision
        self._weights_sha256: str | None = None
        self._join_lock = threading.Lock()

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def dimension(self) -> int:
        return self.spec.dimension

    @property
    def modalities(self) -> frozenset[Modality]:
        return self.spec.modalities

    @property
    def fingerprint(self) -> dict[str, Any]:
        if self._weights_sha256 is None:
            self._weights_sha256 = weights_sha256(self.model)
        return {
            "id": self.spec.id,
            "loader": self.spec.loader,
            "repository": self.spec.repository,
            "revision": self.revision,
            "weights_sha256": self._weights_sha256,
            "dtype": str(self.dtype).removeprefix("torch."),
            "preprocessing": self.preprocessing,
            "prompts": self.prompts,
        }

    @property
    @abstractmethod
    def preprocess(self) -> Callable[[Image.Image], Features]: ...

    @property
    @abstractmethod
    def preprocessing(self) -> dict[str, Any]:
        """JSON-ready description of `preprocess`: size, resize mode, mean, std, pixel limits."""

    @property
    def prompts(self) -> dict[str, Any]:
        """JSON-ready: the preset and the templates that this encoder itself adds around inputs."""
        return {"preset": self.options.prompts}

    @abstractmethod
    def _join(self, features: Sequence[Features]) -> Inputs:
        """What `preprocess` made of n images as the inputs of one batch, on the host."""

    @abstractmethod
    def _embed_images(self, inputs: Inputs) -> torch.Tensor:
        """What `_join` gave, on the device by now: (n, d) vectors of any length and precision,
        on any device."""

    def _embed_texts(self, texts: Sequence[str], role: TextRole) -> torch.Tensor:
        raise NotImplementedError(f"{self.id} declares a text side but implements none")

    def count_truncated(self, texts: Sequence[str], *, role: TextRole = "query") -> int | None:
        return None

    @torch.inference_mode()
    def collate(self, features: Sequence[Features]) -> Collated:
        """Join the features of n images, at least one, into one batch that `encode_preprocessed`
        takes in their place. Touches neither model nor device: another thread can do it while
        the device has a batch in work."""
        with self._join_lock:  # tokenizers are not for two threads at once
            joined = self._join(features)
        inputs = {name: self._on_host(value) for name, value in joined.items()}
        return Collated(inputs, len(features))

    def _on_host(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        value = value.to(self.dtype) if value.is_floating_point() else value
        # Out of pinned memory a GPU fetches several times faster.
        return value.pin_memory() if self.device.type == "cuda" else value

    @torch.inference_mode()
    def encode_preprocessed(self, features: Sequence[Features] | Collated) -> Vectors:
        if not len(features):
            return np.empty((0, self.dimension), np.float32)
        batch = features if isinstance(features, Collated) else self.collate(features)
        inputs = {
            name: value.to(self.device, non_blocking=True) if torch.is_tensor(value) else value
            for name, value in batch.inputs.items()
        }
        return unit_rows(self._embed_images(inputs), what=f"image vectors of {self.id}")

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        return self.encode_preprocessed([self.preprocess(image) for image in images])

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], *, role: TextRole = "query") -> Vectors:
        if "text" not in self.modalities:
            raise ModalityError(
                f"{self.id} is a vision-only model and cannot embed text",
                remedy="Use image queries, or a model with a text side: marsretrieval models",
            )
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        return unit_rows(self._embed_texts(texts, role), what=f"text vectors of {self.id}")


def _cast_parameters(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Parameters only. Buffers keep the precision they were made in: rotary frequencies rounded
    to bfloat16 are off by a radian a thousand positions on. So do the parameters of batch
    normalization, which must have the precision of its running means."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            continue
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)


def _majority_dtype(model: torch.nn.Module) -> torch.dtype:
    """That of most of the parameters."""
    counts: dict[torch.dtype, int] = {}
    for parameter in model.parameters():
        if parameter.is_floating_point():
            counts[parameter.dtype] = counts.get(parameter.dtype, 0) + parameter.numel()
    return max(counts, key=counts.__getitem__, default=torch.float32)


def choose_device(name: str) -> torch.device:
    """Resolve auto, cpu, cuda, cuda:1, mps. Raises UsageError when it is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"unknown device '{name}'", remedy="Use auto, cpu, cuda, cuda:0 or mps."
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device '{name}' is not there: torch sees {torch.cuda.device_count()} CUDA devices",
            remedy="Use --device auto, or install a CUDA build of torch.",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device 'mps' is not there", remedy="Use --device auto.")
    return device


def choose_dtype(name: str, device: torch.device, *, on_gpu: str) -> torch.dtype:
    """`name`, or for auto: float32 on a CPU and the spec's own precision `on_gpu` elsewhere."""
    if name == "auto":
        name = "float32" if device.type == "cpu" else on_gpu
    if name not in _DTYPES:
        raise UsageError(f"unknown dtype '{name}'", remedy=f"Use auto or {', '.join(_DTYPES)}.")
    return _DTYPES[name]


def unit_rows(vectors: torch.Tensor, *, what: str) -> Vectors:
    """Normalise in float32 and move to the host. Raises ModelLoadError on NaN, infinity or zero
    rows: such vectors would rank at random without a word."""
    rows = vectors.float()
    norms = rows.norm(dim=-1, keepdim=True)
    if not bool(torch.isfinite(norms).all()) or bool((norms == 0).any()):
        bad = int((~torch.isfinite(norms) | (norms == 0)).sum())
        raise ModelLoadError(
            f"{what}: {bad} of {len(rows)} are not finite or are zero",
            remedy="Try --dtype float32 (or bfloat16 in place of float16).",
        )
    result: Vectors = (rows / norms).cpu().numpy()
    return result


def weights_sha256(model: torch.nn.Module) -> str:
    """SHA-256 over all named parameters and buffers as they are in memory, in name order.

    Independent of the file format the weights came from; moves with dtype.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        host = tensor.detach().cpu().contiguous()
        digest.update(f"{name}:{host.dtype}:{tuple(host.shape)}\n".encode())
        digest.update(host.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
