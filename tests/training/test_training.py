from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marsretrieval.datasets.synthetic import BENCHMARK, sample
from marsretrieval.encoders import LoadOptions, load
from marsretrieval.search import landform_prompts, text_query
from marsretrieval.training.train import Recipe, train

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_mars_nano.py"
QUICK = Recipe(seed=7, pairs=24, named=24, batch=12, epochs=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(QUICK, folder)
    return folder


def test_the_recipe_makes_a_model_that_open_clip_loads(trained: Path) -> None:
    encoder = load("mars-nano", LoadOptions(device="cpu", checkpoint=trained))
    assert encoder.encode_images([Image.new("RGB", (90, 60))]).shape == (1, QUICK.embed_dim)
    assert encoder.encode_texts(["sand", "é ice, 冰"]).shape == (2, QUICK.embed_dim)
    recipe = json.loads((trained / "recipe.json").read_text())
    assert recipe["pairs"] == QUICK.pairs and recipe["loss"]["last_epoch"] < 5


def test_the_same_recipe_gives_the_same_weights(trained: Path, tmp_path: Path) -> None:
    train(QUICK, tmp_path)
    name = "open_clip_model.safetensors"
    assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(tmp_path / "taken")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot be written" in done.stderr and "Traceback" not in done.stderr


def test_shipped_model_recognizes_landforms_and_untrained_twin_does_not() -> None:
    rng = np.random.default_rng(99)
    pictures = [
        Image.fromarray(sample(name, rng, 64)[0]).convert("RGB")
        for name in BENCHMARK
        for _ in range(12)
    ]
    truth = np.repeat(np.arange(len(BENCHMARK)), 12)
    right = {}
    for model in ("mars-nano", "mars-nano-untrained"):
        encoder = load(model, LoadOptions(device="cpu"))
        queries = np.stack(
            [text_query(encoder.encode_texts(landform_prompts(name))) for name in BENCHMARK]
        )
        guesses = (encoder.encode_images(pictures) @ queries.T).argmax(axis=1)
        right[model] = (guesses == truth).mean()
    assert right["mars-nano"] > 0.75
    assert right["mars-nano-untrained"] < 0.5


def test_training_captions_are_not_truncated() -> None:
    from marsretrieval.datasets.synthetic import sample_pair

    rng = np.random.default_rng(5)
    captions = [sample_pair(rng)[2] for _ in range(60)]
    cut = load("mars-nano", LoadOptions(device="cpu")).count_truncated(captions)
    assert cut is not None and cut <= 3
