"""Whether two results may be compared, and if not, exactly why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from marsretrieval.errors import DataError, UsageError
from marsretrieval.report.result_file import ResultFile

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
