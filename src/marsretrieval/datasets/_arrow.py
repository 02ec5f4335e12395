"""Folders that ``save_to_disk`` of Hugging Face's datasets library writes: Arrow streams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from marsretrieval.datasets._listing import file_fingerprint, visible
from marsretrieval.datasets._protocol import Record, Shard, Skipped
from marsretrieval.datasets._rows import Columns, rows_of
from marsretrieval.datasets._source_file import unanswered
from marsretrieval.datasets._utf8 import escape
from marsretrieval.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_PER_SHARD = 512
_AT_A_TIME = 32  # rows in memory, images and all
_STATE = "state.json"


@dataclass(frozen=True)
class ArrowSource:
    """One shard per 512 rows of a file. Without a column of ids the row number over all files is
    the id, as for Parquet."""

    name: str
    files: tuple[Path, ...]
    kind: str = "arrow"

    def shards(self) -> Sequence[Shard]:
        return [
            Shard(f"{number:04d}-{start // _PER_SHARD:05d}", f"{print_}-{start}", rows)
            for number, path in enumerate(self.files)
            for print_ in [file_fingerprint(path)]
            for start, rows in _parts(_row_count(path, print_))
        ]

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        number, part = map(int, shard.name.split("-"))
        if number >= len(self.files):
            raise DataError(f"{self.name}: holds no rows '{shard.name}'")
        path = self.files[number]
        before = sum(_row_count(file, file_fingerprint(file)) for file in self.files[:number])
        start, end = part * _PER_SHARD, (part + 1) * _PER_SHARD
        with _open(path) as reader:
            columns = Columns.of(path, reader.schema)
            wanted = columns.wanted(images=images)
            row = 0
            for batch in reader:
                first, last = max(start, row), min(end, row + batch.num_rows)
                for begin in range(first, last, _AT_A_TIME):
                    few = batch.slice(begin - row, min(_AT_A_TIME, last - begin)).select(wanted)
                    rows = rows_of(few) if wanted else ({} for _ in range(few.num_rows))
                    for offset, fields in enumerate(rows):
                        yield columns.item(before + begin + offset, fields, images=images)
                row += batch.num_rows
                if row >= end:
                    return


def saved_files(folder: Path) -> tuple[Path, ...]:
    """List the Arrow files of a saved dataset, or of all its splits.

    Args:
        folder: Any folder.

    Returns:
        The files in the order of their paths; none where the folder is of another kind.
    """
    folders = [folder, *(entry for entry in visible(folder) if entry.is_dir())]
    return tuple(
        path
        for place in folders
        if (place / _STATE).is_file()
        for path in visible(place)
        if path.suffix == ".arrow" and path.is_file()
    )


def _parts(rows: int) -> list[tuple[int, int]]:
    """(first row, number of rows) of each shard of a file."""
    return [(start, min(_PER_SHARD, rows - start)) for start in range(0, rows, _PER_SHARD)]


@lru_cache(maxsize=4096)
def _row_count(path: Path, fingerprint: str) -> int:
    """Rows of a file; kept for as long as it stays the same. The images are not touched."""
    with _open(path) as reader:
        return sum(batch.num_rows for batch in reader)


@contextmanager
def _open(path: Path) -> Iterator[pa.RecordBatchStreamReader]:
    """Map a file into memory. Raises DataError naming it, where it ends or is damaged too."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
            yield reader
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unanswered(path, error) from error
        raise DataError(
            f"{escape(str(path))}: not a readable Arrow stream ({error})",
            remedy="Save the dataset again, or write it as Parquet: ds.to_parquet('set.parquet').",
        ) from error
