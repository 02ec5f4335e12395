"""Query vectors as in the paper."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from marsretrieval.errors import DataError, UsageError
from marsretrieval.search import (
    away_query,
    compose,
    geolocalization_prompts,
    hybrid_query,
    image_query,
    landform_prompts,
    make_query,
    text_query,
)
from marsretrieval.search.query import read_images
from tests.shared import shared_file


def unit(seed: int, count: int = 5, dimension: int = 12) -> Any:
    rows = np.random.default_rng(seed).standard_normal((count, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_golden_queries() -> None:
    cases = json.loads(shared_file("golden/golden.json").read_text())
    (case,) = [item for item in cases if item["task"] == "query"]
    images = np.array(case["image_features"], np.float32)
    prompts = np.array(case["prompt_features"], np.float32)
    text = text_query(prompts)
    mixed = hybrid_query(images, text, case["mix_image_ratio"], case["softmax_temperature"])
    for name, vector in (
        ("text_query", text), ("image_query", image_query(images)), ("hybrid_query", mixed),
    ):  # fmt: skip
        np.testing.assert_allclose(vector, case[name], atol=1e-6)
        assert vector.dtype == np.float32
    assert geolocalization_prompts("glacier-like_form") == case["geo_prompts"]
    assert landform_prompts("glacier-like_form") == case["landform_prompts"]


def test_prompts_differ_by_task_in_the_hyphen_only() -> None:
    assert geolocalization_prompts("alluvial_fans") == landform_prompts("alluvial_fans")
    assert geolocalization_prompts("glacier-like")[1] == "a satellite photo of glacier-like."
    assert landform_prompts("glacier-like")[1] == "a satellite photo of glacier like."


@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0.01, 5))
def test_queries_are_unit_vectors_whatever_the_order(
    seed: int, mix: float, temperature: float
) -> None:
    images, text = unit(seed), unit(seed + 1, 1)[0]
    vector = hybrid_query(images, text, mix, temperature)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(
        vector, hybrid_query(images[::-1], text, mix, temperature), atol=1e-6
    )


def test_limits_of_image_weight_and_temperature() -> None:
    images, text = unit(0), unit(1, 1)[0]
    np.testing.assert_allclose(hybrid_query(images, text, mix=0), text, atol=1e-6)
    hot = hybrid_query(images, text, mix=1, temperature=1e6)
    np.testing.assert_allclose(hot, image_query(images), atol=1e-4)
    cold = hybrid_query(images, text, mix=1, temperature=1e-4)
    np.testing.assert_allclose(cold, images[np.argmax(images @ text)], atol=1e-4)
    np.testing.assert_allclose(image_query(images[0]), images[0], atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: text_query(np.empty((0, 4))),
        lambda: image_query([[1.0, 0.0], [-1.0, 0.0]]),
        lambda: hybrid_query(unit(0), unit(1, 1)[0], mix=1.5),
        lambda: hybrid_query(unit(0), unit(1, 1)[0], mix=float("nan")),
        lambda: hybrid_query(unit(0), unit(1, 1)[0], temperature=0),
    ],
)
def test_usage_errors(make: Any) -> None:
    with pytest.raises(UsageError):
        make()


@given(st.integers(0, 1000), st.floats(0, 1))
def test_negative_examples_lower_the_score(seed: int, weight: float) -> None:
    similar, against = unit(seed)[0], unit(seed + 1, 3)
    vector = away_query(similar, against, weight)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    mean = against.mean(axis=0) / np.linalg.norm(against.mean(axis=0))
    # Rocchio's formula, and what it is for: nearer to the one, further from the other.
    expected = similar - weight * mean
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)
    assert vector @ mean <= similar @ mean + 1e-6
    np.testing.assert_allclose(away_query(similar, against, 0), similar, atol=1e-6)
    np.testing.assert_allclose(vector, away_query(similar, against[::-1], weight), atol=1e-6)


def test_composition_of_all_parts() -> None:
    text, images, tiles = unit(0, 1)[0], unit(1, 2), unit(2, 3)
    both = np.concatenate([images, tiles])
    np.testing.assert_array_equal(compose(text=text), text_query(text))
    np.testing.assert_array_equal(compose(examples=both), image_query(both))
    np.testing.assert_array_equal(
        compose(text=text, examples=both, mix=0.4), hybrid_query(both, text, mix=0.4)
    )
    np.testing.assert_array_equal(
        compose(text=text, examples=images, against=tiles, not_weight=0.5),
        away_query(hybrid_query(images, text), tiles, 0.5),
    )


class Words:
    """Encoder that records its texts."""

    id = "words"
    dimension = unit(0).shape[-1]

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode_images(self, images: Any) -> Any:
        return unit(3, len(images))

    def encode_texts(self, texts: Any, *, role: str = "query") -> Any:
        assert role == "query"
        self.texts += texts
        return unit(len(texts[0]), len(texts))


def test_make_query() -> None:
    encoder, tiles = Words(), unit(5, 2)
    image = Image.new("RGB", (2, 2))
    full = make_query(
        encoder, text="dunes", images=[image], tiles=tiles * 1.001, not_text=["ice", "rock"],
        not_images=[image], not_tiles=tiles[:1], mix=0.2, not_weight=0.1,
    )  # fmt: skip
    assert len(encoder.texts) == 9 and encoder.texts[0] == geolocalization_prompts("ice")[0]
    text = text_query(unit(len(geolocalization_prompts("dunes")[0]), 3))
    base = hybrid_query(np.concatenate([unit(3, 1), tiles]), text, mix=0.2)
    against = [text_query(unit(len(geolocalization_prompts(name)[0]), 3)) for name in
               ("ice", "rock")]  # fmt: skip
    expected = away_query(base, np.concatenate([against, unit(3, 1), tiles[:1]]), 0.1)
    np.testing.assert_allclose(full, expected, atol=1e-5)
    raw = Words()
    make_query(raw, text="dunes", raw=True)
    assert raw.texts == ["dunes"]
    np.testing.assert_allclose(make_query(None, tiles=tiles), image_query(tiles), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_query(None, not_tiles=unit(0)), "a text, an image or a tile"),
        (lambda: make_query(None, text="dunes"), "need the model"),
        (lambda: make_query(Words(), text="  "), "text is empty"),
        (lambda: make_query(Words(), text="x", not_text=[""]), "text is empty"),
        (lambda: compose(against=unit(0)), "a text, an image or a tile"),
        (lambda: away_query(unit(0)[0], unit(1), 1.5), "within 0..1"),
        (lambda: away_query([1.0, 0.0], [[1.0, 0.0]], 1), "cancel out"),
    ],
)
def test_invalid_compositions(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_example_images_are_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    for name, words in (("a.png", "regular"), ("b.png", "regular"), ("c.png", "No such file")):
        with pytest.raises(DataError, match=rf"{name}: .*{words}"):
            read_images([tmp_path / name])
