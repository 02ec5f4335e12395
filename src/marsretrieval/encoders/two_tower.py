"""Load two-tower models through transformers: CLIP, SigLIP, AIMv2, TIPSv2 and their kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

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


@dataclass(frozen=True, slots=True)
class _Texts:
    """How the texts of an architecture are made into tokens, as in its training.

    Attributes:
        context: Largest number of tokens. None for the positions of its text tower.
        filled: Pad every text to the context, without a mask: the vector is at the last position.
        lower: Texts are in lower case.
    """

    context: int | None = None
    filled: bool = False
    lower: bool = False


_SIGLIP = _Texts(filled=True, lower=True)
_ARCHITECTURES = {
    "CLIPModel": _Texts(),
    "Aimv2Model": _Texts(),
    "AltCLIPModel": _Texts(context=77),
    "ChineseCLIPModel": _Texts(context=52),
    "MetaClip2Model": _Texts(),
    "SiglipModel": _SIGLIP,
    "Siglip2Model": _SIGLIP,
    "Tipsv2Model": _Texts(lower=True),
}


def load(spec: ModelSpec, options: LoadOptions) -> TwoTowerEncoder:
    """Load a two-tower model from the hub or from a folder.

    `settings` of the spec: architecture (a class of transformers), attention (the library's
    implementation for each tower), resize (pil, or torchvision if the library has no other),
    gpu_dtype.

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
        load_image_processor(
            files.folder,
            backend=spec.settings.get("resize", "pil"),
            trust_remote_code=options.trust_remote_code,
        )
    )
    return TwoTowerEncoder(
        spec, options, model, tokenizer, preprocess, device, dtype, files.revision
    )


class TwoTowerEncoder(TorchEncoder):
    """Encoder of projected image and text features.

    Texts are padded on the right and truncated at the context length.
    """

    _preprocess: ImagePreprocess

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
        self._texts = _ARCHITECTURES[spec.settings["architecture"]]
        positions = int(model.config.text_config.max_position_embeddings)
        self._context = self._texts.context or positions
        # Towers without a projection, such as SigLIP's, have the vector's width.
        width = getattr(model.config, "projection_dim", None)
        self._dimension = int(width or model.config.vision_config.hidden_size)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """JSON-ready description of `preprocess`."""
        return self._preprocess.description

    @property
    def prompts(self) -> dict[str, Any]:
        """Prompt templates: both presets use the text alone."""
        template = "{text}"
        prompts = {**super().prompts, "query": template, "caption": template}
        if self._texts.filled or self._texts.lower:
            prompts["tokens"] = {
                "context": self._context,
                "padded_to_context": self._texts.filled,
                "lower_case": self._texts.lower,
            }
        return prompts

    def _join(self, features: Sequence[Features]) -> Inputs:
        return {key: torch.cat([item[key] for item in features]) for key in features[0]}

    def _embed_images(self, inputs: Inputs) -> torch.Tensor:
        output = self._features.get_image_features(**inputs)
        vectors: torch.Tensor = output.pooler_output
        return vectors

    def _embed_texts(self, texts: Sequence[str], role: TextRole) -> torch.Tensor:
        parts = []
        for start in range(0, len(texts), _TEXTS_PER_BATCH):
            batch = self._tokenizer(
                self._written(texts[start : start + _TEXTS_PER_BATCH]),
                padding="max_length" if self._texts.filled else True,
                padding_side="right",
                truncation=True,
                max_length=self._context,
                return_tensors="pt",
            ).to(self.device)
            mask = {} if self._texts.filled else {"attention_mask": batch["attention_mask"]}
            output = self._features.get_text_features(input_ids=batch["input_ids"], **mask)
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
        written = self._written(texts)
        lengths = [len(ids) for ids in self._tokenizer(written, verbose=False)["input_ids"]]
        return sum(length > self._context for length in lengths)

    def _written(self, texts: Sequence[str]) -> list[str]:
        return [text.lower() for text in texts] if self._texts.lower else list(texts)
