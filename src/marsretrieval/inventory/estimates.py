"""Sampling design of an audit, and the estimates from it.

The design cuts a ranking into strata and draws tiles at random, with an adaptive allocation. The
estimates are totals, completeness and bounds, with their confidence intervals. Their functions work
on plain arrays; the last axis of `sizes`, `sampled` and `positive` runs over the strata, and
leading axes are allowed where stated, so that simulations can be vectorized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
FORMULAS = {
    "tiles": "Horvitz-Thompson total of a stratified random sample (Cochran 1977, ch. 5)",
    "interval": "gamma interval (Fay and Feuer 1997, Stat. Med. 16:791) with finite population "
    "correction, clipped to what is known",
    "places": "weight share 1 / tiles of the place (Birnbaum and Sirken 1965; Lavallee 2007)",
    "recall": "confirmed tiles / limits of the number of positive tiles",
    "elsewhere": "one-sided Clopper-Pearson limit (1934); for 0 of n, 1 - 0.05^(1/n)",
    "agreement": "Wilson interval (1927)",
    "corrected": "estimate / hit rate of the control tiles (Rogan and Gladen 1978)",
}

FIRST_STRATUM = 300  # tiles
GROWTH = 4  # each stratum is this much larger than the one before
_LAST_STRATUM = 1.6  # the last stratum is at least 0.6 and below 4.6 times the planned size
START = 20  # tiles drawn from each stratum before the allocation adapts
STEP = 25  # tiles per allocation
MAX_DRAWN = 5000  # tiles of a stratum that an audit can draw


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence limits.

    Attributes:
        estimate: Point estimate; None if there is none.
        low: Lower limit.
        high: Upper limit.
    """

    estimate: float | None
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2

    def shift(self, known: float) -> Interval:
        """Add a known number to the estimate and both limits.

        Args:
            known: The number.

        Returns:
            The shifted interval.
        """
        estimate = None if self.estimate is None else self.estimate + known
        return Interval(estimate, self.low + known, self.high + known)

    def clip(self, low: float, high: float) -> Interval:
        """Clip estimate and limits to known bounds.

        Args:
            low: Smallest possible value.
            high: Largest possible value.

        Returns:
            The clipped interval.
        """
        estimate = None if self.estimate is None else min(max(self.estimate, low), high)
        return Interval(estimate, min(max(self.low, low), high), min(max(self.high, low), high))

    def to_dict(self) -> dict[str, float | None]:
        """Return estimate, low and high as plain data, rounded to 6 decimals."""
        estimate = None if self.estimate is None else round(float(self.estimate), 6)
        return {
            "estimate": estimate,
            "low": round(float(self.low), 6),
            "high": round(float(self.high), 6),
        }


def gamma_interval(
    total: npt.ArrayLike,
    variance: npt.ArrayLike,
    largest: npt.ArrayLike,
    *,
    confidence: float = CONFIDENCE,
) -> tuple[Floats, Floats]:
    """Confidence limits of a weighted sum of counts (Fay and Feuer 1997).

    For t = sum w_h x_h and v = sum w_h^2 x_h: the lower limit is v/(2t) times the alpha/2 quantile
    of chi-square with 2t^2/v degrees of freedom; the upper limit uses t + w and v + w^2, w being
    the largest weight. With one weight 1 it is the exact Poisson interval.

    Args:
        total: Weighted sums t, any shape.
        variance: Estimated variances v, same shape.
        largest: Largest weights w, same shape; 0 if the sum is exact.
        confidence: Two-sided confidence, 0 to 1.

    Returns:
        Lower and upper limits; equal to `total` where v, or v and w, are 0.
    """
    from scipy.stats import chi2

    alpha = 1 - confidence
    t, v, w = np.broadcast_arrays(
        *(np.asarray(values, dtype=np.float64) for values in (total, variance, largest))
    )
    low, high = t.astype(np.float64).copy(), t.astype(np.float64).copy()
    varies = (v > 0) & (t > 0)
    low[varies] = v[varies] / (2 * t[varies])
    low[varies] *= chi2.ppf(alpha / 2, 2 * t[varies] ** 2 / v[varies])
    upper_t, upper_v = t + w, v + w**2
    varies = upper_v > 0
    high[varies] = upper_v[varies] / (2 * upper_t[varies])
    high[varies] *= chi2.ppf(1 - alpha / 2, 2 * upper_t[varies] ** 2 / upper_v[varies])
    return low, high


def stratified_limits(
    sizes: npt.ArrayLike,
    sampled: npt.ArrayLike,
    positive: npt.ArrayLike,
    *,
    confidence: float = CONFIDENCE,
) -> tuple[Floats, Floats, Floats]:
    """Estimate the number of positives of a population from a stratified random sample.

    Args:
        sizes: Tiles per stratum, shape (..., strata).
        sampled: Tiles drawn per stratum, at least 1 each unless the stratum is empty.
        positive: Positives among them.
        confidence: Two-sided confidence.

    Returns:
        Estimate, lower and upper limit, each of shape (...), clipped to the range that the sampled
        tiles allow. All three are equal if every tile has been drawn.
    """
    size, n, x = (np.asarray(values, dtype=np.float64) for values in (sizes, sampled, positive))
    weight = size / np.maximum(n, 1)
    rest = np.clip(1 - n / np.maximum(size, 1), 0, 1)  # finite population correction
    rest = np.where(size > 0, rest, 0)
    total = (weight * x).sum(axis=-1)
    variance = (weight**2 * rest * x).sum(axis=-1)
    largest = (weight * np.sqrt(rest)).max(axis=-1, initial=0)
    low, high = gamma_interval(total, variance, largest, confidence=confidence)
    least = x.sum(axis=-1)
    most = size.sum(axis=-1) - (n - x).sum(axis=-1)
    return tuple(np.clip(values, least, most) for values in (total, low, high))  # type: ignore[return-value]


def estimate_tiles(
    sizes: npt.ArrayLike,
    sampled: npt.ArrayLike,
    positive: npt.ArrayLike,
    *,
    known: float = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Estimate the number of positive tiles of a domain.

    Args:
        sizes: Unmarked tiles per stratum, shape (strata,).
        sampled: Audited tiles per stratum.
        positive: Positives among them.
        known: Positives among the tiles marked before the audit.
        confidence: Two-sided confidence.

    Returns:
        The estimate; of width 0 if every tile is marked.
    """
    limits = stratified_limits(sizes, sampled, positive, confidence=confidence)
    estimate, low, high = (float(value) for value in limits)
    return Interval(estimate, low, high).shift(known)


def estimate_places(
    sizes: npt.ArrayLike,
    sampled: npt.ArrayLike,
    strata: npt.ArrayLike,
    shares: npt.ArrayLike,
    *,
    known: float = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Estimate the number of places, each of which may cover several tiles.

    Every positive tile counts 1 / (positive tiles of its place), so that a place counts once
    however many of its tiles are drawn.

    Args:
        sizes: Unmarked tiles per stratum, shape (strata,).
        sampled: Audited tiles per stratum.
        strata: Stratum of each audited positive tile, shape (n,).
        shares: 1 / tiles of its place, shape (n,).
        known: Sum of the shares of the tiles marked yes before the audit.
        confidence: Two-sided confidence.

    Returns:
        The estimate.
    """
    size, n = (np.asarray(values, dtype=np.float64) for values in (sizes, sampled))
    stratum, share = np.asarray(strata, dtype=np.int64), np.asarray(shares, dtype=np.float64)
    weight = size / np.maximum(n, 1)
    rest = np.where(size > 0, np.clip(1 - n / np.maximum(size, 1), 0, 1), 0)
    total = float((weight[stratum] * share).sum())
    variance = float((weight[stratum] ** 2 * rest[stratum] * share**2).sum())
    largest = float((weight * np.sqrt(rest)).max(initial=0))
    low, high = gamma_interval(total, variance, largest, confidence=confidence)
    least = float(share.sum())
    most = float(size.sum() - (n.sum() - len(share)))
    return Interval(total, float(low), float(high)).clip(least, max(least, most)).shift(known)


def wilson_interval(
    successes: int, trials: int, *, confidence: float = CONFIDENCE
) -> Interval | None:
    """Estimate a proportion with Wilson's score interval (1927).

    Args:
        successes: Number of successes.
        trials: Number of trials.
        confidence: Two-sided confidence.

    Returns:
        The interval; None without trials.
    """
    if not trials:
        return None
    from scipy.stats import norm

    z = float(norm.ppf(1 - (1 - confidence) / 2))
    rate = successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = rate * (1 - rate) / trials + z * z / (4 * trials * trials)
    half = z / (1 + z * z / trials) * half**0.5
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return Interval(rate, low, high)


def elusion_limit(
    rest: int, sampled: int, positive: int, *, confidence: float = CONFIDENCE
) -> float:
    """Upper limit of the number of positives outside the domain (elusion test of e-discovery).

    Args:
        rest: Tiles outside the domain that are not marked.
        sampled: Tiles of them drawn at random and marked.
        positive: Positives among them.
        confidence: One-sided confidence.

    Returns:
        rest (1 - 0.05^(1/n)) for 0 positives of n; `rest` if none were drawn, and at most what the
        drawn tiles allow.
    """
    if not rest or not sampled:
        return float(rest)
    from scipy.stats import beta

    rate = (
        1.0
        if positive >= sampled
        else float(beta.ppf(confidence, positive + 1, sampled - positive))
    )
    return min(rest * rate, float(rest - (sampled - positive)))


def completeness(confirmed: float, total: Interval) -> Interval:
    """Share of the positive tiles that are on the list of confirmed ones.

    Args:
        confirmed: Number of confirmed tiles.
        total: Estimated number of positive tiles, confirmed ones included.

    Returns:
        Confirmed / total, between confirmed / high and confirmed / low. Without a confirmed tile
        the estimate is 0, or None if there may be no positive tile at all.
    """
    if not confirmed:
        return Interval(0.0 if total.estimate else None, 0.0, 0.0 if total.low else 1.0)

    def share(value: float) -> float:
        return 1.0 if value <= confirmed else confirmed / value

    estimate = None if total.estimate is None else share(total.estimate)
    return Interval(estimate, share(total.high), share(total.low))


def correct_for_misses(total: Interval, hit_rate: Interval | None) -> Interval | None:
    """Correct an estimate for positives that the reader overlooks (Rogan and Gladen 1978).

    Assumes no false alarms. The limits combine the limits of both, which is conservative.

    Args:
        total: Estimated number of positive tiles.
        hit_rate: Share of the control tiles that were marked yes.

    Returns:
        The corrected estimate; None without control tiles, or if all were missed.
    """
    if hit_rate is None or not hit_rate.estimate:
        return None
    estimate = None if total.estimate is None else total.estimate / hit_rate.estimate
    return Interval(estimate, total.low / hit_rate.high, total.high / hit_rate.low)


def to_plain(interval: Interval | None) -> dict[str, Any] | None:
    """Return an interval as plain data.

    Args:
        interval: The interval, or None.

    Returns:
        Its dictionary, or None.
    """
    return None if interval is None else interval.to_dict()


def strata_sizes(count: int) -> list[int]:
    """Cut a ranking into strata: 300, 1,200, 4,800, ... tiles from the top.

    Args:
        count: Number of unmarked tiles of the domain, in the order of the ranking.

    Returns:
        Sizes that add up to `count`; one stratum if there are fewer than 480 tiles, none if there
        is no tile.
    """
    sizes: list[int] = []
    used, size = 0, FIRST_STRATUM
    while used + size * _LAST_STRATUM < count:
        sizes.append(size)
        used += size
        size *= GROWTH
    return [*sizes, count - used] if count > used else sizes


def draw_order(size: int, seed: int, stratum: int, audit: int = 1) -> npt.NDArray[np.int64]:
    """Draw the tiles of a stratum in random order, without replacement.

    Args:
        size: Tiles of the stratum.
        seed: Seed of the audit.
        stratum: Number of the stratum, from 0; -1 for the tiles outside the domain.
        audit: Number of the audit: audits with equal seeds draw independently.

    Returns:
        Positions within the stratum, shape (min(size, 5000),). Every prefix is a simple random
        sample.
    """
    generator = np.random.default_rng([seed, audit, stratum + 1])
    if size <= 20 * MAX_DRAWN:
        return generator.permutation(size)[:MAX_DRAWN].astype(np.int64)
    return generator.choice(size, MAX_DRAWN, replace=False, shuffle=True).astype(np.int64)


def allocation_width(sizes: npt.ArrayLike, sampled: npt.ArrayLike, rates: npt.ArrayLike) -> Floats:
    """Approximate the half width of the gamma interval for given rates of positives.

    Args:
        sizes: Tiles per stratum, shape (..., strata).
        sampled: Tiles drawn per stratum.
        rates: Assumed shares of positives per stratum.

    Returns:
        1.96 sqrt(sum N^2 p (1-f) / n) + 1.85 max(N/n sqrt(1-f)), shape (...).
    """
    size, n, p = (np.asarray(values, dtype=np.float64) for values in (sizes, sampled, rates))
    n = np.maximum(n, 1)
    rest = np.clip(1 - n / np.maximum(size, 1), 0, 1)
    spread = np.sqrt((size**2 * p / n * rest).sum(axis=-1))
    largest = (size / n * np.sqrt(rest)).max(axis=-1, initial=0)
    width: Floats = 1.96 * spread + 1.85 * largest
    return width


def next_stratum(
    sizes: npt.ArrayLike,
    sampled: npt.ArrayLike,
    positive: npt.ArrayLike,
    *,
    planned: npt.ArrayLike | None = None,
    step: int = STEP,
) -> npt.NDArray[np.int64]:
    """Choose the stratum in which more tiles narrow the interval most per tile.

    The rates are (x + 0.5) / (n + 1), made non-increasing from the top of the ranking.

    Args:
        sizes: Tiles per stratum, shape (..., strata).
        sampled: Tiles marked per stratum.
        positive: Positives among them.
        planned: Tiles marked or waiting to be marked; None: those marked.
        step: Tiles to add.

    Returns:
        Number of the stratum, shape (...); -1 if all tiles have been drawn.
    """
    size, n, x = (np.asarray(values, dtype=np.float64) for values in (sizes, sampled, positive))
    rates = np.minimum.accumulate((x + 0.5) / (n + 1), axis=-1)
    size, drawn = np.broadcast_arrays(
        size, n if planned is None else np.asarray(planned, dtype=np.float64)
    )
    before = allocation_width(size, drawn, rates)
    gains = np.full(drawn.shape, -np.inf)
    for stratum in range(drawn.shape[-1]):
        more = drawn.copy()
        more[..., stratum] = np.minimum(size[..., stratum], more[..., stratum] + step)
        added = more[..., stratum] - drawn[..., stratum]
        gain = (before - allocation_width(size, more, rates)) / np.maximum(added, 1)
        gains[..., stratum] = np.where(added > 0, gain, -np.inf)
    best = gains.argmax(axis=-1)
    return np.where(np.isneginf(gains).all(axis=-1), -1, best).astype(np.int64)
