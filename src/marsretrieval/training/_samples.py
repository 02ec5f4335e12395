"""Training pairs from the terrain generator: never from a planet that is evaluated on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval._environment import usable_cpus
from marsretrieval._processes import process_pool
from marsretrieval.datasets.synthetic import LANDFORMS, sample, sample_pair
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search import geolocalization_prompts, landform_prompts
from marsretrieval.training._recipe import Recipe

_CHUNK = 250


@dataclass(frozen=True, slots=True)
class Samples:
    """images (n, size, size) uint8, and for each the texts that may stand for it."""

    images: npt.NDArray[np.uint8]
    texts: list[tuple[str, ...]]


def make_samples(recipe: Recipe, progress: Progress = NO_PROGRESS) -> Samples:
    """Draw `recipe.pairs` captioned images and `recipe.named` with prompts, on all CPUs."""
    chunks: list[tuple[int, bool, int, int]] = []
    for captioned, count in ((True, recipe.pairs), (False, recipe.named)):
        for index, start in enumerate(range(0, count, _CHUNK)):
            seed = recipe.seed + 1_000_000 * captioned + index
            chunks.append((seed, captioned, min(_CHUNK, count - start), recipe.image_size))
    images, texts = [], []
    with (
        progress.start("samples", recipe.pairs + recipe.named, "images") as bar,
        process_pool(usable_cpus()) as pool,
    ):
        for drawn, described in pool.map(_draw, chunks):
            images.append(drawn)
            texts += described
            bar.advance(len(described))
    return Samples(np.concatenate(images), texts)


def _draw(chunk: tuple[int, bool, int, int]) -> tuple[Any, list[tuple[str, ...]]]:
    from PIL import Image

    seed, captioned, count, size = chunk
    rng = np.random.default_rng(seed)
    names = list(LANDFORMS)
    images = np.empty((count, size, size), np.uint8)
    texts: list[tuple[str, ...]] = []
    for row in range(count):
        if captioned:
            picture, original, refined = sample_pair(rng)
            grey = (
                Image.fromarray(picture).convert("L").resize((size, size), Image.Resampling.BICUBIC)
            )
            images[row] = np.asarray(grey)
            texts.append((original, refined, refined))
        else:
            name = names[row % len(names)]
            images[row] = sample(name, rng, size)[0]
            prompts = {*landform_prompts(name), *geolocalization_prompts(name)}
            texts.append(tuple(sorted(prompts)))
    return images, texts
