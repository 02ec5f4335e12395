"""Chance rows and interval notes of result tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from marsretrieval.results import MEAN

__all__ = ["CHANCE", "DAGGER", "MIN_UNITS", "chance_of", "interval_note", "is_coarse"]

CHANCE = "chance"  # name of the chance row
MIN_UNITS = 10  # an interval from fewer blocks, classes or pairs is marked
DAGGER = "\N{DAGGER}"

_DIGITS = 9  # significant digits when comparing the chance of two results


def chance_of(evaluations: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Build the chance rows below the models of a table.

    Args:
        evaluations: Model name to `Evaluation.to_dict()`, all of the same queries.

    Returns:
        (name, evaluation) per row: one row named "chance" if it is the same for all models; no row
        if no result states it, as in results of older versions. An evaluation has the expected
        metrics under `published` and `strict`, and no intervals.
    """
    models: dict[str, list[str]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for model, evaluation in evaluations.items():
        expected = evaluation.get("chance")
        if expected:
            key = repr(_rounded(expected))
            models.setdefault(key, []).append(model)
            rows[key] = {"published": {}, "strict": {}, **expected, "intervals": {}}
    if len(rows) == 1:
        return [(CHANCE, row) for row in rows.values()]
    return [(f"{CHANCE} ({', '.join(models[key])})", row) for key, row in rows.items()]


def is_coarse(evaluation: Mapping[str, Any], protocol: str) -> bool:
    """Return whether the intervals come from fewer than `MIN_UNITS` units.

    Args:
        evaluation: `Evaluation.to_dict()`.
        protocol: "published" or "strict".

    Returns:
        True if tables mark the intervals as unreliable; False if the basis is unknown.
    """
    basis = evaluation.get("interval_basis", {}).get(protocol)
    return basis is not None and basis["count"] < MIN_UNITS


def interval_note(evaluations: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """Describe what the intervals of a table resample, with the counts.

    Args:
        evaluations: Query group and `Evaluation.to_dict()` of every model and group shown.

    Returns:
        One or more sentences; empty if no result states the basis of its intervals.
    """
    counts: dict[str, dict[str, int]] = {}
    for group, evaluation in evaluations:
        for basis in evaluation.get("interval_basis", {}).values():
            of_unit = counts.setdefault(str(basis["unit"]), {})
            name = _name(group)
            of_unit[name] = min(int(basis["count"]), of_unit.get(name, int(basis["count"])))
    sentences = []
    for unit, of_unit in counts.items():
        if list(of_unit) == [""]:
            sentences.append(f"Intervals are from {_marked(of_unit[''])} {unit}.")
        else:
            parts = [f"{name} {_marked(count)}" for name, count in of_unit.items()]
            sentences.append(f"Intervals are from {unit}: {', '.join(parts)}.")
        if min(of_unit.values()) < MIN_UNITS:
            sentences.append(f"{DAGGER} Unreliable: from fewer than {MIN_UNITS} {unit}.")
    return " ".join(sentences)


def _name(group: str) -> str:
    """Landform of a query group; its blocks are the same for all kinds of query."""
    if group.startswith(MEAN):
        return "the mean over landforms at least"
    return "" if group == "all" else group.rpartition("/")[0] or group


def _marked(count: int) -> str:
    return f"{count:,}{DAGGER if count < MIN_UNITS else ''}"


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(part) for key, part in sorted(value.items())}
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else value
