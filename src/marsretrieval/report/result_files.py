"""Read a result together with the Parquet tables beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval.errors import DataError
from marsretrieval.metrics.landform import KEYS as LANDFORM_KEYS
from marsretrieval.report.columns import METRICS, Metric, look_up
from marsretrieval.results import PROTOCOLS, RunResult, describe_options, read_result

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = {
    "queries": ("group",),
    "hits": ("group", "query", "rank", "id", "score", "relevant"),
    "thumbnails": ("query", "id", "caption", "image"),
}
# Types of the columns that readers use, in any table.
_TEXT_COLUMNS = {"group", "query", "id", "class"}
_NUMBER_COLUMNS = {"rank", "score", "lon", "lat", "found_at", "i2t_rank", "t2i_rank",
                   *LANDFORM_KEYS}  # fmt: skip


@dataclass(frozen=True)
class ResultFile:
    """A result and the tables beside it.

    The tables are None if they are missing or empty. Reading a damaged table raises DataError;
    with a list `damaged` it counts as missing, and the list receives a line.

    Attributes:
        result: The result.
        path: File of the result; None if it was never written.
        damaged: Receives a line per damaged table; None: damage is an error.
    """

    result: RunResult
    path: Path | None = None
    damaged: list[str] | None = field(default=None, compare=False)

    @classmethod
    def read(cls, path: str | Path) -> ResultFile:
        """Read a result file.

        Args:
            path: The file.

        Returns:
            The result.

        Raises:
            DataError: If the file is not a result.
        """
        path = Path(path)
        return cls(read_result(path), path)

    @cached_property
    def queries(self) -> pa.Table | None:
        """Table of queries; one row per query."""
        return self._table("queries")

    @cached_property
    def hits(self) -> pa.Table | None:
        """Table of hits; one row per hit."""
        return self._table("hits")

    @cached_property
    def thumbnails(self) -> pa.Table | None:
        """Table of thumbnails and captions."""
        return self._table("thumbnails")

    def has(self, kind: str) -> bool:
        """Return whether a table exists and has rows, without reading it.

        Args:
            kind: "queries", "hits" or "thumbnails".

        Returns:
            True if it has rows; reading it may still find damage.

        Raises:
            DataError: If the file is not Parquet and there is no list `damaged`.
        """
        path = self.beside(kind)
        if path is None or not path.is_file():
            return False
        import pyarrow.parquet as pq

        with self._collect_damage(), _parquet_errors(path):
            return bool(pq.read_metadata(path).num_rows)
        return False

    def check_tables(self) -> None:
        """Read all tables, so that `damaged` is complete even if a page does not use them."""
        for kind in _COLUMNS:
            getattr(self, kind)

    def beside(self, kind: str) -> Path | None:
        """Return the path of a table, whether it exists or not.

        Args:
            kind: "queries", "hits" or "thumbnails".

        Returns:
            The path; None if the result was never written.
        """
        return self.path.with_suffix(f".{kind}.parquet") if self.path is not None else None

    def _table(self, kind: str) -> pa.Table | None:
        with self._collect_damage():
            return self._read(kind) if self.has(kind) else None
        return None

    @contextmanager
    def _collect_damage(self) -> Iterator[None]:
        """Append a DataError to `damaged`, once, instead of raising it, if there is such a list."""
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
                remedy="It was written by another version: run the model again with --force.",
            )
        return table


def _find_schema_problem(table: pa.Table, kind: str, task: str) -> str:
    """Describe the first problem with the columns of a table; empty if none exists."""
    import pyarrow.types as types

    has_positions = task == "geolocalization" and kind != "thumbnails"
    for name in (*_COLUMNS[kind], *(("lon", "lat") if has_positions else ())):
        if name not in table.column_names:
            return f"no column '{name}' (columns: {', '.join(table.column_names)})"
    for column in table.schema:
        name, column_type = column.name, column.type
        if name in ("lon", "lat") and not has_positions:
            continue  # empty for tasks without positions
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


def read_whole(path: str | Path) -> ResultFile:
    """Read a result file and check that it is complete.

    Args:
        path: The file.

    Returns:
        The result.

    Raises:
        DataError: If the file is not a result, or is incomplete as in `require_whole`.
    """
    path = Path(path)
    file = ResultFile.read(path)
    require_whole(file)
    return file


def require_unlimited(file: ResultFile) -> None:
    """Check that a result is on all items and of the published protocol, as those to publish are.

    Args:
        file: A result.

    Raises:
        DataError: If the result is limited, or has options other than class names.
    """
    result = file.result
    options = describe_options({n: v for n, v in result.options.items() if n != "class_names"})
    note = ", ".join(filter(None, (result.limit_note, options)))
    if note:
        raise DataError(
            f"{file.path or result.model['id']}: {note}, not a result to publish",
            remedy="Name the result files to publish, or run the model without --limit and other "
            "options of the evaluation.",
        )


def require_whole(file: ResultFile) -> None:
    """Check that a result has all its metrics and that they are valid.

    Args:
        file: A result.

    Raises:
        DataError: If metrics are missing or invalid.
    """
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
                f"{path}: {group}: {invalid} is not a valid metric value",
                remedy="Run the model again with --force.",
            )


def _find_invalid_values(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Names and values of invalid metrics and intervals."""
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
    """Names and values of invalid metrics, overall and per class."""
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
    """Return whether a value is a finite number >= 0, and a fraction if the metric is one."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return False
    return value >= 0 and (value <= 1 + 1e-9 or not metric.percent)
