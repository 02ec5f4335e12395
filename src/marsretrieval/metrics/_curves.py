"""Figures of a precision-recall curve, whole or under the weights of a resample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.geo import wrap_lon
from marsretrieval.metrics._coverage import NEVER, Coverage
from marsretrieval.metrics.bootstrap import block_weights, interval

__all__ = ["Blocks", "average_precision", "f1_of", "intervals", "published_cuts", "trapezoid"]

Floats = npt.NDArray[np.float64]

_AT_ONCE = 4_000_000  # weights held at a time


def f1_of(precision: Floats, recall: Floats) -> Floats:
    """Harmonic mean, 0 where both are 0."""
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)


def average_precision(precision: Floats, recall: Floats) -> float:
    """Sum over K of precision(K) (recall(K) - recall(K - 1)), with recall(0) = 0."""
    return float(np.sum(precision * np.diff(recall, prepend=0.0)))


def published_cuts(predictions: int, max_k: int) -> npt.NDArray[np.int64]:
    """The depths K that the published evaluation looks at: about a hundred, evenly spaced."""
    deepest = min(predictions, max_k)
    step = max(1, deepest // 100)
    cuts = list(range(step, deepest + 1, step))
    return np.array(cuts if cuts[-1] == deepest else [*cuts, deepest], np.int64)


def trapezoid(precision: Floats, recall: Floats) -> Floats:
    """Area under (..., cuts) curves by the trapezoid rule, recall not decreasing along the cuts."""
    area: Floats = np.asarray(np.trapezoid(precision, recall, axis=-1))
    return area


@dataclass(frozen=True, slots=True)
class Blocks:
    """Which block of the planet each ranked tile and each point lies in; what is resampled."""

    of_tile: npt.NDArray[np.int64]  # (n,) in rank order
    of_point: npt.NDArray[np.int64]  # (m,)
    count: int

    @classmethod
    def of(cls, tiles: Floats, points: Floats, size_deg: float) -> Blocks:
        """Cells of `size_deg` in longitude and latitude; tiles (n, 2) in rank order."""
        everything = np.concatenate([tiles, points])
        everything[:, 0] = wrap_lon(everything[:, 0])
        cells = np.floor(everything / size_deg).astype(np.int64)
        _, numbers = np.unique(cells, axis=0, return_inverse=True)
        numbers = numbers.reshape(-1)
        return cls(numbers[: len(tiles)], numbers[len(tiles) :], int(numbers.max()) + 1)


def intervals(
    coverage: Coverage,
    blocks: Blocks,
    cuts: npt.NDArray[np.int64] | None,
    *,
    seed: int,
    resamples: int,
) -> dict[str, tuple[float, float]]:
    """Intervals of the best F1 and of the area (trapezoid over `cuts`, or without them the
    average precision over every K), blocks drawn with replacement.

    Whether a tile is a hit, and which rank finds a point, stay as they are in the whole data.
    """
    if resamples < 2 or blocks.count < 2:
        return {}
    areas, best = [], []
    at_once = max(1, _AT_ONCE // max(len(coverage.hit), len(coverage.first)))
    found = coverage.first != NEVER
    ranks = coverage.first[found] - 1
    for drawn in block_weights(blocks.count, seed=seed, resamples=resamples, at_once=at_once):
        with np.errstate(invalid="ignore", divide="ignore"):
            tiles = drawn[:, blocks.of_tile]
            hits = np.where(coverage.hit, tiles, np.float32(0))
            precision: Floats = hits.cumsum(axis=1, dtype=np.float64) / tiles.cumsum(axis=1)
            points = drawn[:, blocks.of_point]
            gains = _gains(points[:, found], ranks, len(coverage.hit))
            recall: Floats = np.cumsum(gains, axis=1) / points.sum(axis=1, keepdims=True)
            precision[np.isnan(precision)] = 0.0
            if cuts is not None:
                precision, recall = precision[:, cuts - 1], recall[:, cuts - 1]
                areas.append(trapezoid(precision, recall))
            else:
                areas.append(np.sum(precision * np.diff(recall, axis=1, prepend=0.0), axis=1))
            best.append(f1_of(precision, recall).max(axis=1))
    return {"area": interval(np.concatenate(areas)), "best.f1": interval(np.concatenate(best))}


def _gains(weights: npt.NDArray[Any], ranks: npt.NDArray[np.int64], length: int) -> Floats:
    """(resamples, n): the weight of the points that each rank finds first."""
    order = np.argsort(ranks, kind="stable")
    gains = np.zeros((len(weights), length))
    if not len(ranks):
        return gains
    starts = np.flatnonzero(np.diff(ranks[order], prepend=-1))
    gains[:, ranks[order][starts]] = np.add.reduceat(weights[:, order], starts, axis=1)
    return gains
