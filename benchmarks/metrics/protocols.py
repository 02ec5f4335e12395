"""Difference between the two protocols: the values in docs/PROTOCOL.md.

    python -m benchmarks.metrics.protocols

All 1,440,000 tiles of the published grid (0.2 degrees, 80 S to 80 N) against m points drawn
uniformly in longitude and latitude within 60 degrees of the equator. A perfect ranking has every
tile near a point first, in random order, then the rest; each protocol has its own definition of
"near". Only the first 20,000 tiles are ranked. Takes a minute on one core.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from marsretrieval.geo import TILE_DEG
from marsretrieval.metrics import geolocalization
from marsretrieval.metrics.coverage import planar, spherical

RADIUS = 0.5
DEPTH = 20_000


def grid() -> np.ndarray:
    """Return the south-west corners of all tiles, of shape (n, 2)."""
    lon, lat = np.meshgrid(np.arange(1800) * TILE_DEG - 180, np.arange(800) * TILE_DEG - 80)
    return np.column_stack([lon.ravel(), lat.ravel()])


def evaluated(order: np.ndarray, corners: np.ndarray, truth: np.ndarray) -> Any:
    top = order[:DEPTH]
    centres = corners + TILE_DEG / 2
    return geolocalization.evaluate(
        -np.arange(len(top)), ids=[f"{row:07d}" for row in top], published_lonlat=corners[top],
        centre_lonlat=centres[top], truth_lonlat=truth, all_centre_lonlat=centres,
        radius_deg=RADIUS, max_k=DEPTH, resamples=0,
    )  # fmt: skip


def main() -> None:
    corners = grid()
    heads = ("m", "tiles near, published", "strict", "perfect by published: AUPRC", "best F1",
             "its strict AP", "perfect by strict: AP", "ceiling", "best F1", "its AUPRC",
             "random: AUPRC", "AP")  # fmt: skip
    print("|".join(["", *heads, ""]))
    print("|---:" * len(heads) + "|")
    for points in (500, 1309, 3118):
        rng = np.random.default_rng(points)
        truth = np.column_stack([rng.uniform(-180, 180, points), rng.uniform(-60, 60, points)])
        luck = rng.permutation(len(corners))
        near = {
            "published": planar(corners, truth, RADIUS)[0],
            "strict": spherical(corners + TILE_DEG / 2, truth, RADIUS)[0],
        }
        evaluations = {"random": evaluated(luck, corners, truth)}
        for protocol, tiles in near.items():
            relevant = np.zeros(len(corners), np.bool_)
            relevant[tiles] = True
            evaluations[protocol] = evaluated(np.lexsort((luck, ~relevant)), corners, truth)
        by, own, chance = evaluations["published"], evaluations["strict"], evaluations["random"]
        figures = [
            by.published["auprc"], by.published["best"]["f1"], by.strict["average_precision"],
            own.strict["average_precision"], own.strict["ceiling"]["average_precision"],
            own.strict["best"]["f1"], own.published["auprc"], chance.published["auprc"],
            chance.strict["average_precision"],
        ]  # fmt: skip
        counts = [points, *(len(np.unique(tiles)) for tiles in near.values())]
        cells = [*(f"{count:,}" for count in counts), *(f"{figure:.3f}" for figure in figures)]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
