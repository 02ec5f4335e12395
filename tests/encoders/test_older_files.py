"""Preprocessing files of older library versions give the same vectors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marsretrieval.encoders import LoadOptions, load
from tests.encoders.tiny_transformers import MODELS, TEXTS, pictures, tiny_record

Folder = Callable[[str], Path]
OPENAI = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "do_normalize": True,
    "do_resize": True,
    "resample": 3,
}


def same_with(config: dict[str, Any], model: str, tiny_folder: Folder, target: Path) -> None:
    """Check that vectors are equal with `kept` as the only preprocessing file."""
    folder = tiny_folder(MODELS[model])
    for path in folder.iterdir():
        if "processor_config" not in path.name:
            (target / path.name).write_bytes(path.read_bytes())
    (target / "preprocessor_config.json").write_text(json.dumps(config))
    record = tiny_record(model)
    older, newer = (
        load(record, LoadOptions(device="cpu", checkpoint=item)) for item in (target, folder)
    )
    assert np.array_equal(older.encode_images(pictures()), newer.encode_images(pictures()))
    if "text" in older.modalities:
        assert np.array_equal(older.encode_texts(TEXTS), newer.encode_texts(TEXTS))


@pytest.mark.parametrize("fast", ["", "Fast"])
@pytest.mark.parametrize(
    ("model", "processor"),
    [
        ("gme", "Qwen2VLProcessor"),
        ("jina-embeddings-v4", "Qwen2_5_VLProcessor"),
        ("qwen3-vl-embedding", "Qwen3VLProcessor"),
    ],
)
def test_qwen(fast: str, model: str, processor: str, tiny_folder: Folder, tmp_path: Path) -> None:
    third = model.startswith("qwen3")
    side = 32 if third else 28
    config = {
        **OPENAI,
        "image_processor_type": f"Qwen2VLImageProcessor{fast}",
        "processor_class": processor,
        "min_pixels": 4 * side * side,
        "max_pixels": 16 * side * side,
        "patch_size": 16 if third else 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
    }
    if third:
        config |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    same_with(config, model, tiny_folder, tmp_path)


def test_e5_v(tiny_folder: Folder, tmp_path: Path) -> None:
    config = {
        **OPENAI,
        "image_processor_type": "LlavaNextImageProcessor",
        "processor_class": "LlavaNextProcessor",
        "size": {"shortest_edge": 56},
        "crop_size": {"height": 56, "width": 56},
        "image_grid_pinpoints": [[56, 112], [112, 56], [112, 112]],
        "do_center_crop": True,
        "do_pad": True,
    }
    same_with(config, "e5-v", tiny_folder, tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": 56, "crop_size": 56},
        {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 56},
            "crop_size": {"height": 56, "width": 56},
        },
    ],
    ids=["feature extractor", "image processor"],
)
@pytest.mark.parametrize(
    "model", ["bge-vl-large", "aimv2-large-patch14-224", "aimv2-large-patch14-448"]
)
def test_clip(kind: dict[str, Any], model: str, tiny_folder: Folder, tmp_path: Path) -> None:
    config = {**OPENAI, **kind, "do_center_crop": True}
    same_with(config, model, tiny_folder, tmp_path)


def test_dinov3(tiny_folder: Folder, tmp_path: Path) -> None:
    config = {
        "image_processor_type": "DINOv3ViTImageProcessorFast",
        "size": {"height": 64, "width": 64},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "resample": 2,
    }
    same_with(config, "dinov3-vitl16", tiny_folder, tmp_path)
