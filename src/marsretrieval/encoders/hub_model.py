"""Load a model of the Hugging Face hub by its repository: ``hf:REPOSITORY[@REVISION]``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from marsretrieval.encoders import open_clip, timm, two_tower, vision_only
from marsretrieval.encoders.base import Encoder, LoadOptions, ModelSpec
from marsretrieval.encoders.hub import snapshot
from marsretrieval.encoders.library_names import TWO_TOWERS, VISION_ONLY, modalities_of_config
from marsretrieval.errors import DataError, ModelLoadError
from marsretrieval.io import read_json

_CONFIG = "config.json"
_OPEN_CLIP_CONFIG = "open_clip_config.json"
_HEADS = ("classifier.", "pooler.")  # of classifiers and of ViT's pooler, which is not used


def load(spec: ModelSpec, options: LoadOptions) -> Encoder:
    """Load a repository or a folder with the loader that its configuration asks for.

    Layouts: transformers (config.json), open_clip (open_clip_config.json) and timm (config.json
    with `architecture`). The class comes from the configuration's `model_type`; classes whose
    vectors would need a recipe (pooling, prompts) that no configuration states are refused.

    Args:
        spec: The model.
        options: Load options.

    Returns:
        The encoder.

    Raises:
        ModelLoadError: If the repository cannot be read, or holds another kind of model.
    """
    folder = _config_folder(spec, options)
    if (folder / _OPEN_CLIP_CONFIG).is_file():
        return open_clip.load(spec, options)
    config = _read(spec, folder / _CONFIG)
    spec = replace(spec, modalities=modalities_of_config(config))
    if "model_type" not in config and "architecture" in config:
        return timm.load(replace(spec, settings={**spec.settings, "layout": "hub"}), options)
    kind = str(config.get("model_type"))
    if kind in TWO_TOWERS:
        return two_tower.load(_with(spec, architecture=TWO_TOWERS[kind], **_towers(kind)), options)
    if kind in VISION_ONLY:
        architecture, pooling = VISION_ONLY[kind]
        more = {"arguments": {"add_pooling_layer": False}} if kind == "vit" else {}
        unused = _HEADS if pooling == "cls" else _HEADS[:1]
        return vision_only.load(
            _with(spec, architecture=architecture, pooling=pooling, unused=unused, **more), options
        )
    raise ModelLoadError(
        f"{spec.id}: {folder} holds a model of type {kind}, whose vectors are not defined by its "
        "configuration",
        remedy=f"hf: loads {', '.join((*TWO_TOWERS, *VISION_ONLY))}. Multimodal language models: "
        "marsretrieval models, or st:NAME; others: a class of your own (docs/howto/model.md).",
    )


def check_folder(spec: ModelSpec, options: LoadOptions) -> None:
    """Check, without reading weights, that a local folder or checkpoint is in a known layout.

    Args:
        spec: The model.
        options: Load options.

    Raises:
        ModelLoadError: If it is not. A repository of the hub is not checked.
    """
    checkpoint = options.checkpoint
    folder = checkpoint if checkpoint is not None else Path(spec.repository)
    if folder.is_dir() and not (folder / _OPEN_CLIP_CONFIG).is_file():
        _read(spec, folder / _CONFIG)


def _towers(kind: str) -> dict[str, Any]:
    if kind == "aimv2":  # its text tower is causal, which the library's SDPA omits without padding
        return {"attention": {"text_config": "eager", "vision_config": "sdpa"}}
    return {}


def _with(spec: ModelSpec, **settings: Any) -> ModelSpec:
    return replace(spec, settings={**spec.settings, **settings})


def _config_folder(spec: ModelSpec, options: LoadOptions) -> Path:
    """Return the folder with the configuration: the checkpoint's, the model's, or the hub's."""
    checkpoint = options.checkpoint
    if checkpoint is not None and checkpoint.is_dir():
        return checkpoint
    if Path(spec.repository).is_dir():
        folder = Path(spec.repository)
    else:
        folder, _ = snapshot(spec, (_CONFIG, _OPEN_CLIP_CONFIG), offline=options.offline)
    timm_layout = (folder / _CONFIG).is_file() and "model_type" not in _read(spec, folder / _CONFIG)
    if checkpoint is not None and not timm_layout:
        raise ModelLoadError(
            f"{spec.id}: {checkpoint} is not a folder",
            remedy="Give the folder that save_pretrained wrote; a checkpoint file of open_clip "
            "goes with oc:ARCHITECTURE --checkpoint FILE.",
        )
    return folder


def _read(spec: ModelSpec, path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ModelLoadError(
            f"{spec.id}: {path.parent} has no {_CONFIG} and no {_OPEN_CLIP_CONFIG}",
            remedy="Give a repository of transformers, open_clip or timm; bare weights go with "
            "oc:ARCHITECTURE --checkpoint FILE or timm:NAME --checkpoint FILE.",
        )
    try:
        config = read_json(path)
    except DataError as error:
        raise ModelLoadError(f"{spec.id}: {error.message}", remedy=error.remedy) from error
    if not isinstance(config, dict):
        raise ModelLoadError(f"{spec.id}: {path} is not a JSON object")
    return config
