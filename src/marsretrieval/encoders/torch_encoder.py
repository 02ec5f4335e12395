"""Base class of the torch encoders: device, precision, normalization and fingerprint."""

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


Inputs = Mapping[str, Any]  # tensors of n images by name; other values are passed on unchanged


@dataclass(frozen=True, slots=True)
class Collated:
    """Model inputs of a batch on the host, in the precision of the model.

    Attributes:
        inputs: Tensors by name.
        count: Number of images.
    """

    inputs: Inputs
    count: int

    def __len__(self) -> int:
        return self.count


class TorchEncoder(ABC):
    """Base class of the built-in encoders.

    A family implements `_join`, `_embed_images`, `_embed_texts` and `preprocessing`, and sets
    `_preprocess` and, unless the spec states it, `_dimension`. Device, precision, normalization and
    fingerprint are handled here.

    Attributes:
        spec: Spec of the model.
        options: Load options.
        model: The torch module, on the device.
        device: Device of the model.
        dtype: Precision of the model.
        revision: Commit of the loaded repository.
    """

    _preprocess: Callable[[Image.Image], Features]
    _dimension: int | None = None

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
        """Cast a model and move it to a device.

        Args:
            spec: Spec of the model.
            options: Load options.
            model: The torch module.
            device: Target device.
            dtype: Target precision. None keeps that of the model.
            revision: Commit of the loaded repository.

        Raises:
            ModelLoadError: If the device is out of memory.
        """
        self.spec = spec
        self.options = options
        self.device = device
        if dtype is not None:
            _cast_parameters(model, dtype)  # before the move, to save memory of the device
        self.dtype = _majority_dtype(model) if dtype is None else dtype
        try:
            self.model = model.to(device).eval().requires_grad_(False)
        except torch.OutOfMemoryError as error:
            raise ModelLoadError(
                f"{spec.id} does not fit into the memory of {device}",
                remedy="Free some memory, or try --dtype bfloat16, or --device cpu.",
            ) from error
        self.revision = revision
        self._weights_sha256: str | None = None
        self._join_lock = threading.Lock()

    @property
    def id(self) -> str:
        """Id in the registry."""
        return self.spec.id

    def __repr__(self) -> str:
        precision = str(self.dtype).removeprefix("torch.")
        return f"<{type(self).__name__} {self.spec.id}: {precision} on {self.device}>"

    @property
    def dimension(self) -> int:
        """Vector dimension."""
        return self.spec.dimension if self._dimension is None else self._dimension

    @property
    def modalities(self) -> frozenset[Modality]:
        """Inputs that the encoder embeds."""
        return self.spec.modalities

    @property
    def fingerprint(self) -> dict[str, Any]:
        """JSON-ready identity of the vectors."""
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
    def preprocess(self) -> Callable[[Image.Image], Features]:
        """Picklable preprocessing of one image, see `Encoder.preprocess`."""
        return self._preprocess

    @property
    @abstractmethod
    def preprocessing(self) -> dict[str, Any]:
        """JSON-ready description of `preprocess`: size, resize mode, mean, std, pixel limits."""

    @property
    def prompts(self) -> dict[str, Any]:
        """JSON-ready prompt preset, and the templates that this encoder applies."""
        return {"preset": self.options.prompts}

    @abstractmethod
    def _join(self, features: Sequence[Features]) -> Inputs:
        """Join the features of n images to the inputs of one batch, on the host."""

    @abstractmethod
    def _embed_images(self, inputs: Inputs) -> torch.Tensor:
        """Embed the inputs of `_join`, which are on the device.

        Returns vectors (n, d) of any length and precision, on any device.
        """

    def _embed_texts(self, texts: Sequence[str], role: TextRole) -> torch.Tensor:
        raise NotImplementedError(f"{self.id} declares a text encoder but does not implement one")

    def count_truncated(self, texts: Sequence[str], *, role: TextRole = "query") -> int | None:
        """Count the texts that exceed the model's context length.

        Args:
            texts: The texts.
            role: Whether the texts are queries or captions.

        Returns:
            None, unless a family overrides this method.
        """
        return None

    @torch.inference_mode()
    def collate(self, features: Sequence[Features]) -> Collated:
        """Join the features of a batch on the host.

        Uses neither model nor device, so that another thread can call it while the device is busy.

        Args:
            features: Return values of `preprocess` for n images, at least one.

        Returns:
            The batch, for `encode_preprocessed`.
        """
        with self._join_lock:  # tokenizers are not thread-safe
            joined = self._join(features)
        inputs = {name: self._on_host(value) for name, value in joined.items()}
        return Collated(inputs, len(features))

    def _on_host(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        value = value.to(self.dtype) if value.is_floating_point() else value
        # Transfers from pinned memory are several times faster.
        return value.pin_memory() if self.device.type == "cuda" else value

    @torch.inference_mode()
    def encode_preprocessed(self, features: Sequence[Features] | Collated) -> Vectors:
        """Embed preprocessed images.

        Args:
            features: Return values of `preprocess` for n images, or of `collate`.

        Returns:
            float32 array of shape (n, dimension), unit rows.

        Raises:
            ModelLoadError: If a vector is not finite or is zero.
        """
        if not len(features):
            return np.empty((0, self.dimension), np.float32)
        batch = features if isinstance(features, Collated) else self.collate(features)
        inputs = {
            name: value.to(self.device, non_blocking=True) if torch.is_tensor(value) else value
            for name, value in batch.inputs.items()
        }
        return unit_rows(self._embed_images(inputs), what=f"image vectors of {self.id}")

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Embed images.

        Args:
            images: n RGB images.

        Returns:
            float32 array of shape (n, dimension), unit rows.

        Raises:
            ModelLoadError: If a vector is not finite or is zero.
        """
        return self.encode_preprocessed([self.preprocess(image) for image in images])

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], *, role: TextRole = "query") -> Vectors:
        """Embed texts.

        Args:
            texts: n texts.
            role: Whether the texts are queries or captions.

        Returns:
            float32 array of shape (n, dimension), unit rows.

        Raises:
            ModalityError: If the model has no text encoder.
            ModelLoadError: If a vector is not finite or is zero.
        """
        if "text" not in self.modalities:
            raise ModalityError(
                f"{self.id} is a vision-only model and cannot embed text",
                remedy="Use image queries, or a model with a text encoder: marsretrieval models",
            )
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        return unit_rows(self._embed_texts(texts, role), what=f"text vectors of {self.id}")


class TorchImageEncoder(TorchEncoder):
    """Base class of the built-in encoders without a text encoder."""

    @property
    def modalities(self) -> frozenset[Modality]:
        """Images only."""
        return frozenset({"image"})


def _cast_parameters(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Cast parameters, but no buffers and no batch normalization.

    Rotary frequencies (buffers) rounded to bfloat16 are off by a radian after a thousand positions.
    The parameters of batch normalization must have the precision of its running means.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            continue
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)


def _majority_dtype(model: torch.nn.Module) -> torch.dtype:
    """Return the precision of most parameters."""
    counts: dict[torch.dtype, int] = {}
    for parameter in model.parameters():
        if parameter.is_floating_point():
            counts[parameter.dtype] = counts.get(parameter.dtype, 0) + parameter.numel()
    return max(counts, key=counts.__getitem__, default=torch.float32)


def choose_device(name: str) -> torch.device:
    """Resolve a device name.

    Args:
        name: auto, cpu, cuda, cuda:1 or mps.

    Returns:
        The device.

    Raises:
        UsageError: If the device is unknown or not available.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device '{name}'", remedy=_list_devices()) from error
    if not _is_available(device):
        raise UsageError(f"device '{name}' is not available", remedy=_list_devices())
    return device


def _is_available(device: torch.device) -> bool:
    if device.type in ("cpu", "mps"):
        count = int(device.type == "cpu" or torch.backends.mps.is_available())
    elif device.type == "cuda":
        count = torch.cuda.device_count()
    elif device.type == "meta":  # its tensors hold no data
        count = 0
    else:
        try:
            torch.empty(1, device=device)
        except Exception:  # of any kind, if torch was built without the device
            return False
        return True
    return (device.index or 0) < count


def _list_devices() -> str:
    """Return a remedy that lists the devices of this machine."""
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    names = ["auto", "cpu", *(["cuda"] if gpus else []), *gpus]
    names += ["mps"] if torch.backends.mps.is_available() else []
    hint = "" if gpus else " (a CUDA device needs a CUDA build of torch and a driver)"
    return f"Devices of this machine: {', '.join(names)}{hint}."


def choose_dtype(name: str, device: torch.device, *, on_gpu: str) -> torch.dtype:
    """Resolve the name of a precision.

    Args:
        name: auto, float32, float16 or bfloat16.
        device: Device of the model.
        on_gpu: What auto means on a GPU. On a CPU it means float32.

    Returns:
        The torch dtype.

    Raises:
        UsageError: If the name is unknown.
    """
    if name == "auto":
        name = "float32" if device.type == "cpu" else on_gpu
    if name not in _DTYPES:
        raise UsageError(f"unknown dtype '{name}'", remedy=f"Use auto or {', '.join(_DTYPES)}.")
    return _DTYPES[name]


def unit_rows(vectors: torch.Tensor, *, what: str) -> Vectors:
    """Normalize vectors in float32 and move them to the host.

    Args:
        vectors: Tensor of shape (n, d).
        what: What the vectors are, for the message.

    Returns:
        float32 array of shape (n, d), unit rows.

    Raises:
        ModelLoadError: If a row is not finite or is zero, which would give a random ranking.
    """
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
    """Hash all named parameters and buffers in memory, in name order.

    Independent of the file format of the weights, but not of their precision.

    Args:
        model: The torch module.

    Returns:
        SHA-256.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        host = tensor.detach().cpu().contiguous()
        digest.update(f"{name}:{host.dtype}:{tuple(host.shape)}\n".encode())
        digest.update(host.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
