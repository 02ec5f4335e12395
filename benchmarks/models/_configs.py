"""Full-size models as data: model class, config class and config."""

from __future__ import annotations

from typing import Any

__all__ = ["FULL_SIZE"]

_QWEN_IDS = {
    "image_token_id": 261,  # of the byte tokenizers of tests/encoders/tiny_transformers.py
    "video_token_id": 262,
    "vision_start_token_id": 259,
    "vision_end_token_id": 260,
    "tie_word_embeddings": True,
}
_CLIP_L = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
}


def _rope(section: list[int], theta: float, **more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "mrope_section": section, "rope_theta": theta, **more}


def _text(hidden: int, inner: int, layers: int, heads: int, kv: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": 151936,
        **more,
    }


def _qwen3(text: dict[str, Any], vision: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    rope = _rope([24, 20, 20], 5e6, mrope_interleaved=True)
    config = {
        "text_config": {**text, "head_dim": 128, "rope_parameters": rope},
        "vision_config": {
            **vision,
            "out_hidden_size": text["hidden_size"],
            "num_heads": 16,
            "patch_size": 16,
            "num_position_embeddings": 2304,
        },
        **_QWEN_IDS,
    }
    return "Qwen3VLForConditionalGeneration", "Qwen3VLConfig", config


_QWEN2_2B = (
    "Qwen2VLForConditionalGeneration",
    "Qwen2VLConfig",
    {
        "text_config": _text(1536, 8960, 28, 12, 2, rope_parameters=_rope([16, 24, 24], 1e6)),
        "vision_config": {
            "depth": 32,
            "embed_dim": 1280,
            "hidden_size": 1536,
            "num_heads": 16,
            "mlp_ratio": 4,
            "patch_size": 14,
        },
        **_QWEN_IDS,
    },
)
_QWEN2_5_3B = (
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen2_5_VLConfig",
    {
        "text_config": _text(2048, 11008, 36, 16, 2, rope_parameters=_rope([16, 24, 24], 1e6)),
        "vision_config": {
            "depth": 32,
            "hidden_size": 1280,
            "out_hidden_size": 2048,
            "intermediate_size": 3420,
            "num_heads": 16,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        **_QWEN_IDS,
    },
)

# Registry id: model class, config class, config.
FULL_SIZE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bge-vl-large": (
        "CLIPModel",
        "CLIPConfig",
        {
            "vision_config": {**_CLIP_L, "image_size": 224},
            "text_config": {
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
            },
            "projection_dim": 768,
        },
    ),
    "aimv2-large-patch14-224": ("Aimv2Model", "Aimv2Config", {"projection_dim": 768}),
    "aimv2-large-patch14-448": (
        "Aimv2VisionModel",
        "Aimv2VisionConfig",
        {"image_size": 448, "use_head": False},
    ),
    "dinov3-vitl16": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        {**_CLIP_L, "patch_size": 16, "num_register_tokens": 4},
    ),
    "e5-v": (
        "LlavaNextForConditionalGeneration",
        "LlavaNextConfig",
        {
            "vision_config": {**_CLIP_L, "model_type": "clip_vision_model", "image_size": 336},
            "text_config": {
                **_text(4096, 14336, 32, 32, 8),
                "model_type": "llama",
                "vocab_size": 128320,
                "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
            },
            "image_token_index": 260,
        },
    ),
    "gme": _QWEN2_2B,
    "vlm2vec-v2.0": _QWEN2_2B,
    "b3++": _QWEN2_2B,
    "ops-mm-embedding-v1": _QWEN2_2B,
    "jina-embeddings-v4": _QWEN2_5_3B,
    "qwen3-vl-embedding": _qwen3(
        _text(2048, 6144, 28, 16, 8),
        {
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "deepstack_visual_indexes": [5, 11, 17],
        },
    ),
    "qwen3-vl-embedding-8b": _qwen3(
        _text(4096, 12288, 36, 32, 8),
        {
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "deepstack_visual_indexes": [8, 16, 24],
        },
    ),
}
