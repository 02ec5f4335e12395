"""A comparison from two results and the tables beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from marsretrieval import geo
from marsretrieval.errors import DataError, UsageError
from marsretrieval.metrics.bootstrap import seed_of
from marsretrieval.metrics.difference import (
    Difference,
    PointComparison,
    Ranking,
    bootstrap_points,
    mean_over,
    over_queries,
)
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.report.columns import look_up, main_metric, task_columns
from marsretrieval.report.grouping import labels
from marsretrieval.report.matching import points_of, require_columns, require_same_items
from marsretrieval.report.result_files import ResultFile
from marsretrieval.results import MEAN, PROTOCOLS
from marsretrieval.tasks.geolocalization import MAX_K, RADIUS_DEG


@dataclass(frozen=True, slots=True)
class QueryDelta:
    """A query on which the two models differ.

    a, b: the query's part in the group's `per_query` figure, whose mean over the queries is the
    figure itself. rank_a, rank_b: where its answer stands (0: not found); None where a query has
    many answers.
    """

    name: str
    a: float
    b: float
    rank_a: int | None = None
    rank_b: int | None = None

    @property
    def difference(self) -> float:
        return self.b - self.a


@dataclass(frozen=True, slots=True)
class Group:
    """A group of queries. moved: every query that differs, the greatest gain of B first and its
    greatest loss last. unit: what a query is ("image", "text", "class", "point"). blocks: how many
    blocks of the planet the points lie in."""

    name: str
    n: Mapping[str, int]
    differences: Mapping[str, Difference]
    per_query: str = ""
    unit: str = ""
    queries: int = 0
    moved: Sequence[QueryDelta] = ()
    blocks: int | None = None

    @property
    def better(self) -> int:
        return sum(each.difference > 0 for each in self.moved)

    @property
    def worse(self) -> int:
        return sum(each.difference < 0 for each in self.moved)

    def gains(self, count: int) -> list[QueryDelta]:
        return [each for each in self.moved[:count] if each.difference > 0]

    def losses(self, count: int) -> list[QueryDelta]:
        return [each for each in self.moved[::-1][:count] if each.difference < 0]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One task. drawn: what was resampled. Differences are B - A."""

    task: str
    protocol: str
    a: str
    b: str
    data: Mapping[str, Any]
    groups: Sequence[Group]
    drawn: str
    seed: int
    resamples: int
    plain: frozenset[str] = frozenset()  # metrics that are not shares

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; every query that moved."""
        return {
            "task": self.task,
            "protocol": self.protocol,
            "a": self.a,
            "b": self.b,
            "data": {key: self.data.get(key) for key in ("name", "n", "set_hash")},
            "drawn": self.drawn,
            "seed": self.seed,
            "resamples": self.resamples,
            "groups": {each.name: _group(each) for each in self.groups},
        }


def _group(group: Group) -> dict[str, Any]:
    value: dict[str, Any] = {
        "n": dict(group.n),
        "differences": {
            name: {"a": each.a, "b": each.b, "difference": each.difference,
                   "interval": None if each.low is None else [each.low, each.high], "p": each.p}
            for name, each in group.differences.items()
        },
    }  # fmt: skip
    if group.blocks is not None:
        value["blocks"] = group.blocks
    if group.per_query:
        value |= {
            "per_query": group.per_query,
            "unit": group.unit,
            "queries": group.queries,
            "better": group.better,
            "worse": group.worse,
            "moved": [
                {"name": each.name, "a": each.a, "b": each.b, "difference": each.difference,
                 "rank_a": each.rank_a, "rank_b": each.rank_b}
                for each in group.moved
            ],
        }  # fmt: skip
    return value


Columns = dict[str, npt.NDArray[np.float64]]


def any_task_groups(
    a: ResultFile, b: ResultFile, *, protocol: str, seed: int, resamples: int, progress: Progress
) -> list[Group]:
    """Compare two results of any task, query by query.

    A metric can be compared where the table of queries has a column of its name whose mean is
    what the result says; the first column of texts (but ``group``) names the queries.

    Args:
        a: Result of the one model.
        b: Result of the other.
        protocol: Whose metrics.
        seed: Seed of the bootstrap.
        resamples: Bootstrap resamples.
        progress: Not used: such tables are small.

    Returns:
        A group per query group that both results have.

    Raises:
        DataError: If a table is missing, holds other queries or no such column.
    """
    groups = []
    main = main_metric(a.result)
    for name in a.result.metrics:
        if name not in b.result.metrics:
            continue
        (keys, first), (other_keys, second) = (_queries(file, name) for file in (a, b))
        if sorted(keys) != sorted(other_keys):
            raise DataError(f"{b.beside('queries')}: not the queries of {name} that {a.path} has")
        rows = {key: row for row, key in enumerate(other_keys)}
        order = np.array([rows[key] for key in keys])
        evaluations: list[Mapping[str, Any]] = [file.result.metrics[name] for file in (a, b)]
        stored = [evaluation[protocol] for evaluation in evaluations]
        shared = [
            metric
            for metric in first
            if metric in second
            and _is_mean(first[metric], stored[0].get(metric))
            and _is_mean(second[metric], stored[1].get(metric))
        ]
        if not shared:
            raise DataError(
                f"{a.beside('queries')}: no column of {name} whose mean is a metric of the result",
                remedy="Give the evaluation per_query columns with the names of its metrics.",
            )
        left = {metric: first[metric] for metric in shared}
        right = {metric: second[metric][order] for metric in shared}
        chosen = main if main in shared else shared[0]
        groups.append(
            Group(
                name,
                a.result.metrics[name]["n"],
                over_queries(left, right, seed=seed, resamples=resamples),
                chosen,
                "query",
                len(keys),
                _query_moves(keys, left[chosen], right[chosen]),
            )
        )
    return groups


def _queries(file: ResultFile, group: str) -> tuple[list[str], Columns]:
    """Names of the queries of a group, and the numbers of each."""
    table: pa.Table | None = file.queries
    if table is None:
        raise DataError(
            f"{file.beside('queries') or file.result.model['id']}: missing or empty; a comparison "
            "needs the metrics of the single queries",
            remedy="Give the task's evaluation per_query columns, and run it again.",
        )
    table = table.filter(pc.equal(table.column("group"), group))
    texts = [
        column.name
        for column in table.schema
        if column.name != "group" and types.is_string(column.type)
    ]
    if not texts:
        raise DataError(
            f"{file.beside('queries')}: no column that names the queries",
            remedy="Add a column of texts to per_query.",
        )
    keys = [str(key) for key in table.column(texts[0]).to_pylist()]
    if len(set(keys)) != len(keys):
        raise DataError(f"{file.beside('queries')}: two queries of {group} have the same name")
    numbers = {
        column.name: table.column(column.name).to_numpy().astype(np.float64)
        for column in table.schema
        if types.is_floating(column.type) or types.is_integer(column.type)
    }
    return keys, numbers


def _is_mean(values: npt.NDArray[np.float64], stored: object) -> bool:
    return (
        isinstance(stored, (int, float))
        and len(values) > 0
        and bool(abs(float(values.mean()) - stored) <= _CLOSE)
    )


def _query_moves(
    names: Sequence[str], a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]
) -> list[QueryDelta]:
    rows = [row for row in np.argsort(a - b, kind="stable") if a[row] != b[row]]
    return [QueryDelta(names[row], float(a[row]), float(b[row])) for row in rows]


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
    apart: dict[str, PointComparison] = {}
    with progress.start("compare", len(shared), "queries") as bar:
        for name in shared:
            truth = points[name]
            found = bootstrap_points(
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
    a: ResultFile, b: ResultFile, protocol: str, apart: Mapping[str, PointComparison]
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
) -> list[QueryDelta]:
    rows = [row for row in np.argsort(a - b, kind="stable") if a[row] != b[row]]
    return [
        QueryDelta(
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
