"""Coverage of the audit's interval and marks needed, by simulation.

    python -m benchmarks.inventory.coverage --runs 400

Each setting has a number of positives and of tiles per stratum, from two synthetic worlds of
200,000 vectors after 300 marks; the two of 1.4 million tiles are invented. The audit stops when the
half width of its interval is 20 % of the estimate, as a user would. Readers make no mistakes.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from marsretrieval.inventory.estimates import START, STEP, next_stratum, stratified_limits


@dataclass(frozen=True)
class Setting:
    """A population to audit.

    Attributes:
        name: Tiles, prevalence and domain.
        positives: Positive tiles per stratum.
        sizes: Tiles per stratum.
        known: Positives that were marked before.
    """

    name: str
    positives: tuple[int, ...]
    sizes: tuple[int, ...]
    known: int


SETTINGS = (
    Setting("200 k, 0.05 %, first 1,500", (9, 3), (300, 1200), 75),
    Setting("200 k, 0.2 %, first 1,500", (121, 39), (300, 1200), 191),
    Setting("200 k, 0.2 %, first 6,300", (121, 39, 18), (300, 1200, 4800), 191),
    Setting("200 k, 1 %, first 6,300", (300, 928, 253), (300, 1200, 4800), 275),
    Setting("200 k, 1 %, first 25,500", (300, 928, 253, 136), (300, 1200, 4800, 19200), 275),
    Setting("1.4 M, 0.05 %, first 6,300", (150, 108, 76), (300, 1200, 4800), 228),
    Setting("1.4 M, 0.2 %, first 25,500", (290, 900, 800, 350), (300, 1200, 4800, 19200), 297),
)


def simulate(
    setting: Setting, runs: int, *, target: float = 0.2, most: int = 4000, seed: int = 0
) -> dict[str, Any]:
    """Audit a population many times at once.

    Args:
        setting: The population.
        runs: Number of audits.
        target: Half width, as a share of the estimate, at which an audit stops.
        most: Marks after which it stops in any case.
        seed: Seed of the draws.

    Returns:
        Coverage of the 95 % interval, misses on each side, bias of the estimate and median marks.
    """
    generator = np.random.default_rng(seed)
    sizes = np.array(setting.sizes)
    remaining = np.tile(sizes, (runs, 1))  # not drawn yet
    left_positive = np.tile(np.array(setting.positives), (runs, 1))
    sampled = np.zeros((runs, len(sizes)), dtype=np.int64)
    positive = np.zeros_like(sampled)
    active = np.ones(runs, dtype=bool)
    add = np.tile(np.minimum(START, sizes), (runs, 1))
    while active.any():
        drawn = generator.hypergeometric(left_positive, remaining - left_positive, add)
        remaining, left_positive = remaining - add, left_positive - drawn
        sampled, positive = sampled + add, positive + drawn
        total, low, high = (
            values + setting.known for values in stratified_limits(sizes, sampled, positive)
        )
        active = ((high - low) / 2 > target * total) & (sampled.sum(axis=1) < most)
        stratum = next_stratum(sizes, sampled, positive)
        active &= stratum >= 0
        step = np.where(sampled.sum(axis=1) < 1000, STEP, 4 * STEP)
        add = np.zeros_like(sampled)
        chosen = np.maximum(stratum, 0)
        rows = np.arange(runs)
        add[rows, chosen] = np.where(active, np.minimum(step, remaining[rows, chosen]), 0)
    truth = setting.known + sum(setting.positives)
    return {
        "setting": setting.name,
        "positives": truth,
        "runs": runs,
        "coverage": float(((low <= truth) & (truth <= high)).mean()),
        "truth_above": float((high < truth).mean()),
        "truth_below": float((low > truth).mean()),
        "bias": float(total.mean() / truth - 1),
        "marks": float(np.median(sampled.sum(axis=1))),
    }


def main() -> None:
    """Run all settings and print one line per setting."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    options = parser.parse_args()
    started = time.perf_counter()
    rows = [simulate(setting, options.runs, seed=options.seed) for setting in SETTINGS]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(
            f"{row['setting']:28} coverage {row['coverage']:.3f}  bias {row['bias']:+.3f}  "
            f"marks {row['marks']:,.0f}"
        )
    print(f"{options.runs} runs each, {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
