"""Arrow datasets as `save_to_disk` of Hugging Face's datasets library writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from marsretrieval.datasets.base import Record, Shard, Skipped, escape
from marsretrieval.datasets.listing import file_fingerprint, unreachable_error
from marsretrieval.datasets.parquet import ImageColumns, iter_rows
from marsretrieval.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_PER_SHARD = 512
_BATCH_ROWS = 32  # rows held in memory


@dataclass(frozen=True)
class ArrowSource:
    """Images in the Arrow files of a dataset written by `save_to_disk`.

    A shard has up to 512 rows of a file. Without a column of ids the row number over all files is
    the id, as for Parquet.

    Attributes:
        name: The path as the user gave it.
        files: Arrow files.
        kind: Layout.
    """

    name: str
    files: tuple[Path, ...]
    kind: str = "arrow"

    def shards(self) -> Sequence[Shard]:
        """List shards of up to 512 rows."""
        return [
            Shard(f"{number:04d}-{start // _PER_SHARD:05d}", f"{fingerprint}-{start}", rows)
            for number, path in enumerate(self.files)
            for fingerprint in [file_fingerprint(path)]
            for start, rows in _shard_bounds(_row_count(path, fingerprint))
        ]

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        """Stream the rows of a shard.

        Args:
            shard: One of `shards()`.
            images: Read the encoded images; if False, `data` is empty.

        Yields:
            A Record per row, or a Skipped.

        Raises:
            DataError: If the file is not a readable Arrow stream.
        """
        number, part = map(int, shard.name.split("-"))
        if number >= len(self.files):
            raise DataError(f"{self.name}: holds no rows '{shard.name}'")
        path = self.files[number]
        before = sum(_row_count(file, file_fingerprint(file)) for file in self.files[:number])
        start, end = part * _PER_SHARD, (part + 1) * _PER_SHARD
        with _open_stream(path) as reader:
            columns = ImageColumns.from_schema(path, reader.schema)
            names = columns.selected(images=images)
            row = 0
            for batch in reader:
                first, last = max(start, row), min(end, row + batch.num_rows)
                for batch_start in range(first, last, _BATCH_ROWS):
                    rows_batch = batch.slice(
                        batch_start - row, min(_BATCH_ROWS, last - batch_start)
                    ).select(names)
                    rows = (
                        iter_rows(rows_batch) if names else ({} for _ in range(rows_batch.num_rows))
                    )
                    for offset, fields in enumerate(rows):
                        yield columns.to_item(before + batch_start + offset, fields, images=images)
                row += batch.num_rows
                if row >= end:
                    return


def _shard_bounds(rows: int) -> list[tuple[int, int]]:
    """Return (first row, number of rows) of each shard of a file."""
    return [(start, min(_PER_SHARD, rows - start)) for start in range(0, rows, _PER_SHARD)]


@lru_cache(maxsize=4096)
def _row_count(path: Path, fingerprint: str) -> int:
    """Count the rows of a file without reading images; cached until the file changes."""
    with _open_stream(path) as reader:
        return sum(batch.num_rows for batch in reader)


@contextmanager
def _open_stream(path: Path) -> Iterator[pa.RecordBatchStreamReader]:
    """Map a file into memory. Raises DataError if it is damaged, also while it is read."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
            yield reader
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreachable_error(path, error) from error
        raise DataError(
            f"{escape(str(path))}: not a readable Arrow stream ({error})",
            remedy="Save the dataset again, or write it as Parquet: ds.to_parquet('set.parquet').",
        ) from error
