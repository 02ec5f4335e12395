"""Metrics of each task: their keys in a result, their meaning, and the columns of tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from marsretrieval.metrics.landform import MAP_DEPTHS, PRECISION_DEPTHS
from marsretrieval.results import PROTOCOLS, RunResult


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of an evaluation.

    Attributes:
        key: Key in a result, such as "best.f1".
        heading: Heading of its column.
        meaning: Definition in one phrase.
        percent: Whether the value is a fraction that tables show in percent.
        better: 1 if higher values are better, -1 if lower values are, 0 if neither.
    """

    key: str
    heading: str
    meaning: str
    percent: bool = True
    better: int = 1


@dataclass(frozen=True, slots=True)
class MetricPair:
    """A column of a table: one metric per protocol, usually the same.

    Attributes:
        published: Metric under the published protocol, None if it has none.
        strict: Metric under the strict protocol, None if it has none.
    """

    published: Metric | None
    strict: Metric | None

    @property
    def heading(self) -> str:
        """Both headings joined by a slash, or one if they are equal."""
        metrics = (self.published, self.strict)
        return " / ".join(dict.fromkeys(metric.heading for metric in metrics if metric is not None))

    def metric(self, protocol: str) -> Metric | None:
        """Return the metric of a protocol.

        Args:
            protocol: "published" or "strict".

        Returns:
            The metric; None if the protocol has none.
        """
        return self.published if protocol == "published" else self.strict


def _paired_metrics(key: str, answer: str) -> list[Metric]:
    return [
        Metric(f"{key}_r1", "R@1", f"share of queries whose {answer} comes first"),
        Metric(f"{key}_r5", "R@5", f"share of queries whose {answer} is among the first five"),
        Metric(f"{key}_r10", "R@10", f"share of queries whose {answer} is among the first ten"),
        Metric(f"{key}_mrr", "MRR", "mean of 1 / rank"),
        Metric(f"{key}_medr", "MedR", f"median rank of the {answer}", percent=False, better=-1),
    ]


_ALL_METRICS = [
    *_paired_metrics("i2t", "caption"),
    *_paired_metrics("t2i", "image"),
    Metric("mAP", "mAP", "mean, over classes, of the average precision of the full ranking"),
    Metric("ndcg@10", "nDCG@10", "discounted gain of the first ten, over its greatest value"),
    Metric("hit@10", "Hit@10", "share of classes with an image among the first ten"),
    Metric("r_precision", "R-Prec", "precision among the first R, R the images of the class"),
    *(
        Metric(f"precision@{k}", f"P@{k}", f"share of the first {k} images that are of the class")
        for k in PRECISION_DEPTHS
    ),
    *(
        Metric(f"mAP@{k}", f"mAP@{k}", f"mean average precision of the first {k} images")
        for k in MAP_DEPTHS
    ),
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
METRICS: Mapping[str, Metric] = {metric.key: metric for metric in _ALL_METRICS}


def _same_under_both(*keys: str) -> list[MetricPair]:
    return [MetricPair(METRICS[key], METRICS[key]) for key in keys]


def _strict_only(*keys: str) -> list[MetricPair]:
    return [MetricPair(None, METRICS[key]) for key in keys]


# Part of a table: direction of the queries, and its columns.
Part = tuple[str, Sequence[MetricPair]]
# Task to the parts of its table.
COLUMNS: Mapping[str, Sequence[Part]] = {
    "paired-image-text": [
        (direction, _same_under_both(*(f"{key}_{name}" for name in ("r1", "r10", "mrr", "medr"))))
        for direction, key in (("image to text", "i2t"), ("text to image", "t2i"))
    ],
    "landform": [("", _same_under_both("mAP", "ndcg@10", "hit@10", "r_precision"))],
    "geolocalization": [
        (
            "",
            [
                MetricPair(METRICS["auprc"], METRICS["average_precision"]),
                *_strict_only("ceiling.average_precision"),
                *_same_under_both("best.f1", "best.k"),
            ],
        )
    ],
}

# Additional columns of the CSV and of the tables of `score`: task to columns by direction.
MORE: Mapping[str, Mapping[str, Sequence[MetricPair]]] = {
    "paired-image-text": {
        "image to text": _strict_only("i2t_r5"),
        "text to image": _strict_only("t2i_r5"),
    },
    "landform": {
        "": _strict_only(
            *(f"precision@{k}" for k in PRECISION_DEPTHS), *(f"mAP@{k}" for k in MAP_DEPTHS)
        )
    },
    "geolocalization": {
        "": [
            *_same_under_both("best.precision", "best.recall"),
            *_strict_only("normalised", "ceiling.f1", "chance_precision", "relevant_tiles"),
        ]
    },
}

# Task to the metrics of its tables per class (per landform for geo-localization).
PER_CLASS: Mapping[str, Sequence[MetricPair]] = {
    "landform": [
        MetricPair(metric, metric)
        for metric in (
            replace(METRICS["mAP"], heading="AP", meaning="average precision of the class"),
            METRICS["ndcg@10"],
            replace(METRICS["hit@10"], meaning="100 when one of the first ten is right, else 0"),
            METRICS["r_precision"],
        )
    ],
    "geolocalization": [
        MetricPair(METRICS["auprc"], METRICS["average_precision"]),
        *_strict_only("normalised"),
        *_same_under_both("best.f1", "best.k", "best.precision", "best.recall"),
    ],
}

# The strict metric that orders the models of a table.
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


def look_up(metrics: Mapping[str, Any], key: str) -> Any:
    """Look up a metric value by its key.

    Args:
        metrics: Metrics of one protocol, possibly nested.
        key: Key such as "mAP", or a dotted path such as "best.f1".

    Returns:
        The value; None if it is missing.
    """
    value: Any = metrics
    for part in (key,) if key in metrics else key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def task_order(task: str) -> tuple[int, str]:
    """Sort key of a task: built-in tasks in their usual order, then the others by name.

    Args:
        task: Name of the task.

    Returns:
        Position and name.
    """
    order = list(COLUMNS)
    return (order.index(task) if task in COLUMNS else len(order), task)


def task_title(result: RunResult) -> str:
    """Return the title of a result's task.

    Args:
        result: A result.

    Returns:
        The title for tables and pages; the task's name if it has no title.
    """
    return TITLES.get(result.task) or str(result.task_info.get("title") or result.task)


def task_columns(results: Sequence[RunResult]) -> Sequence[Part]:
    """Return the parts of a table and their columns.

    Args:
        results: Results of one task.

    Returns:
        ``(part, columns)`` as in `COLUMNS`. A custom task has one part with every metric that its
        results hold, the main one first.
    """
    if results[0].task in COLUMNS:
        return COLUMNS[results[0].task]
    columns: dict[str, MetricPair] = {}
    for result in results:
        declared = result.task_info.get("metrics")
        for key, is_share in _metric_keys(result.metrics.values()).items():
            own = declared.get(key) if isinstance(declared, Mapping) else None
            metric = _make_metric(key, own if isinstance(own, Mapping) else {}, is_share=is_share)
            columns.setdefault(key, MetricPair(metric, metric))
    main = main_metric(results[0])
    ordered = sorted(columns, key=lambda key: key != main)
    return [("", [columns[key] for key in ordered])]


def leaderboard_columns(results: Sequence[RunResult]) -> Sequence[tuple[str, str, Part]]:
    """Return the leaderboards of a task on the HTML page.

    Args:
        results: Results of one task.

    Returns:
        Title, key of the strict metric that orders the models, and part with its columns.
    """
    parts, main = task_columns(results), main_metric(results[0])
    match results[0].task:
        case "paired-image-text":
            ordered = zip(("t2i_mrr", "i2t_mrr"), reversed(parts), strict=True)
            return [(part[0].capitalize(), key, part) for key, part in ordered]
        case "landform":
            return [("Class name to images", main, parts[0])]
        case "geolocalization":
            first, ceiling, best, _ = parts[0][1]
            columns = [first, ceiling, *_strict_only("normalised"), best]
            return [("Mean over landforms", main, ("", columns))]
    return [("All metrics", main, part) for part in parts if part[1]]


def main_metric(result: RunResult) -> str:
    """Return the key of the strict metric that orders the models of a table.

    Args:
        result: A result.

    Returns:
        The key; for a custom task its declared main metric, else the first that the result holds.
    """
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


def _make_metric(key: str, declared: Mapping[str, Any], *, is_share: bool) -> Metric:
    """Build a metric from the task's declaration, else from `METRICS`, else from its values."""
    default = METRICS.get(key)
    better = declared.get("better", default.better if default else 1)
    return Metric(
        key,
        str(declared.get("heading", default.heading if default else key)),
        str(declared.get("meaning", default.meaning if default else "a metric of the task")),
        percent=bool(declared.get("percent", default.percent if default else is_share)),
        better=better if better in (1, 0, -1) else 1,
    )
