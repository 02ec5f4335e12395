"""A result with the tables beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval.errors import DataError
from marsretrieval.report.columns import METRICS, Metric, look_up
from marsretrieval.results import PROTOCOLS, RunResult, read_result

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = {
    "queries": ("group",),
    "hits": ("group", "query", "rank", "id", "score", "relevant"),
    "thumbnails": ("query", "id", "caption", "image"),
}
# Types of the columns that readers use, in any table.
_TEXT_COLUMNS = {"group", "query", "id", "class"}
_NUMBER_COLUMNS = {"rank", "score", "lon", "lat", "found_at", "i2t_rank", "t2i_rank", "mAP",
                   "hit@10", "r_precision", "ndcg@10"}  # fmt: skip


@dataclass(frozen=True)
class ResultFile:
    """A result and where it was read from; `path` None when it was never written.

    `queries`, `hits` and `thumbnails` are the Parquet tables beside it; None where one is missing
    or empty.
    Reading them raises DataError when they are damaged; but where there is a list `damaged`, they
    count as not there, and the list has a line for each.
    """

    result: RunResult
    path: Path | None = None
    damaged: list[str] | None = field(default=None, compare=False)

    @classmethod
    def read(cls, path: Path) -> ResultFile:
        """Raises DataError as `read_result` does."""
        return cls(read_result(path), path)

    @cached_property
    def queries(self) -> pa.Table | None:
        return self._table("queries")

    @cached_property
    def hits(self) -> pa.Table | None:
        return self._table("hits")

    @cached_property
    def thumbnails(self) -> pa.Table | None:
        return self._table("thumbnails")

    def has(self, kind: str) -> bool:
        """Whether the table of this kind is there and has rows; quicker than reading it, which may
        still find damage."""
        path = self.beside(kind)
        if path is None or not path.is_file():
            return False
        import pyarrow.parquet as pq

        with self._collect_damage(), _parquet_errors(path):
            return bool(pq.read_metadata(path).num_rows)
        return False

    def check_tables(self) -> None:
        """Read all tables, so that damage is known whether or not anything is drawn of them."""
        for kind in _COLUMNS:
            getattr(self, kind)

    def beside(self, kind: str) -> Path | None:
        """Path of the table of this kind, whether it is there or not."""
        return self.path.with_suffix(f".{kind}.parquet") if self.path is not None else None

    def _table(self, kind: str) -> pa.Table | None:
        with self._collect_damage():
            return self._read(kind) if self.has(kind) else None
        return None

    @contextmanager
    def _collect_damage(self) -> Iterator[None]:
        """Where there is a list of damage, what is raised goes there, once."""
        try:
            yield
        except DataError as error:
            if self.damaged is None:
                raise
            if str(error) not in self.damaged:
                self.damaged.append(str(error))

    def _read(self, kind: str) -> pa.Table:
        import pyarrow.parquet as pq

        path = self.beside(kind)
        assert path is not None
        with _parquet_errors(path):
            table = pq.read_table(path)
        problem = _find_schema_problem(table, kind, self.result.task)
        if problem:
            raise DataError(
                f"{path}: {problem}",
                remedy="It is not of this version: run the model again with --force.",
            )
        return table


def _find_schema_problem(table: pa.Table, kind: str, task: str) -> str:
    """What is wrong with the columns; empty where nothing is."""
    import pyarrow.types as types

    has_positions = task == "geolocalization" and kind != "thumbnails"
    for name in (*_COLUMNS[kind], *(("lon", "lat") if has_positions else ())):
        if name not in table.column_names:
            return f"no column '{name}' (there are: {', '.join(table.column_names)})"
    for column in table.schema:
        name, column_type = column.name, column.type
        if name in ("lon", "lat") and not has_positions:
            continue  # of tasks without positions: empty
        is_text = types.is_string(column_type) or types.is_large_string(column_type)
        is_expected_type = (
            is_text if name in _TEXT_COLUMNS
            else types.is_integer(column_type) or types.is_floating(column_type)
            if name in _NUMBER_COLUMNS
            else types.is_boolean(column_type) if name == "relevant"
            else types.is_binary(column_type) if name == "image"
            else types.is_string(column_type) if name == "caption"
            else True
        )  # fmt: skip
        if not is_expected_type:
            return f"column '{name}' holds {column_type}"
        if table.column(name).null_count and name != "caption":
            return f"column '{name}' has rows without a value"
    return ""


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: not a readable Parquet file ({error})",
            remedy="Run the model again with --force.",
        ) from error


def read_whole(path: Path) -> ResultFile:
    """Raises DataError where a file is no result, and as `require_whole`."""
    file = ResultFile.read(path)
    require_whole(file)
    return file


def require_whole(file: ResultFile) -> None:
    """Raises DataError where a result has no metrics, or one that is none."""
    result = file.result
    path = file.path or result.model["id"]
    is_complete = result.metrics and (
        "all" in result.metrics or result.task not in ("paired-image-text", "landform")
    )
    if not is_complete:
        raise DataError(
            f"{path}: not a complete result of task '{result.task}'",
            remedy="Leave it out, or run it again with this version of marsretrieval.",
        )
    for group, evaluation in result.metrics.items():
        for invalid in _find_invalid_values(evaluation):
            raise DataError(
                f"{path}: {group}: {invalid} is no figure",
                remedy="Run the model again with --force.",
            )


def _find_invalid_values(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Names and values of figures and intervals that cannot be shown."""
    for protocol in PROTOCOLS:
        intervals = evaluation["intervals"].get(protocol, {})
        expected = evaluation.get("chance", {}).get(protocol, {})
        yield from _find_invalid_metrics(evaluation[protocol], protocol)
        yield from _find_invalid_metrics(expected, f"chance {protocol}")
        for key, metric in METRICS.items():
            pair = intervals.get(key)
            if pair is not None and not _is_interval(pair, metric):
                yield f"interval of {protocol} {key} {pair!r}"


def _find_invalid_metrics(metrics: Mapping[str, Any], name: str) -> Iterator[str]:
    """Names and values of metrics, of all and per class, that are no numbers."""
    classes = metrics.get("per_class") or {}
    for key, metric in METRICS.items():
        for values in (metrics, *classes.values()):
            value = look_up(values, key)
            if value is not None and not _is_valid_value(value, metric):
                yield f"{name} {key} {value!r}"


def _is_interval(value: object, metric: Metric) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(end is None or _is_valid_value(end, metric) for end in value)
    )


def _is_valid_value(value: object, metric: Metric) -> bool:
    """A number; where it is a share, within 0..1 but for rounding."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return False
    return value >= 0 and (value <= 1 + 1e-9 or not metric.percent)
