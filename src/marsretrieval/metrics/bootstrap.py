"""Seeded 95 % percentile bootstrap intervals (Efron 1979) over queries or spatial blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

_LEVEL = (2.5, 97.5)
_AT_ONCE = 2_000_000  # random numbers per batch, to bound memory


def over_queries(
    columns: Mapping[str, npt.NDArray[np.float64]],
    *,
    seed: int,
    resamples: int,
    statistics: Mapping[str, Callable[..., npt.NDArray[np.float64]]] | None = None,
) -> dict[str, tuple[float, float]]:
    """Compute the interval of the mean (or of `statistics[name]`) of each column.

    All columns use the same resamples of queries.

    Args:
        columns: Metric name to an array of shape (n,), one value per query.
        seed: Seed of the random generator.
        resamples: Number of resamples.
        statistics: Metric name to a function used instead of the mean.

    Returns:
        Metric name to (low, high); empty with fewer than 2 queries or resamples.
    """
    length = len(next(iter(columns.values()), ()))
    if resamples < 2 or length < 2:
        return {}
    samples: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in columns}
    for rows in query_draws(length, seed=seed, resamples=resamples):
        for name, column in columns.items():
            statistic = (statistics or {}).get(name, np.mean)
            samples[name].append(statistic(column[rows], axis=1))
    return {name: interval(np.concatenate(parts)) for name, parts in samples.items()}


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
    """Yield resamples of query rows with replacement, in batches of bounded memory.

    Args:
        length: Number of queries.
        seed: Seed of the random generator.
        resamples: Number of resamples.

    Yields:
        int64 array of shape (r, length), one resample per row.
    """
    rng = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // length)
    for start in range(0, resamples, step):
        yield rng.integers(length, size=(min(step, resamples - start), length))


def block_weights(blocks: int, *, seed: int, resamples: int) -> npt.NDArray[np.float32]:
    """Draw blocks with replacement.

    Args:
        blocks: Number of blocks.
        seed: Seed of the random generator.
        resamples: Number of resamples.

    Returns:
        float32 array of shape (resamples, blocks): how often each block is drawn.
    """
    rng = np.random.default_rng(seed)
    weights = np.empty((resamples, blocks), np.float32)
    for row in weights:
        row[:] = np.bincount(rng.integers(blocks, size=blocks), minlength=blocks)
    return weights


def seed_of(seed: int, stratum: str) -> int:
    """Derive a seed per stratum, so that strata are resampled independently.

    Args:
        seed: Seed of the run.
        stratum: Name of the stratum.

    Returns:
        A 64-bit seed.
    """
    return int.from_bytes(hashlib.sha256(f"{seed} {stratum}".encode()).digest()[:8], "big")


def interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentiles.

    Args:
        values: Values per resample, shape (r,); NaN (empty resamples) is left out.

    Returns:
        Low and high; NaN if no value is finite.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return float("nan"), float("nan")
    low, high = np.percentile(finite, _LEVEL)
    return float(low), float(high)
