"""Load image encoders without a text encoder through transformers: DINO, AIMv2, ViT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from marsretrieval.encoders.base import Features, LoadOptions, ModelSpec
from marsretrieval.encoders.library_names import VISION_ONLY
from marsretrieval.encoders.torch_encoder import (
    Inputs,
    TorchImageEncoder,
    choose_device,
    choose_dtype,
)
from marsretrieval.encoders.transformers import (
    ImagePreprocess,
    find_files,
    import_transformers,
    load_image_processor,
    load_strictly,
)
from marsretrieval.errors import ModelLoadError

_ARCHITECTURES = frozenset(architecture for architecture, _ in VISION_ONLY.values())
_POOLINGS = ("cls", "mean", "pooler")
_WITH_CLASS_TOKEN = ("Dinov2Model", "Dinov2WithRegistersModel", "DINOv3ViTModel", "ViTModel")


def load(spec: ModelSpec, options: LoadOptions) -> VisionOnlyEncoder:
    """Load a vision tower from the hub or from a folder.

    `settings` of the spec: architecture, pooling (cls, mean over the patch tokens, or pooler: the
    model's own), resize (pil, or torchvision if the library has no other), unused (prefixes of
    weights that do not affect the vectors), arguments (of the class), gpu_dtype.

    Args:
        spec: The model.
        options: Load options.

    Returns:
        The encoder.

    Raises:
        ModelLoadError: If the spec is invalid, or weights are missing or unexpected.
    """
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device, on_gpu=spec.settings.get("gpu_dtype", "float32"))
    transformers = import_transformers()
    architecture = spec.settings.get("architecture")
    if architecture not in _ARCHITECTURES:
        raise ModelLoadError(
            f"{spec.id}: architecture {architecture} is not one of "
            f"{', '.join(sorted(_ARCHITECTURES))}"
        )
    files = find_files(spec, options)
    model = load_strictly(
        getattr(transformers, architecture),
        files.folder,
        dtype=dtype,
        unused=spec.settings.get("unused", ()),
        **spec.settings.get("arguments", {}),
    )
    preprocess = ImagePreprocess(
        load_image_processor(
            files.folder,
            backend=spec.settings.get("resize", "pil"),
            trust_remote_code=options.trust_remote_code,
        )
    )
    return VisionOnlyEncoder(spec, options, model, preprocess, device, dtype, files.revision)


class VisionOnlyEncoder(TorchImageEncoder):
    """Encoder that returns the class token, the mean patch token or the model's pooled output."""

    _preprocess: ImagePreprocess

    def __init__(
        self,
        spec: ModelSpec,
        options: LoadOptions,
        model: Any,
        preprocess: ImagePreprocess,
        device: torch.device,
        dtype: torch.dtype,
        revision: str | None,
    ) -> None:
        """Wrap a loaded model.

        Args:
            spec: Spec of the model.
            options: Load options.
            model: The transformers model.
            preprocess: Its preprocessing.
            device: Target device.
            dtype: Target precision.
            revision: Commit of the loaded repository.

        Raises:
            ModelLoadError: If the model does not support the pooling of the spec.
        """
        super().__init__(spec, options, model, device=device, dtype=dtype, revision=revision)
        self._preprocess = preprocess
        widths = getattr(model.config, "hidden_sizes", None)  # of the stages of a ConvNeXt
        self._dimension = int(widths[-1] if widths else model.config.hidden_size)
        # DINOv3 has a class token and registers before the patches; AIMv2 has neither.
        registers = int(getattr(model.config, "num_register_tokens", None) or 0)
        self._prefix = 1 + registers if type(model).__name__ in _WITH_CLASS_TOKEN else 0
        self._pooling = spec.settings.get("pooling")
        if self._pooling not in _POOLINGS or (self._pooling == "cls" and self._prefix == 0):
            raise ModelLoadError(
                f"{spec.id}: pooling {self._pooling} is not supported by {type(model).__name__}"
            )

    @property
    def preprocessing(self) -> dict[str, Any]:
        """JSON-ready description of `preprocess`."""
        return {**self._preprocess.description, "pooling": self._pooling}

    def _join(self, features: Sequence[Features]) -> Inputs:
        return {"pixel_values": torch.cat([item["pixel_values"] for item in features])}

    def _embed_images(self, inputs: Inputs) -> torch.Tensor:
        output = self.model(**inputs)
        if self._pooling == "pooler":
            vectors: torch.Tensor = output.pooler_output
            return vectors.flatten(1)
        tokens: torch.Tensor = output.last_hidden_state
        if self._pooling == "cls":
            return tokens[:, 0]
        return tokens[:, self._prefix :].float().mean(1)
