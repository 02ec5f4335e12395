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
# What is in the columns that readers know, wherever they are.
_TEXTS = {"group", "query", "id", "class"}
_NUMBERS = {"rank", "score", "lon", "lat", "found_at", "i2t_rank", "t2i_rank", "mAP", "hit@10",
            "r_precision", "ndcg@10"}  # fmt: skip


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

        with self._forgiving(), _readable(path):
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
        with self._forgiving():
            return self._read(kind) if self.has(kind) else None
        return None

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
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
        with _readable(path):
            table = pq.read_table(path)
        flaw = _flaw(table, kind, self.result.task)
        if flaw:
            raise DataError(
                f"{path}: {flaw}",
                remedy="It is not of this version: run the model again with --force.",
            )
        return table


def _flaw(table: pa.Table, kind: str, task: str) -> str:
    """What is wrong with the columns; empty where nothing is."""
    import pyarrow.types as types

    placed = task == "geolocalization" and kind != "thumbnails"
    for name in (*_COLUMNS[kind], *(("lon", "lat") if placed else ())):
        if name not in table.column_names:
            return f"no column '{name}' (there are: {', '.join(table.column_names)})"
    for column in table.schema:
        name, kept = column.name, column.type
        if name in ("lon", "lat") and not placed:
            continue  # of tasks without positions: empty
        right = (
            types.is_string(kept) or types.is_large_string(kept) if name in _TEXTS
            else types.is_integer(kept) or types.is_floating(kept) if name in _NUMBERS
            else types.is_boolean(kept) if name == "relevant"
            else types.is_binary(kept) if name == "image"
            else types.is_string(kept) if name == "caption"
            else True
        )  # fmt: skip
        if not right:
            return f"column '{name}' holds {kept}"
        if table.column(name).null_count and name != "caption":
            return f"column '{name}' has rows without a value"
    return ""


@contextmanager
def _readable(path: Path) -> Iterator[None]:
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
    whole = result.metrics and (
        "all" in result.metrics or result.task not in ("paired-image-text", "landform")
    )
    if not whole:
        raise DataError(
            f"{path}: not a complete result of task '{result.task}'",
            remedy="Leave it out, or run it again with this version of marsretrieval.",
        )
    for group, evaluation in result.metrics.items():
        for wrong in _wrong(evaluation):
            raise DataError(
                f"{path}: {group}: {wrong} is no figure",
                remedy="Run the model again with --force.",
            )


def _wrong(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Names and values of figures and intervals that cannot be shown."""
    for protocol in PROTOCOLS:
        intervals = evaluation["intervals"].get(protocol, {})
        expected = evaluation.get("chance", {}).get(protocol, {})
        yield from _wrong_metrics(evaluation[protocol], protocol)
        yield from _wrong_metrics(expected, f"chance {protocol}")
        for key, metric in METRICS.items():
            pair = intervals.get(key)
            if pair is not None and not _is_interval(pair, metric):
                yield f"interval of {protocol} {key} {pair!r}"


def _wrong_metrics(metrics: Mapping[str, Any], name: str) -> Iterator[str]:
    """Names and values of metrics, of all and per class, that are no numbers."""
    classes = metrics.get("per_class") or {}
    for key, metric in METRICS.items():
        for one in (metrics, *classes.values()):
            value = look_up(one, key)
            if value is not None and not _is_figure(value, metric):
                yield f"{name} {key} {value!r}"


def _is_interval(value: object, metric: Metric) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(each is None or _is_figure(each, metric) for each in value)
    )


def _is_figure(value: object, metric: Metric) -> bool:
    """A number; where it is a share, within 0..1 but for rounding."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return False
    return value >= 0 and (value <= 1 + 1e-9 or not metric.percent)
