"""The recipe as data: architecture, samples, optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Recipe:
    """Defaults rebuild the shipped mars-nano."""

    seed: int = 20_260_213  # of samples and weights; no planet may be made from it
    image_size: int = 64
    context_length: int = 64
    vocabulary: int = 640
    embed_dim: int = 128
    pairs: int = 7_000  # images with a generated caption
    named: int = 8_000  # images with a prompt around their landform's name
    batch: int = 200
    epochs: int = 10
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup: float = 0.05  # share of all steps

    def model_config(self, vocabulary: int) -> dict[str, Any]:
        """The open_clip model config of the dual encoder."""
        return {
            "embed_dim": self.embed_dim,
            "vision_cfg": {
                "image_size": self.image_size,
                "timm_model_name": "test_resnet",
                "timm_model_pretrained": False,
                "timm_pool": "avg",
                "timm_proj": "linear",
            },
            "text_cfg": {
                "context_length": self.context_length,
                "vocab_size": vocabulary,
                "hf_tokenizer_name": "mars-nano",
                "tokenizer_kwargs": {"clean": "canonicalize"},
                "width": 96,
                "heads": 4,
                "layers": 2,
                "pool_type": "eos",
                "pad_id": 0,
                "eos_id": 2,
            },
        }
