"""The figures of each task: where a result keeps them, what they mean, and their columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marsretrieval.results import PROTOCOLS, RunResult


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

TITLES: Mapping[str, str] = {
    "paired-image-text": "Paired image-text retrieval",
    "landform": "Landform retrieval",
    "geolocalization": "Global geo-localization",
}


def look_up(figures: Mapping[str, Any], key: str) -> Any:
    """A figure by its key ("best.f1"); None where there is none."""
    value: Any = figures
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def task_order(task: str) -> tuple[int, str]:
    """Sort key of a task: the built-in ones in their usual order, then the others by name."""
    order = list(COLUMNS)
    return (order.index(task) if task in COLUMNS else len(order), task)


def task_title(result: RunResult) -> str:
    """The title of a result's task, for people."""
    return TITLES.get(result.task) or str(result.task_info.get("title") or result.task)


def task_columns(results: Sequence[RunResult]) -> Sequence[tuple[str, Sequence[Column]]]:
    """The parts of a table and their columns.

    Args:
        results: Results of one task.

    Returns:
        ``(part, columns)`` as in `COLUMNS`; for a task that is not built in one part with every
        metric that its results hold, the main one first.
    """
    if results[0].task in COLUMNS:
        return COLUMNS[results[0].task]
    columns: dict[str, Column] = {}
    for result in results:
        declared = result.task_info.get("metrics")
        for key, is_share in _metric_keys(result.metrics.values()).items():
            own = declared.get(key) if isinstance(declared, Mapping) else None
            metric = _metric(key, own if isinstance(own, Mapping) else {}, is_share=is_share)
            columns.setdefault(key, Column(metric, metric))
    main = main_metric(results[0])
    ordered = sorted(columns, key=lambda key: key != main)
    return [("", [columns[key] for key in ordered])]


def evaluation_columns(
    evaluation: Mapping[str, Any],
) -> Sequence[tuple[str, Sequence[Column]]]:
    """The columns of one `Evaluation.to_dict()`, as `task_columns` gives them."""
    if evaluation["task"] in COLUMNS:
        return COLUMNS[evaluation["task"]]
    metrics = [
        _metric(key, {}, is_share=share) for key, share in _metric_keys([evaluation]).items()
    ]
    return [("", [Column(metric, metric) for metric in metrics])]


def main_metric(result: RunResult) -> str:
    """The key of the strict metric that orders the models of a table."""
    if result.task in MAIN:
        return MAIN[result.task]
    main = result.task_info.get("main_metric")
    keys = _metric_keys(result.metrics.values())
    return str(main) if main in keys else next(iter(keys), "")


def _metric_keys(evaluations: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """Keys of the metrics of evaluations, and whether all their values are within 0..1."""
    keys: dict[str, bool] = {}
    for evaluation in evaluations:
        for protocol in reversed(PROTOCOLS):
            for key, value in evaluation[protocol].items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    keys[key] = keys.get(key, True) and 0 <= value <= 1
    return keys


def _metric(key: str, own: Mapping[str, Any], *, is_share: bool) -> Metric:
    """The metric as its task declares it, else as it is known here, else by its values."""
    known = METRICS.get(key)
    better = own.get("better", known.better if known else 1)
    return Metric(
        key,
        str(own.get("heading", known.heading if known else key)),
        str(own.get("meaning", known.meaning if known else "a metric of the task")),
        percent=bool(own.get("percent", known.percent if known else is_share)),
        better=better if better in (1, 0, -1) else 1,
    )
