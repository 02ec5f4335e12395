"""Which figures stand in which column, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["BOARDS", "PER_CLASS", "PER_LANDFORM", "Board", "Figure", "Value", "look_up"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of an evaluation: where it is kept ("best.f1"), and what it means."""

    key: str
    heading: str
    meaning: str
    percent: bool = True
    better: int = 1  # 1: higher, -1: lower, 0: neither, so that none is the best


@dataclass(frozen=True, slots=True)
class Board:
    """A leaderboard: the columns of each protocol, and the strict figure that orders it."""

    title: str
    published: Sequence[Figure]
    strict: Sequence[Figure]
    main: Figure

    def figures(self, protocol: str) -> Sequence[Figure]:
        return self.published if protocol == "published" else self.strict


@dataclass(frozen=True, slots=True)
class Value:
    """A figure with its 95 % interval, if any."""

    value: float
    low: float | None = None
    high: float | None = None

    def shown(self, figure: Figure, digits: int = 1) -> str:
        return _shown(self.value, figure, digits)

    def interval(self, figure: Figure) -> str:
        if self.low is None or self.high is None:
            return ""
        return f"{_shown(self.low, figure, 1)}–{_shown(self.high, figure, 1)}"


def look_up(evaluation: Mapping[str, Any], protocol: str, figure: Figure) -> Value | None:
    """A figure of an `Evaluation.to_dict()`; None where there is none."""
    value: Any = evaluation.get(protocol, {})
    for part in (figure.key,) if figure.key in value else figure.key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    if not isinstance(value, (int, float)):
        return None
    interval = evaluation.get("intervals", {}).get(protocol, {}).get(figure.key)
    low, high = interval if interval else (None, None)
    return Value(float(value), low, high)


def _shown(value: float, figure: Figure, digits: int) -> str:
    if figure.percent:
        return f"{100 * value:.{digits}f}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.{digits}f}"


def _paired(key: str, found: str) -> list[Figure]:
    return [
        Figure(f"{key}_r1", "R@1", f"share of queries whose {found} comes first"),
        Figure(f"{key}_r10", "R@10", f"share of queries whose {found} is among the first ten"),
        Figure(f"{key}_mrr", "MRR", "mean of 1 / rank"),
        Figure(f"{key}_medr", "MedR", f"median rank of the {found}", percent=False, better=-1),
    ]


_LANDFORM = (
    Figure("mAP", "mAP", "mean, over classes, of the average precision of the full ranking"),
    Figure("ndcg@10", "nDCG@10", "discounted gain of the first ten, over its greatest value"),
    Figure("hit@10", "Hit@10", "share of classes with an image among the first ten"),
    Figure("r_precision", "R-Prec", "precision among the first R, R the images of the class"),
)
_AUPRC = Figure("auprc", "AUPRC", "area under the published curve, which begins at its first depth")
_AP = Figure("average_precision", "AP", "average precision: mean, over points, of the precision "
             "at the rank that finds the point")  # fmt: skip
_F1 = Figure("best.f1", "best F1", "highest F1 of precision and recall at any depth")
_CEILING = Figure("ceiling.average_precision", "ceiling", "AP that no ranking of the same tiles "
                  "exceeds", better=0)  # fmt: skip
_NORMALISED = Figure("normalised", "AP / ceiling", "average precision over its ceiling")
_K = Figure("best.k", "at K", "depth of the best F1", percent=False, better=0)
_PRECISION = Figure("best.precision", "precision", "share of the first K tiles near a point")
_RECALL = Figure("best.recall", "recall", "share of the points near one of the first K tiles")

BOARDS: Mapping[str, Sequence[Board]] = {
    "paired-image-text": [
        Board(title, columns, columns, columns[2])
        for title, columns in (
            ("Text to image", _paired("t2i", "image")),
            ("Image to text", _paired("i2t", "caption")),
        )
    ],
    "landform": [Board("Class name to images", _LANDFORM, _LANDFORM, _LANDFORM[0])],
    "geolocalization": [
        Board("Mean over landforms", (_AUPRC, _F1), (_AP, _CEILING, _NORMALISED, _F1), _AP)
    ],
}

# Of a class: its own figures, under the keys of the whole.
PER_CLASS: Sequence[Figure] = (
    Figure("mAP", "AP", "average precision of the class"),
    Figure("ndcg@10", "nDCG@10", "discounted gain of the first ten, over its greatest value"),
    Figure("hit@10", "Hit@10", "100 when one of the first ten is right, else 0"),
    Figure("r_precision", "R-Prec", "precision among the first R, R the images of the class"),
)
PER_LANDFORM = Board(
    "Each landform",
    (_AUPRC, _F1, _K, _PRECISION, _RECALL),
    (_AP, _NORMALISED, _F1, _K, _PRECISION, _RECALL),
    _AP,
)
