"""Tiny random-weight open_clip models of each real architecture, saved as open_clip saves them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from marsretrieval.encoders.torch_imports import ensure_torchvision
from marsretrieval.training.train import save_tokenizer

__all__ = ["ARCHITECTURES", "save_checkpoint", "save_folder", "tiny_config"]

_OPENAI = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
_HALF = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
_PREPROCESS = {
    "clip": _OPENAI,
    "marscope": _OPENAI,
    "siglip": {**_HALF, "interpolation": "bicubic"},
    "siglip2": {**_HALF, "interpolation": "bicubic"},
    "pe": {**_HALF, "interpolation": "bilinear"},
}
ARCHITECTURES = ("clip", "siglip", "siglip2", "pe")


@cache
def _register_timm() -> None:
    """Narrow configs of the real towers of SigLIP and PE-Core: same classes, same options."""
    ensure_torchvision()
    from timm.models import eva, register_model, vision_transformer

    def tiny_siglip_tower(pretrained: bool = False, **kwargs: Any) -> torch.nn.Module:
        narrow = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32}
        same = {"class_token": False, "global_pool": "map"}
        return vision_transformer._create_vision_transformer(
            "vit_large_patch16_siglip_384", pretrained=False, **{**narrow, **same, **kwargs}
        )

    def tiny_pe_tower(pretrained: bool = False, **kwargs: Any) -> torch.nn.Module:
        narrow = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32}
        same = {
            "global_pool": "map", "attn_type": "rope", "use_pre_transformer_norm": True,
            "use_rot_pos_emb": True, "ref_feat_shape": (4, 4), "rope_grid_offset": 1.0,
            "rope_grid_indexing": "xy", "attn_pool_num_heads": 2, "attn_pool_mlp_ratio": 4.0,
        }  # fmt: skip
        return eva._create_eva(
            "vit_pe_core_large_patch14_336", pretrained=False, **{**narrow, **same, **kwargs}
        )

    for function in (tiny_siglip_tower, tiny_pe_tower):
        function.__module__ = vision_transformer.__name__
        register_model(function)


def tiny_config(kind: str) -> dict[str, Any]:
    """Return the narrowed real model config of `kind`."""
    _register_timm()
    text = {"width": 32, "heads": 2, "layers": 2}
    if kind in ("clip", "marscope"):
        # MarScope's is trained at 224 px, a grid of 7 x 7 here, and run at 512: 16 x 16.
        size, patch = (32, 8) if kind == "clip" else (224, 32)
        vision = {
            "image_size": size,
            "layers": 2,
            "width": 64,
            "head_width": 32,
            "patch_size": patch,
        }
        return {
            "embed_dim": 24,
            "quick_gelu": True,
            "vision_cfg": vision,
            "text_cfg": {"context_length": 77, "vocab_size": 49408, **text},
        }  # fmt: skip
    if kind == "pe":
        return {
            "embed_dim": 32,
            "custom_text": True,
            "vision_cfg": {"image_size": 32, "timm_model_name": "tiny_pe_tower",
                           "timm_pool": "map", "timm_proj": None},
            "text_cfg": {"context_length": 32, "vocab_size": 49408, **text},
        }  # fmt: skip
    return {
        "embed_dim": 32,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": 32, "timm_model_name": "tiny_siglip_tower",
                       "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": {
            "context_length": 64,
            "vocab_size": 300,
            "hf_tokenizer_name": "tiny/tokenizer",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            **({"act_kwargs": {"approximate": "tanh"}} if kind == "siglip2" else {}),
            **text,
        },
    }  # fmt: skip


def save_folder(
    kind: str,
    folder: Path,
    *,
    change: Callable[[dict[str, torch.Tensor]], Any] | None = None,
    tokenizer: Path | None = None,
) -> Path:
    """Write a folder like open_clip's push_to_hf_hub: config, safetensors, tokenizer (there or in a
    separate folder)."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    config = tiny_config(kind)
    if kind.startswith("siglip"):
        target = tokenizer or folder
        target.mkdir(parents=True, exist_ok=True)
        config["text_cfg"]["vocab_size"] = save_tokenizer(["sand and ice"], 300, target, 64)
    _write_config(kind, config, folder)
    state = _random_state(config)
    if change:
        change(state)
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def save_checkpoint(kind: str, path: Path, *, prefix: str = "module.", **more: Any) -> Path:
    """Write a training checkpoint like open_clip_train."""
    state = {f"{prefix}{key}": value for key, value in _random_state(tiny_config(kind)).items()}
    torch.save({"epoch": 3, "name": "tiny", "state_dict": state, **more}, path)
    return path


def _random_state(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    import open_clip

    config = {key: value for key, value in config.items() if key != "custom_text"}
    kind = (
        open_clip.CustomTextCLIP
        if "init_logit_bias" in config or "timm_model_name" in config["vision_cfg"]
        else open_clip.CLIP
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = kind(**json.loads(json.dumps(config)))
        state = model.state_dict()
        for value in state.values():
            if value.is_floating_point() and value.ndim:
                value.add_(0.05 * torch.randn_like(value))
    return {key: value.contiguous() for key, value in state.items()}


def _write_config(kind: str, config: dict[str, Any], folder: Path) -> None:
    value = {"model_cfg": config, "preprocess_cfg": _PREPROCESS[kind]}
    (folder / "open_clip_config.json").write_text(json.dumps(value))
