"""Queries as the paper makes them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsretrieval.errors import UsageError
from marsretrieval.search import (
    geolocalization_prompts,
    hybrid_query,
    image_query,
    landform_prompts,
    text_query,
)
from tests.shared import shared_file


def unit(seed: int, count: int = 5, dimension: int = 12) -> Any:
    rows = np.random.default_rng(seed).standard_normal((count, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_golden_queries() -> None:
    cases = json.loads(shared_file("golden/golden.json").read_text())
    (case,) = [each for each in cases if each["task"] == "query"]
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


def test_the_ends_of_the_mix_and_of_the_temperature() -> None:
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
def test_wrong_use(make: Any) -> None:
    with pytest.raises(UsageError):
        make()
