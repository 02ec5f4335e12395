"""Which figures stand in which column, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from marsretrieval.report._columns import METRICS, Metric, main_metric, task_columns
from marsretrieval.report.chance import DAGGER, is_coarse
from marsretrieval.results import RunResult


@dataclass(frozen=True, slots=True)
class Board:
    """A leaderboard: the columns of each protocol, and the strict figure that orders it."""

    title: str
    published: Sequence[Metric]
    strict: Sequence[Metric]
    main: Metric

    def figures(self, protocol: str) -> Sequence[Metric]:
        return self.published if protocol == "published" else self.strict


@dataclass(frozen=True, slots=True)
class Value:
    """A figure with its 95 % interval, if any. coarse: from too few blocks, classes or pairs."""

    value: float
    low: float | None = None
    high: float | None = None
    coarse: bool = False

    def shown(self, figure: Metric, digits: int = 1) -> str:
        return _shown(self.value, figure, digits)

    def interval(self, figure: Metric) -> str:
        if self.low is None or self.high is None:
            return ""
        ends = f"{_shown(self.low, figure, 1)}–{_shown(self.high, figure, 1)}"
        return f"{ends}{DAGGER}" if self.coarse else ends


def look_up(evaluation: Mapping[str, Any], protocol: str, figure: Metric) -> Value | None:
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
    return Value(float(value), low, high, low is not None and is_coarse(evaluation, protocol))


def _shown(value: float, figure: Metric, digits: int) -> str:
    if figure.percent:
        return f"{100 * value:.{digits}f}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.{digits}f}"


def _metrics(*keys: str) -> tuple[Metric, ...]:
    return tuple(METRICS[key] for key in keys)


def _paired(title: str, key: str) -> Board:
    columns = _metrics(*(f"{key}_{name}" for name in ("r1", "r10", "mrr", "medr")))
    return Board(title, columns, columns, METRICS[f"{key}_mrr"])


_LANDFORM = _metrics("mAP", "ndcg@10", "hit@10", "r_precision")
_AT_BEST = ("best.f1", "best.k", "best.precision", "best.recall")

BOARDS: Mapping[str, Sequence[Board]] = {
    "paired-image-text": [_paired("Text to image", "t2i"), _paired("Image to text", "i2t")],
    "landform": [Board("Class name to images", _LANDFORM, _LANDFORM, METRICS["mAP"])],
    "geolocalization": [
        Board(
            "Mean over landforms",
            _metrics("auprc", "best.f1"),
            _metrics("average_precision", "ceiling.average_precision", "normalised", "best.f1"),
            METRICS["average_precision"],
        )
    ],
}


def task_boards(results: Sequence[RunResult]) -> Sequence[Board]:
    """The leaderboards of a task.

    Args:
        results: Results of one task.

    Returns:
        Those of `BOARDS`; for a task that is not built in, one with all its metrics.
    """
    if results[0].task in BOARDS:
        return BOARDS[results[0].task]
    ((_, columns),) = task_columns(results)
    metrics = [column.strict for column in columns if column.strict is not None]
    main = next((metric for metric in metrics if metric.key == main_metric(results[0])), None)
    if main is None:
        return []
    return [Board("All metrics", metrics, metrics, main)]


# Of a class: its own figures, under the keys of the whole.
PER_CLASS: Sequence[Metric] = (
    replace(METRICS["mAP"], heading="AP", meaning="average precision of the class"),
    METRICS["ndcg@10"],
    replace(METRICS["hit@10"], meaning="100 when one of the first ten is right, else 0"),
    METRICS["r_precision"],
)
PER_LANDFORM = Board(
    "Each landform",
    _metrics("auprc", *_AT_BEST),
    _metrics("average_precision", "normalised", *_AT_BEST),
    METRICS["average_precision"],
)
