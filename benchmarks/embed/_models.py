"""What the benchmark runs where trained weights are not wanted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from marsretrieval.encoders import Encoder
from marsretrieval.encoders._torchvision import ensure_torchvision
from marsretrieval.errors import ModalityError

__all__ = ["Pretended", "RandomViT"]


class RandomViT(Encoder):
    """A ViT of open_clip, full size, random weights: as fast as a trained one, and offline."""

    def __init__(self, name: str, device: str) -> None:
        ensure_torchvision()
        import open_clip

        torch.manual_seed(0)
        model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=None)
        self.device = torch.device(device)
        self._dtype = torch.float32 if self.device.type == "cpu" else torch.bfloat16
        self._model = model.visual.to(self.device, self._dtype).eval()
        self._preprocess = preprocess
        self._name = name

    @property
    def id(self) -> str:
        return f"{self._name}-random"

    @property
    def dimension(self) -> int:
        return int(self._model.output_dim)

    @property
    def modalities(self) -> frozenset[Any]:
        return frozenset({"image"})

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {"id": self.id, "dtype": str(self._dtype)}

    @property
    def preprocess(self) -> Callable[[Image.Image], Any]:
        return self._preprocess

    @torch.inference_mode()
    def encode_preprocessed(self, features: Sequence[Any]) -> Any:
        batch = torch.stack(list(features)).to(self.device, self._dtype)
        return torch.nn.functional.normalize(self._model(batch).float(), dim=-1).cpu().numpy()

    def encode_images(self, images: Sequence[Image.Image]) -> Any:
        return self.encode_preprocessed([self.preprocess(image) for image in images])

    def encode_texts(self, texts: Sequence[str], *, role: str = "query") -> Any:
        raise ModalityError(f"{self.id} has no text side")

    def count_truncated(self, texts: Sequence[str], *, role: str = "query") -> int | None:
        return None


class Pretended(Encoder):
    """A device that takes `rate` images a second and no CPU at all: it sleeps. It shows what the
    pipeline costs where the model does not compete with it for the CPUs, as on a GPU."""

    def __init__(self, inner: Encoder, rate: float) -> None:
        self._inner = inner
        self._rate = rate

    @property
    def id(self) -> str:
        return f"pretended-{self._rate:g}"

    @property
    def dimension(self) -> int:
        return self._inner.dimension

    @property
    def modalities(self) -> frozenset[Any]:
        return frozenset({"image"})

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {"id": self.id}

    @property
    def preprocess(self) -> Callable[[Image.Image], Any]:
        return self._inner.preprocess

    def encode_preprocessed(self, features: Sequence[Any]) -> Any:
        time.sleep(len(features) / self._rate)
        vectors = np.zeros((len(features), self.dimension), np.float32)
        vectors[:, 0] = 1
        return vectors

    def encode_images(self, images: Sequence[Image.Image]) -> Any:
        return self.encode_preprocessed([self.preprocess(image) for image in images])

    def encode_texts(self, texts: Sequence[str], *, role: str = "query") -> Any:
        raise ModalityError(f"{self.id} has no text side")

    def count_truncated(self, texts: Sequence[str], *, role: str = "query") -> int | None:
        return None
