"""Paired bootstrap of metric differences between two models on the same items.

Both models are scored on the same resamples, so that shared factors (hard queries, poor regions)
cancel. The interval is the percentile interval of Efron (1979) of `b - a`; p inverts it (Efron &
Tibshirani 1993, An Introduction to the Bootstrap, section 15.4): twice the smaller share of
resamples on either side of zero, those at zero counted on both, with one added to count and
resamples so that p is never 0. Over queries this is the test of Koehn (2004, EMNLP). Points are
resampled by spatial blocks, as for the intervals of one model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError
from marsretrieval.metrics import validation
from marsretrieval.metrics.bootstrap import block_weights, interval, query_draws
from marsretrieval.metrics.coverage import (
    NEVER,
    Blocks,
    Coverage,
    average_precision,
    f1_of,
    planar,
    published_cuts,
    resample_curves,
    resample_depths,
    spherical,
    trapezoid,
)
from marsretrieval.metrics.geolocalization import BLOCK_DEG
from marsretrieval.metrics.ranking import id_order, ranked

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of two models.

    Attributes:
        a: Value of the first model.
        b: Value of the second model.
        low: Lower end of the 95 % interval of b - a; None if there is only one query or block.
        high: Upper end of the interval, or None.
        p: Two-sided p value, or None.
    """

    a: float
    b: float
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def difference(self) -> float:
        """The difference b - a."""
        return self.b - self.a

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, slots=True)
class RankedTiles:
    """The best tiles of a model, in any order.

    Attributes:
        scores: Scores, shape (n,).
        ids: Tile ids.
        lonlat: Positions in degrees as the protocol reads them, shape (n, 2).
    """

    scores: Floats
    ids: Sequence[str]
    lonlat: Floats


@dataclass(frozen=True, slots=True)
class PointComparison:
    """Differences between two rankings against one catalogue of m points.

    Attributes:
        figures: Metric name to difference.
        value_a: Precision at the rank that covers each point, or 0, shape (m,); the mean is the
            average precision of the first ranking.
        value_b: The same for the second ranking.
        rank_a: Rank that covers each point, 0 if not covered, shape (m,).
        rank_b: The same for the second ranking.
        blocks: Number of blocks that hold a point; intervals from few blocks are coarse.
        samples: Metric name to its difference per resample, shape (r,); may be empty.
    """

    figures: dict[str, Difference]
    value_a: Floats
    value_b: Floats
    rank_a: npt.NDArray[np.int64]
    rank_b: npt.NDArray[np.int64]
    blocks: int
    samples: Mapping[str, Floats]


def over_queries(
    a: Mapping[str, Floats],
    b: Mapping[str, Floats],
    *,
    seed: int = 0,
    resamples: int = 1000,
    statistics: Mapping[str, Callable[..., npt.NDArray[np.float64]]] | None = None,
) -> dict[str, Difference]:
    """Compare the mean (or `statistics[name]`) of each column; all use the same resamples.

    The draws equal those of `bootstrap.over_queries` with the same seed.

    Args:
        a: Metric name to an array of shape (n,), one value per query.
        b: The same for the second model; row i is the same query.
        seed: Seed of the random generator.
        resamples: Number of resamples.
        statistics: Metric name to a function used instead of the mean.

    Returns:
        Metric name to difference.

    Raises:
        DataError: If names or lengths differ.
    """
    if a.keys() != b.keys():
        raise DataError(
            f"metrics differ: {', '.join(sorted(a.keys() ^ b.keys()))}",
            remedy="Compare results of the same task and protocol.",
        )
    validation.same_length(**{f"{name} of {side}": column for side, columns in (("a", a), ("b", b))
                           for name, column in columns.items()})  # fmt: skip
    chosen = {name: (statistics or {}).get(name, np.mean) for name in a}
    length = len(next(iter(a.values()), ()))
    samples: dict[str, list[Floats]] = {name: [] for name in a}
    if length > 1 and resamples > 1:
        for rows in query_draws(length, seed=seed, resamples=resamples):
            for name, statistic in chosen.items():
                differences = statistic(b[name][rows], axis=1) - statistic(a[name][rows], axis=1)
                samples[name].append(differences)
    return {
        name: _difference(
            float(statistic(a[name], axis=0)), float(statistic(b[name], axis=0)), samples[name]
        )
        for name, statistic in chosen.items()
    }


def bootstrap_points(
    a: RankedTiles,
    b: RankedTiles,
    truth_lonlat: npt.ArrayLike,
    *,
    protocol: str = "strict",
    radius_deg: float,
    max_k: int,
    seed: int = 0,
    resamples: int = 1000,
) -> PointComparison:
    """Compare the area and the best F1 of two rankings of the same tiles.

    Metrics and keys are those of `geolocalization.evaluate`: `average_precision` and `best.f1`
    (strict), or `auprc` and `best.f1` (published). Blocks are cells of BLOCK_DEG that hold a tile
    of either ranking or a point; both models use the same draws.

    Args:
        a: Ranking of the first model.
        b: Ranking of the second model.
        truth_lonlat: Catalogue positions in degrees, shape (m, 2).
        protocol: `strict` or `published`.
        radius_deg: Radius in degrees.
        max_k: Largest depth.
        seed: Seed of the random generator.
        resamples: Number of resamples.

    Returns:
        The comparison.

    Raises:
        DataError: If positions or lengths are invalid.
    """
    truth = validation.lonlat(truth_lonlat, "ground truth")
    curves = [_curve(ranking, truth, protocol, radius_deg, max_k) for ranking in (a, b)]
    tiles = np.concatenate([curve.tiles for curve in curves])
    all_blocks = Blocks.from_positions(tiles, truth, BLOCK_DEG)
    cut = len(curves[0].tiles)
    blocks = [
        Blocks(all_blocks.of_tile[:cut], all_blocks.of_point, all_blocks.count),
        Blocks(all_blocks.of_tile[cut:], all_blocks.of_point, all_blocks.count),
    ]
    parts: dict[str, Floats] = {}
    name = "average_precision" if protocol == "strict" else "auprc"
    if resamples > 1 and all_blocks.count > 1:
        block_draws = block_weights(all_blocks.count, seed=seed, resamples=resamples)
        first, second = (
            resample_curves(curve.coverage, curve_blocks, curve.depths, curve.area_of, block_draws)
            for curve, curve_blocks in zip(curves, blocks, strict=True)
        )
        parts = {name: second[0] - first[0], "best.f1": second[1] - first[1]}
    return PointComparison(
        {
            key: _difference(a, b, [parts[key]] if parts else [])
            for key, a, b in (
                (name, curves[0].area, curves[1].area),
                ("best.f1", curves[0].f1, curves[1].f1),
            )
        },
        _point_precisions(curves[0].coverage),
        _point_precisions(curves[1].coverage),
        _point_ranks(curves[0].coverage),
        _point_ranks(curves[1].coverage),
        len(np.unique(all_blocks.of_point)),
        parts,
    )


def mean_over(catalogues: Sequence[PointComparison]) -> dict[str, Difference]:
    """Compare unweighted means over catalogues, the strata of a stratified bootstrap.

    Resamples in which a catalogue has no point are left out.

    Args:
        catalogues: One comparison per catalogue, each with its own seed (`bootstrap.seed_of`) and
            the same number of resamples.

    Returns:
        Metric name to difference.
    """
    return {
        key: _difference(
            float(np.mean([comparison.figures[key].a for comparison in catalogues])),
            float(np.mean([comparison.figures[key].b for comparison in catalogues])),
            [np.mean([comparison.samples[key] for comparison in catalogues], axis=0)]
            if all(key in comparison.samples for comparison in catalogues)
            else [],
        )
        for key in catalogues[0].figures
    }


@dataclass(frozen=True, slots=True)
class _Curve:
    coverage: Coverage
    tiles: Floats  # (n, 2) positions in rank order
    depths: npt.NDArray[np.int64]
    area_of: Callable[[Floats, Floats], Floats]
    area: float
    f1: float


def _curve(ranking: RankedTiles, truth: Floats, protocol: str, radius: float, max_k: int) -> _Curve:
    positions = validation.lonlat(ranking.lonlat, "tiles", unknown=protocol == "published")
    validation.same_length(scores=ranking.scores, ids=ranking.ids, positions=positions)
    if protocol == "strict":
        order = ranked(ranking.scores, id_order(ranking.ids))
        coverage = Coverage.from_order(order, spherical(positions, truth, radius), len(truth)).head(
            max_k
        )
        order = order[:max_k]
        precision, recall = coverage.precision(), coverage.recall()
        f1 = f1_of(precision, recall)
        depths = resample_depths(coverage, int(np.argmax(f1)) + 1)
        area = average_precision
    else:
        has_position = np.isfinite(positions).all(axis=1)
        positions, scores = positions[has_position], ranking.scores[has_position]
        order = np.argsort(-scores, kind="stable")
        coverage = Coverage.from_order(order, planar(positions, truth, radius), len(truth))
        depths = published_cuts(len(scores), max_k)
        precision = np.cumsum(coverage.hit)[depths - 1] / depths
        recall = coverage.points_covered()[depths - 1] / len(truth)
        f1 = f1_of(precision, recall)
        area = trapezoid
    return _Curve(
        coverage, positions[order], depths, area, float(area(precision, recall)), float(f1.max())
    )


def _point_precisions(coverage: Coverage) -> Floats:
    covered = coverage.first != NEVER
    values = np.zeros(len(coverage.first))
    values[covered] = coverage.precision()[coverage.first[covered] - 1]
    return values


def _point_ranks(coverage: Coverage) -> npt.NDArray[np.int64]:
    return np.where(coverage.first == NEVER, 0, coverage.first)


def _difference(a: float, b: float, parts: Sequence[Floats]) -> Difference:
    if not parts:
        return Difference(a, b)
    samples = np.concatenate(parts)
    samples = samples[np.isfinite(samples)]
    if not samples.size:
        return Difference(a, b)
    low, high = interval(samples)
    side = min(np.count_nonzero(samples <= 0), np.count_nonzero(samples >= 0))
    return Difference(a, b, low, high, min(1.0, 2 * (int(side) + 1) / (samples.size + 1)))
