"""Coverage of an audit's intervals with the page engine that users meet, by simulation.

    python -m benchmarks.inventory.pages --runs 200

Each run begins an audit, draws its pages (sample, repeats, control tiles, tiles outside the domain)
and answers them until no page is left. Readers may overlook positive tiles, raise false alarms and
be unsure; the corrected interval is compared with the truth as well.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.inventory.coverage import SETTINGS, Setting
from marsretrieval.inventory.audit import begin_audit, count_answers, draw_page
from marsretrieval.inventory.files import Audit, Mark
from marsretrieval.inventory.summary import estimate

_TIME = "2026-01-01T00:00:00.000Z"
_KNOWN_NO = 100  # tiles marked no before the audit
_NO_DISTANCE = 1e-6  # degrees: every tile is its own place


@dataclass(frozen=True)
class Reader:
    """Errors of a reader.

    Attributes:
        hit_rate: Probability that a positive tile is marked yes.
        false_alarms: Probability that another tile is marked yes.
        unsure: Probability that a tile is marked unsure.
    """

    hit_rate: float = 1.0
    false_alarms: float = 0.0
    unsure: float = 0.0

    def answer(self, is_positive: bool, generator: np.random.Generator) -> Any:
        """Answer one tile.

        Args:
            is_positive: The truth.
            generator: Source of errors.

        Returns:
            yes, no or unsure.
        """
        if generator.random() < self.unsure:
            return "unsure"
        rate = self.hit_rate if is_positive else self.false_alarms
        return "yes" if generator.random() < rate else "no"


def audit_once(
    setting: Setting,
    seed: int,
    *,
    reader: Reader | None = None,
    page: int = 25,
    rest: int = 10_000,
    rest_positive: int = 10,
    place_tiles: int = 1,
) -> dict[str, Any]:
    """Answer one audit to its end.

    Args:
        setting: The population of the domain.
        seed: Seed of the population, the draws and the reader.
        reader: The reader; None for one without errors.
        page: Tiles per page.
        rest: Tiles outside the domain.
        rest_positive: Positives among them.
        place_tiles: Positive tiles per place; the reader states the number.

    Returns:
        The estimate of `inventory.summary`, and the truth: `true_tiles`, `true_places`,
        `true_rest`; `shown` is the number of tiles shown.
    """
    reader = reader or Reader()
    generator = np.random.default_rng([seed, 99])
    marked = [f"k{number}" for number in range(setting.known + _KNOWN_NO)]
    domain, truth, start = [], set(marked[: setting.known]), 0
    for size, positive in zip(setting.sizes, setting.positives, strict=True):
        names = [f"t{number}" for number in range(start, start + size)]
        truth |= {names[index] for index in generator.choice(size, positive, replace=False)}
        domain += names
        start += size
    others = [f"r{number}" for number in range(rest)]
    rest_names = set(generator.choice(others, rest_positive, replace=False).tolist())
    marks = [
        Mark(name, "yes" if name in truth else "no", _TIME, tiles=place_tiles) for name in marked
    ]
    drawn = generator.permutation(rest)
    audit = begin_audit(
        1,
        [*marked, *domain],
        marks,
        [],
        population=len(marked) + len(domain) + rest,
        rest=lambda count: (rest, [others[index] for index in drawn[:count].tolist()]),
        vector="",
        seed=seed,
    )
    tile_count = 0
    while (more := draw_page(audit, marks, [audit], page)) is not audit:
        audit = more
        for slot in audit.pages[-1]:
            is_positive = slot.id in truth or slot.id in rest_names
            answer = reader.answer(is_positive, generator)
            number = len(audit.pages)
            marks.append(
                Mark(
                    slot.id, answer, _TIME, how="audit", audit=1, page=number, tiles=place_tiles
                )
            )  # fmt: skip
            tile_count += 1
    result = estimate(marks, [audit], population=audit.population, place_deg=_NO_DISTANCE)
    return {
        **result,
        "true_tiles": len(truth),
        "true_places": len(truth) / place_tiles,
        "true_rest": rest_positive,
        "shown": tile_count,
        "kinds": _count_kinds(audit),
        "tally": count_answers(audit, marks, [audit]),
    }


def _count_kinds(audit: Audit) -> dict[str, int]:
    kinds = [slot.kind for slots in audit.pages for slot in slots]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def simulate(setting: Setting, runs: int, seed: int = 0, **options: Any) -> dict[str, Any]:
    """Repeat `audit_once` and count how often the intervals hold the truth.

    Args:
        setting: The population.
        runs: Number of audits.
        seed: Seed of the first.
        **options: Options of `audit_once`.

    Returns:
        Coverage of the intervals, bias and the median number of tiles shown.
    """
    results = [audit_once(setting, seed + run, **options) for run in range(runs)]

    def coverage(key: str, truth: str) -> float:
        held = [
            result[key] is not None and result[key]["low"] - 1e-6 <= result[truth]
            and result[truth] <= result[key]["high"] + 1e-6
            for result in results
        ]  # fmt: skip
        return float(np.mean(held))

    ratios = [result["tiles"]["estimate"] / result["true_tiles"] for result in results]
    return {
        "setting": setting.name,
        "runs": runs,
        "tiles": coverage("tiles", "true_tiles"),
        "corrected": coverage("corrected", "true_tiles"),
        "places": coverage("places", "true_places"),
        "elsewhere": float(np.mean([r["true_rest"] <= r["elsewhere"]["high"] for r in results])),
        "complete": float(np.mean([result["audit"]["complete"] for result in results])),
        "bias": float(np.mean(ratios) - 1),
        "shown": float(np.median([result["shown"] for result in results])),
        "audited": float(np.median([result["audited"] for result in results])),
    }


def main() -> None:
    """Run all settings and print one line per setting."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=int, default=25, help="Tiles per page.")
    parser.add_argument("--hit-rate", type=float, default=1.0)
    parser.add_argument("--false-alarms", type=float, default=0.0)
    parser.add_argument("--unsure", type=float, default=0.0)
    parser.add_argument("--place-tiles", type=int, default=1, help="Positive tiles per place.")
    options = parser.parse_args()
    reader = Reader(options.hit_rate, options.false_alarms, options.unsure)
    started = time.perf_counter()
    for setting in SETTINGS:
        row = simulate(
            setting,
            options.runs,
            options.seed,
            reader=reader,
            page=options.page,
            place_tiles=options.place_tiles,
        )
        print(
            f"{row['setting']:28} tiles {row['tiles']:.3f}  places {row['places']:.3f}  "
            f"corrected {row['corrected']:.3f}  elsewhere {row['elsewhere']:.3f}  "
            f"bias {row['bias']:+.3f}  complete {row['complete']:.2f}  "
            f"audited {row['audited']:,.0f}  shown {row['shown']:,.0f}",
            flush=True,
        )
    print(f"{options.runs} runs per setting, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
