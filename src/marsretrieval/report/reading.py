"""Reading results of which every table may rely on all parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from marsretrieval.errors import DataError
from marsretrieval.report._columns import COLUMNS
from marsretrieval.report.html import ResultFile
from marsretrieval.results import PROTOCOLS

__all__ = ["read_whole"]

_PARTS = {"n", "intervals", *PROTOCOLS}


def read_whole(path: Path) -> ResultFile:
    """Raises DataError where a file is no result, lacks a part, or is of a task without a table."""
    file = ResultFile.read(path)
    result = file.result
    if result.task not in COLUMNS:
        raise DataError(
            f"{path}: a result of task '{result.task}', which has no table",
            remedy=f"There are tables of {', '.join(COLUMNS)}.",
        )
    whole = (
        "id" in result.model
        and isinstance(result.data.get("n"), Mapping)
        and isinstance(result.data.get("set_hash"), str)
        and bool(result.metrics)
        and all(
            isinstance(each, Mapping)
            and each.keys() >= _PARTS
            and all(isinstance(each[part], Mapping) for part in _PARTS)
            for each in result.metrics.values()
        )
        and ("all" in result.metrics or result.task == "geolocalization")
    )
    if not whole:
        raise DataError(
            f"{path}: not a complete result of task '{result.task}'",
            remedy="Leave it out, or run it again with this version of marsretrieval.",
        )
    return file
