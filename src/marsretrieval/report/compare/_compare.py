"""A comparison from two results and the tables beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.errors import DataError, UsageError
from marsretrieval.metrics.bootstrap import seed_of
from marsretrieval.metrics.difference import (
    Difference,
    OfPoints,
    Ranking,
    mean_over,
    over_points,
    over_queries,
)
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.report._columns import look_up, task_columns
from marsretrieval.report.compare._any_task import any_task_groups
from marsretrieval.report.compare._comparison import Comparison, Group, Moved
from marsretrieval.report.compare._same import points_of, require_columns, require_same_items
from marsretrieval.report.grouping import labels
from marsretrieval.report.result_file import ResultFile
from marsretrieval.results import MEAN, PROTOCOLS
from marsretrieval.tasks.geolocalization import MAX_K, RADIUS_DEG

_CLOSE = 1e-9  # a figure recomputed from the tables, against the one in the result

Floats = npt.NDArray[np.float64]
_Columns = dict[str, Floats]


def compare_results(
    a: ResultFile,
    b: ResultFile,
    *,
    protocol: str = "strict",
    seed: int = 0,
    resamples: int = 1000,
    progress: Progress = NO_PROGRESS,
) -> Comparison:
    """Differences B - A of every figure that the tables beside the results can resample.

    Raises UsageError for two tasks or an unknown protocol, and DataError where the items differ,
    a table is missing or is not that of its result, or where scores tie and `protocol` is
    `published`: what each query got under it is then not written down.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(f"unknown protocol '{protocol}'", remedy=f"Use {' or '.join(PROTOCOLS)}.")
    require_same_items(a, b)
    task = a.result.task
    if task != "geolocalization" and protocol == "published":
        _require_no_ties(a, b)
    groups = _TASKS.get(task, any_task_groups)(
        a, b, protocol=protocol, seed=seed, resamples=resamples, progress=progress
    )
    blocks = "blocks of the planet, 4 degrees wide, with their tiles and points"
    name_a, name_b = labels([a.result, b.result])
    if a.path == b.path:
        name_a = name_b = labels([a.result])[0]
    return Comparison(
        task=task,
        protocol=protocol,
        a=name_a,
        b=name_b,
        data=a.result.data,
        groups=groups,
        drawn=blocks if task == "geolocalization" else "queries",
        seed=seed,
        resamples=resamples,
        plain=frozenset(
            column.strict.key
            for _, columns in task_columns([a.result, b.result])
            for column in columns
            if column.strict is not None and not column.strict.percent
        ),
    )


def _paired(
    a: ResultFile, b: ResultFile, *, protocol: str, seed: int, resamples: int, progress: Progress
) -> list[Group]:
    ids, ranks_a, ranks_b = _aligned(a, b, "id", ("i2t_rank", "t2i_rank"))
    columns: list[_Columns] = []
    for ranks in (ranks_a, ranks_b):
        found: _Columns = {}
        for way in ("i2t", "t2i"):
            rank = ranks[f"{way}_rank"]
            found |= {
                f"{way}_r1": (rank <= 1).astype(np.float64),
                f"{way}_r10": (rank <= 10).astype(np.float64),
                f"{way}_mrr": 1 / rank,
                f"{way}_medr": rank,
            }
        columns.append(found)
    statistics = {"i2t_medr": np.median, "t2i_medr": np.median}
    differences = over_queries(*columns, seed=seed, resamples=resamples, statistics=statistics)
    _require_same_figures(a, b, "all", protocol, differences)
    groups = []
    for way, title, unit in (("i2t", "image to text", "image"), ("t2i", "text to image", "text")):
        key = f"{way}_mrr"
        places = [each[f"{way}_rank"].astype(np.int64) for each in (ranks_a, ranks_b)]
        groups.append(
            Group(
                title,
                a.result.data["n"],
                {name: each for name, each in differences.items() if name.startswith(way)},
                key,
                unit,
                len(ids),
                _moved(ids, columns[0][key], columns[1][key], *places),
            )
        )
    return groups


def _landform(
    a: ResultFile, b: ResultFile, *, protocol: str, seed: int, resamples: int, progress: Progress
) -> list[Group]:
    keys = ("mAP", "ndcg@10", "hit@10", "r_precision")
    names, mine, other = _aligned(a, b, "class", keys)
    differences = over_queries(mine, other, seed=seed, resamples=resamples)
    _require_same_figures(a, b, "all", protocol, differences)
    moved = _moved(names, mine["mAP"], other["mAP"])
    return [Group("all", a.result.data["n"], differences, "mAP", "class", len(names), moved)]


def _geolocalization(
    a: ResultFile, b: ResultFile, *, protocol: str, seed: int, resamples: int, progress: Progress
) -> list[Group]:
    points, others = points_of(_with_queries(a)), points_of(_with_queries(b))
    shared = [name for name in points if name in others]
    if not shared:
        raise DataError("geolocalization: no kind of query that both results have")
    rankings = [_rankings(file, set(shared), protocol) for file in (a, b)]
    groups = []
    apart: dict[str, OfPoints] = {}
    with progress.start("compare", len(shared), "queries") as bar:
        for name in shared:
            truth = points[name]
            found = over_points(
                rankings[0][name], rankings[1][name], truth, protocol=protocol,
                radius_deg=RADIUS_DEG, max_k=MAX_K,
                seed=seed_of(seed, name.rpartition("/")[0]), resamples=resamples,
            )  # fmt: skip
            apart[name] = found
            _require_same_figures(a, b, name, protocol, found.figures)
            per_query = "average_precision" if protocol == "strict" else ""
            places = [f"{lon:.3f} {lat:.3f}" for lon, lat in truth]
            moved = (
                _moved(places, found.value_a, found.value_b, found.rank_a, found.rank_b)
                if per_query
                else []
            )
            n = a.result.metrics[name]["n"]
            groups.append(
                Group(name, n, found.figures, per_query, "point", len(truth), moved, found.blocks)
            )
            bar.advance()
    return [*groups, *_means(a, b, protocol, apart)]


def _means(
    a: ResultFile, b: ResultFile, protocol: str, apart: Mapping[str, OfPoints]
) -> list[Group]:
    """Differences of the means over landforms; where both are over the same landforms."""
    groups = []
    for name, figures in a.result.metrics.items():
        if not name.startswith(MEAN) or name not in b.result.metrics:
            continue
        mode = name.removeprefix(MEAN)
        parts = {group for group in apart if _is_of(group, mode)}
        if any({g for g in file.result.metrics if _is_of(g, mode)} != parts for file in (a, b)):
            continue
        differences = mean_over([apart[group] for group in sorted(parts)])
        _require_same_figures(a, b, name, protocol, differences)
        groups.append(Group(name, figures["n"], differences))
    return groups


def _is_of(group: str, mode: str) -> bool:
    return not group.startswith(MEAN) and group.rpartition("/")[2] == mode


def _rankings(file: ResultFile, groups: set[str], protocol: str) -> dict[str, Ranking]:
    """The ranking of each group, down to the depth of the task, from the table of hits."""
    table = file.hits
    if table is None:
        raise _no_table(file, "hits")
    require_columns(file, "hits", ("lon", "lat"))
    names = np.asarray(table.column("group").to_pylist())
    ids = np.asarray(table.column("id").to_pylist(), dtype=object)
    ranks, scores = (table.column(name).to_numpy() for name in ("rank", "score"))
    places = np.column_stack([table.column(name).to_numpy() for name in ("lon", "lat")])
    found = {}
    for group in groups:
        rows = np.flatnonzero(names == group)
        rows = rows[np.argsort(ranks[rows], kind="stable")]
        if not len(rows):
            raise DataError(f"{file.beside('hits')}: no ranking of {group}")
        chosen = [str(each) for each in ids[rows]]
        lonlat = places[rows]
        if protocol == "published":
            # As the task reads them: the corner in a tile's name, else the stored position.
            lonlat = np.array(
                [geo.tile_corner(name) or tuple(place)
                 for name, place in zip(chosen, lonlat, strict=True)]
            )  # fmt: skip
        found[group] = Ranking(scores[rows].astype(np.float64), chosen, lonlat)
    return found


def _aligned(
    a: ResultFile, b: ResultFile, key: str, names: Sequence[str]
) -> tuple[list[str], _Columns, _Columns]:
    """Names of the queries in A's order, and the columns of both in that order."""
    columns: list[_Columns] = []
    order: list[str] = []
    for file in (a, b):
        table = _with_queries(file).queries
        assert table is not None
        require_columns(file, "queries", (key, *names))
        found = [str(each) for each in table.column(key).to_pylist()]
        order = order or found
        if sorted(found) != sorted(order):
            raise DataError(f"{file.beside('queries')}: not the queries that {a.path} has")
        rows = {name: row for row, name in enumerate(found)}
        take = np.array([rows[name] for name in order])
        columns.append({n: table.column(n).to_numpy().astype(np.float64)[take] for n in names})
    return order, columns[0], columns[1]


def _moved(
    names: Sequence[str],
    a: Floats,
    b: Floats,
    rank_a: npt.NDArray[np.int64] | None = None,
    rank_b: npt.NDArray[np.int64] | None = None,
) -> list[Moved]:
    rows = [row for row in np.argsort(a - b, kind="stable") if a[row] != b[row]]
    return [
        Moved(
            names[row], float(a[row]), float(b[row]),
            None if rank_a is None else int(rank_a[row]),
            None if rank_b is None else int(rank_b[row]),
        )
        for row in rows
    ]  # fmt: skip


def _with_queries(file: ResultFile) -> ResultFile:
    if file.queries is None:
        raise _no_table(file, "queries")
    return file


def _no_table(file: ResultFile, kind: str) -> DataError:
    return DataError(
        f"{file.beside(kind) or file.result.model['id']}: not there, or empty; a comparison needs "
        "what each query got",
        remedy="Keep the .parquet files beside the result, or run the model again with --force.",
    )


def _require_no_ties(a: ResultFile, b: ResultFile) -> None:
    for file in (a, b):
        if any(each.get("ties") for each in file.result.metrics.values()):
            raise DataError(
                f"{file.path}: scores tie, so that what each query got under the published "
                "protocol is not in the tables",
                remedy="Compare under --protocol strict, which is made for comparing models.",
            )


def _require_same_figures(
    a: ResultFile, b: ResultFile, group: str, protocol: str, found: Mapping[str, Difference]
) -> None:
    """The tables must be those of the results: what is recomputed is what the results say."""
    for file in (a, b):
        if group not in file.result.metrics:
            raise DataError(
                f"{file.path}: the tables beside it have {group}, it has not",
                remedy="They are not of one run: run the model again with --force.",
            )
    for key, each in found.items():
        for file, value in ((a, each.a), (b, each.b)):
            evaluation: Mapping[str, Any] = file.result.metrics[group]
            stored = float(look_up(evaluation[protocol], key))
            if not abs(stored - value) <= _CLOSE:
                raise DataError(
                    f"{file.path}: the tables beside it give {key} {value:.6f} of {group}, it "
                    f"says {stored:.6f}",
                    remedy="They are not of one run: run the model again with --force.",
                )


_TASKS: Mapping[str, Callable[..., list[Group]]] = {
    "paired-image-text": _paired,
    "landform": _landform,
    "geolocalization": _geolocalization,
}
