"""Tiny checkpoints of the real architectures, random weights, saved by the real library.

Tokenizers have bytes as their vocabulary and no merges: a token is a byte or a special token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from marsretrieval.encoders import ModelSpec, find
from marsretrieval.encoders.torch_imports import ensure_torchvision

ensure_torchvision()

import torch  # noqa: E402
import transformers as hf  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402

__all__ = [
    "ADDED",
    "BY_TYPE",
    "LANGUAGE_MODELS",
    "MODELS",
    "TEXTS",
    "TWO_TOWERS",
    "VISION_ONLY",
    "clip_tokenizer",
    "llava_processor",
    "pictures",
    "qwen_processor",
    "save_tiny",
    "tiny_record",
]

TWO_TOWERS = {"bge-vl-large": "clip", "aimv2-large-patch14-224": "aimv2"}
VISION_ONLY = {"aimv2-large-patch14-448": "aimv2_vision", "dinov3-vitl16": "dinov3"}
LANGUAGE_MODELS = {
    "e5-v": "llava_next",
    "gme": "qwen2_vl",
    "b3++": "qwen2_vl",
    "jina-embeddings-v4": "qwen2_5_vl",
    "vlm2vec-v2.0": "qwen2_vl",
    "ops-mm-embedding-v1": "qwen2_vl",
    "qwen3-vl-embedding": "qwen3_vl",
    "qwen3-vl-embedding-8b": "qwen3_vl",
}
# Models whose full size is not among the benchmarks, and types that only `hf:` loads.
ADDED = {
    "dinov3-vitl16-sat493m": "dinov3",
    "git-rsclip-base": "siglip",
    "tipsv2-so400m14": "tipsv2",
}
BY_TYPE = ("altclip", "chinese_clip", "clip_vision", "convnext", "dinov2", "dinov2_registers",
           "metaclip_2", "siglip2", "siglip_vision", "swin", "vit")  # fmt: skip
MODELS = {**TWO_TOWERS, **VISION_ONLY, **LANGUAGE_MODELS}  # catalogue id: tiny architecture

TEXTS = ["dunes", "pitted cones on a plain", "dark slope streaks: near the pole, 85° N, in spring"]

_BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
_QWEN_SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_LLAMA_SPECIALS = (
    "<|begin_of_text|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<image>",
)
_ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def tiny_record(model: str) -> ModelSpec:
    """Return the spec of the registry with tiny pixel limits."""
    record = find(model)
    limits = {"min_pixels": 4 * 32 * 32, "max_pixels": 16 * 32 * 32}
    settings = {key: value for key, value in limits.items() if key in record.settings}
    return replace(record, settings={**record.settings, **settings})


def pictures() -> list[Image.Image]:
    """Return square, portrait, panorama, grey and large images, smooth enough for resizing."""
    return [*_pictures()]


@cache
def _pictures() -> tuple[Image.Image, ...]:
    rng = np.random.default_rng(0)

    def smooth(width: int, height: int, *channels: int) -> Image.Image:
        coarse = rng.integers(0, 256, (6, 6, *channels), dtype=np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)

    return (
        smooth(100, 100, 3),
        smooth(60, 200, 3),
        smooth(310, 90, 3),
        smooth(90, 120),
        smooth(1700, 1300, 3),
    )


def save_tiny(name: str, folder: Path) -> None:
    """Write the tiny checkpoint `name` with weights that matter: larger than at the library's
    own start, so that a slip anywhere shows in the vectors."""
    torch.manual_seed(0)
    model, *others = _BUILDERS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.15)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    for other in (model, *others):
        other.save_pretrained(folder)


# --- towers ---------------------------------------------------------------------------------


def _clip() -> tuple[Any, ...]:
    tokenizer = clip_tokenizer()
    text = {
        **_towers(),
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {**_towers(), "image_size": 56, "patch_size": 14}
    config = hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    return hf.CLIPModel(config), tokenizer, _clip_images(56)


def _aimv2() -> tuple[Any, ...]:
    tokenizer = clip_tokenizer()
    text = {
        **_towers(),
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 77,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {**_towers(), "image_size": 56, "patch_size": 14, "use_head": True}
    config = hf.Aimv2Config(text_config=text, vision_config=vision, projection_dim=24)
    return hf.Aimv2Model(config), tokenizer, _clip_images(56)


def _aimv2_vision() -> tuple[Any, ...]:
    config = hf.Aimv2VisionConfig(**_towers(), image_size=56, patch_size=14, use_head=False)
    return hf.Aimv2VisionModel(config), _clip_images(56)


def _dinov3() -> tuple[Any, ...]:
    config = hf.DINOv3ViTConfig(**_towers(), image_size=64, patch_size=16, num_register_tokens=4)
    images = hf.DINOv3ViTImageProcessor(size={"height": 64, "width": 64})
    return hf.DINOv3ViTModel(config), images


def _siglip() -> tuple[Any, ...]:
    tokenizer = plain_tokenizer()
    text = {**_towers(), "vocab_size": len(tokenizer), "max_position_embeddings": 64}
    vision = {**_towers(), "image_size": 32, "patch_size": 8}
    images = hf.SiglipImageProcessor(size={"height": 32, "width": 32})
    return (
        hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=vision)),
        tokenizer,
        images,
    )


def _siglip2() -> tuple[Any, ...]:
    """Images of any aspect ratio, as patches with a mask."""
    tokenizer = plain_tokenizer()
    text = {**_towers(), "vocab_size": len(tokenizer), "max_position_embeddings": 64}
    vision = {**_towers(), "patch_size": 8, "num_patches": 16}
    images = hf.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    config = hf.Siglip2Config(text_config=text, vision_config=vision)
    return hf.Siglip2Model(config), tokenizer, images


def _tipsv2() -> tuple[Any, ...]:
    tokenizer = plain_tokenizer()
    towers = {**_towers(), "layer_norm_eps": 1e-5}
    text = {**towers, "vocab_size": len(tokenizer), "max_position_embeddings": 64}
    del towers["intermediate_size"]
    vision = {**towers, "image_size": 42, "patch_size": 14}
    images = hf.Tipsv2ImageProcessor(size={"height": 42, "width": 42})
    return (
        hf.Tipsv2Model(hf.Tipsv2Config(text_config=text, vision_config=vision)),
        tokenizer,
        images,
    )


def _altclip() -> tuple[Any, ...]:
    tokenizer = plain_tokenizer()
    text = {**_towers(), "vocab_size": len(tokenizer), "max_position_embeddings": 130}
    text |= {"project_dim": 24, "pad_token_id": 1}
    vision = {**_towers(), "image_size": 56, "patch_size": 14}
    config = hf.AltCLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    return hf.AltCLIPModel(config), tokenizer, _clip_images(56)


def _chinese_clip() -> tuple[Any, ...]:
    tokenizer = plain_tokenizer()
    text = {**_towers(), "vocab_size": len(tokenizer), "max_position_embeddings": 130}
    vision = {**_towers(), "image_size": 56, "patch_size": 14}
    config = hf.ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    return hf.ChineseCLIPModel(config), tokenizer, _clip_images(56)


def _metaclip_2() -> tuple[Any, ...]:
    tokenizer = plain_tokenizer()
    text = {**_towers(), "vocab_size": len(tokenizer), "max_position_embeddings": 77}
    text |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    vision = {**_towers(), "image_size": 56, "patch_size": 14}
    config = hf.MetaClip2Config(text_config=text, vision_config=vision, projection_dim=24)
    return hf.MetaClip2Model(config), tokenizer, _clip_images(56)


def _vision(name: str, **config: Any) -> Callable[[], tuple[Any, ...]]:
    def build() -> tuple[Any, ...]:
        model = getattr(hf, f"{name}Model")(getattr(hf, f"{name}Config")(**config))
        return model, hf.ViTImageProcessor(size={"height": 56, "width": 56})

    return build


def _towers() -> dict[str, int]:
    return {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }


def _clip_images(size: int) -> Any:
    return hf.CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )


def clip_tokenizer() -> Any:
    names = [*_BYTES, *(f"{item}</w>" for item in _BYTES), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: index for index, name in enumerate(names)}
    return hf.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def plain_tokenizer() -> Any:
    """Bytes, with an end token; pads with <pad>."""
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    names = [*specials, *_BYTES]
    inner = Tokenizer(models.BPE(vocab={n: i for i, n in enumerate(names)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )


# --- language models ------------------------------------------------------------------------


def _qwen2_vl() -> tuple[Any, ...]:
    processor = qwen_processor()
    config = hf.Qwen2VLConfig(
        text_config={**_qwen_text(processor), "rope_parameters": _ROPE},
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 2,
            "patch_size": 14,
            "mlp_ratio": 2,
        },
        **_qwen_ids(processor),
    )
    return hf.Qwen2VLForConditionalGeneration(config), processor


def _qwen2_5_vl() -> tuple[Any, ...]:
    processor = qwen_processor("Qwen2_5_VLProcessor")
    config = hf.Qwen2_5_VLConfig(
        text_config={**_qwen_text(processor), "rope_parameters": _ROPE},
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "out_hidden_size": 64,
            "intermediate_size": 48,
            "num_heads": 2,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        **_qwen_ids(processor),
    )
    return hf.Qwen2_5_VLForConditionalGeneration(config), processor


def _qwen3_vl() -> tuple[Any, ...]:
    processor = qwen_processor("Qwen3VLProcessor")
    config = hf.Qwen3VLConfig(
        text_config={
            **_qwen_text(processor),
            "head_dim": 16,
            "rope_parameters": {**_ROPE, "mrope_interleaved": True},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "out_hidden_size": 64,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 16,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        **_qwen_ids(processor),
    )
    return hf.Qwen3VLForConditionalGeneration(config), processor


def _llava_next() -> tuple[Any, ...]:
    processor = llava_processor()
    tokenizer = processor.tokenizer
    config = hf.LlavaNextConfig(
        vision_config={
            **_towers(),
            "model_type": "clip_vision_model",
            "num_hidden_layers": 3,
            "image_size": 56,
            "patch_size": 14,
            "projection_dim": 32,
        },
        text_config={**_TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]],
    )
    return hf.LlavaNextForConditionalGeneration(config), processor


def _qwen3_5() -> tuple[Any, ...]:
    """Hybrid attention: three linear layers, then a full one. The chat template as WeMM's kind."""
    processor = qwen_processor("Qwen3VLProcessor")
    processor.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}"
        "{{ m['content'] }}{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}"
        "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}"
        "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    )
    linear = {f"linear_num_{name}_heads": 2 for name in ("key", "value")}
    linear |= {f"linear_{name}_head_dim": 16 for name in ("key", "value")}
    text = {**_TEXT, "head_dim": 16, "vocab_size": len(processor.tokenizer), **linear}
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": 64,
        "intermediate_size": 48,
        "num_heads": 2,
        "patch_size": 16,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [],
    }
    config = hf.Qwen3_5Config(
        text_config={**text, "num_hidden_layers": 4}, vision_config=vision, **_qwen_ids(processor)
    )
    return hf.Qwen3_5ForConditionalGeneration(config), processor


def _embedding_gemma2() -> tuple[Any, ...]:
    names = ("boi", "eoi", "image", "video", "boa", "eoa", "audio")
    inner = plain_tokenizer()
    inner.add_tokens([f"<{name}>" for name in names], special_tokens=True)
    ids = {name: inner.convert_tokens_to_ids(f"<{name}>") for name in names}
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=inner.backend_tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        extra_special_tokens={f"{name}_token": f"<{name}>" for name in names},
    )
    shared = {**_towers(), "num_key_value_heads": 1, "head_dim": 16}
    text = {
        **shared,
        "vocab_size": len(tokenizer),
        "global_head_dim": 16,
        "hidden_size_per_layer_input": 8,
        "embedding_dim": 24,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "bos_token_id": 0,
    }
    vision = {**shared, "num_key_value_heads": 2, "patch_size": 8, "position_embedding_size": 64}
    config = hf.EmbeddingGemma2Config(
        text_config=text,
        vision_config=hf.AutoConfig.for_model("gemma4_vision", **vision, pooling_kernel_size=2),
        audio_config=None,
        eoa_token_index=ids.pop("eoa"),
        **{f"{name}_token_id": value for name, value in ids.items()},
    )
    processor = hf.EmbeddingGemma2Processor(
        hf.Gemma4AudioFeatureExtractor(),
        hf.Gemma4ImageProcessor(patch_size=8, pooling_kernel_size=2, max_soft_tokens=70),
        tokenizer,
        hf.EmbeddingGemma2VideoProcessor(),
        chat_template="{% for m in messages %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}"
        "{% endfor %}{% endfor %}",
        image_seq_length=70,
    )
    return hf.EmbeddingGemma2Model(config), processor


def qwen_processor(name: str = "Qwen2VLProcessor") -> Any:
    """Write image limits of 4 to 16 tokens; the registry's limits override them."""
    tokenizer = hf.Qwen2Tokenizer(
        vocab={name: index for index, name in enumerate([*_BYTES, *_QWEN_SPECIALS])},
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(_QWEN_SPECIALS),
    )
    if name == "Qwen3VLProcessor":
        third, half = {"patch_size": 16}, {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        images = hf.Qwen2VLImageProcessor(
            min_pixels=4 * 32 * 32, max_pixels=16 * 32 * 32, **third, **half
        )
        video = hf.Qwen3VLVideoProcessor()
    else:
        images = hf.Qwen2VLImageProcessor(min_pixels=4 * 28 * 28, max_pixels=16 * 28 * 28)
        video = hf.Qwen2VLVideoProcessor()
    return getattr(hf, name)(images, tokenizer, video, chat_template="{{ messages }}")


def llava_processor() -> Any:
    inner = Tokenizer(
        models.BPE(vocab={name: index for index, name in enumerate(_BYTES)}, merges=[])
    )
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.add_special_tokens(list(_LLAMA_SPECIALS))
    start = "<|begin_of_text|>"
    inner.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, inner.token_to_id(start))]
    )
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|eot_id|>")
    images = hf.LlavaNextImageProcessor(
        size={"shortest_edge": 56},
        crop_size={"height": 56, "width": 56},
        image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]],
    )
    # As E5-V's: without the fields that came later (patch_size, class token, strategy).
    return hf.LlavaNextProcessor(images, tokenizer)


def _qwen_text(processor: Any) -> dict[str, Any]:
    return {**_TEXT, "vocab_size": len(processor.tokenizer), "tie_word_embeddings": True}


def _qwen_ids(processor: Any) -> dict[str, Any]:
    ids = processor.tokenizer.convert_tokens_to_ids
    return {
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
        "tie_word_embeddings": True,
    }


_BUILDERS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "clip": _clip,
    "aimv2": _aimv2,
    "aimv2_vision": _aimv2_vision,
    "dinov3": _dinov3,
    "siglip": _siglip,
    "siglip2": _siglip2,
    "tipsv2": _tipsv2,
    "altclip": _altclip,
    "chinese_clip": _chinese_clip,
    "metaclip_2": _metaclip_2,
    "clip_vision": _vision("CLIPVision", **_towers(), image_size=56, patch_size=14),
    "convnext": _vision("ConvNext", depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 32]),
    "dinov2": _vision("Dinov2", **_towers(), image_size=56, patch_size=14),
    "dinov2_registers": _vision("Dinov2WithRegisters", **_towers(), image_size=56, patch_size=14),
    "siglip_vision": _vision("SiglipVision", **_towers(), image_size=56, patch_size=14),
    "swin": _vision(
        "Swin", image_size=56, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=7
    ),
    "vit": _vision("ViT", **_towers(), image_size=56, patch_size=14),
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "qwen3_5": _qwen3_5,
    "embedding_gemma2": _embedding_gemma2,
    "llava_next": _llava_next,
}
