"""From a folder or the hub to a MultimodalEncoder: model, adapter, processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from marsretrieval.encoders._record import LoadOptions, ModelRecord
from marsretrieval.encoders._torch import choose_device, choose_dtype
from marsretrieval.encoders._transformers import (
    Files,
    find_files,
    import_transformers,
    load_image_processor,
    load_strictly,
    loading,
)
from marsretrieval.encoders.multimodal_lm._encoder import MultimodalEncoder
from marsretrieval.encoders.multimodal_lm._lora import fold_adapter, read_adapter_config
from marsretrieval.encoders.multimodal_lm._recipe import Recipe
from marsretrieval.errors import ModelLoadError

_PROCESSORS = {
    "qwen2_vl": "Qwen2VLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen3_vl": "Qwen3VLProcessor",
    "llava_next": "LlavaNextProcessor",
}
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_HEAD = "lm_head."  # scores over the vocabulary; some repositories leave it out, none needs it


def load(record: ModelRecord, options: LoadOptions) -> MultimodalEncoder:
    """Load a multimodal language model from the hub or from a folder; an adapter's base is found
    and the adapter folded into it.

    The generation class is loaded and its core kept: it alone reads every layout that such files
    have had; the bare class would leave the newer ones random. `settings`: prompts (by preset),
    pooling, positions, min_pixels, max_pixels, gpu_dtype, base (of an adapter whose config names
    none that can be reached), unused (weights that play no part). Raises ModelLoadError.
    """
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device, on_gpu=record.settings.get("gpu_dtype", "bfloat16"))
    recipe = Recipe.of(record, options)
    transformers = import_transformers()
    files = find_files(record, options)
    adapter = read_adapter_config(files.folder)
    whole = files if adapter is None else _find_base(record, options, files.folder, adapter)
    model = load_strictly(
        transformers.AutoModelForImageTextToText,
        whole.folder,
        dtype=dtype,
        unused=(_HEAD, *record.settings.get("unused", ())),
        trust_remote_code=options.trust_remote_code,
    )
    base = None
    if adapter is not None:
        fold_adapter(model, files.folder, adapter)
        base = {"repository": _base_name(record, adapter), "revision": whole.revision}
    return MultimodalEncoder(
        record,
        options,
        model.model,
        _load_processor(record, options, files.folder, whole.folder, model.config, recipe),
        recipe,
        device=device,
        dtype=dtype,
        revision=files.revision,
        base=base,
    )


def _find_base(
    record: ModelRecord, options: LoadOptions, folder: Path, adapter: Mapping[str, Any]
) -> Files:
    """The model that an adapter was trained on: a folder, absolute or beside the adapter, or a
    repository."""
    named = str(adapter.get("base_model_name_or_path") or "")
    for path in (Path(named), folder / named):
        if named and (path / "config.json").exists():
            return Files(path)
    repository = _base_name(record, adapter)
    if repository.count("/") != 1 or repository.startswith(("/", ".")):
        raise ModelLoadError(
            f"{folder}: the base model of this adapter, {named or 'unnamed'}, is not there",
            remedy="Set base_model_name_or_path in its adapter_config.json to the folder.",
        )
    return find_files(
        replace(record, repository=repository, revision=adapter.get("revision")),
        replace(options, checkpoint=None),
    )


def _base_name(record: ModelRecord, adapter: Mapping[str, Any]) -> str:
    """As the record says, which outlives the path of whoever trained it; else as the adapter."""
    return str(record.settings.get("base") or adapter.get("base_model_name_or_path") or "")


def _load_processor(
    record: ModelRecord,
    options: LoadOptions,
    folder: Path,
    base: Path,
    config: Any,
    recipe: Recipe,
) -> Any:
    """Tokenizer and image processor; an adapter may bring its own, or leave them to its base."""
    name = _PROCESSORS.get(config.model_type)
    if name is None:
        raise ModelLoadError(
            f"{record.id}: {base} holds a {config.model_type}, not one of {', '.join(_PROCESSORS)}"
        )
    brings = any((folder / each).exists() for each in _PROCESSOR_FILES)
    source = folder if brings else base
    with loading(source):
        processor = getattr(import_transformers(), name).from_pretrained(
            source, local_files_only=True, trust_remote_code=options.trust_remote_code
        )
    processor.image_processor = load_image_processor(
        source, limits=recipe.pixel_limits, trust_remote_code=options.trust_remote_code
    )
    if config.model_type == "llava_next":
        # Processors saved before these fields existed count one token too few or fail.
        processor.patch_size = config.vision_config.patch_size
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
        has_class_token = config.vision_config.model_type == "clip_vision_model"
        processor.num_additional_image_tokens = int(has_class_token)
    return processor
