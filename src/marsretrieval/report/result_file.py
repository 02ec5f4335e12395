"""A result with the tables beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
}


@dataclass(frozen=True)
class ResultFile:
    """A result and where it was read from; `path` None when it was never written.

    `queries` and `hits` are the Parquet tables beside it; None where they are not there, or empty.
    Reading them raises DataError when they are damaged.
    """

    result: RunResult
    path: Path | None = None

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

    def has(self, kind: str) -> bool:
        """Whether the table of this kind is there and has rows; quicker than reading it."""
        path = self.beside(kind)
        if path is None or not path.is_file():
            return False
        import pyarrow.parquet as pq

        with _readable(path):
            return bool(pq.read_metadata(path).num_rows)

    def beside(self, kind: str) -> Path | None:
        """Path of the table of this kind, whether it is there or not."""
        return self.path.with_suffix(f".{kind}.parquet") if self.path is not None else None

    def _table(self, kind: str) -> pa.Table | None:
        path = self.beside(kind)
        if path is None or not self.has(kind):
            return None
        import pyarrow.parquet as pq

        with _readable(path):
            table = pq.read_table(path)
        missing = [name for name in _COLUMNS[kind] if name not in table.column_names]
        if missing:
            raise DataError(
                f"{path}: no column '{missing[0]}' (there are: {', '.join(table.column_names)})",
                remedy="It is not of this version: run the model again with --force.",
            )
        return table


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: not a readable Parquet file ({error})",
            remedy="Run the model again with --force, or remove the file: the report then does "
            "without it.",
        ) from error
