"""Coverage of a point catalogue by a ranking of tiles, and its resampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from marsretrieval.geo import unit_vectors, wrap_lon
from marsretrieval.metrics.bootstrap import block_weights

NEVER = np.iinfo(np.int64).max  # rank of a point without a tile nearby

Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]

Floats = npt.NDArray[np.float64]

_AT_ONCE = 4_000_000  # values of resampled curves per batch, to bound memory
_CURVE = 500  # points of the strict curve in results


def planar(
    tiles: npt.NDArray[np.float64], points: npt.NDArray[np.float64], radius_deg: float
) -> Pairs:
    """Find (tile, point) pairs within a radius in the plane of degrees; the published distance.

    There is no wrap at 180 degrees and no cosine of latitude.

    Args:
        tiles: Tile positions, lon and lat in degrees, shape (n, 2).
        points: Catalogue positions, lon and lat in degrees, shape (m, 2).
        radius_deg: Radius in degrees.

    Returns:
        Tile indices and point indices of the pairs.
    """
    return near_pairs(tiles, points, radius_deg)


def spherical(
    tiles: npt.NDArray[np.float64], points: npt.NDArray[np.float64], radius_deg: float
) -> Pairs:
    """Find (tile, point) pairs within an arc on the sphere; an arc a is a chord 2 sin(a / 2).

    Args:
        tiles: Tile positions, lon and lat in degrees, shape (n, 2).
        points: Catalogue positions, lon and lat in degrees, shape (m, 2).
        radius_deg: Arc in degrees.

    Returns:
        Tile indices and point indices of the pairs.
    """
    chord = 2 * np.sin(np.radians(radius_deg) / 2)
    return near_pairs(unit_vectors(*tiles.T), unit_vectors(*points.T), float(chord))


def near_pairs(
    tiles: npt.NDArray[np.float64], points: npt.NDArray[np.float64], radius: float
) -> Pairs:
    """Find (tile, point) pairs within a Euclidean radius, by a k-d tree over the tiles.

    Args:
        tiles: Coordinates, shape (n, d).
        points: Coordinates, shape (m, d).
        radius: Euclidean radius.

    Returns:
        Tile indices and point indices of the pairs.
    """
    neighbours = cKDTree(tiles).query_ball_point(points, radius, return_sorted=True)
    counts = np.fromiter(map(len, neighbours), np.int64, len(neighbours))
    flat = [row for rows in neighbours for row in rows]
    return np.array(flat, np.int64), np.repeat(np.arange(len(points)), counts)


@dataclass(frozen=True, slots=True)
class Coverage:
    """A ranking of tiles compared with a catalogue of points.

    Attributes:
        hit: Whether the tile at each rank is near a point, shape (n,).
        first: Rank from 1 of the first tile near each point, shape (m,); NEVER if there is none.
    """

    hit: npt.NDArray[np.bool_]
    first: npt.NDArray[np.int64]

    @classmethod
    def from_order(cls, order: npt.NDArray[np.int64], pairs: Pairs, points: int) -> Coverage:
        """Compare a ranking with a catalogue.

        Args:
            order: Tile indices from best to worst, shape (n,).
            pairs: (tile, point) pairs from `planar` or `spherical`.
            points: Number of points in the catalogue.

        Returns:
            The coverage of all n ranks.
        """
        tiles, near = pairs
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        hit = np.zeros(len(order), np.bool_)
        hit[ranks[tiles]] = True
        first = np.full(points, NEVER)
        np.minimum.at(first, near, ranks[tiles] + 1)
        return cls(hit, first)

    def head(self, count: int) -> Coverage:
        """Cut the ranking.

        Args:
            count: Number of ranks to keep.

        Returns:
            The coverage of the first `count` ranks.
        """
        return Coverage(self.hit[:count], np.where(self.first > count, NEVER, self.first))

    def points_covered(self) -> npt.NDArray[np.int64]:
        """Return the number of points near the first K tiles, for each K from 1, shape (n,)."""
        covered_ranks = self.first[self.first != NEVER]
        return np.cumsum(np.bincount(covered_ranks - 1, minlength=len(self.hit)))

    def precision(self) -> npt.NDArray[np.float64]:
        """Return the share of the first K tiles that are near a point, shape (n,)."""
        return np.cumsum(self.hit) / np.arange(1, len(self.hit) + 1)

    def recall(self) -> npt.NDArray[np.float64]:
        """Return the share of the points near one of the first K tiles, shape (n,)."""
        return self.points_covered() / len(self.first)


def f1_of(precision: Floats, recall: Floats) -> Floats:
    """Return the harmonic mean of precision and recall; 0 where both are 0.

    Args:
        precision: Array of any shape.
        recall: Array of the same shape.

    Returns:
        Array of the same shape.
    """
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)


def average_precision(precision: Floats, recall: Floats) -> Floats:
    """Sum precision(K) (recall(K) - recall(K - 1)) over K, with recall(0) = 0.

    Args:
        precision: Array of shape (..., K).
        recall: Array of shape (..., K).

    Returns:
        Array of shape (...).
    """
    area: Floats = np.sum(precision * np.diff(recall, axis=-1, prepend=0.0), axis=-1)
    return area


def published_cuts(predictions: int, max_k: int) -> npt.NDArray[np.int64]:
    """Return the depths K of the published evaluation: about a hundred, evenly spaced.

    Args:
        predictions: Number of ranked tiles.
        max_k: Largest depth.

    Returns:
        Increasing depths, shape (c,).
    """
    deepest = min(predictions, max_k)
    step = max(1, deepest // 100)
    cuts = list(range(step, deepest + 1, step))
    return np.array(cuts if cuts[-1] == deepest else [*cuts, deepest], np.int64)


def spread(count: int) -> npt.NDArray[np.int64]:
    """Return up to 500 geometrically spaced depths.

    Args:
        count: Largest depth.

    Returns:
        Increasing depths from 1 to `count`.
    """
    return np.unique(np.geomspace(1, count, _CURVE).astype(np.int64))


def resample_depths(coverage: Coverage, best: int) -> npt.NDArray[np.int64]:
    """Return the depths at which the strict curve is evaluated in a resample.

    These are every rank that covers a new point, so that average precision is exact, the best
    depth, and up to 500 others for the best F1.

    Args:
        coverage: Coverage of the whole data.
        best: Depth of its best F1.

    Returns:
        Increasing depths, shape (k,).
    """
    covered_ranks = coverage.first[coverage.first != NEVER]
    return np.unique(np.concatenate([covered_ranks, [best], spread(len(coverage.hit))]))


def trapezoid(precision: Floats, recall: Floats) -> Floats:
    """Return the area under precision over recall by the trapezoid rule.

    Args:
        precision: Array of shape (..., c).
        recall: Array of shape (..., c), not decreasing along the last axis.

    Returns:
        Array of shape (...).
    """
    area: Floats = np.asarray(np.trapezoid(precision, recall, axis=-1))
    return area


@dataclass(frozen=True, slots=True)
class Blocks:
    """Spatial blocks of ranked tiles and points; the units of resampling.

    Attributes:
        of_tile: Block of each tile in rank order, shape (n,).
        of_point: Block of each point, shape (m,).
        count: Number of blocks.
    """

    of_tile: npt.NDArray[np.int64]  # (n,) in rank order
    of_point: npt.NDArray[np.int64]  # (m,)
    count: int

    @classmethod
    def from_positions(cls, tiles: Floats, points: Floats, size_deg: float) -> Blocks:
        """Assign tiles and points to cells of longitude and latitude.

        Args:
            tiles: Tile positions in rank order, lon and lat in degrees, shape (n, 2).
            points: Catalogue positions, lon and lat in degrees, shape (m, 2).
            size_deg: Cell size in degrees.

        Returns:
            The blocks that hold a tile or a point.
        """
        cells = _cells(np.concatenate([tiles, points]), size_deg)
        _, numbers = np.unique(cells, axis=0, return_inverse=True)
        numbers = numbers.reshape(-1)
        return cls(numbers[: len(tiles)], numbers[len(tiles) :], int(numbers.max()) + 1)

    @staticmethod
    def count_of(points: Floats, size_deg: float) -> int:
        """Return the number of blocks that hold a point.

        Args:
            points: Positions, lon and lat in degrees, shape (m, 2).
            size_deg: Cell size in degrees.

        Returns:
            The number of blocks.
        """
        return len(np.unique(_cells(points, size_deg), axis=0))


def _cells(positions: Floats, size_deg: float) -> npt.NDArray[np.int64]:
    """Return column and row of each position's cell, shape (n, 2)."""
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
    """Compute the area and the best F1 in resamples of the blocks.

    Hits and the ranks that cover points are those of the whole data.

    Args:
        coverage: Coverage of the whole data.
        blocks: Block of each tile and point.
        depths: Increasing depths, shape (k,).
        area: Function of precision and recall, both (resamples, k), that returns (resamples,).
        seed: Seed of the random generator.
        resamples: Number of resamples.

    Returns:
        `area` and `best.f1`, shape (resamples,) each; empty with fewer than 2 resamples or blocks.
    """
    if resamples < 2 or blocks.count < 2:
        return {}
    block_draws = block_weights(blocks.count, seed=seed, resamples=resamples)
    areas, best = resample_curves(coverage, blocks, depths, area, block_draws)
    return {"area": areas, "best.f1": best}


def resample_curves(
    coverage: Coverage,
    blocks: Blocks,
    depths: npt.NDArray[np.int64],
    area: Callable[[Floats, Floats], Floats],
    block_draws: npt.NDArray[np.float32],
) -> tuple[Floats, Floats]:
    """Compute the area and the best F1 for given draws of the blocks.

    Args:
        coverage: Coverage of the whole data.
        blocks: Block of each tile and point.
        depths: Increasing depths, shape (k,).
        area: Function of precision and recall, both (resamples, k), that returns (resamples,).
        block_draws: Counts from `block_weights`, shape (resamples, blocks).

    Returns:
        Area and best F1, shape (resamples,) each; NaN for resamples without a point.
    """
    ranks = np.arange(1, len(coverage.hit) + 1)
    tiles = _cumulate_per_block(blocks.of_tile, ranks, blocks.count, depths)
    hits = _cumulate_per_block(
        blocks.of_tile[coverage.hit], ranks[coverage.hit], blocks.count, depths
    )
    points_covered = _cumulate_per_block(blocks.of_point, coverage.first, blocks.count, depths)
    points = np.bincount(blocks.of_point, minlength=blocks.count).astype(np.float32)
    areas, best = [], []
    step = max(1, _AT_ONCE // max(1, len(depths)))
    for start in range(0, len(block_draws), step):
        weights = block_draws[start : start + step]
        with np.errstate(invalid="ignore", divide="ignore"):
            precision: Floats = np.nan_to_num(
                (weights @ hits).astype(np.float64) / (weights @ tiles)
            )
            recall: Floats = (weights @ points_covered).astype(np.float64) / (weights @ points)[
                :, None
            ]
        f1 = f1_of(precision, recall).max(axis=1)
        areas.append(area(precision, recall))
        best.append(np.where(np.isnan(recall[:, 0]), np.nan, f1))
    return np.concatenate(areas), np.concatenate(best)


def _cumulate_per_block(
    block: npt.NDArray[np.int64],
    rank: npt.NDArray[np.int64],
    count: int,
    depths: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Count the items of each block within each depth, shape (count, k); ranks from 1."""
    steps = np.searchsorted(depths, rank)
    within = steps < len(depths)
    flat = block[within] * len(depths) + steps[within]
    new = np.bincount(flat, minlength=count * len(depths)).reshape(count, len(depths))
    return np.cumsum(new, axis=1).astype(np.float32)
