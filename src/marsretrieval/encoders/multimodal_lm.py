"""Embed images and texts with multimodal language models.

A recipe in the model's spec sets prompts, pooling and positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from marsretrieval.encoders.base import Features, LoadOptions, ModelSpec, TextRole
from marsretrieval.encoders.lora import fold_adapter, read_adapter_config
from marsretrieval.encoders.torch_encoder import Inputs, TorchEncoder, choose_device, choose_dtype
from marsretrieval.encoders.transformers import (
    Files,
    ImagePreprocess,
    find_files,
    import_transformers,
    load_image_processor,
    load_strictly,
    loading,
)
from marsretrieval.errors import ModelLoadError

_TEXT = "{text}"
_CHOICES = {"pooling": ("last", "mean"), "positions": ("model", "1d")}
_TEXTS_PER_BATCH = 16
_PROCESSORS = {
    "qwen2_vl": "Qwen2VLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen3_vl": "Qwen3VLProcessor",
    "llava_next": "LlavaNextProcessor",
}
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_HEAD = "lm_head."  # scores over the vocabulary: not used, and missing in some repositories


def load(spec: ModelSpec, options: LoadOptions) -> MultimodalEncoder:
    """Load a multimodal language model, or an adapter with its base model.

    The generation class is loaded and its core kept, because only that class reads all layouts of
    such checkpoints. `settings` of the spec: prompts (by preset), pooling, positions, min_pixels,
    max_pixels, gpu_dtype, base (base model of an adapter whose configuration names none that can be
    reached), unused (prefixes of weights that do not affect the vectors).

    Args:
        spec: The model.
        options: Load options.

    Returns:
        The encoder.

    Raises:
        ModelLoadError: If the spec is invalid, or files are missing, unexpected or unreadable.
    """
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device, on_gpu=spec.settings.get("gpu_dtype", "bfloat16"))
    recipe = InputRecipe.from_spec(spec, options)
    transformers = import_transformers()
    files = find_files(spec, options)
    adapter = read_adapter_config(files.folder)
    base_files = files if adapter is None else _find_base(spec, options, files.folder, adapter)
    model = load_strictly(
        transformers.AutoModelForImageTextToText,
        base_files.folder,
        dtype=dtype,
        unused=(_HEAD, *spec.settings.get("unused", ())),
        trust_remote_code=options.trust_remote_code,
    )
    base = None
    if adapter is not None:
        fold_adapter(model, files.folder, adapter)
        base = {"repository": _base_name(spec, adapter), "revision": base_files.revision}
    return MultimodalEncoder(
        spec,
        options,
        model.model,
        _load_processor(spec, options, files.folder, base_files.folder, model.config, recipe),
        recipe,
        device=device,
        dtype=dtype,
        revision=files.revision,
        base=base,
    )


@dataclass(frozen=True, slots=True)
class InputRecipe:
    """Prompts, pooling and positions of a multimodal language model.

    Attributes:
        query: Prompt template of a query, with ``{text}`` once.
        caption: Prompt template of a caption, with ``{text}`` once.
        image: Prompt of an image, with one image token.
        pooling: "last" token, or "mean" of the tokens of a text, or of an image from vision start
            to vision end.
        positions: "model" for the model's own (M-RoPE: an image's tokens have a row and a column),
            or "1d" for the index in the sequence.
        context: Largest number of tokens of a prompt; longer texts are truncated. None for no
            limit.
        min_pixels: Smallest number of pixels of the resized image.
        max_pixels: Largest number of pixels of the resized image.
    """

    query: str
    caption: str
    image: str
    pooling: str = "last"
    positions: str = "model"
    context: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None

    @classmethod
    def from_spec(cls, spec: ModelSpec, options: LoadOptions) -> InputRecipe:
        """Read the recipe from a spec's settings.

        Args:
            spec: The model.
            options: Load options, which select the prompt preset.

        Returns:
            The recipe.

        Raises:
            ModelLoadError: If a key is missing or invalid. Names the key.
        """
        presets: Mapping[str, Mapping[str, str]] = spec.settings.get("prompts", {})
        if options.prompts not in presets:
            raise ModelLoadError(
                f"{spec.id} has no prompts '{options.prompts}'",
                remedy=f"It has: {', '.join(presets) or 'none'}.",
            )
        prompts = presets[options.prompts]
        for key in ("query", "caption"):
            if prompts.get(key, "").count(_TEXT) != 1:
                raise ModelLoadError(f"{spec.id}: prompt '{key}' must hold {_TEXT} once")
        if not prompts.get("image"):
            raise ModelLoadError(f"{spec.id}: prompt 'image' is missing")
        chosen: dict[str, Any] = {}
        for key, allowed in _CHOICES.items():
            chosen[key] = spec.settings.get(key, allowed[0])
            if chosen[key] not in allowed:
                raise ModelLoadError(
                    f"{spec.id}: {key} is '{chosen[key]}', not one of {', '.join(allowed)}"
                )
        return cls(
            query=prompts["query"],
            caption=prompts["caption"],
            image=prompts["image"],
            context=spec.context_length,
            min_pixels=spec.settings.get("min_pixels"),
            max_pixels=spec.settings.get("max_pixels"),
            **chosen,
        )

    def template(self, role: TextRole) -> str:
        """Return the prompt template of texts.

        Args:
            role: Whether the texts are queries or captions.

        Returns:
            The template.
        """
        return self.query if role == "query" else self.caption

    @property
    def pixel_limits(self) -> dict[str, int]:
        """Pixel limits that are set, by name."""
        limits = {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
        return {key: value for key, value in limits.items() if value is not None}


def cut_caption(tokenizer: Any, template: str, text: str, limit: int | None) -> tuple[str, bool]:
    """Insert a text into a template, truncated to a number of tokens.

    Only the text is truncated, at the end of a token. The template stays whole, because the vector
    is read at its last token.

    Args:
        tokenizer: Tokenizer of the model.
        template: Prompt with ``{text}`` once.
        text: The text.
        limit: Largest number of tokens of the prompt. None for no limit.

    Returns:
        The prompt, and whether the text was truncated.
    """
    before, after = template.split(_TEXT)
    prompt = before + text + after
    if limit is None:
        return prompt, False
    encoding = _encode(tokenizer, prompt)
    surplus = len(encoding["input_ids"]) - limit
    if surplus <= 0:
        return prompt, False
    starts = [
        start
        for start, end in encoding["offset_mapping"]
        if start < end and len(before) <= start < len(before) + len(text)
    ]
    while surplus > 0 and starts:
        keep = max(0, len(starts) - surplus)
        end = starts[keep] - len(before)
        starts = starts[:keep]
        prompt = before + text[:end] + after
        surplus = len(_encode(tokenizer, prompt)["input_ids"]) - limit
    return prompt, True


def _encode(tokenizer: Any, text: str) -> Any:
    return tokenizer(text, return_offsets_mapping=True, verbose=False)


class MultimodalEncoder(TorchEncoder):
    """Encoder for a multimodal language model.

    The model is the core of a generation model, which computes no scores over the vocabulary.
    `preprocess` runs the image processor on one image. `collate` writes the prompts with each
    image's number of image tokens and pads them on the left. The model runs once per batch.
    """

    _preprocess: ImagePreprocess

    def __init__(
        self,
        spec: ModelSpec,
        options: LoadOptions,
        model: Any,
        processor: Any,
        recipe: InputRecipe,
        *,
        device: torch.device,
        dtype: torch.dtype,
        revision: str | None,
        base: Mapping[str, Any] | None = None,
    ) -> None:
        """Wrap a loaded model.

        Args:
            spec: Spec of the model.
            options: Load options.
            model: Core of the generation model.
            processor: Tokenizer and image processor.
            recipe: Prompts, pooling and positions.
            device: Target device.
            dtype: Target precision.
            revision: Commit of the loaded repository.
            base: Repository and commit of an adapter's base model.
        """
        super().__init__(spec, options, model, device=device, dtype=dtype, revision=revision)
        self.recipe = recipe
        self._base = base
        self._config = model.config
        self._dimension = int(model.config.get_text_config().hidden_size)
        self._rotary_3d = hasattr(model, "get_rope_index")
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._tokenizer.padding_side = "left"  # the last column is the last token of every row
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._preprocess = ImagePreprocess(processor.image_processor)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """JSON-ready identity of the vectors."""
        recipe = {"pooling": self.recipe.pooling, "positions": self.recipe.positions}
        return {**super().fingerprint, "base": self._base, "recipe": recipe}

    @property
    def preprocessing(self) -> dict[str, Any]:
        """JSON-ready description of `preprocess`."""
        return {**self._preprocess.description, **self.recipe.pixel_limits}

    @property
    def prompts(self) -> dict[str, Any]:
        """JSON-ready prompt preset and templates."""
        return {
            **super().prompts,
            "query": self.recipe.query,
            "caption": self.recipe.caption,
            "image": self.recipe.image,
            "context": self.recipe.context,
        }

    def count_truncated(self, texts: Sequence[str], *, role: TextRole = "query") -> int | None:
        """Count the texts that exceed the context of the recipe.

        Args:
            texts: The texts.
            role: Whether the texts are queries or captions.

        Returns:
            Number of truncated texts.
        """
        return sum(self._prompt(text, role)[1] for text in texts)

    def _prompt(self, text: str, role: TextRole) -> tuple[str, bool]:
        template = self.recipe.template(role)
        return cut_caption(self._tokenizer, template, text, self.recipe.context)

    def _embed_texts(self, texts: Sequence[str], role: TextRole) -> torch.Tensor:
        prompts = [self._prompt(text, role)[0] for text in texts]
        parts = []
        for start in range(0, len(prompts), _TEXTS_PER_BATCH):
            tokens = self._tokenize(prompts[start : start + _TEXTS_PER_BATCH])
            batch = {name: value.to(self.device) for name, value in tokens.items()}
            hidden = self._run(batch, self._positions_1d(batch["attention_mask"]))
            parts.append(self._pool(hidden, batch["attention_mask"].bool()))
        return torch.cat(parts)

    def _join(self, features: Sequence[Features]) -> Inputs:
        batch = self._tokenize([self._image_prompt(image_features) for image_features in features])
        if self._rotary_3d:
            image_token = self._processor.image_token_id
            batch["mm_token_type_ids"] = (batch["input_ids"] == image_token).int()
        return {**batch, **_concatenate(features)}

    def _embed_images(self, inputs: Inputs) -> torch.Tensor:
        flat = self.recipe.positions == "1d" or not self._rotary_3d
        hidden = self._run(inputs, self._positions_1d(inputs["attention_mask"]) if flat else None)
        return self._pool(hidden, self._image_span(inputs["input_ids"]))

    def _image_prompt(self, features: Mapping[str, torch.Tensor]) -> str:
        """Return the image prompt, with the image token repeated once per token of the image."""
        tokens = self._processor.replace_image_token(features, 0)
        return self.recipe.image.replace(self._processor.image_token, tokens)

    def _tokenize(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        batch = self._tokenizer(prompts, padding=True, return_tensors="pt", verbose=False)
        return {key: batch[key] for key in ("input_ids", "attention_mask")}

    def _run(self, batch: Inputs, positions: torch.Tensor | None) -> torch.Tensor:
        """Run the model: (n, length, d), the last layer after its norm.

        With `positions` None, the model computes its own.
        """
        output = self.model(**batch, position_ids=positions, use_cache=False)
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def _positions_1d(self, mask: torch.Tensor) -> torch.Tensor:
        """Count positions from each row's first valid token, as if the row were run alone."""
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        return positions.expand(3, -1, -1) if self._rotary_3d else positions

    def _pool(self, hidden: torch.Tensor, span: torch.Tensor) -> torch.Tensor:
        if self.recipe.pooling == "last":
            return hidden[:, -1]
        weights = span.unsqueeze(-1).float()
        return (hidden.float() * weights).sum(1) / weights.sum(1)

    def _image_span(self, ids: torch.Tensor) -> torch.Tensor:
        """Mark the tokens from vision start to vision end, inclusive: (n, length) bool."""
        start = ids == getattr(self._config, "vision_start_token_id", -1)
        end = ids == getattr(self._config, "vision_end_token_id", -1)
        return (start.cumsum(1) > end.cumsum(1)) | end


def _concatenate(features: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Join batches of one image into one batch.

    E5-V's tiles (1, tiles, 3, h, w) are padded to the largest number of tiles; the model removes
    the padding by the image's size.
    """
    joined = {}
    for key in features[0]:
        parts = [image_features[key] for image_features in features]
        if parts[0].ndim == 5:
            most = max(part.shape[1] for part in parts)
            parts = [
                torch.nn.functional.pad(part, (0, 0) * 3 + (0, most - part.shape[1]))
                for part in parts
            ]
        joined[key] = torch.cat(parts)
    return joined


def _find_base(
    spec: ModelSpec, options: LoadOptions, folder: Path, adapter: Mapping[str, Any]
) -> Files:
    """Find the base model of an adapter: a folder (absolute or relative to it) or a repository."""
    named = str(adapter.get("base_model_name_or_path") or "")
    for path in (Path(named), folder / named):
        if named and (path / "config.json").exists():
            return Files(path)
    repository = _base_name(spec, adapter)
    if repository.count("/") != 1 or repository.startswith(("/", ".")):
        raise ModelLoadError(
            f"{folder}: the base model of this adapter, {named or 'unnamed'}, does not exist",
            remedy="Set base_model_name_or_path in its adapter_config.json to the folder.",
        )
    return find_files(
        replace(spec, repository=repository, revision=adapter.get("revision")),
        replace(options, checkpoint=None),
    )


def _base_name(spec: ModelSpec, adapter: Mapping[str, Any]) -> str:
    """Return the base in the spec, else in the adapter, whose path may be of another machine."""
    return str(spec.settings.get("base") or adapter.get("base_model_name_or_path") or "")


def _load_processor(
    spec: ModelSpec,
    options: LoadOptions,
    folder: Path,
    base: Path,
    config: Any,
    recipe: InputRecipe,
) -> Any:
    """Load tokenizer and image processor from the adapter, or from its base if it has none."""
    name = _PROCESSORS.get(config.model_type)
    if name is None:
        raise ModelLoadError(
            f"{spec.id}: {base} holds a {config.model_type}, not one of {', '.join(_PROCESSORS)}"
        )
    has_own = any((folder / file_name).exists() for file_name in _PROCESSOR_FILES)
    source = folder if has_own else base
    with loading(source):
        processor = getattr(import_transformers(), name).from_pretrained(
            source, local_files_only=True, trust_remote_code=options.trust_remote_code
        )
    processor.image_processor = load_image_processor(
        source, limits=recipe.pixel_limits, trust_remote_code=options.trust_remote_code
    )
    if config.model_type == "llava_next":
        # Processors saved without these fields count one token too few or fail.
        processor.patch_size = config.vision_config.patch_size
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
        has_class_token = config.vision_config.model_type == "clip_vision_model"
        processor.num_additional_image_tokens = int(has_class_token)
    return processor
