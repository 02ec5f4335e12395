"""Slow, simple reference implementation of the published protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

__all__ = ["geolocalization", "landform", "paired"]


def paired(images: np.ndarray, texts: np.ndarray) -> dict[str, float]:
    figures = {}
    for name, (queries, corpus) in {"i2t": (images, texts), "t2i": (texts, images)}.items():
        ranks = []
        for row, scores in enumerate(queries @ corpus.T):
            order = list(np.argsort(-scores, kind="stable"))
            ranks.append(order.index(row) + 1)
        figures[f"{name}_r1"] = sum(rank <= 1 for rank in ranks) / len(ranks)
        figures[f"{name}_r10"] = sum(rank <= 10 for rank in ranks) / len(ranks)
        figures[f"{name}_medr"] = float(np.median(ranks))
        figures[f"{name}_mrr"] = sum(1 / rank for rank in ranks) / len(ranks)
    return figures


def landform(
    images: np.ndarray,
    queries: np.ndarray,
    *,
    labels: Sequence[str],
    image_ids: Sequence[str],
    query_names: Sequence[str],
) -> dict[str, Any]:
    per_class = {}
    for name, query in zip(query_names, queries, strict=True):
        order = np.argsort(-(images @ query), kind="stable")
        hits = [labels[row] == name for row in order]
        count = sum(hits)
        precisions = [sum(hits[: k + 1]) / (k + 1) for k, hit in enumerate(hits) if hit]
        gain = sum(1 / math.log2(k + 2) for k, hit in enumerate(hits[:10]) if hit)
        ideal = sum(1 / math.log2(k + 2) for k in range(min(10, count)))
        per_class[name] = {
            "mAP": sum(precisions) / count,
            "hit@10": float(any(hits[:10])),
            "r_precision": sum(hits[:count]) / count,
            "ndcg@10": gain / ideal,
        }
    keys = ("mAP", "hit@10", "r_precision", "ndcg@10")
    means = {key: sum(item[key] for item in per_class.values()) / len(per_class) for key in keys}
    return {**means, "per_class": per_class}


def geolocalization(
    lonlat: np.ndarray, truth: np.ndarray, radius: float, max_k: int
) -> dict[str, Any]:
    """Evaluate a ranking. `lonlat`: shape (n, 2), in descending order of score."""
    deepest = min(len(lonlat), max_k)
    step = max(1, deepest // 100)
    cuts = list(range(step, deepest + 1, step))
    if deepest not in cuts:
        cuts.append(deepest)
    near = (
        np.hypot(lonlat[:, None, 0] - truth[None, :, 0], lonlat[:, None, 1] - truth[None, :, 1])
        <= radius
    )
    curve = []
    for k in cuts:
        pred_hit, gt_hit = int(near[:k].any(1).sum()), int(near[:k].any(0).sum())
        precision, recall = pred_hit / k, gt_hit / len(truth)
        total = precision + recall
        f1 = 2 * precision * recall / total if total else 0.0
        curve.append({"k": k, "precision": precision, "recall": recall, "f1": f1,
                      "gt_hit": gt_hit, "pred_hit": pred_hit})  # fmt: skip
    best = max(curve, key=lambda point: point["f1"])
    ordered = sorted(curve, key=lambda point: point["recall"])
    area = sum(
        (b["recall"] - a["recall"]) * (a["precision"] + b["precision"]) / 2
        for a, b in pairwise(ordered)
    )
    return {
        "best": {key: best[key] for key in ("k", "f1", "precision", "recall")},
        "auprc": area,
        "curve": curve,
    }
