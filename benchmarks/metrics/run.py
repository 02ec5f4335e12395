"""Seconds to evaluate each task, compared with a straightforward implementation; medians of 3.

    python -m benchmarks.metrics.run

The straightforward implementation is tests/metrics/published_reference.py:
sort every ranking, evaluate every depth separately. Sizes: 2,287 pairs, 48 classes x 5,000 images,
20,000 predictions for 1,300 points.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from marsretrieval.metrics import geolocalization, landform, paired
from marsretrieval.system import usable_cpus
from tests.metrics import published_reference as reference
from tests.metrics.inputs import flat, geo_input, unit


def seconds(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def show(name: str, ours: Callable[..., Any], theirs: Callable[[], Any]) -> None:
    fast, actual = seconds(lambda: ours(resamples=0), 3)
    total, _ = seconds(lambda: ours(resamples=1000), 3)
    slow, expected = seconds(theirs, 3)
    difference = max(
        abs(a - b)
        for (_, a), (_, b) in zip(flat(dict(actual.published)), flat(expected), strict=True)
    )
    ratio = f"{slow / fast:.1f}x"
    print(f"| {name} | {fast:.3f} | {total:.2f} | {slow:.2f} | {ratio} | {difference:.0e} |")


def main() -> None:
    load = f"load {os.getloadavg()[0]:.1f}"
    print(f"{platform.machine()}, {usable_cpus()} CPUs, {load}, numpy {np.__version__}\n")
    print("| task | ours, s | ours with intervals, s | straightforward, s | ratio | difference |")
    print("|---|---|---|---|---|---|")
    rng = np.random.default_rng(0)

    images = unit(rng.standard_normal((2287, 1024)))
    texts = unit(images + 0.05 * rng.standard_normal(images.shape))
    show(
        "2,287 pairs x 1,024",
        lambda resamples: paired.evaluate(images, texts, resamples=resamples),
        lambda: reference.paired(images, texts),
    )

    centres = rng.standard_normal((48, 1024))
    labels = rng.integers(0, 48, 5000)
    annotations = {
        "labels": [f"class {label:02d}" for label in labels],
        "image_ids": [f"{row:05d}" for row in range(5000)],
        "query_names": [f"class {number:02d}" for number in range(48)],
    }
    corpus = unit(centres[labels] + 8 * rng.standard_normal((5000, 1024)))
    queries = unit(centres)
    show(
        "48 classes x 5,000 images x 1,024",
        lambda resamples: landform.evaluate(corpus, queries, **annotations, resamples=resamples),
        lambda: reference.landform(corpus, queries, **annotations),
    )

    made = geo_input(0, tiles=24_000, points=1300)
    order = np.argsort(-made["scores"], kind="stable")[:20_000]
    tiles, scores = made["corners"][order], made["scores"][order]
    ids = [f"{row:05d}" for row in range(len(tiles))]
    show(
        f"{len(tiles):,} predictions, 1,300 points",
        lambda resamples: geolocalization.evaluate(
            scores, ids=ids, published_lonlat=tiles, centre_lonlat=tiles,
            truth_lonlat=made["truth"], resamples=resamples,
        ),
        lambda: reference.geolocalization(tiles, made["truth"], 0.5, 20_000),
    )  # fmt: skip


if __name__ == "__main__":
    main()
