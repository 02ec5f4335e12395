"""Rows of logs/<task>/summary.csv: the published metrics of each run, in percent."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["add", "columns", "rows_of"]

_UNSCALED = ("i2t_medr", "t2i_medr", "k_at_best")  # ranks and depths: as they are
_GEO = {
    "f1": ("best", "f1"),
    "precision": ("best", "precision"),
    "recall": ("best", "recall"),
    "auprc": ("auprc",),
    "k_at_best": ("best", "k"),
}
_METRICS: dict[str, dict[str, tuple[str, ...]]] = {
    "paired-image-text": {
        name: (name,)
        for way in ("i2t", "t2i")
        for name in (f"{way}_r1", f"{way}_r10", f"{way}_mrr", f"{way}_medr")
    },
    "landform": {name: (name,) for name in ("mAP", "r_precision", "ndcg@10", "hit@10")},
    "geolocalization": _GEO,
}
_QUERIES = ("text", "image")  # what the published scripts run; the hybrid is in the result file
_RUN_COLUMNS = ("created", "model", "dataset", "n", "set_hash")


def columns(task: str) -> list[str]:
    """List the columns of a task's summary.

    Args:
        task: Name of the task.

    Returns:
        Column names.
    """
    group_columns = ["landform", "query"] if task == "geolocalization" else []
    return [*_RUN_COLUMNS, *group_columns, *_METRICS[task], "request"]


def rows_of(result: Mapping[str, Any], model: str) -> Iterator[dict[str, str]]:
    """Format a result as rows of the summary.

    Args:
        result: Content of a result file.
        model: Name of the model.

    Yields:
        One row; for geo-localization one per landform and type of query.
    """
    task, data = result["task"], result["data"]
    run_columns = {
        "created": result["created"],
        "model": model,
        "dataset": data["name"],
        "n": str(next(iter(data["n"].values()))),  # pairs, images or tiles
        "set_hash": data["set_hash"],
        "request": result["request"],
    }
    for group, metrics in result["metrics"].items():
        group_columns = {}
        if task == "geolocalization":
            landform, _, query = group.partition("/")
            if query not in _QUERIES or landform.startswith("mean "):
                continue
            group_columns = {"landform": landform, "query": query}
        cells = {
            name: _format_value(name, metrics["published"], path)
            for name, path in _METRICS[task].items()
        }
        yield {**run_columns, **group_columns, **cells}


def _format_value(name: str, metrics: Mapping[str, Any], path: Sequence[str]) -> str:
    value: Any = metrics
    for key in path:
        value = value[key]
    if value is None:
        return ""
    return f"{value:.10g}" if name in _UNSCALED else f"{100 * value:.4f}"


def add(file: Path, task: str, rows: Iterable[Mapping[str, str]]) -> int:
    """Append the rows that the file does not contain yet.

    Rows are equal if all cells are equal. The file is locked and replaced atomically, so several
    scripts may write at once, and readers never see a partial row.

    Args:
        file: The summary.
        task: Name of the task.
        rows: Rows from `rows_of`.

    Returns:
        Number of appended rows.
    """
    header = columns(task)
    file.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        if text and next(csv.reader(io.StringIO(text)), []) != header:
            backup = _free_name(file)
            file.rename(backup)  # of another program or version: keep it, but do not mix
            text = ""
        existing = {tuple(row) for row in csv.reader(io.StringIO(text))}
        lines = [tuple(row.get(name, "") for name in header) for row in rows]
        new = [line for line in dict.fromkeys(lines) if line not in existing]
        if new:
            out = io.StringIO()
            writer = csv.writer(out, lineterminator="\n")
            if not text:
                writer.writerow(header)
            writer.writerows(new)
            separator = "" if text.endswith("\n") or not text else "\n"
            _replace(file, text + separator + out.getvalue())
        return len(new)
    finally:
        os.close(folder)  # releases the lock


def _free_name(file: Path) -> Path:
    number = 1
    while (backup := file.with_name(f"{file.stem}.{number}{file.suffix}")).exists():
        number += 1
    return backup


def _replace(file: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".tmp")
    try:
        with open(handle, "w", encoding="utf-8") as out:  # noqa: PTH123 (a descriptor)
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
