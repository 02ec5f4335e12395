"""Which result of A belongs to which of B."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marsretrieval.errors import DataError, DatasetNotFoundError, UnknownNameError, UsageError
from marsretrieval.report._columns import task_order
from marsretrieval.report.grouping import comparable, name_of
from marsretrieval.report.reading import read_whole
from marsretrieval.report.result_file import ResultFile
from marsretrieval.results import ResultKey, find_results


@dataclass(frozen=True, slots=True)
class Match:
    """Pairs of results of the same task. notes: tasks that only one has, a line each; left_out:
    files that could not be read, a line each."""

    pairs: Sequence[tuple[ResultFile, ResultFile]]
    notes: Sequence[str]
    left_out: Sequence[str] = ()


def match_results(a: str, b: str, *, results: Path, task: str | None = None) -> Match:
    """Pair the results of two models.

    Args:
        a: A result file, a folder of one model's results, or the name of a model as tables show
            it (its folder in `results`, or its id).
        b: The same for the other model.
        results: Folder of results, for names.
        task: Only this task.

    Returns:
        Pairs of results of the same task, on the same data and with the same settings where
        there are several. Two files are paired whatever their task, so that the comparison can
        say why it refuses.

    Raises:
        UnknownNameError: If there is no such model.
        UsageError: If a folder holds several models.
        DataError: If a file named is not a result.
    """
    first, second = _place(a, results), _place(b, results)
    if first.is_file() and second.is_file():
        return Match([(read_whole(first), read_whole(second))], [])
    notes: list[str] = []
    left_out: list[str] = []
    mine, other = _by_task(first, task, left_out), _by_task(second, task, left_out)
    for side, missing in (("A", mine.keys() - other.keys()), ("B", other.keys() - mine.keys())):
        notes += [f"{name}: only {side} has a result" for name in sorted(missing)]
    shared = sorted(mine.keys() & other.keys(), key=task_order)
    pairs: list[tuple[ResultFile, ResultFile]] = []
    for name in shared:
        pairs += _pairs(name, mine[name], other[name], notes)
    if not pairs:
        raise DatasetNotFoundError(
            f"no task that both have a result of: {first} has {', '.join(mine) or 'none'}, "
            f"{second} has {', '.join(other) or 'none'}",
            remedy="marsretrieval run writes results, a folder for each model.",
        )
    return Match(pairs, notes, left_out)


def _pairs(
    task: str, mine: list[ResultFile], other: list[ResultFile], notes: list[str]
) -> list[tuple[ResultFile, ResultFile]]:
    """Pair results on the same data; of several with other settings those that agree, once."""
    first: dict[Any, list[ResultFile]] = {}
    second: dict[Any, list[ResultFile]] = {}
    for files, by_set in ((mine, first), (other, second)):
        for file in files:
            by_set.setdefault(_set_of(file), []).append(file)
    pairs = []
    for key in first:
        if key not in second:
            continue
        same = [
            (left, right)
            for left in first[key]
            for right in second[key]
            if ResultKey.from_result(left.result).same_settings(ResultKey.from_result(right.result))
        ]
        pairs.append(same[0] if same else (first[key][0], second[key][0]))
    if not pairs:
        return [(mine[0], other[0])]  # refused with the reason
    for side, by_set, others in (("A", first, second), ("B", second, first)):
        for key in by_set.keys() - others.keys():
            file = by_set[key][0]
            notes.append(f"{task}: only {side} has a result on the data of {file.path}")
    return pairs


def _set_of(file: ResultFile) -> Any:
    return (*comparable(file.result), file.result.data.get("items_hash"))


def _place(name: str, results: Path) -> Path:
    folder_name = name.replace(":", "-").replace("/", "-")  # of a model's id
    for path in (Path(name), results / name, results / folder_name):
        if path.exists():
            return path
    folders = [path.name for path in results.iterdir()] if results.is_dir() else []
    if folders:
        raise UnknownNameError("result", name, folders, remedy=f"Looked here and in {results}.")
    raise DatasetNotFoundError(
        f"{name}: no such file or folder, and no folder {results}",
        remedy="Name a result file, or the folder of a model's results (see --results).",
    )


def _by_task(place: Path, task: str | None, left_out: list[str]) -> dict[str, list[ResultFile]]:
    by_task: dict[str, list[ResultFile]] = {}
    for path in find_results([place]):
        try:
            file = read_whole(path)
        except DataError as error:
            if task in (None, path.name.partition(".")[0]):
                left_out.append(str(error))
            continue
        name = file.result.task
        if task is not None and name != task:
            continue
        earlier = by_task.setdefault(name, [])
        if earlier and name_of(earlier[0].result) != name_of(file.result):
            raise UsageError(
                f"{place}: several results of {name} ({earlier[0].path} and {path})",
                remedy="Name the folder of one model, or a result file.",
            )
        earlier.append(file)
    # TASK.json before TASK.seed-1.json
    return {name: sorted(files, key=lambda file: len(str(file.path)))
            for name, files in by_task.items()}  # fmt: skip
