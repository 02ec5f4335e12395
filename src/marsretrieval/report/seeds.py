"""Average results that differ only in their seed: mean and sample standard deviation per metric."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from marsretrieval.io import sha256_json
from marsretrieval.report.grouping import comparable, name_of
from marsretrieval.report.result_files import ResultFile
from marsretrieval.results import PROTOCOLS, RunResult

_NOT_IDENTITY = {"warnings", "label"}  # of a model, besides its name


def average_seeds(files: Iterable[ResultFile]) -> list[ResultFile]:
    """Replace results that differ only in their seed by one result with their mean.

    Results belong together if the model, task, items, options, limit, number of resamples and
    protocol versions are equal and every seed occurs once. The metrics, chance and the ends of the
    intervals are averaged; every evaluation receives `spread`, the sample standard deviation per
    protocol and metric. Timings, hardware and the tables of the result are those of the first
    seed.

    Args:
        files: Results in any order.

    Returns:
        The results, in the order of their first seed; those without another seed are unchanged.
    """
    groups: dict[str, list[ResultFile]] = defaultdict(list)
    for file in files:
        groups[_identity(file.result)].append(file)
    averaged: list[ResultFile] = []
    for group in groups.values():
        seeds = {file.result.seed for file in group}
        if len(group) > 1 and len(seeds) == len(group):
            averaged.append(_average(sorted(group, key=lambda file: file.result.seed)))
        else:
            averaged += group
    return averaged


def seeds_of(result: RunResult) -> list[int]:
    """Return the seeds that a result is the mean of.

    Args:
        result: A result of `average_seeds`.

    Returns:
        The seeds in ascending order; empty for the result of one run.
    """
    return [int(seed) for seed in (result.settings or {}).get("seeds", ())]


def seeds_note(results: Iterable[RunResult]) -> str:
    """Describe the values with a spread in a table.

    Args:
        results: Results of a table.

    Returns:
        One sentence; empty if no result is the mean over seeds.
    """
    counts = sorted({len(seeds) for result in results if (seeds := seeds_of(result))})
    if not counts:
        return ""
    return (
        f"Means over {' or '.join(map(str, counts))} seeds ± sample standard deviation; values "
        "without ± are equal for all seeds. The ends of intervals are means, too."
    )


def _identity(result: RunResult) -> str:
    """Hash of everything that results of several seeds share."""
    settings = {name: v for name, v in (result.settings or {}).items() if name != "seed"}
    model = {name: v for name, v in dict(result.model).items() if name not in _NOT_IDENTITY}
    return sha256_json(
        [
            list(comparable(result)),
            name_of(result),
            model,
            settings,
            dict(result.protocol_versions or {}),
        ]
    )


def _average(files: Sequence[ResultFile]) -> ResultFile:
    results = [file.result for file in files]
    first = results[0]
    groups = [
        group
        for group in dict.fromkeys(name for result in results for name in result.metrics)
        if all(group in result.metrics for result in results)
    ]
    metrics: dict[str, Any] = {}
    for group in groups:
        evaluations: list[Any] = [dict(result.metrics[group]) for result in results]
        spread = {
            protocol: _spread([evaluation[protocol] for evaluation in evaluations])
            for protocol in PROTOCOLS
        }
        averaged = {
            name: _mean([evaluation.get(name) for evaluation in evaluations])
            for name in ("published", "strict", "intervals", "ties", "chance")
            if all(name in evaluation for evaluation in evaluations)
        }
        metrics[group] = {**evaluations[0], **averaged, "spread": spread, "seeds": len(results)}
    settings = {
        **(first.settings or {}),
        "seed": first.seed,
        "seeds": [result.seed for result in results],
    }
    return replace(files[0], result=replace(first, metrics=metrics, settings=settings))


def _mean(values: Sequence[Any]) -> Any:
    """Average numbers of the same structure; parts that not all have are left out."""
    first = values[0]
    if all(_is_number(value) for value in values):
        # The mean of equal numbers may differ from them in the last digit.
        return first if all(value == first for value in values) else statistics.fmean(values)
    if all(isinstance(value, Mapping) for value in values):
        return {
            name: _mean([value[name] for value in values])
            for name in first
            if all(name in value for value in values)
        }
    if all(isinstance(value, list | tuple) for value in values):
        if all(isinstance(part, Mapping) and "band" in part for value in values for part in value):
            return _mean_bands(values)
        if len({len(value) for value in values}) == 1:
            return [_mean(parts) for parts in zip(*values, strict=True)]
    return first if all(value == first for value in values) else None


def _mean_bands(values: Sequence[Sequence[Mapping[str, Any]]]) -> list[Any]:
    """Average latitude bands by name; a band without tiles of some seeds counts with 0 tiles."""
    by_band = [{str(part["band"]): part for part in value} for value in values]
    names = sorted(
        {name for bands in by_band for name in bands}, key=lambda n: int(n.split("..")[0])
    )
    averaged = []
    for name in names:
        parts = [bands.get(name, {"band": name, "points": 0, "tiles": 0, "precision": 0.0})
                 for bands in by_band]  # fmt: skip
        averaged.append(_mean(parts))
    return averaged


def _spread(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sample standard deviation of all numbers that all values have."""
    spreads: dict[str, Any] = {}
    for name in values[0]:
        parts = [value.get(name) for value in values]
        if all(_is_number(part) for part in parts):
            spreads[name] = statistics.stdev(float(part) for part in parts if part is not None)
        elif all(isinstance(part, Mapping) for part in parts):
            spreads[name] = _spread([part for part in parts if isinstance(part, Mapping)])
    return spreads


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
