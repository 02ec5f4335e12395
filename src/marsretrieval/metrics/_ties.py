"""What ties could change in the average precision of a ranking of tiles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from marsretrieval.metrics._coverage import Pairs


def average_precision_bounds(
    scores: npt.NDArray[np.float64], pairs: Pairs, points: int, max_k: int
) -> tuple[float, float]:
    """(low, high) that hold whatever the order among equal scores; equal where none tie.

    Average precision is the mean over points of the precision at the rank that finds the point, 0
    for a point not found. A point is found within the first group of equal scores that has a tile
    near it, whatever the order inside; at a tile that is a hit. Let `start` tiles come before the
    group, `before` of them hits, and let the group hold `hits` hits and `misses` others. With all
    hits first, precision grows to its greatest at the last hit; with all misses first, its least
    at a hit is that of the first hit. The bounds are proven, not always reached: an order that is
    best for one point need not be for another.
    """
    tiles, near = pairs
    _, group = np.unique(-scores, return_inverse=True)
    relevant = np.zeros(len(scores), np.bool_)
    relevant[tiles] = True
    size = np.bincount(group)
    hits = np.bincount(group[relevant], minlength=len(size))
    start, before = np.cumsum(size) - size, np.cumsum(hits) - hits
    first = np.full(points, len(size))
    np.minimum.at(first, near, group[tiles])
    new = np.bincount(first, minlength=len(size) + 1)[:-1]  # points that each group finds

    room = np.clip(max_k - start, 0, size)  # the last group may be cut at max_k
    shown = np.minimum(hits, room)
    high = (before + shown) / np.maximum(start + shown, 1)
    low = np.where(room == size, (before + 1) / (start + size - hits + 1), 0.0)
    return float(new @ low) / points, float(new @ np.where(shown > 0, high, 0.0)) / points
