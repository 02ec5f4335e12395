"""Merge low-rank adapters into their base model.

LoRA (Hu et al. 2021, arXiv:2106.09685): W + s B A with s = alpha / rank.
rsLoRA (Kalajdzievski 2023, arXiv:2312.03732): s = alpha / sqrt(rank).
DoRA (Liu et al. 2024, arXiv:2402.09353): m (W + s B A) / ||W + s B A||, the norm by output row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from marsretrieval.encoders.transformers import loading
from marsretrieval.errors import DataError, ModelLoadError
from marsretrieval.io import JsonObject, from_json, read_json

_CONFIG = "adapter_config.json"
_KEY = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\."
    r"(?P<part>lora_A|lora_B|lora_magnitude_vector)(?:\.default)?(?:\.weight)?"
)
# Old and new prefixes: adapters saved before transformers 4.52 use an older module layout.
_LAYOUTS = (
    ("", ""),
    ("model.", "model.language_model."),
    ("visual.", "model.visual."),
    ("language_model.model.", "model.language_model."),
    ("vision_tower.", "model.vision_tower."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
)


class AdapterConfig(JsonObject, total=False):
    """Content of `adapter_config.json` as peft writes it."""

    peft_type: str | None
    bias: str | None
    lora_alpha: float | None
    r: float | None
    use_dora: bool | None
    use_rslora: bool | None
    fan_in_fan_out: bool | None
    base_model_name_or_path: str | None
    revision: str | None
    rank_pattern: dict[str, float] | None
    alpha_pattern: dict[str, float] | None


def read_adapter_config(folder: Path) -> AdapterConfig | None:
    """Read the `adapter_config.json` of a folder.

    Args:
        folder: Folder of a model or an adapter.

    Returns:
        The configuration. None if the folder contains a whole model.

    Raises:
        ModelLoadError: If the file is invalid or describes an unsupported adapter.
    """
    path = folder / _CONFIG
    if not path.exists():
        return None
    try:
        config = from_json(AdapterConfig, read_json(path), source=path)
    except DataError as error:
        raise ModelLoadError(error.message, remedy=error.remedy) from error
    if config.get("peft_type") != "LORA" or not config.get("lora_alpha"):
        raise ModelLoadError(
            f"{path}: only LoRA adapters can be folded into a model",
            remedy="Merge the adapter into its base model with PEFT, and use the result.",
        )
    if config.get("bias", "none") != "none" or config.get("fan_in_fan_out"):
        raise ModelLoadError(
            f"{path}: adapters with bias or fan_in_fan_out are not supported",
            remedy="Merge the adapter into its base model with PEFT, and use the result.",
        )
    return config


def fold_adapter(model: torch.nn.Module, folder: Path, config: AdapterConfig) -> int:
    """Merge an adapter into the linear layers of a model, in place.

    Args:
        model: The base model.
        folder: Folder of the adapter.
        config: Configuration of the adapter.

    Returns:
        Number of changed layers.

    Raises:
        ModelLoadError: If a tensor is unknown or has no layer. Ignoring it would change the vectors
            unnoticed.
    """
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in _read_tensors(folder).items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise ModelLoadError(
                f"{folder}: adapter weight {key} is not a LoRA weight of a layer",
                remedy="Merge the adapter into its base model with PEFT, and use the result.",
            )
        pairs.setdefault(match["module"], {})[match["part"]] = tensor
    needed = {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if config.get("use_dora") else set())
    modules = dict(model.named_modules())
    for name, parts in pairs.items():
        if parts.keys() != needed:
            raise ModelLoadError(
                f"{folder}: adapter of {name} has {', '.join(sorted(parts))} and needs "
                f"{', '.join(sorted(needed))}",
                remedy="Download the adapter again.",
            )
        _fold(_find_linear(modules, name, folder), parts, _scale(config, name, parts), name, folder)
    if not pairs:
        raise ModelLoadError(
            f"{folder}: the adapter holds no weights", remedy="Download the adapter again."
        )
    return len(pairs)


@torch.no_grad()
def _fold(
    layer: torch.nn.Linear,
    parts: Mapping[str, torch.Tensor],
    scale: float,
    name: str,
    folder: Path,
) -> None:
    update = scale * (parts["lora_B"].float() @ parts["lora_A"].float())
    if update.shape != layer.weight.shape:
        raise ModelLoadError(
            f"{folder}: adapter of {name} is {tuple(update.shape)}, its layer "
            f"{tuple(layer.weight.shape)}",
            remedy="Use the adapter with its own base model.",
        )
    weight = layer.weight.float() + update.to(layer.weight.device)
    magnitude = parts.get("lora_magnitude_vector")
    if magnitude is not None:
        norms = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
        weight = weight * (magnitude.float().view(-1, 1).to(weight.device) / norms)
    layer.weight.copy_(weight)


def _scale(config: AdapterConfig, name: str, parts: Mapping[str, torch.Tensor]) -> float:
    alpha = config["lora_alpha"] or 0.0
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        try:
            matches = re.fullmatch(rf"(.*\.)?({pattern})", name)
        except re.error as error:
            raise ModelLoadError(
                f"{_CONFIG}: alpha_pattern: invalid pattern {pattern[:60]!r} ({error})",
                remedy="Correct the regular expression.",
            ) from error
        if matches:
            alpha = value
            break
    rank = parts["lora_A"].shape[0]
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _find_linear(
    modules: Mapping[str, torch.nn.Module], name: str, folder: Path
) -> torch.nn.Linear:
    for old, new in _LAYOUTS:
        if name.startswith(old):
            module = modules.get(new + name.removeprefix(old))
            if isinstance(module, torch.nn.Linear):
                return module
    raise ModelLoadError(
        f"{folder}: the model has no linear layer {name} for the adapter",
        remedy="Use the adapter with its own base model.",
    )


def _read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    safe, pickled = folder / "adapter_model.safetensors", folder / "adapter_model.bin"
    with loading(folder):
        if safe.exists():
            from safetensors.torch import load_file

            return dict(load_file(safe))
        if pickled.exists():
            return dict(torch.load(pickled, map_location="cpu", weights_only=True))
    raise ModelLoadError(
        f"{folder}: adapter_model.safetensors is missing",
        remedy="Download the whole folder of the adapter again.",
    )
