"""Two-tower and vision-only vectors equal a straightforward computation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from marsretrieval.encoders import LoadOptions, load
from tests.encoders.tiny_transformers import MODELS, TEXTS, pictures, tiny_record

Folder = Callable[[str], Path]
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])


def open_tiny(model: str, tiny_folder: Folder, **settings: Any) -> Any:
    record = tiny_record(model)
    record = replace(record, settings={**record.settings, **settings})
    return load(record, LoadOptions(device="cpu", checkpoint=tiny_folder(MODELS[model])))


def clip_pixels(image: Image.Image, side: int = 56) -> torch.Tensor:
    """Reference preprocessing: bicubic to shortest side `side`, centre crop, OpenAI's mean and
    deviation."""
    image = image.convert("RGB")
    width, height = image.size
    scale = side / min(width, height)
    width, height = max(side, int(width * scale)), max(side, int(height * scale))
    small = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    top, left = (height - side) // 2, (width - side) // 2
    crop = small[top : top + side, left : left + side] / 255
    return torch.tensor((crop - MEAN) / STD).permute(2, 0, 1)[None].float()


def unit(row: torch.Tensor) -> np.ndarray:
    return (row / row.norm()).numpy()


@pytest.mark.parametrize("model", ["bge-vl-large", "aimv2-large-patch14-224"])
@torch.inference_mode()
def test_two_towers(model: str, tiny_folder: Folder) -> None:
    encoder = open_tiny(model, tiny_folder)
    folder = tiny_folder(MODELS[model])
    kind = hf.CLIPModel if model.startswith("bge") else hf.Aimv2Model
    full_model = kind.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = hf.CLIPTokenizer.from_pretrained(folder)

    outputs = [full_model.vision_model(clip_pixels(picture)) for picture in pictures()]
    image_vectors = [full_model.visual_projection(output.pooler_output)[0] for output in outputs]
    expected = np.stack([unit(row) for row in image_vectors])
    assert np.abs(encoder.encode_images(pictures()) - expected).max() < 1e-4

    read = []
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        states = full_model.text_model(ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        at_end = states[0, ids[0].tolist().index(tokenizer.eos_token_id)]
        read.append(unit(full_model.text_projection(at_end)))
    assert np.abs(encoder.encode_texts(TEXTS) - np.stack(read)).max() < 1e-5


@torch.inference_mode()
def test_aimv2_vision_is_the_mean_of_all_patches(tiny_folder: Folder) -> None:
    encoder = open_tiny("aimv2-large-patch14-448", tiny_folder)
    tower = hf.Aimv2VisionModel.from_pretrained(tiny_folder("aimv2_vision")).eval()
    rows = [tower(clip_pixels(picture)).last_hidden_state[0] for picture in pictures()]
    assert {len(row) for row in rows} == {16}  # patches only: no class token to leave out
    expected = np.stack([unit(row.mean(0)) for row in rows])
    assert np.abs(encoder.encode_images(pictures()) - expected).max() < 1e-4


@torch.inference_mode()
def test_dinov3_is_the_class_token(tiny_folder: Folder) -> None:
    encoder = open_tiny("dinov3-vitl16", tiny_folder)
    tower = hf.DINOv3ViTModel.from_pretrained(tiny_folder("dinov3")).eval()
    outputs = [tower(encoder.preprocess(picture)["pixel_values"]) for picture in pictures()]
    expected = np.stack([unit(output.pooler_output[0]) for output in outputs])
    assert np.abs(encoder.encode_images(pictures()) - expected).max() < 1e-6


@torch.inference_mode()
def test_dinov3_mean_leaves_class_token_and_registers_out(tiny_folder: Folder) -> None:
    encoder = open_tiny("dinov3-vitl16", tiny_folder, pooling="mean")
    tower = hf.DINOv3ViTModel.from_pretrained(tiny_folder("dinov3")).eval()
    states = [
        tower(encoder.preprocess(picture)["pixel_values"]).last_hidden_state[0]
        for picture in pictures()
    ]
    assert {len(state) for state in states} == {1 + 4 + 16}
    expected = np.stack([unit(state[5:].mean(0)) for state in states])
    naive = np.stack([unit(state.mean(0)) for state in states])
    made = encoder.encode_images(pictures())
    assert np.abs(made - expected).max() < 1e-6
    assert np.abs(made - naive).max() > 1e-2
    assert encoder.fingerprint["preprocessing"]["pooling"] == "mean"
