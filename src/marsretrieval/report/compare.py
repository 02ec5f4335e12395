"""Compare two results query by query, from the tables beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from marsretrieval.errors import DataError, UsageError
from marsretrieval.metrics.bootstrap import seed_of
from marsretrieval.metrics.difference import (
    Difference,
    PointComparison,
    bootstrap_points,
    mean_over,
    over_queries,
)
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.report.columns import look_up, main_metric, task_columns
from marsretrieval.report.grouping import labels
from marsretrieval.report.matching import (
    missing_table,
    points_of,
    read_rankings,
    require_columns,
    require_same_items,
)
from marsretrieval.report.result_files import ResultFile
from marsretrieval.results import MEAN, PROTOCOLS
from marsretrieval.tasks.geolocalization import RADIUS_DEG
from marsretrieval.tasks.tile_rankings import MAX_K

Floats = npt.NDArray[np.float64]
Columns = dict[str, Floats]

_TOLERANCE = 1e-9  # between a metric recomputed from the tables and the one in the result


@dataclass(frozen=True, slots=True)
class QueryDelta:
    """A query on which the two models differ.

    Attributes:
        name: Name of the query, or position of the point.
        a: Contribution of the query to the group's `per_query` metric for A; the mean over queries
            is the metric itself.
        b: The same for B.
        rank_a: Rank of the correct answer for A, 0 if it is not found; None if a query has several.
        rank_b: The same for B.
    """

    name: str
    a: float
    b: float
    rank_a: int | None = None
    rank_b: int | None = None

    @property
    def difference(self) -> float:
        """Difference B - A."""
        return self.b - self.a


@dataclass(frozen=True, slots=True)
class GroupDelta:
    """Differences of one group of queries.

    Attributes:
        name: Name of the group.
        n: Counts of items.
        differences: Metric key to difference.
        per_query: Key of the metric that the queries are compared by; empty if they are not.
        unit: Kind of query: "image", "text", "class", "point" or "query".
        queries: Number of queries.
        moved: Every query that differs, in descending order of B - A.
        blocks: Number of spatial blocks that hold a point; None for other tasks.
    """

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
        """Number of queries on which B is better."""
        return sum(delta.difference > 0 for delta in self.moved)

    @property
    def worse(self) -> int:
        """Number of queries on which B is worse."""
        return sum(delta.difference < 0 for delta in self.moved)

    def gains(self, count: int) -> list[QueryDelta]:
        """Return the queries with the greatest gains of B.

        Args:
            count: Number of queries at most.

        Returns:
            Queries in descending order of gain.
        """
        return [delta for delta in self.moved[:count] if delta.difference > 0]

    def losses(self, count: int) -> list[QueryDelta]:
        """Return the queries with the greatest losses of B.

        Args:
            count: Number of queries at most.

        Returns:
            Queries in descending order of loss.
        """
        return [delta for delta in self.moved[::-1][:count] if delta.difference < 0]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison of two models on one task; all differences are B - A.

    Attributes:
        task: Name of the task.
        protocol: "published" or "strict".
        a: Name of model A.
        b: Name of model B.
        data: The items, as the result of A describes them.
        groups: Differences per group of queries.
        resampling_units: Units that the bootstrap resamples.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
        plain: Keys of metrics that are not fractions.
        options: Options that change what is measured, of both results.
    """

    task: str
    protocol: str
    a: str
    b: str
    data: Mapping[str, Any]
    groups: Sequence[GroupDelta]
    resampling_units: str
    seed: int
    resamples: int
    plain: frozenset[str] = frozenset()
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, with every query that moved."""
        return {
            "task": self.task,
            "protocol": self.protocol,
            "a": self.a,
            "b": self.b,
            "data": {key: self.data.get(key) for key in ("name", "n", "set_hash", "limit")},
            "options": self.options,
            "drawn": self.resampling_units,
            "seed": self.seed,
            "resamples": self.resamples,
            "groups": {group.name: _group_to_dict(group) for group in self.groups},
        }


def _group_to_dict(group: GroupDelta) -> dict[str, Any]:
    value: dict[str, Any] = {
        "n": dict(group.n),
        "differences": {
            name: {
                "a": difference.a,
                "b": difference.b,
                "difference": difference.difference,
                "interval": None if difference.low is None else [difference.low, difference.high],
                "p": difference.p,
            }
            for name, difference in group.differences.items()
        },
    }
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
                {"name": delta.name, "a": delta.a, "b": delta.b, "difference": delta.difference,
                 "rank_a": delta.rank_a, "rank_b": delta.rank_b}
                for delta in group.moved
            ],
        }  # fmt: skip
    return value


def compare_results(
    a: ResultFile,
    b: ResultFile,
    *,
    protocol: str = "strict",
    seed: int = 0,
    resamples: int = 1000,
    progress: Progress = NO_PROGRESS,
) -> Comparison:
    """Compute paired differences B - A of every metric that can be resampled from the tables.

    Args:
        a: Result of model A.
        b: Result of model B.
        protocol: "published" or "strict".
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
        progress: Receives the progress.

    Returns:
        The comparison.

    Raises:
        UsageError: If the tasks differ or the protocol is unknown.
        DataError: If the items differ, if a table is missing or does not match its result, or if
            scores tie under `published`, whose per-query values are then not stored.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(f"unknown protocol '{protocol}'", remedy=f"Use {' or '.join(PROTOCOLS)}.")
    require_same_items(a, b)
    task = a.result.task
    if task != "geolocalization" and protocol == "published":
        _require_no_ties(a, b)
    groups = _TASKS.get(task, _compare_custom_task)(
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
        resampling_units=blocks if task == "geolocalization" else "queries",
        seed=seed,
        resamples=resamples,
        plain=frozenset(
            column.strict.key
            for _, columns in task_columns([a.result, b.result])
            for column in columns
            if column.strict is not None and not column.strict.percent
        ),
        options=a.result.measure_options,
    )


def _compare_paired(
    a: ResultFile, b: ResultFile, *, protocol: str, seed: int, resamples: int, progress: Progress
) -> list[GroupDelta]:
    ids, ranks_a, ranks_b = _align_queries(a, b, "id", ("i2t_rank", "t2i_rank"))
    columns: list[Columns] = []
    for ranks in (ranks_a, ranks_b):
        values: Columns = {}
        for direction in ("i2t", "t2i"):
            rank = ranks[f"{direction}_rank"]
            values |= {
                f"{direction}_r1": (rank <= 1).astype(np.float64),
                f"{direction}_r10": (rank <= 10).astype(np.float64),
                f"{direction}_mrr": 1 / rank,
                f"{direction}_medr": rank,
            }
        columns.append(values)
    statistics = {"i2t_medr": np.median, "t2i_medr": np.median}
    differences = over_queries(*columns, seed=seed, resamples=resamples, statistics=statistics)
    _require_same_metrics(a, b, "all", protocol, differences)
    groups = []
    for direction, title, unit in (
        ("i2t", "image to text", "image"),
        ("t2i", "text to image", "text"),
    ):
        key = f"{direction}_mrr"
        query_ranks = [ranks[f"{direction}_rank"].astype(np.int64) for ranks in (ranks_a, ranks_b)]
        groups.append(
            GroupDelta(
                title,
                a.result.data["n"],
                {name: value for name, value in differences.items() if name.startswith(direction)},
                key,
                unit,
                len(ids),
                _query_deltas(ids, columns[0][key], columns[1][key], *query_ranks),
            )
        )
    return groups


def _compare_landform(
    a: ResultFile, b: ResultFile, *, protocol: str, seed: int, resamples: int, progress: Progress
) -> list[GroupDelta]:
    keys = ("mAP", "ndcg@10", "hit@10", "r_precision")
    names, columns_a, columns_b = _align_queries(a, b, "class", keys)
    differences = over_queries(columns_a, columns_b, seed=seed, resamples=resamples)
    _require_same_metrics(a, b, "all", protocol, differences)
    deltas = _query_deltas(names, columns_a["mAP"], columns_b["mAP"])
    return [GroupDelta("all", a.result.data["n"], differences, "mAP", "class", len(names), deltas)]


def _compare_geolocalization(
    a: ResultFile, b: ResultFile, *, protocol: str, seed: int, resamples: int, progress: Progress
) -> list[GroupDelta]:
    points, points_b = points_of(_require_queries(a)), points_of(_require_queries(b))
    shared = [name for name in points if name in points_b]
    if not shared:
        raise DataError(
            "geolocalization: no kind of query that both results have",
            remedy="Run the task again with the same --data for both models.",
        )
    rankings = [read_rankings(file, set(shared), protocol) for file in (a, b)]
    groups = []
    comparisons: dict[str, PointComparison] = {}
    with progress.start("compare", len(shared), "queries") as bar:
        for name in shared:
            truth = points[name]
            comparison = bootstrap_points(
                rankings[0][name], rankings[1][name], truth, protocol=protocol,
                radius_deg=a.result.options.get("radius", RADIUS_DEG),
                max_k=a.result.options.get("depth", MAX_K),
                seed=seed_of(seed, name.rpartition("/")[0]), resamples=resamples,
            )  # fmt: skip
            comparisons[name] = comparison
            _require_same_metrics(a, b, name, protocol, comparison.figures)
            per_query = "average_precision" if protocol == "strict" else ""
            locations = [f"{lon:.3f} {lat:.3f}" for lon, lat in truth]
            deltas = (
                _query_deltas(
                    locations,
                    comparison.value_a,
                    comparison.value_b,
                    comparison.rank_a,
                    comparison.rank_b,
                )
                if per_query
                else []
            )
            n = a.result.metrics[name]["n"]
            groups.append(
                GroupDelta(
                    name,
                    n,
                    comparison.figures,
                    per_query,
                    "point",
                    len(truth),
                    deltas,
                    comparison.blocks,
                )
            )
            bar.advance()
    return [*groups, *_compare_means(a, b, protocol, comparisons)]


def _compare_means(
    a: ResultFile, b: ResultFile, protocol: str, comparisons: Mapping[str, PointComparison]
) -> list[GroupDelta]:
    """Differences of the means over landforms, if both results are over the same landforms."""
    groups = []
    for name, evaluation in a.result.metrics.items():
        if not name.startswith(MEAN) or name not in b.result.metrics:
            continue
        mode = name.removeprefix(MEAN)
        landform_groups = {group for group in comparisons if _has_mode(group, mode)}
        if any(
            {g for g in file.result.metrics if _has_mode(g, mode)} != landform_groups
            for file in (a, b)
        ):
            continue
        differences = mean_over([comparisons[group] for group in sorted(landform_groups)])
        _require_same_metrics(a, b, name, protocol, differences)
        groups.append(GroupDelta(name, evaluation["n"], differences))
    return groups


def _has_mode(group: str, mode: str) -> bool:
    return not group.startswith(MEAN) and group.rpartition("/")[2] == mode


def _compare_custom_task(
    a: ResultFile, b: ResultFile, *, protocol: str, seed: int, resamples: int, progress: Progress
) -> list[GroupDelta]:
    """Compare two results of any task, query by query.

    A metric can be compared if the table of queries has a column of its name whose mean is the
    result's value. The first text column other than ``group`` names the queries.
    """
    groups = []
    main = main_metric(a.result)
    for name in a.result.metrics:
        if name not in b.result.metrics:
            continue
        (keys, columns_a), (keys_b, columns_b) = (_read_queries(file, name) for file in (a, b))
        if sorted(keys) != sorted(keys_b):
            raise DataError(
                f"{b.beside('queries')}: not the queries of {name} that {a.path} has",
                remedy="Run the task again with the same data for both models.",
            )
        rows = {key: row for row, key in enumerate(keys_b)}
        order = np.array([rows[key] for key in keys])
        evaluations: list[Mapping[str, Any]] = [file.result.metrics[name] for file in (a, b)]
        stored = [evaluation[protocol] for evaluation in evaluations]
        shared_metrics = [
            metric
            for metric in columns_a
            if metric in columns_b
            and _is_mean(columns_a[metric], stored[0].get(metric))
            and _is_mean(columns_b[metric], stored[1].get(metric))
        ]
        if not shared_metrics:
            raise DataError(
                f"{a.beside('queries')}: no column of {name} whose mean is a metric of the result",
                remedy="Give the evaluation per_query columns with the names of its metrics.",
            )
        values_a = {metric: columns_a[metric] for metric in shared_metrics}
        values_b = {metric: columns_b[metric][order] for metric in shared_metrics}
        main_shared = main if main in shared_metrics else shared_metrics[0]
        groups.append(
            GroupDelta(
                name,
                a.result.metrics[name]["n"],
                over_queries(values_a, values_b, seed=seed, resamples=resamples),
                main_shared,
                "query",
                len(keys),
                _query_deltas(keys, values_a[main_shared], values_b[main_shared]),
            )
        )
    return groups


def _read_queries(file: ResultFile, group: str) -> tuple[list[str], Columns]:
    """Names of the queries of a group, and their numeric columns."""
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
        raise DataError(
            f"{file.beside('queries')}: two queries of {group} have the same name",
            remedy="Run the task again with --force.",
        )
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
        and bool(abs(float(values.mean()) - stored) <= _TOLERANCE)
    )


def _align_queries(
    a: ResultFile, b: ResultFile, key: str, names: Sequence[str]
) -> tuple[list[str], Columns, Columns]:
    """Names of the queries in A's order, and the columns of both in that order."""
    columns: list[Columns] = []
    order: list[str] = []
    for file in (a, b):
        table = _require_queries(file).queries
        assert table is not None
        require_columns(file, "queries", (key, *names))
        file_keys = [str(value) for value in table.column(key).to_pylist()]
        order = order or file_keys
        if sorted(file_keys) != sorted(order):
            raise DataError(
                f"{file.beside('queries')}: not the queries that {a.path} has",
                remedy="Run the task again with the same data for both models.",
            )
        rows = {name: row for row, name in enumerate(file_keys)}
        order_rows = np.array([rows[name] for name in order])
        columns.append(
            {n: table.column(n).to_numpy().astype(np.float64)[order_rows] for n in names}
        )
    return order, columns[0], columns[1]


def _query_deltas(
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


def _require_queries(file: ResultFile) -> ResultFile:
    if file.queries is None:
        raise missing_table(file, "queries")
    return file


def _require_no_ties(a: ResultFile, b: ResultFile) -> None:
    for file in (a, b):
        if any(evaluation.get("ties") for evaluation in file.result.metrics.values()):
            raise DataError(
                f"{file.path}: tied scores: the tables lack the scores per query under the "
                "published protocol",
                remedy="Compare under --protocol strict, which handles ties.",
            )


def _require_same_metrics(
    a: ResultFile, b: ResultFile, group: str, protocol: str, differences: Mapping[str, Difference]
) -> None:
    """Raise DataError unless the metrics recomputed from the tables are those of the results."""
    for file in (a, b):
        if group not in file.result.metrics:
            raise DataError(
                f"{file.path}: no metrics of {group}, which its tables contain",
                remedy="The files come from different runs: run the model again with --force.",
            )
    for key, difference in differences.items():
        for file, value in ((a, difference.a), (b, difference.b)):
            evaluation: Mapping[str, Any] = file.result.metrics[group]
            stored = float(look_up(evaluation[protocol], key))
            if not abs(stored - value) <= _TOLERANCE:
                raise DataError(
                    f"{file.path}: {key} of {group} is {stored:.6f}, but {value:.6f} by its tables",
                    remedy="The files come from different runs: run the model again with --force.",
                )


_TASKS: Mapping[str, Callable[..., list[GroupDelta]]] = {
    "paired-image-text": _compare_paired,
    "landform": _compare_landform,
    "geolocalization": _compare_geolocalization,
}
