"""How far two models are apart on the same items: paired bootstrap of each figure's difference.

Both models are scored on the same resamples, so that what they share (hard queries, poor regions)
drops out of the difference. The interval is the percentile interval of Efron (1979) of `b - a`; p
inverts it (Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 15.4): twice the
smaller share of resamples on either side of zero, those at zero counted on both, with one added to
count and resamples so that p is never 0. Over queries this is the test of Koehn (2004, EMNLP).
Points are resampled by blocks of the planet, as for the intervals of one model.
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
    resample_depths,
    resampled,
    spherical,
    trapezoid,
)
from marsretrieval.metrics.geolocalization import BLOCK_DEG
from marsretrieval.metrics.ranking import id_order, ranked

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of two models; `difference` is b - a. Interval and p are None where there is
    nothing to resample: one query, one block."""

    a: float
    b: float
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def difference(self) -> float:
        return self.b - self.a

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The head of a model's ranking of tiles, in any order: scores (n,), ids, and the positions
    (n, 2) that the protocol at hand reads."""

    scores: Floats
    ids: Sequence[str]
    lonlat: Floats


@dataclass(frozen=True, slots=True)
class PointComparison:
    """figures: the differences. value_a, value_b: (m,) what every point adds to the area, the
    precision at the rank that finds it or 0; their mean is the average precision. rank_a, rank_b:
    (m,) that rank, 0 where it is not found. blocks: how many hold a point; with few of them an
    interval is as coarse as they are few."""

    figures: dict[str, Difference]
    value_a: Floats
    value_b: Floats
    rank_a: npt.NDArray[np.int64]
    rank_b: npt.NDArray[np.int64]
    blocks: int
    samples: Mapping[
        str, Floats
    ]  # (r,) each: the difference of a figure in each resample, or empty


def over_queries(
    a: Mapping[str, Floats],
    b: Mapping[str, Floats],
    *,
    seed: int = 0,
    resamples: int = 1000,
    statistics: Mapping[str, Callable[..., npt.NDArray[np.float64]]] | None = None,
) -> dict[str, Difference]:
    """Difference of the mean (or of `statistics[name]`) of each column, queries drawn together.

    a, b: the same names to equally long columns; row i of both is the same query. The draws are
    those of `bootstrap.over_queries` with the same seed. Raises DataError.
    """
    if a.keys() != b.keys():
        raise DataError(f"figures differ: {', '.join(sorted(a.keys() ^ b.keys()))}")
    validation.same_length(**{f"{name} of {side}": column for side, columns in (("a", a), ("b", b))
                           for name, column in columns.items()})  # fmt: skip
    chosen = {name: (statistics or {}).get(name, np.mean) for name in a}
    length = len(next(iter(a.values()), ()))
    drawn: dict[str, list[Floats]] = {name: [] for name in a}
    if length > 1 and resamples > 1:
        for rows in query_draws(length, seed=seed, resamples=resamples):
            for name, statistic in chosen.items():
                apart = statistic(b[name][rows], axis=1) - statistic(a[name][rows], axis=1)
                drawn[name].append(apart)
    return {
        name: _difference(
            float(statistic(a[name], axis=0)), float(statistic(b[name], axis=0)), drawn[name]
        )
        for name, statistic in chosen.items()
    }


def bootstrap_points(
    a: Ranking,
    b: Ranking,
    truth_lonlat: npt.ArrayLike,
    *,
    protocol: str = "strict",
    radius_deg: float,
    max_k: int,
    seed: int = 0,
    resamples: int = 1000,
) -> PointComparison:
    """Difference of the area and of the best F1 of two rankings of the same tiles.

    Figures are those of `geolocalization.evaluate`, under the same keys: `average_precision` and
    `best.f1` (strict), or `auprc` and `best.f1` (published). Blocks are cells of BLOCK_DEG that
    hold a tile of either ranking or a point, drawn with all their tiles and points, the same for
    both. Raises DataError.
    """
    truth = validation.lonlat(truth_lonlat, "ground truth")
    curves = [_curve(each, truth, protocol, radius_deg, max_k) for each in (a, b)]
    tiles = np.concatenate([curve.tiles for curve in curves])
    together = Blocks.of(tiles, truth, BLOCK_DEG)
    cut = len(curves[0].tiles)
    blocks = [
        Blocks(together.of_tile[:cut], together.of_point, together.count),
        Blocks(together.of_tile[cut:], together.of_point, together.count),
    ]
    parts: dict[str, Floats] = {}
    name = "average_precision" if protocol == "strict" else "auprc"
    if resamples > 1 and together.count > 1:
        drawn = block_weights(together.count, seed=seed, resamples=resamples)
        first, second = (
            resampled(curve.coverage, each, curve.depths, curve.area_of, drawn)
            for curve, each in zip(curves, blocks, strict=True)
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
        _per_point(curves[0].coverage),
        _per_point(curves[1].coverage),
        _rank(curves[0].coverage),
        _rank(curves[1].coverage),
        len(np.unique(together.of_point)),
        parts,
    )


def mean_over(catalogues: Sequence[PointComparison]) -> dict[str, Difference]:
    """Differences of the unweighted means of each figure over several catalogues, which are the
    strata of a stratified bootstrap: give each a seed of its own (`bootstrap.seed_of`) and the same
    number of resamples. A resample in which some catalogue has no point is left out."""
    return {
        key: _difference(
            float(np.mean([each.figures[key].a for each in catalogues])),
            float(np.mean([each.figures[key].b for each in catalogues])),
            [np.mean([each.samples[key] for each in catalogues], axis=0)]
            if all(key in each.samples for each in catalogues)
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


def _curve(each: Ranking, truth: Floats, protocol: str, radius: float, max_k: int) -> _Curve:
    places = validation.lonlat(each.lonlat, "tiles", unknown=protocol == "published")
    validation.same_length(scores=each.scores, ids=each.ids, positions=places)
    if protocol == "strict":
        order = ranked(each.scores, id_order(each.ids))
        coverage = Coverage.of(order, spherical(places, truth, radius), len(truth)).head(max_k)
        order = order[:max_k]
        precision, recall = coverage.precision(), coverage.recall()
        f1 = f1_of(precision, recall)
        depths = resample_depths(coverage, int(np.argmax(f1)) + 1)
        area = average_precision
    else:
        known = np.isfinite(places).all(axis=1)
        places, scores = places[known], each.scores[known]
        order = np.argsort(-scores, kind="stable")
        coverage = Coverage.of(order, planar(places, truth, radius), len(truth))
        depths = published_cuts(len(scores), max_k)
        precision = np.cumsum(coverage.hit)[depths - 1] / depths
        recall = coverage.found()[depths - 1] / len(truth)
        f1 = f1_of(precision, recall)
        area = trapezoid
    return _Curve(
        coverage, places[order], depths, area, float(area(precision, recall)), float(f1.max())
    )


def _per_point(coverage: Coverage) -> Floats:
    found = coverage.first != NEVER
    values = np.zeros(len(coverage.first))
    values[found] = coverage.precision()[coverage.first[found] - 1]
    return values


def _rank(coverage: Coverage) -> npt.NDArray[np.int64]:
    return np.where(coverage.first == NEVER, 0, coverage.first)


def _difference(a: float, b: float, parts: Sequence[Floats]) -> Difference:
    if not parts:
        return Difference(a, b)
    drawn = np.concatenate(parts)
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return Difference(a, b)
    low, high = interval(drawn)
    side = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    return Difference(a, b, low, high, min(1.0, 2 * (int(side) + 1) / (drawn.size + 1)))
