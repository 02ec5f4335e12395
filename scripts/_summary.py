"""Rows of logs/<task>/summary.csv: the published figures of each run, in percent."""

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

_PLAIN = ("i2t_medr", "t2i_medr", "k_at_best")  # ranks and depths: as they are
_GEO = {
    "f1": ("best", "f1"),
    "precision": ("best", "precision"),
    "recall": ("best", "recall"),
    "auprc": ("auprc",),
    "k_at_best": ("best", "k"),
}
_FIGURES: dict[str, dict[str, tuple[str, ...]]] = {
    "paired-image-text": {
        name: (name,)
        for way in ("i2t", "t2i")
        for name in (f"{way}_r1", f"{way}_r10", f"{way}_mrr", f"{way}_medr")
    },
    "landform": {name: (name,) for name in ("mAP", "r_precision", "ndcg@10", "hit@10")},
    "geolocalization": _GEO,
}
_QUERIES = ("text", "image")  # what the published scripts run; the hybrid is in the result file
_ABOUT = ("created", "model", "dataset", "n", "set_hash")


def columns(task: str) -> list[str]:
    which = ["landform", "query"] if task == "geolocalization" else []
    return [*_ABOUT, *which, *_FIGURES[task], "request"]


def rows_of(result: Mapping[str, Any], model: str) -> Iterator[dict[str, str]]:
    """One row for a result; for geo-localization one for each landform and kind of query."""
    task, data = result["task"], result["data"]
    about = {
        "created": result["created"],
        "model": model,
        "dataset": data["name"],
        "n": str(next(iter(data["n"].values()))),  # pairs, images or tiles
        "set_hash": data["set_hash"],
        "request": result["request"],
    }
    for group, figures in result["metrics"].items():
        which = {}
        if task == "geolocalization":
            landform, _, query = group.partition("/")
            if query not in _QUERIES or landform.startswith("mean "):
                continue
            which = {"landform": landform, "query": query}
        shown = {
            name: _shown(name, figures["published"], path) for name, path in _FIGURES[task].items()
        }
        yield {**about, **which, **shown}


def _shown(name: str, figures: Mapping[str, Any], path: Sequence[str]) -> str:
    value: Any = figures
    for key in path:
        value = value[key]
    if value is None:
        return ""
    return f"{value:.10g}" if name in _PLAIN else f"{100 * value:.4f}"


def add(file: Path, task: str, rows: Iterable[Mapping[str, str]]) -> int:
    """Append the rows that are not in the file yet; returns how many.

    A row is the same when all of it is: a result that was kept is not written again. Several
    scripts may write at once, and a reader never sees half a row: the file is replaced whole.
    """
    names = columns(task)
    file.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        if text and next(csv.reader(io.StringIO(text)), []) != names:
            kept = _free_name(file)
            file.rename(kept)  # of another program or version: kept, never mixed with ours
            text = ""
        known = {tuple(row) for row in csv.reader(io.StringIO(text))}
        lines = [tuple(row.get(name, "") for name in names) for row in rows]
        new = [line for line in dict.fromkeys(lines) if line not in known]
        if new:
            out = io.StringIO()
            writer = csv.writer(out, lineterminator="\n")
            if not text:
                writer.writerow(names)
            writer.writerows(new)
            separator = "" if text.endswith("\n") or not text else "\n"
            _replace(file, text + separator + out.getvalue())
        return len(new)
    finally:
        os.close(folder)  # and with it the lock


def _free_name(file: Path) -> Path:
    number = 1
    while (kept := file.with_name(f"{file.stem}.{number}{file.suffix}")).exists():
        number += 1
    return kept


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
