"""Slow, simple reference implementation of the strict geo-localization protocol."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["arc_deg", "average_precision", "geolocalization"]


def arc_deg(a: Sequence[float], b: Sequence[float]) -> float:
    """Compute the great-circle angle with the haversine formula."""
    lon1, lat1, lon2, lat2 = map(math.radians, (*a, *b))
    half = (
        math.sin((lat2 - lat1) / 2) ** 2
        + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    )
    return math.degrees(2 * math.asin(min(1.0, math.sqrt(half))))


def geolocalization(
    scores: np.ndarray,
    ids: Sequence[str],
    centres: np.ndarray,
    truth: np.ndarray,
    radius: float,
    max_k: int,
) -> dict[str, Any]:
    def sort_key(row: int) -> tuple[float, bytes]:
        return -scores[row], hashlib.sha256(ids[row].encode()).digest()

    order = sorted(range(len(scores)), key=sort_key)[:max_k]
    near = [{p for p, point in enumerate(truth) if arc_deg(centres[row], point) <= radius}
            for row in order]  # fmt: skip
    curve = []
    for k in range(1, len(order) + 1):
        precision = sum(bool(item) for item in near[:k]) / k
        recall = len(set().union(*near[:k])) / len(truth)
        total = precision + recall
        f1 = 2 * precision * recall / total if total else 0.0
        curve.append({"k": k, "precision": precision, "recall": recall, "f1": f1})
    best = max(curve, key=lambda point: point["f1"])
    return {
        "average_precision": average_precision(near, len(truth)),
        "best": {key: best[key] for key in ("k", "f1", "precision", "recall")},
        "curve": curve,
    }


def average_precision(near: Sequence[set[int]], points: int) -> float:
    """Evaluate a ranking. `near`: points near each tile, in descending order of score."""
    area, hits = 0.0, 0
    covered: set[int] = set()
    for k, item in enumerate(near, 1):
        hits += bool(item)
        area += hits / k * len(item - covered) / points
        covered |= item
    return area
