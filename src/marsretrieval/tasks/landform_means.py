"""Means of geo-localization over landforms."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import getitem
from typing import Any

import numpy as np

from marsretrieval.metrics.bootstrap import basis_of, interval
from marsretrieval.results import MEAN, PROTOCOLS, Evaluation


def mean_over_landforms(groups: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """Compute unweighted means over landforms, one per kind of query.

    The landforms are a fixed selection, not a sample: they are strata, and each is resampled
    separately (Davison & Hinkley 1997, section 3.2). An interval measures the variation over other
    regions with the same landforms.

    Args:
        groups: "LANDFORM/MODE" to its evaluation.

    Returns:
        `MEAN` + MODE to the mean evaluation.
    """
    by_mode: dict[str, list[Evaluation]] = {}
    for group, evaluation in groups.items():
        by_mode.setdefault(group.split("/")[1], []).append(evaluation)

    def mean(evaluations: list[Evaluation], protocol: str, *path: str) -> float:
        values = [
            reduce(getitem, path, getattr(evaluation, protocol)) for evaluation in evaluations
        ]
        return float(np.mean(values))

    def intervals(evaluations: list[Evaluation], protocol: str) -> dict[str, tuple[float, float]]:
        samples = [evaluation.samples.get(protocol, {}) for evaluation in evaluations]
        return {
            key: interval(np.mean([values[key] for values in samples], axis=0))
            for key in samples[0]
            if all(key in values for values in samples)
        }

    def expected(evaluations: list[Evaluation]) -> dict[str, dict[str, Any]]:
        if not all(evaluation.chance for evaluation in evaluations):
            return {}
        areas = {"published": ("auprc",), "strict": ("average_precision", "normalised")}
        return {
            protocol: {
                **{key: mean(evaluations, "chance", protocol, key) for key in keys},
                "best": {"f1": mean(evaluations, "chance", protocol, "best", "f1")},
            }
            for protocol, keys in areas.items()
        }

    def fewest_blocks(evaluations: list[Evaluation]) -> int:
        """Smallest number of blocks of a landform, under either protocol."""
        bases = [
            basis for evaluation in evaluations for basis in evaluation.interval_basis.values()
        ]
        return min((int(basis["count"]) for basis in bases), default=0)

    ends = {
        mode: {protocol: intervals(evaluations, protocol) for protocol in PROTOCOLS}
        for mode, evaluations in by_mode.items()
    }
    return {
        f"{MEAN}{mode}": Evaluation(
            task="geolocalization",
            n={"landforms": len(evaluations)},
            published={
                "auprc": mean(evaluations, "published", "auprc"),
                "best": {"f1": mean(evaluations, "published", "best", "f1")},
            },
            strict={
                "average_precision": mean(evaluations, "strict", "average_precision"),
                "normalised": mean(evaluations, "strict", "normalised"),
                "best": {"f1": mean(evaluations, "strict", "best", "f1")},
                "ceiling": {
                    "average_precision": mean(
                        evaluations, "strict", "ceiling", "average_precision"
                    ),
                    "f1": mean(evaluations, "strict", "ceiling", "f1"),
                },
            },
            intervals=ends[mode],
            chance=expected(evaluations),
            interval_basis=basis_of(ends[mode], "spatial blocks", fewest_blocks(evaluations)),
        )
        for mode, evaluations in by_mode.items()
    }
