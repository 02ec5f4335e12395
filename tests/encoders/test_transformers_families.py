"""Requirements for all models of the transformers families, on tiny checkpoints."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marsretrieval.encoders import Encoder, LoadOptions, load
from marsretrieval.errors import ModalityError
from tests.encoders.tiny_transformers import (
    LANGUAGE_MODELS,
    MODELS,
    TEXTS,
    TWO_TOWERS,
    VISION_ONLY,
    pictures,
    tiny_record,
)

WIDTH = {"clip": 24, "aimv2": 24, "aimv2_vision": 32, "dinov3": 32}  # language models: 64


Load = Callable[..., Encoder]


@pytest.fixture(scope="module")
def load_tiny(tiny_folder: Callable[[str], Path]) -> Load:
    """Return a function that loads a tiny model in a data type once."""

    @cache
    def loaded(model: str, dtype: str | None = None) -> Encoder:
        return load_again(model, tiny_folder, dtype)

    return loaded


def load_again(model: str, tiny_folder: Callable[[str], Path], dtype: str | None = None) -> Encoder:
    changes = {"dtype": dtype} if dtype else {}
    options = LoadOptions(device="cpu", checkpoint=tiny_folder(MODELS[model]), **changes)
    return load(tiny_record(model), options)


@pytest.fixture(scope="module", params=MODELS)
def encoder(request: pytest.FixtureRequest, load_tiny: Load) -> Encoder:
    return load_tiny(request.param)


@pytest.fixture(scope="module")
def image_vectors(encoder: Encoder) -> np.ndarray:
    return encoder.encode_images(pictures())


def test_vectors_are_unit_float32_of_the_right_width(
    encoder: Encoder, image_vectors: np.ndarray
) -> None:
    assert isinstance(encoder, Encoder)
    width = WIDTH.get(MODELS[encoder.id], 64)
    assert encoder.dimension == width
    made = [image_vectors]
    if "text" in encoder.modalities:
        made += [encoder.encode_texts(TEXTS), encoder.encode_texts(TEXTS, role="caption")]
        assert encoder.encode_texts([]).shape == (0, width)
    for vectors in made:
        assert vectors.dtype == np.float32
        assert vectors.shape[1] == width
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        assert np.ptp(vectors, axis=0).max() > 0.01  # they tell the inputs apart
    assert encoder.encode_images([]).shape == (0, width)


def test_a_batch_equals_one_by_one(encoder: Encoder, image_vectors: np.ndarray) -> None:
    alone = np.concatenate([encoder.encode_images([picture]) for picture in pictures()])
    assert np.abs(image_vectors - alone).max() < 1e-5
    if "text" in encoder.modalities:
        for role in ("query", "caption"):
            words = np.concatenate([encoder.encode_texts([text], role=role) for text in TEXTS])
            assert np.abs(encoder.encode_texts(TEXTS, role=role) - words).max() < 1e-5


@pytest.mark.parametrize("model", [*TWO_TOWERS, *LANGUAGE_MODELS])
def test_order_of_many_texts_is_preserved(model: str, load_tiny: Load) -> None:
    encoder = load_tiny(model)
    many = [f"{'crater ' * (index % 5)}{index}" for index in range(35)]
    turned = encoder.encode_texts(many[::-1])[::-1]
    assert np.abs(encoder.encode_texts(many) - turned).max() < 1e-5


def test_grey_is_the_same_as_grey_in_colour(encoder: Encoder) -> None:
    grey = pictures()[3]
    assert grey.mode == "L"
    both = encoder.encode_images([grey, grey.convert("RGB")])
    assert np.array_equal(both[0], both[1])


def test_preprocess_goes_to_workers(encoder: Encoder, image_vectors: np.ndarray) -> None:
    copy = pickle.loads(pickle.dumps(encoder.preprocess))
    features = [copy(picture) for picture in pictures()]
    assert np.array_equal(encoder.encode_preprocessed(features), image_vectors)
    joined = encoder.collate(features)  # type: ignore[attr-defined]
    assert len(joined) == len(features)
    assert np.array_equal(encoder.encode_preprocessed(joined), image_vectors)


def test_fingerprint_is_json_and_repeatable(
    encoder: Encoder, tiny_folder: Callable[[str], Path], load_tiny: Load
) -> None:
    again = load_again(encoder.id, tiny_folder)
    assert json.loads(json.dumps(encoder.fingerprint)) == again.fingerprint
    assert encoder.fingerprint["id"] == encoder.id
    assert encoder.fingerprint["preprocessing"]["image_mean"]
    other = load_tiny(encoder.id, "bfloat16")
    assert other.fingerprint["dtype"] == "bfloat16"
    assert other.fingerprint["weights_sha256"] != encoder.fingerprint["weights_sha256"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close(
    encoder: Encoder, image_vectors: np.ndarray, dtype: str, load_tiny: Load
) -> None:
    half = load_tiny(encoder.id, dtype)
    cosines = [(image_vectors * half.encode_images(pictures())).sum(1)]
    if "text" in encoder.modalities:
        cosines.append((encoder.encode_texts(TEXTS) * half.encode_texts(TEXTS)).sum(1))
    assert np.concatenate(cosines).min() > 0.99


@pytest.mark.parametrize("model", VISION_ONLY)
def test_no_text_encoder(model: str, load_tiny: Load) -> None:
    encoder = load_tiny(model)
    assert encoder.modalities == {"image"}
    with pytest.raises(ModalityError, match="vision-only"):
        encoder.encode_texts(["dunes"])


def test_preprocess_in_a_fresh_process(tmp_path: Path, load_tiny: Load) -> None:
    """Preprocessing works in a process that has imported no torchvision or transformers."""
    encoder = load_tiny("dinov3-vitl16")
    pickled = tmp_path / "preprocess.pickle"
    pickled.write_bytes(pickle.dumps(encoder.preprocess))
    code = (
        "import pickle, sys; from PIL import Image; from pathlib import Path;"
        "preprocess = pickle.loads(Path(sys.argv[1]).read_bytes());"
        "print(preprocess(Image.new('RGB', (90, 70), 'red'))['pixel_values'].sum().item())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(pickled)], capture_output=True, text=True, check=True
    )
    here = encoder.preprocess(Image.new("RGB", (90, 70), "red"))["pixel_values"].sum().item()
    assert float(run.stdout) == here


@pytest.mark.parametrize("model", TWO_TOWERS)
def test_two_towers_count_cut_texts(model: str, load_tiny: Load) -> None:
    encoder = load_tiny(model)
    fits, too_long = "x" * 75, "x" * 76  # 77 tokens with start and end
    assert encoder.count_truncated([fits, too_long, "dunes"]) == 1
    assert encoder.count_truncated([]) == 0
    tail = encoder.encode_texts(["x" * 75 + "first ending", "x" * 75 + "another end"])
    assert np.array_equal(tail[0], tail[1])


@pytest.mark.parametrize("model", MODELS)
def test_registry_entries(model: str) -> None:
    from marsretrieval.encoders import find

    record = find(model)
    family = {**dict.fromkeys(TWO_TOWERS, "two_tower"), **dict.fromkeys(VISION_ONLY, "vision_only")}
    assert record.family == family.get(model, "multimodal_lm")
    assert record.loader == f"marsretrieval.encoders.{record.family}:load"
    assert record.revision is None or re.fullmatch(r"[0-9a-f]{40}", record.revision)
    assert record.gated == (model == "dinov3-vitl16")
    assert "not tried" in record.tried
    if model in LANGUAGE_MODELS:
        presets = record.settings["prompts"]
        assert presets.keys() == {"paper", "official"}
        for prompts in presets.values():
            assert prompts.keys() == {"query", "caption", "image"}
            token = "<image>" if model == "e5-v" else "<|image_pad|>"
            assert prompts["image"].count(token) == 1
        # The published code sends one prompt, whatever the text is for.
        assert presets["paper"]["query"] == presets["paper"]["caption"]
