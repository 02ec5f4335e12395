"""Which tiles lie near which points, and what the first K tiles of a ranking cover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from marsretrieval.geo import unit_vectors

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
