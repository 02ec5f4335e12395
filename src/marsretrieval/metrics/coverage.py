"""Which tiles lie near which points, and what the first K tiles of a ranking cover."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from marsretrieval.geo import unit_vectors, wrap_lon
from marsretrieval.metrics.bootstrap import block_weights

NEVER = np.iinfo(np.int64).max  # the rank at which a point without a tile nearby is found

Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def planar(
    tiles: npt.NDArray[np.float64], points: npt.NDArray[np.float64], radius_deg: float
) -> Pairs:
    """(tile, point) pairs no further apart than the radius in the plane of degrees: no wrap at
    180, no cosine of latitude. The published distance."""
    return near_pairs(tiles, points, radius_deg)


def spherical(
    tiles: npt.NDArray[np.float64], points: npt.NDArray[np.float64], radius_deg: float
) -> Pairs:
    """The same within an arc of the radius on the sphere: an arc a is a chord 2 sin(a / 2)."""
    chord = 2 * np.sin(np.radians(radius_deg) / 2)
    return near_pairs(unit_vectors(*tiles.T), unit_vectors(*points.T), float(chord))


def near_pairs(
    tiles: npt.NDArray[np.float64], points: npt.NDArray[np.float64], radius: float
) -> Pairs:
    """All (tile, point) pairs within a Euclidean radius, by a k-d tree over the tiles."""
    found = cKDTree(tiles).query_ball_point(points, radius, return_sorted=True)
    counts = np.fromiter(map(len, found), np.int64, len(found))
    flat = [row for rows in found for row in rows]
    return np.array(flat, np.int64), np.repeat(np.arange(len(points)), counts)


@dataclass(frozen=True, slots=True)
class Coverage:
    """A ranking against a catalogue.

    hit: (n,) whether the tile of each rank lies near a point.
    first: (m,) the number of tiles down to the first near each point (from 1), or NEVER.
    """

    hit: npt.NDArray[np.bool_]
    first: npt.NDArray[np.int64]

    @classmethod
    def of(cls, order: npt.NDArray[np.int64], pairs: Pairs, points: int) -> Coverage:
        """`order`: tiles from best to worst; `pairs` as `planar` or `spherical` give them."""
        tiles, near = pairs
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        hit = np.zeros(len(order), np.bool_)
        hit[ranks[tiles]] = True
        first = np.full(points, NEVER)
        np.minimum.at(first, near, ranks[tiles] + 1)
        return cls(hit, first)

    def head(self, count: int) -> Coverage:
        """The first `count` tiles of this ranking."""
        return Coverage(self.hit[:count], np.where(self.first > count, NEVER, self.first))

    def found(self) -> npt.NDArray[np.int64]:
        """(n,): how many points the first K tiles have found, for every K from 1."""
        known = self.first[self.first != NEVER]
        return np.cumsum(np.bincount(known - 1, minlength=len(self.hit)))

    def precision(self) -> npt.NDArray[np.float64]:
        """(n,): share of the first K tiles that lie near a point."""
        return np.cumsum(self.hit) / np.arange(1, len(self.hit) + 1)

    def recall(self) -> npt.NDArray[np.float64]:
        """(n,): share of the points that lie near one of the first K tiles."""
        return self.found() / len(self.first)


Floats = npt.NDArray[np.float64]

_AT_ONCE = 4_000_000  # values of resampled curves at a time, to bound memory
_CURVE = 500  # points of the strict curve that are kept for drawing


def f1_of(precision: Floats, recall: Floats) -> Floats:
    """Harmonic mean, 0 where both are 0."""
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)


def average_precision(precision: Floats, recall: Floats) -> Floats:
    """Sum over K of precision(K) (recall(K) - recall(K - 1)), with recall(0) = 0; (..., K)."""
    area: Floats = np.sum(precision * np.diff(recall, axis=-1, prepend=0.0), axis=-1)
    return area


def published_cuts(predictions: int, max_k: int) -> npt.NDArray[np.int64]:
    """The depths K that the published evaluation looks at: about a hundred, evenly spaced."""
    deepest = min(predictions, max_k)
    step = max(1, deepest // 100)
    cuts = list(range(step, deepest + 1, step))
    return np.array(cuts if cuts[-1] == deepest else [*cuts, deepest], np.int64)


def spread(count: int) -> npt.NDArray[np.int64]:
    """At most _CURVE depths from 1 to `count`, dense where the curve moves most."""
    return np.unique(np.geomspace(1, count, _CURVE).astype(np.int64))


def resample_depths(coverage: Coverage, best: int) -> npt.NDArray[np.int64]:
    """Where the strict curve is looked at in a resample: every rank that finds a point, so that
    the average precision is exact, the best depth, and a few hundred others for the best F1."""
    found = coverage.first[coverage.first != NEVER]
    return np.unique(np.concatenate([found, [best], spread(len(coverage.hit))]))


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
        cells = _cells(np.concatenate([tiles, points]), size_deg)
        _, numbers = np.unique(cells, axis=0, return_inverse=True)
        numbers = numbers.reshape(-1)
        return cls(numbers[: len(tiles)], numbers[len(tiles) :], int(numbers.max()) + 1)

    @staticmethod
    def count_of(points: Floats, size_deg: float) -> int:
        """Number of blocks that hold a point."""
        return len(np.unique(_cells(points, size_deg), axis=0))


def _cells(positions: Floats, size_deg: float) -> npt.NDArray[np.int64]:
    """(n, 2): column and row of the cell of each position."""
    wrapped = np.column_stack([wrap_lon(positions[:, 0]), positions[:, 1]])
    return np.floor(wrapped / size_deg).astype(np.int64)


def draw(
    coverage: Coverage,
    blocks: Blocks,
    depths: npt.NDArray[np.int64],
    area: Callable[[Floats, Floats], Floats],
    *,
    seed: int,
    resamples: int,
) -> dict[str, Floats]:
    """`area` and the best F1 over the depths (`best.f1`) in each resample of the blocks, (r,);
    empty with fewer than 2 resamples or blocks.

    depths: (k,) increasing; area: (precision, recall), both (resamples, k), to (resamples,).
    Whether a tile is a hit, and which rank finds a point, stay as they are in the whole data.
    """
    if resamples < 2 or blocks.count < 2:
        return {}
    drawn = block_weights(blocks.count, seed=seed, resamples=resamples)
    areas, best = resampled(coverage, blocks, depths, area, drawn)
    return {"area": areas, "best.f1": best}


def resampled(
    coverage: Coverage,
    blocks: Blocks,
    depths: npt.NDArray[np.int64],
    area: Callable[[Floats, Floats], Floats],
    drawn: npt.NDArray[np.float32],
) -> tuple[Floats, Floats]:
    """(resamples,) each: `area` and the best F1 of every resample; `drawn` as `block_weights`
    gives it. NaN where a resample holds no point."""
    ranks = np.arange(1, len(coverage.hit) + 1)
    tiles = _per_block(blocks.of_tile, ranks, blocks.count, depths)
    hits = _per_block(blocks.of_tile[coverage.hit], ranks[coverage.hit], blocks.count, depths)
    found = _per_block(blocks.of_point, coverage.first, blocks.count, depths)
    points = np.bincount(blocks.of_point, minlength=blocks.count).astype(np.float32)
    areas, best = [], []
    step = max(1, _AT_ONCE // max(1, len(depths)))
    for start in range(0, len(drawn), step):
        weights = drawn[start : start + step]
        with np.errstate(invalid="ignore", divide="ignore"):
            precision: Floats = np.nan_to_num(
                (weights @ hits).astype(np.float64) / (weights @ tiles)
            )
            recall: Floats = (weights @ found).astype(np.float64) / (weights @ points)[:, None]
        f1 = f1_of(precision, recall).max(axis=1)
        areas.append(area(precision, recall))
        best.append(np.where(np.isnan(recall[:, 0]), np.nan, f1))
    return np.concatenate(areas), np.concatenate(best)


def _per_block(
    block: npt.NDArray[np.int64],
    rank: npt.NDArray[np.int64],
    count: int,
    depths: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """(count, k): how many items of each block come within each depth; ranks from 1."""
    steps = np.searchsorted(depths, rank)
    within = steps < len(depths)
    flat = block[within] * len(depths) + steps[within]
    new = np.bincount(flat, minlength=count * len(depths)).reshape(count, len(depths))
    return np.cumsum(new, axis=1).astype(np.float32)
