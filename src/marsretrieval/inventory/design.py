"""Sampling design of an audit: strata of a ranking, random order, adaptive allocation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FIRST_STRATUM = 300  # tiles
GROWTH = 4  # each stratum is this much larger than the one before
_LAST_STRATUM = 1.6  # the last stratum is at least 0.6 and below 4.6 times the planned size
START = 20  # tiles drawn from each stratum before the allocation adapts
STEP = 25  # tiles per allocation
MAX_DRAWN = 5000  # tiles of a stratum that an audit can draw


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
