"""Pair the results of two models and check that they are over the same items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from marsretrieval import geo
from marsretrieval.errors import DataError, DatasetNotFoundError, UnknownNameError, UsageError
from marsretrieval.metrics.difference import RankedTiles
from marsretrieval.report.columns import task_order
from marsretrieval.report.grouping import comparable, name_of
from marsretrieval.report.result_files import ResultFile, read_whole
from marsretrieval.results import ResultKey, describe_options, find_results

_MAX_NAMES = 5  # items named in a message


@dataclass(frozen=True, slots=True)
class Match:
    """Pairs of results of the same task.

    Attributes:
        pairs: Result of A and result of B.
        notes: One line per task or data set that only one model has a result of.
        left_out: One line per file that could not be read.
    """

    pairs: Sequence[tuple[ResultFile, ResultFile]]
    notes: Sequence[str]
    left_out: Sequence[str] = ()


def match_results(a: str, b: str, *, results: str | Path, task: str | None = None) -> Match:
    """Pair the results of two models.

    Args:
        a: A result file, a folder of one model's results, or the name of a model as in tables (its
            folder in `results`, or its id).
        b: The same for model B.
        results: Folder of results, for names.
        task: Name of the only task to pair; None: all.

    Returns:
        Pairs of results of the same task, on the same data and with the same settings if there are
        several. Two files are paired whatever their task; the comparison checks them.

    Raises:
        UnknownNameError: If no model has this name.
        DatasetNotFoundError: If there is no such path, or no task that both have a result of.
        UsageError: If a folder holds several models.
        DataError: If a named file is not a result.
    """
    results = Path(results)
    path_a, path_b = _find_path(a, results), _find_path(b, results)
    if path_a.is_file() and path_b.is_file():
        return Match([(read_whole(path_a), read_whole(path_b))], [])
    notes: list[str] = []
    left_out: list[str] = []
    tasks_a, tasks_b = (
        _files_by_task(path_a, task, left_out),
        _files_by_task(path_b, task, left_out),
    )
    for side, missing in (
        ("A", tasks_a.keys() - tasks_b.keys()),
        ("B", tasks_b.keys() - tasks_a.keys()),
    ):
        notes += [f"{name}: only {side} has a result" for name in sorted(missing)]
    shared = sorted(tasks_a.keys() & tasks_b.keys(), key=task_order)
    pairs: list[tuple[ResultFile, ResultFile]] = []
    for name in shared:
        pairs += _pair_files(name, tasks_a[name], tasks_b[name], notes)
    if not pairs:
        raise DatasetNotFoundError(
            "\n  ".join(notes)
            if shared
            else f"no task with results of both: {path_a} has {', '.join(tasks_a) or 'none'}, "
            f"{path_b} has {', '.join(tasks_b) or 'none'}",
            remedy="marsretrieval run writes results, one folder per model.",
        )
    return Match(pairs, notes, left_out)


def _pair_files(
    task: str, files_a: list[ResultFile], files_b: list[ResultFile], notes: list[str]
) -> list[tuple[ResultFile, ResultFile]]:
    """Pair results on the same data, preferring pairs with the same settings."""
    by_set_a: dict[Any, list[ResultFile]] = {}
    by_set_b: dict[Any, list[ResultFile]] = {}
    for files, by_set in ((files_a, by_set_a), (files_b, by_set_b)):
        for file in files:
            by_set.setdefault(_item_key(file), []).append(file)
    pairs = []
    other_options = False
    for key in by_set_a:
        if key not in by_set_b:
            continue
        same = [
            (file_a, file_b)
            for file_a in by_set_a[key]
            for file_b in by_set_b[key]
            if ResultKey.from_result(file_a.result).same_settings(
                ResultKey.from_result(file_b.result)
            )
        ]
        same_options = same or [
            (file_a, file_b)
            for file_a in by_set_a[key]
            for file_b in by_set_b[key]
            if file_a.result.options == file_b.result.options
        ]
        if not same_options:
            notes.append(
                f"{task}: no result of both with the same options (A: "
                f"{_list_options(by_set_a[key])}; B: {_list_options(by_set_b[key])}); name two "
                "result files to compare options"
            )
            other_options = True
            continue
        pairs.append(same_options[0])
    if not pairs and other_options:
        return []
    if not pairs:
        return [(files_a[0], files_b[0])]  # the comparison refuses it with the reason
    for side, by_set, others in (("A", by_set_a, by_set_b), ("B", by_set_b, by_set_a)):
        for key in by_set.keys() - others.keys():
            file = by_set[key][0]
            notes.append(
                f"{task}: only {side} has a result with the data and settings of {file.path}"
            )
    return pairs


def _list_options(files: Sequence[ResultFile]) -> str:
    notes = (describe_options(file.result.options) or "published protocol" for file in files)
    return " / ".join(dict.fromkeys(notes))


def _item_key(file: ResultFile) -> Any:
    return (*comparable(file.result), file.result.data.get("items_hash"))


def _find_path(name: str, results: Path) -> Path:
    folder_name = name.replace(":", "-").replace("/", "-")  # the folder of a model id
    for path in (Path(name), results / name, results / folder_name):
        if path.exists():
            return path
    folders = [path.name for path in results.iterdir()] if results.is_dir() else []
    if folders:
        raise UnknownNameError(
            "result", name, folders, remedy=f"Searched the current folder and {results}."
        )
    raise DatasetNotFoundError(
        f"{name}: no such file or folder, and no folder {results}",
        remedy="Name a result file, or the folder of a model's results (see --results).",
    )


def _files_by_task(
    folder: Path, task: str | None, left_out: list[str]
) -> dict[str, list[ResultFile]]:
    by_task: dict[str, list[ResultFile]] = {}
    for path in find_results([folder]):
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
                f"{folder}: several results of {name} ({earlier[0].path} and {path})",
                remedy="Name the folder of one model, or a result file.",
            )
        earlier.append(file)
    # TASK.json before TASK.seed-1.json
    return {name: sorted(files, key=lambda file: len(str(file.path)))
            for name, files in by_task.items()}  # fmt: skip


def require_same_items(a: ResultFile, b: ResultFile) -> None:
    """Check that two results are over the same items.

    Args:
        a: Result of model A.
        b: Result of model B.

    Raises:
        UsageError: If the tasks differ.
        DataError: If counts, set hashes or points differ. The message names the differing items if
            the tables beside the results hold them.
    """
    first, second = a.result, b.result
    if first.task != second.task:
        raise UsageError(
            f"two tasks: {first.task} and {second.task}",
            remedy="Metrics of different tasks cannot be compared.",
        )
    if first.limit != second.limit:
        names = [file.result.limit_note or "on all items" for file in (a, b)]
        raise DataError(
            f"{first.task}: A is {names[0]}, B is {names[1]}: a limited result is only compared "
            "with one of the same limit",
            remedy="Run both models with the same --limit, or without it.",
        )
    if first.measure_options != second.measure_options:
        names = [
            describe_options(file.result.measure_options) or "the published protocol"
            for file in (a, b)
        ]
        raise DataError(
            f"{first.task}: A was measured with {names[0]}, B with {names[1]}",
            remedy="Run both models with the same options.",
        )
    reasons = []
    counts_a, counts_b = dict(first.data["n"]), dict(second.data["n"])
    for name in dict.fromkeys([*counts_a, *counts_b]):
        if counts_a.get(name) != counts_b.get(name):
            reasons.append(f"{counts_a.get(name, 0):,} {name} in A, {counts_b.get(name, 0):,} in B")
    if first.data["set_hash"] != second.data["set_hash"]:
        reasons.append(
            f"set hash {first.data['set_hash'][:12]} in A, {second.data['set_hash'][:12]} in B"
        )
    explained = list(_explain_differences(a, b))
    if first.task == "geolocalization":
        reasons += _compare_points(a, b)
    if reasons:
        lines = "\n  ".join([*reasons, *explained])
        raise DataError(
            f"{first.task}: results of different items, so their metrics cannot be compared\n  "
            f"{lines}",
            remedy="Run both models on the same set.",
        )


def _explain_differences(a: ResultFile, b: ResultFile) -> Iterable[str]:
    """Lines that name the differing items, as far as the files hold them."""
    task = a.result.task
    if task == "geolocalization":
        yield from _compare_names("tiles", _all_tiles(a), _all_tiles(b))
    else:
        column, what = ("id", "pairs") if task == "paired-image-text" else ("class", "classes")
        names_a, names_b = _column_values(a, column), _column_values(b, column)
        yield from _compare_names(what, names_a, names_b)
        if names_a is not None and names_a == names_b:
            yield f"the same {what}, so images, captions or labels have changed"
    skipped_a, skipped_b = (
        {f"{item.get('id')} ({item.get('reason')})" for item in file.result.data.get("skipped", ())}
        for file in (a, b)
    )
    for side, only in (("A", skipped_a - skipped_b), ("B", skipped_b - skipped_a)):
        if only:
            yield f"left out of {side} only: {_list_names(only)}"


def _column_values(file: ResultFile, name: str) -> set[str] | None:
    table = file.queries
    if table is None or name not in table.column_names:
        return None
    return set(map(str, table.column(name).to_pylist()))


def _all_tiles(file: ResultFile) -> set[str] | None:
    """Ids of all tiles; None if the table of hits does not hold them all."""
    table = file.hits
    if table is None:
        return None
    tile_ids = set(table.column("id").to_pylist())
    return tile_ids if len(tile_ids) == file.result.data["n"].get("tiles") else None


def _compare_names(what: str, names_a: set[str] | None, names_b: set[str] | None) -> Iterable[str]:
    if names_a is None or names_b is None:
        yield f"which {what} differ is not in the tables beside the results"
        return
    for side, only in (("A", names_a - names_b), ("B", names_b - names_a)):
        if only:
            yield f"{what} in {side} only: {_list_names(only)}"


def _compare_points(a: ResultFile, b: ResultFile) -> list[str]:
    """Lines about equally long catalogues with different points; the set hash covers tiles only."""
    if a.queries is None or b.queries is None:
        return []
    points_a, points_b = points_of(a), points_of(b)
    lines = []
    for name in sorted(points_a.keys() & points_b.keys()):
        if np.array_equal(points_a[name], points_b[name]):
            continue
        counts_a, counts_b = (
            Counter(_format_points(points_a[name])),
            Counter(_format_points(points_b[name])),
        )
        sides = [
            f"{_list_names(only)} in {side} only"
            for side, only in (("A", counts_a - counts_b), ("B", counts_b - counts_a))
            if only
        ]
        lines.append(f"other points of {name}: {'; '.join(sides) or 'in another order'}")
    return lines


def points_of(file: ResultFile) -> dict[str, np.ndarray]:
    """Read the ground-truth points of a result.

    Args:
        file: A result of geo-localization with its table of queries.

    Returns:
        Query group to positions, shape (m, 2), lon and lat in degrees, in the order of the table.

    Raises:
        DataError: If a column is missing.
    """
    table = file.queries
    assert table is not None
    require_columns(file, "queries", ("group", "lon", "lat"))
    groups = np.asarray(table.column("group").to_pylist())
    positions = np.column_stack([table.column(name).to_numpy() for name in ("lon", "lat")])
    return {name: positions[groups == name] for name in dict.fromkeys(groups.tolist())}


def read_rankings(file: ResultFile, groups: set[str], protocol: str) -> dict[str, RankedTiles]:
    """Read the ranking of each group from the table of hits, down to the depth of the task.

    Args:
        file: A result of geo-localization.
        groups: Query groups.
        protocol: Protocol that determines the positions of the tiles.

    Returns:
        Query group to its ranking.

    Raises:
        DataError: If the table, a column or a ranking is missing.
    """
    table = file.hits
    if table is None:
        raise missing_table(file, "hits")
    require_columns(file, "hits", ("lon", "lat"))
    names = np.asarray(table.column("group").to_pylist())
    ids = np.asarray(table.column("id").to_pylist(), dtype=object)
    ranks, scores = (table.column(name).to_numpy() for name in ("rank", "score"))
    positions = np.column_stack([table.column(name).to_numpy() for name in ("lon", "lat")])
    rankings = {}
    for group in groups:
        rows = np.flatnonzero(names == group)
        rows = rows[np.argsort(ranks[rows], kind="stable")]
        if not len(rows):
            raise DataError(
                f"{file.beside('hits')}: no ranking of {group}",
                remedy="Run the task again with --force.",
            )
        chosen = [str(tile_id) for tile_id in ids[rows]]
        lonlat = positions[rows]
        if protocol == "published":
            # As in the task: the corner in the tile's name, else the stored position.
            lonlat = np.array(
                [geo.tile_corner(name) or tuple(position)
                 for name, position in zip(chosen, lonlat, strict=True)]
            )  # fmt: skip
        rankings[group] = RankedTiles(scores[rows].astype(np.float64), chosen, lonlat)
    return rankings


def missing_table(file: ResultFile, kind: str) -> DataError:
    """Make the error for a missing table.

    Args:
        file: A result.
        kind: "queries" or "hits".

    Returns:
        The error.
    """
    return DataError(
        f"{file.beside(kind) or file.result.model['id']}: missing or empty; a comparison needs "
        "the scores of every query",
        remedy="Keep the .parquet files beside the result, or run the model again with --force.",
    )


def require_columns(file: ResultFile, kind: str, names: Iterable[str]) -> None:
    """Check that a table beside a result has certain columns.

    Args:
        file: A result.
        kind: "queries" or "hits".
        names: Names of the columns.

    Raises:
        DataError: If the table or a column is missing.
    """
    table = file.queries if kind == "queries" else file.hits
    for name in names:
        if table is None or name not in table.column_names:
            raise DataError(
                f"{file.beside(kind)}: no column '{name}'",
                remedy="It was written by another version: run the model again with --force.",
            )


def _format_points(points: np.ndarray) -> list[str]:
    return [f"{lon:.9g} {lat:.9g}" for lon, lat in points.tolist()]


def _list_names(names: Iterable[str]) -> str:
    ordered: Sequence[str] = sorted(names)
    more = f" and {len(ordered) - _MAX_NAMES:,} more" if len(ordered) > _MAX_NAMES else ""
    return f"{', '.join(ordered[:_MAX_NAMES])}{more}"
