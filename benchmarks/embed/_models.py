"""Models of the benchmark without trained weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from marsretrieval.encoders import Encoder, LoadOptions, find
from marsretrieval.encoders.open_clip import OpenClipEncoder
from marsretrieval.encoders.torch_encoder import choose_device, choose_dtype
from marsretrieval.encoders.torch_imports import ensure_torchvision
from marsretrieval.errors import ModalityError

__all__ = ["Pretended", "random_vit"]


def random_vit(name: str, device: str) -> Encoder:
    """Return an open_clip encoder of the architecture, in full size with random weights.

    It has the speed of a trained model and needs no network.
    """
    ensure_torchvision()
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained=None)
    options = LoadOptions(device=device)
    chosen = choose_device(device)
    return OpenClipEncoder(
        replace(find("dfn2b-clip-vit-l-14"), id=f"{name}-random"),
        options,
        model,
        open_clip.get_tokenizer(name),
        device=chosen,
        dtype=choose_dtype("auto", chosen, on_gpu="bfloat16"),
        revision=None,
    )


class Pretended(Encoder):
    """Simulated device that embeds `rate` images per second and sleeps instead of using the CPU.

    It measures the pipeline if the model does not compete for the CPUs, as on a GPU.
    """

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
        raise ModalityError(f"{self.id} has no text encoder")

    def count_truncated(self, texts: Sequence[str], *, role: str = "query") -> int | None:
        return None
