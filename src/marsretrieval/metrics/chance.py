"""Expected metrics of a random ranking of the same items, under the same relevance.

A random ranking is a uniformly drawn permutation of all items, cut where the metric cuts its
ranking. Closed forms, exact up to rounding, except for the best F1 over K, which is the mean over
seeded permutations. docs/PROTOCOL.md derives the formulas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from marsretrieval.metrics.coverage import Pairs

PERMUTATIONS = 200  # for the best F1

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def expect_average_precision(items: int, relevant: int) -> float:
    """Expected average precision (Bestgen 2015).

    Precision at a rank k that holds a relevant item is (1 + (k - 1) (r - 1) / (n - 1)) / k on
    average, and every rank holds one with the same probability.

    Args:
        items: Number of ranked items n.
        relevant: Number of relevant items r among them.

    Returns:
        The mean over all n! rankings; 0 without a relevant item.
    """
    if not relevant:
        return 0.0
    if items == 1:
        return 1.0
    harmonic = _harmonic_number(items)
    others = (relevant - 1) / (items - 1)
    return (harmonic + others * (items - harmonic)) / items


def expect_average_precision_at(items: int, relevant: int, k: int) -> float:
    """Expected `ranking.average_precision_at`: the sum of `expect_average_precision` up to rank k.

    Args:
        items: Number of ranked items n.
        relevant: Number of relevant items r among them.
        k: Depth.

    Returns:
        The mean over all n! rankings; 0 without a relevant item.
    """
    if not relevant:
        return 0.0
    if items == 1:
        return 1.0
    depth = min(k, items)
    harmonic = _harmonic_number(depth)
    return (harmonic + (relevant - 1) / (items - 1) * (depth - harmonic)) / items


def expect_precision_at(items: int, relevant: int, k: int) -> float:
    """Expected share of relevant items among the first k.

    Args:
        items: Number of ranked items.
        relevant: Number of relevant items among them.
        k: Depth; ranks beyond `items` count as irrelevant.

    Returns:
        The expectation.
    """
    return min(k, items) / k * relevant / items


def expect_hit_at(items: int, relevant: int, k: int) -> float:
    """Probability that one of the first k items is relevant (hypergeometric).

    Args:
        items: Number of ranked items.
        relevant: Number of relevant items among them.
        k: Depth.

    Returns:
        The probability.
    """
    return 1.0 - float(_miss_probabilities(items, relevant, min(k, items))[-1])


def expect_ndcg_at(items: int, relevant: int, k: int) -> float:
    """Expected nDCG of the first k items, as computed by `ranking.ndcg_at`.

    Args:
        items: Number of ranked items.
        relevant: Number of relevant items among them.
        k: Depth.

    Returns:
        The expectation; 0 without relevant items.
    """
    ideal = min(k, relevant)
    if not ideal:
        return 0.0
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gain = discounts[: min(k, items)].sum() / discounts[:ideal].sum()
    return float(relevant / items * gain)


def expect_r_precision(items: int, relevant: int) -> float:
    """Expected precision of the first r items, with r the number of relevant items.

    Args:
        items: Number of ranked items.
        relevant: Number of relevant items among them.

    Returns:
        The expectation.
    """
    return relevant / items


def expect_reciprocal_rank(items: int) -> float:
    """Expected reciprocal rank of a single relevant item.

    Args:
        items: Number of ranked items.

    Returns:
        The expectation.
    """
    return _harmonic_number(items) / items


@dataclass(frozen=True, slots=True)
class RandomTiles:
    """Random rankings of tiles against a catalogue of points.

    Attributes:
        near: (tile, point) pairs within the radius.
        tiles: Number of ranked tiles.
        points: Number of points in the catalogue.
        depth: Number of evaluated ranks, at most `tiles`.
    """

    near: Pairs
    tiles: int
    points: int
    depth: int

    @property
    def relevant(self) -> int:
        """Number of tiles near a point."""
        return len(np.unique(self.near[0]))

    def expect_average_precision(self) -> float:
        """Expected sum over K of precision(K) (recall(K) - recall(K - 1)), down to the depth.

        A point with d tiles near it is first covered at rank k with probability
        C(n - k, d - 1) / C(n, d). The k - 1 tiles before are a random choice of the n - d others,
        of which r - d are near another point.
        """
        ranks = np.arange(1, self.depth + 1)
        relevant = self.relevant
        total = 0.0
        for degree, count in self._degrees():
            missed = _miss_probabilities(self.tiles, degree, self.depth)
            first = missed[:-1] * degree / (self.tiles - ranks + 1)
            precision = (1 + (ranks - 1) * self._share_of_others(degree, relevant)) / ranks
            total += count * float(first @ precision)
        return total / self.points

    def expect_trapezoid(self, cuts: Integers) -> float:
        """Expected area under precision over recall by the trapezoid rule.

        Args:
            cuts: (c,) depths K of the curve, increasing, at most the depth.

        Returns:
            The expectation of sum (R(b) - R(a)) (P(a) + P(b)) / 2 over neighbouring depths a < b.
        """
        relevant = self.relevant
        low, high = cuts[:-1], cuts[1:]
        total = 0.0
        for degree, count in self._degrees():
            missed = _miss_probabilities(self.tiles, degree, self.depth)
            share = self._share_of_others(degree, relevant)

            def covered_times_hits(
                cover: Integers, hits: Integers, *, missed: Floats = missed, share: float = share
            ) -> Floats:
                """Expectation of [covered by the first `cover` tiles] times hits in `hits`."""
                both = np.minimum(cover, hits)
                beyond = np.maximum(hits - cover, 0)
                remaining = np.maximum(self.tiles - cover, 1)
                uncovered = both * share + beyond * (relevant - cover * share) / remaining
                product: Floats = hits * relevant / self.tiles - missed[cover] * uncovered
                return product

            area = (covered_times_hits(high, low) - covered_times_hits(low, low)) / low
            area += (covered_times_hits(high, high) - covered_times_hits(low, high)) / high
            total += count * float(area.sum()) / 2
        return total / self.points

    def expect_best(self, depths: Integers, *, seed: int = 0) -> dict[str, float]:
        """Mean of the highest F1 over K, and of K, precision and recall there.

        Args:
            depths: (c,) depths K that are evaluated, increasing, at most the depth.
            seed: Seed of the PERMUTATIONS random rankings.

        Returns:
            `k`, `f1`, `precision` and `recall`, as in `best` of a ranking.
        """
        rng = np.random.default_rng(seed)
        order = np.argsort(self.near[1], kind="stable")
        points, starts = np.unique(self.near[1][order], return_index=True)
        tiles, tile = np.unique(self.near[0][order], return_inverse=True)
        from marsretrieval.metrics.coverage import f1_of

        best = np.empty((PERMUTATIONS, 4))
        for row in best:
            count = int(rng.hypergeometric(len(tiles), self.tiles - len(tiles), self.depth))
            ranks = rng.choice(self.depth, count, replace=False)
            rank_of = np.full(len(tiles), self.depth)
            rank_of[rng.choice(len(tiles), count, replace=False)] = ranks
            hits = np.bincount(ranks, minlength=self.depth)
            first = np.minimum.reduceat(rank_of[tile], starts) if len(points) else rank_of
            covered = np.bincount(first, minlength=self.depth + 1)[: self.depth]
            precision = np.cumsum(hits)[depths - 1] / depths
            recall = np.cumsum(covered)[depths - 1] / self.points
            f1 = f1_of(precision, recall)
            top = int(np.argmax(f1))
            row[:] = depths[top], f1[top], precision[top], recall[top]
        means = best.mean(axis=0)
        return dict(zip(("k", "f1", "precision", "recall"), map(float, means), strict=True))

    def _degrees(self) -> list[tuple[int, int]]:
        """Return (number of tiles near a point, number of such points), without 0 tiles."""
        _, tiles_near = np.unique(self.near[1], return_counts=True)
        degrees, counts = np.unique(tiles_near, return_counts=True)
        return [(int(d), int(c)) for d, c in zip(degrees, counts, strict=True)]

    def _share_of_others(self, degree: int, relevant: int) -> float:
        """Return the share of relevant tiles among those not near a given point of that degree."""
        others = self.tiles - degree
        return (relevant - degree) / others if others else 0.0


def _harmonic_number(count: int) -> float:
    return float(np.sum(1 / np.arange(1, count + 1)))


def _miss_probabilities(items: int, relevant: int, depth: int) -> Floats:
    """Probability that the first 0, 1, ..., `depth` items are all irrelevant, (depth + 1,)."""
    before = np.arange(depth)
    miss_probability = np.maximum(items - relevant - before, 0) / (items - before)
    return np.concatenate([[1.0], np.cumprod(miss_probability)])
