"""Seeded inputs, whose metrics are committed in golden/, and a helper for strict tile metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from marsretrieval.metrics import geolocalization
from marsretrieval.results import Evaluation

__all__ = ["flat", "geo_input", "landform_input", "paired_input", "strict_geo", "unit"]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def paired_input(seed: int = 0, pairs: int = 150, noise: float = 1.5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((pairs, 16))
    texts = images + noise * rng.standard_normal(images.shape)
    return {"images": unit(images), "texts": unit(texts)}


def landform_input(seed: int = 0, images: int = 240, classes: int = 9) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, 12))
    labels = np.concatenate(
        [np.arange(classes), rng.integers(0, classes, images - classes) ** 2 % classes]
    )
    names = [f"class_{number:02d}" for number in range(classes)]
    return {
        "images": unit(centres[labels] + 1.6 * rng.standard_normal((images, 12))),
        "queries": unit(centres + 0.5 * rng.standard_normal(centres.shape)),
        "labels": [names[label] for label in labels],
        "image_ids": [f"image_{number:04d}" for number in rng.permutation(images)],
        "query_names": names,
    }


def geo_input(
    seed: int = 0, tiles: int = 3000, points: int = 120, lat: float = 60.0
) -> dict[str, np.ndarray]:
    """Create clustered points, and tiles on the grid with higher scores near the points."""
    rng = np.random.default_rng(seed)
    centres = np.column_stack([rng.uniform(-170, 170, 12), rng.uniform(-lat, lat, 12)])
    truth = centres[rng.integers(0, 12, points)] + rng.normal(0, 0.8, (points, 2))
    near = truth[rng.integers(0, points, tiles // 3)] + rng.normal(0, 1, (tiles // 3, 2))
    far = np.column_stack([rng.uniform(-180, 180, tiles), rng.uniform(-lat, lat, tiles)])
    corners = np.unique(np.round(np.concatenate([near, far])[:tiles] / 0.2), axis=0) * 0.2
    corners = corners[np.abs(corners[:, 0]) < 179.5]
    gap = np.hypot(*(corners[:, None] - truth[None]).transpose(2, 0, 1)).min(1)
    scores = np.exp(-gap) + 0.35 * rng.standard_normal(len(corners))
    return {"corners": corners, "truth": truth, "scores": scores}


def flat(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Map the paths of nested metrics to their numbers."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, f"{path}/{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from flat(item, f"{path}/{index}")
    elif not isinstance(value, str):
        yield path, float(value)


def strict_geo(scores: Any, centres: Any, truth: Any, **more: Any) -> Evaluation:
    ids = more.pop("ids", [f"{row:06d}" for row in range(len(centres))])
    arguments = {"published_lonlat": centres, "resamples": 0, **more}
    return geolocalization.evaluate(
        scores, ids=ids, centre_lonlat=centres, truth_lonlat=truth, **arguments
    )
