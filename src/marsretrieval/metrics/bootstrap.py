"""95 % percentile intervals (Efron 1979), over queries or over blocks of the planet; seeded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

_LEVEL = (2.5, 97.5)
_AT_ONCE = 2_000_000  # numbers drawn at a time, to bound memory


def over_queries(
    columns: Mapping[str, npt.NDArray[np.float64]],
    *,
    seed: int,
    resamples: int,
    statistics: Mapping[str, Callable[..., npt.NDArray[np.float64]]] | None = None,
) -> dict[str, tuple[float, float]]:
    """Interval of the mean (or of `statistics[name]`) of each column, queries drawn together.

    columns: equally long, one value a query. Nothing with fewer than 2 queries or resamples.
    """
    length = len(next(iter(columns.values()), ()))
    if resamples < 2 or length < 2:
        return {}
    drawn: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in columns}
    for rows in query_draws(length, seed=seed, resamples=resamples):
        for name, column in columns.items():
            statistic = (statistics or {}).get(name, np.mean)
            drawn[name].append(statistic(column[rows], axis=1))
    return {name: interval(np.concatenate(parts)) for name, parts in drawn.items()}


def basis_of(
    intervals: Mapping[str, Mapping[str, tuple[float, float]]], unit: str, count: int
) -> dict[str, dict[str, str | int]]:
    """State what was resampled, for the protocols that have intervals.

    Args:
        intervals: Protocol to metric name to interval.
        unit: What was resampled: "pairs", "classes" or "spatial blocks".
        count: Number of these.

    Returns:
        Protocol to `unit` and `count`.
    """
    return {
        protocol: {"unit": unit, "count": count} for protocol, ends in intervals.items() if ends
    }


def query_draws(length: int, *, seed: int, resamples: int) -> Iterator[npt.NDArray[np.int64]]:
    """(r, length) rows drawn with replacement, a resample a line, until there are `resamples`."""
    rng = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // length)
    for start in range(0, resamples, step):
        yield rng.integers(length, size=(min(step, resamples - start), length))


def block_weights(blocks: int, *, seed: int, resamples: int) -> npt.NDArray[np.float32]:
    """(resamples, blocks): how often each block is drawn in each resample."""
    rng = np.random.default_rng(seed)
    weights = np.empty((resamples, blocks), np.float32)
    for row in weights:
        row[:] = np.bincount(rng.integers(blocks, size=blocks), minlength=blocks)
    return weights


def seed_of(seed: int, stratum: str) -> int:
    """A seed of its own for each stratum, so that strata are drawn independently."""
    return int.from_bytes(hashlib.sha256(f"{seed} {stratum}".encode()).digest()[:8], "big")


def interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile; NaN values (empty resamples) are left out."""
    known = values[np.isfinite(values)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.percentile(known, _LEVEL)
    return float(low), float(high)
