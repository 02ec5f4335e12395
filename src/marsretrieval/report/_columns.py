"""The figures of each task: where a result keeps them, what they mean, and their columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["COLUMNS", "MAIN", "METRICS", "MORE", "Column", "Metric"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of an evaluation: where it is kept ("best.f1"), and what it means.
    better: 1 the higher, -1 the lower, 0 neither, so that none is the best."""

    key: str
    heading: str
    meaning: str
    percent: bool = True
    better: int = 1


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: the figure of each protocol, most often the same."""

    published: Metric | None
    strict: Metric | None

    @property
    def heading(self) -> str:
        names = [each.heading for each in (self.published, self.strict) if each is not None]
        return " / ".join(dict.fromkeys(names))

    @property
    def percent(self) -> bool:
        return self._either.percent

    @property
    def better(self) -> int:
        return self._either.better

    def key(self, protocol: str) -> str | None:
        metric = self.published if protocol == "published" else self.strict
        return None if metric is None else metric.key

    def name(self, protocol: str) -> str:
        metric = self.published if protocol == "published" else self.strict
        return self.heading if metric is None else metric.heading

    @property
    def _either(self) -> Metric:
        metric = self.strict or self.published
        assert metric is not None
        return metric


def _paired(key: str, found: str) -> list[Metric]:
    return [
        Metric(f"{key}_r1", "R@1", f"share of queries whose {found} comes first"),
        Metric(f"{key}_r10", "R@10", f"share of queries whose {found} is among the first ten"),
        Metric(f"{key}_mrr", "MRR", "mean of 1 / rank"),
        Metric(f"{key}_medr", "MedR", f"median rank of the {found}", percent=False, better=-1),
    ]


_ALL = [
    *_paired("i2t", "caption"),
    *_paired("t2i", "image"),
    Metric("mAP", "mAP", "mean, over classes, of the average precision of the full ranking"),
    Metric("ndcg@10", "nDCG@10", "discounted gain of the first ten, over its greatest value"),
    Metric("hit@10", "Hit@10", "share of classes with an image among the first ten"),
    Metric("r_precision", "R-Prec", "precision among the first R, R the images of the class"),
    Metric("auprc", "AUPRC", "area under the published curve, which begins at its first depth"),
    Metric(
        "average_precision",
        "AP",
        "average precision: mean, over points, of the precision at the rank that finds the point",
    ),
    Metric(
        "ceiling.average_precision",
        "ceiling",
        "AP that no ranking of the same tiles exceeds",
        better=0,
    ),
    Metric("normalised", "AP / ceiling", "average precision over its ceiling"),
    Metric("best.f1", "best F1", "highest F1 of precision and recall at any depth"),
    Metric("best.k", "at K", "depth of the best F1", percent=False, better=0),
    Metric("best.precision", "precision at K", "share of the first K tiles near a point"),
    Metric("best.recall", "recall at K", "share of the points near one of the first K tiles"),
    Metric("ceiling.f1", "ceiling of F1", "F1 that no ranking of the same tiles exceeds", better=0),
    Metric(
        "chance_precision",
        "precision by chance",
        "share of all tiles near a point: precision at any K of a random ranking",
        better=0,
    ),
    Metric("relevant_tiles", "relevant tiles", "tiles near a point", percent=False, better=0),
]
METRICS: Mapping[str, Metric] = {each.key: each for each in _ALL}


def _both(*keys: str) -> list[Column]:
    return [Column(METRICS[key], METRICS[key]) for key in keys]


def _strict(*keys: str) -> list[Column]:
    return [Column(None, METRICS[key]) for key in keys]


# Task to the parts of its table: (part, columns).
COLUMNS: Mapping[str, Sequence[tuple[str, Sequence[Column]]]] = {
    "paired-image-text": [
        (direction, _both(*(f"{key}_{name}" for name in ("r1", "r10", "mrr", "medr"))))
        for direction, key in (("image to text", "i2t"), ("text to image", "t2i"))
    ],
    "landform": [("", _both("mAP", "ndcg@10", "hit@10", "r_precision"))],
    "geolocalization": [
        (
            "",
            [
                Column(METRICS["auprc"], METRICS["average_precision"]),
                *_strict("ceiling.average_precision"),
                *_both("best.f1", "best.k"),
            ],
        )
    ],
}

# What a table of models has no room for.
MORE: Mapping[str, Sequence[Column]] = {
    "geolocalization": [
        *_both("best.precision", "best.recall"),
        *_strict("normalised", "ceiling.f1", "chance_precision", "relevant_tiles"),
    ]
}

# The strict figure that orders the models of a table.
MAIN: Mapping[str, str] = {
    "paired-image-text": "t2i_mrr",
    "landform": "mAP",
    "geolocalization": "average_precision",
}
