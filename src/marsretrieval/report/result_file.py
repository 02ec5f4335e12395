"""A result with the tables beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from marsretrieval.errors import DataError
from marsretrieval.results import RunResult, read_result

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ResultFile"]

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
