"""Which result of A belongs to which of B."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from marsretrieval.errors import DataError, DatasetNotFoundError, UnknownNameError, UsageError
from marsretrieval.report.columns import task_order
from marsretrieval.report.grouping import comparable, name_of
from marsretrieval.report.result_files import ResultFile, read_whole
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


_NAMED = 5  # items named in a message


def require_same_items(a: ResultFile, b: ResultFile) -> None:
    """Raises UsageError for two tasks, and DataError for another N, set hash or catalogue of
    points; the message says which items differ where the tables beside the results tell."""
    first, second = a.result, b.result
    if first.task != second.task:
        raise UsageError(
            f"two tasks: {first.task} and {second.task}",
            remedy="Figures of different tasks say nothing about each other.",
        )
    reasons = []
    mine, other = dict(first.data["n"]), dict(second.data["n"])
    for name in dict.fromkeys([*mine, *other]):
        if mine.get(name) != other.get(name):
            reasons.append(f"{mine.get(name, 0):,} {name} in A, {other.get(name, 0):,} in B")
    if first.data["set_hash"] != second.data["set_hash"]:
        reasons.append(
            f"set hash {first.data['set_hash'][:12]} in A, {second.data['set_hash'][:12]} in B"
        )
    explained = list(_explained(a, b))
    if first.task == "geolocalization":
        reasons += _points(a, b)
    if reasons:
        lines = "\n  ".join([*reasons, *explained])
        raise DataError(
            f"{first.task}: not over the same items, so the figures cannot be compared\n  {lines}",
            remedy="Run both models on the set that both can have.",
        )


def _explained(a: ResultFile, b: ResultFile) -> Iterable[str]:
    """Which items differ, as far as the files know."""
    task = a.result.task
    if task == "geolocalization":
        yield from _sets("tiles", _tiles(a), _tiles(b))
    else:
        column, what = ("id", "pairs") if task == "paired-image-text" else ("class", "classes")
        mine, other = _column(a, column), _column(b, column)
        yield from _sets(what, mine, other)
        if mine is not None and mine == other:
            yield f"the same {what}, so images, captions or labels have changed"
    mine, other = (
        {f"{item.get('id')} ({item.get('reason')})" for item in each.result.data.get("skipped", ())}
        for each in (a, b)
    )
    for side, only in (("A", mine - other), ("B", other - mine)):
        if only:
            yield f"left out of {side} only: {_some(only)}"


def _column(file: ResultFile, name: str) -> set[str] | None:
    table = file.queries
    if table is None or name not in table.column_names:
        return None
    return set(map(str, table.column(name).to_pylist()))


def _tiles(file: ResultFile) -> set[str] | None:
    """All tiles, where there are so few that every ranking is whole."""
    table = file.hits
    if table is None:
        return None
    found = set(table.column("id").to_pylist())
    return found if len(found) == file.result.data["n"].get("tiles") else None


def _sets(what: str, mine: set[str] | None, other: set[str] | None) -> Iterable[str]:
    if mine is None or other is None:
        yield f"which {what} differ is not in the tables beside the results"
        return
    for side, only in (("A", mine - other), ("B", other - mine)):
        if only:
            yield f"{what} in {side} only: {_some(only)}"


def _points(a: ResultFile, b: ResultFile) -> list[str]:
    """Catalogues that differ though they are equally long: the set hash knows tiles only."""
    if a.queries is None or b.queries is None:
        return []
    mine, other = points_of(a), points_of(b)
    lines = []
    for name in sorted(mine.keys() & other.keys()):
        if np.array_equal(mine[name], other[name]):
            continue
        here, there = Counter(_places(mine[name])), Counter(_places(other[name]))
        sides = [
            f"{_some(only)} in {side} only"
            for side, only in (("A", here - there), ("B", there - here))
            if only
        ]
        lines.append(f"other points of {name}: {'; '.join(sides) or 'in another order'}")
    return lines


def points_of(file: ResultFile) -> dict[str, np.ndarray]:
    """Group to its points, (m, 2) lon and lat, in the order of the table."""
    table = file.queries
    assert table is not None
    require_columns(file, "queries", ("group", "lon", "lat"))
    groups = np.asarray(table.column("group").to_pylist())
    places = np.column_stack([table.column(name).to_numpy() for name in ("lon", "lat")])
    return {name: places[groups == name] for name in dict.fromkeys(groups.tolist())}


def require_columns(file: ResultFile, kind: str, names: Iterable[str]) -> None:
    """Raises DataError where the table beside a result lacks one of the columns."""
    table = file.queries if kind == "queries" else file.hits
    for name in names:
        if table is None or name not in table.column_names:
            raise DataError(
                f"{file.beside(kind)}: no column '{name}'",
                remedy="It is not of this version: run the model again with --force.",
            )


def _places(points: np.ndarray) -> list[str]:
    return [f"{lon:.9g} {lat:.9g}" for lon, lat in points.tolist()]


def _some(names: Iterable[str]) -> str:
    ordered: Sequence[str] = sorted(names)
    more = f" and {len(ordered) - _NAMED:,} more" if len(ordered) > _NAMED else ""
    return f"{', '.join(ordered[:_NAMED])}{more}"
