"""Load two-tower models through transformers: CLIPModel (BGE-VL) and Aimv2Model (AIMv2-lit)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image

from marsretrieval.encoders.base import Features, LoadOptions, ModelSpec, TextRole
from marsretrieval.encoders.torch_encoder import Inputs, TorchEncoder, choose_device, choose_dtype
from marsretrieval.encoders.transformers import (
    ImagePreprocess,
    find_files,
    import_transformers,
    load_image_processor,
    load_strictly,
    loading,
)
from marsretrieval.errors import ModelLoadError

_TEXTS_PER_BATCH = 256
_ARCHITECTURES = ("CLIPModel", "Aimv2Model")


def load(spec: ModelSpec, options: LoadOptions) -> TwoTowerEncoder:
    """Load a two-tower model from the hub or from a folder.

    `settings` of the spec: architecture (CLIPModel, Aimv2Model), attention (the library's
    implementation for each tower), gpu_dtype.

    Args:
        spec: The model.
        options: Load options.

    Returns:
        The encoder.

    Raises:
        ModelLoadError: If weights are missing or unexpected.
    """
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device, on_gpu=spec.settings.get("gpu_dtype", "float32"))
    transformers = import_transformers()
    architecture = spec.settings.get("architecture")
    if architecture not in _ARCHITECTURES:
        raise ModelLoadError(
            f"{spec.id}: architecture {architecture} is not one of {', '.join(_ARCHITECTURES)}"
        )
    files = find_files(spec, options)
    arguments = {}
    if "attention" in spec.settings:
        # AIMv2's text tower is causal, but the library marks that for SDPA only by a mask, which
        # it omits if nothing is padded: a single text would attend to later tokens.
        arguments["attn_implementation"] = dict(spec.settings["attention"])
    model = load_strictly(
        getattr(transformers, architecture), files.folder, dtype=dtype, **arguments
    )
    with loading(files.folder):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            files.folder, local_files_only=True, trust_remote_code=options.trust_remote_code
        )
    preprocess = ImagePreprocess(
        load_image_processor(files.folder, trust_remote_code=options.trust_remote_code)
    )
    return TwoTowerEncoder(
        spec, options, model, tokenizer, preprocess, device, dtype, files.revision
    )


class TwoTowerEncoder(TorchEncoder):
    """Encoder of projected image and text features.

    Texts are padded on the right and truncated at the context length.
    """

    def __init__(
        self,
        spec: ModelSpec,
        options: LoadOptions,
        model: Any,
        tokenizer: Any,
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
            tokenizer: Its tokenizer.
            preprocess: Its preprocessing.
            device: Target device.
            dtype: Target precision.
            revision: Commit of the loaded repository.
        """
        super().__init__(spec, options, model, device=device, dtype=dtype, revision=revision)
        self._features: Any = model  # the same module as `self.model`, untyped
        self._tokenizer = tokenizer
        self._preprocess = preprocess
        self._context = int(model.config.text_config.max_position_embeddings)
        self._width = int(model.config.projection_dim)

    @property
    def dimension(self) -> int:
        """Vector dimension."""
        return self._width

    @property
    def preprocess(self) -> Callable[[Image.Image], Features]:
        """Picklable preprocessing of one image."""
        return self._preprocess

    @property
    def preprocessing(self) -> dict[str, Any]:
        """JSON-ready description of `preprocess`."""
        return self._preprocess.description

    @property
    def prompts(self) -> dict[str, Any]:
        """Prompt templates: both presets use the text alone."""
        template = "{text}"
        return {**super().prompts, "query": template, "caption": template}

    def _join(self, features: Sequence[Features]) -> Inputs:
        return {"pixel_values": torch.cat([item["pixel_values"] for item in features])}

    def _embed_images(self, inputs: Inputs) -> torch.Tensor:
        output = self._features.get_image_features(**inputs)
        vectors: torch.Tensor = output.pooler_output
        return vectors

    def _embed_texts(self, texts: Sequence[str], role: TextRole) -> torch.Tensor:
        parts = []
        for start in range(0, len(texts), _TEXTS_PER_BATCH):
            batch = self._tokenizer(
                list(texts[start : start + _TEXTS_PER_BATCH]),
                padding=True,
                padding_side="right",
                truncation=True,
                max_length=self._context,
                return_tensors="pt",
            ).to(self.device)
            output = self._features.get_text_features(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            )
            parts.append(output.pooler_output)
        return torch.cat(parts)

    def count_truncated(self, texts: Sequence[str], *, role: TextRole = "query") -> int | None:
        """Count the texts that exceed the model's context length.

        Args:
            texts: The texts.
            role: Ignored: queries and captions have the same prompt.

        Returns:
            Number of truncated texts.
        """
        if not texts:
            return 0
        lengths = [len(ids) for ids in self._tokenizer(list(texts), verbose=False)["input_ids"]]
        return sum(length > self._context for length in lengths)
