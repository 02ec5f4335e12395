"""Differences of a task that is not built in, from the tables of its queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from marsretrieval.errors import DataError
from marsretrieval.metrics.difference import over_queries
from marsretrieval.progress import Progress
from marsretrieval.report._columns import main_metric
from marsretrieval.report.compare._comparison import Group, Moved
from marsretrieval.report.result_file import ResultFile

_CLOSE = 1e-9
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
                _moved(keys, left[chosen], right[chosen]),
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


def _moved(
    names: Sequence[str], a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]
) -> list[Moved]:
    rows = [row for row in np.argsort(a - b, kind="stable") if a[row] != b[row]]
    return [Moved(names[row], float(a[row]), float(b[row])) for row in rows]
