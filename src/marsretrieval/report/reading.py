"""Reading results of which every table may rely on all parts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from marsretrieval.errors import DataError
from marsretrieval.report._columns import METRICS, Metric, look_up
from marsretrieval.report.result_file import ResultFile
from marsretrieval.results import PROTOCOLS

__all__ = ["read_whole", "require_whole"]


def read_whole(path: Path) -> ResultFile:
    """Raises DataError where a file is no result, and as `require_whole`."""
    file = ResultFile.read(path)
    require_whole(file)
    return file


def require_whole(file: ResultFile) -> None:
    """Raises DataError where a result has no metrics, or one that is none."""
    result = file.result
    path = file.path or result.model["id"]
    whole = result.metrics and (
        "all" in result.metrics or result.task not in ("paired-image-text", "landform")
    )
    if not whole:
        raise DataError(
            f"{path}: not a complete result of task '{result.task}'",
            remedy="Leave it out, or run it again with this version of marsretrieval.",
        )
    for group, evaluation in result.metrics.items():
        for wrong in _wrong(evaluation):
            raise DataError(
                f"{path}: {group}: {wrong} is no figure",
                remedy="Run the model again with --force.",
            )


def _wrong(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Names and values of figures and intervals that cannot be shown."""
    for protocol in PROTOCOLS:
        intervals = evaluation["intervals"].get(protocol, {})
        expected = evaluation.get("chance", {}).get(protocol, {})
        yield from _wrong_metrics(evaluation[protocol], protocol)
        yield from _wrong_metrics(expected, f"chance {protocol}")
        for key, metric in METRICS.items():
            pair = intervals.get(key)
            if pair is not None and not _is_interval(pair, metric):
                yield f"interval of {protocol} {key} {pair!r}"


def _wrong_metrics(metrics: Mapping[str, Any], name: str) -> Iterator[str]:
    """Names and values of metrics, of all and per class, that are no numbers."""
    classes = metrics.get("per_class") or {}
    for key, metric in METRICS.items():
        for one in (metrics, *classes.values()):
            value = look_up(one, key)
            if value is not None and not _is_figure(value, metric):
                yield f"{name} {key} {value!r}"


def _is_interval(value: object, metric: Metric) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(each is None or _is_figure(each, metric) for each in value)
    )


def _is_figure(value: object, metric: Metric) -> bool:
    """A number; where it is a share, within 0..1 but for rounding."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return False
    return value >= 0 and (value <= 1 + 1e-9 or not metric.percent)
