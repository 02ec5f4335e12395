"""Parquet as Hugging Face writes it: an image column, ClassLabel names in the metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval.datasets._captions import MAX_ANNOTATION_BYTES
from marsretrieval.datasets._listing import file_fingerprint
from marsretrieval.datasets._protocol import Record, Shard, Skipped
from marsretrieval.datasets._rows import Columns, rows_of
from marsretrieval.datasets._source_file import unanswered
from marsretrieval.datasets._utf8 import escape
from marsretrieval.errors import DataError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_PER_SHARD = 512
_AT_A_TIME = 32  # rows in memory, images and all, and of these at most so many bytes
_BYTES_AT_A_TIME = 2**28
# Encoded images hardly shrink in Parquet; beyond this they are there to fill memory.
_EXPANSION, _SMALL = 200, 2**26


@dataclass(frozen=True, slots=True)
class _Part:
    """Neighbouring row groups of one file."""

    file: int
    groups: tuple[int, ...]
    first_row: int  # counted over all files
    rows: int

    @property
    def name(self) -> str:
        return f"{self.file:04d}-{self.groups[0]:05d}"


@dataclass(frozen=True)
class ParquetSource:
    """One shard a row group, or several small ones of one file, up to 512 rows. Without a column
    of ids the row number over all files is the id, as in the published code."""

    name: str
    files: tuple[Path, ...]
    kind: str = "parquet"

    def shards(self) -> Sequence[Shard]:
        prints = [file_fingerprint(path) for path in self.files]
        return [
            Shard(part.name, f"{prints[part.file]}-{part.groups[0]}-{part.groups[-1]}", part.rows)
            for part in self._parts()
        ]

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        part = next((part for part in self._parts() if part.name == shard.name), None)
        if part is None:
            raise DataError(f"{self.name}: holds no rows '{shard.name}'")
        path = self.files[part.file]
        file = _open(path)
        columns = Columns.of(path, file.schema_arrow)
        start = part.first_row
        for group in part.groups:
            row, end = start, start + file.metadata.row_group(group).num_rows
            for fields in _rows(file, group, columns.wanted(images=images)):
                if isinstance(fields, OSError) and fields.errno is not None:
                    raise unanswered(path, fields) from fields
                if isinstance(fields, Exception):
                    source = f"{escape(str(path))}:rows {row} to {end - 1}"
                    yield Skipped(shard.name, source, f"cannot be read ({fields})")
                    break
                yield columns.item(row, fields, images=images)
                row += 1
            start = end

    def _parts(self) -> list[_Part]:
        parts = []
        row = 0
        for number, path in enumerate(self.files):
            groups: list[int] = []
            start = row
            for group, rows in enumerate(_group_rows(path, file_fingerprint(path))):
                if groups and row - start + rows > _PER_SHARD:
                    parts.append(_Part(number, tuple(groups), start, row - start))
                    groups, start = [], row
                groups.append(group)
                row += rows
            if row > start:
                parts.append(_Part(number, tuple(groups), start, row - start))
        return parts


def _rows(
    file: pq.ParquetFile, group: int, columns: list[str]
) -> Iterator[Mapping[str, Any] | Exception]:
    """Rows of a row group as dictionaries, and the error that ended them early, if any."""
    import pyarrow as pa

    rows = file.metadata.row_group(group).num_rows
    if not columns:
        yield from ({} for _ in range(rows))
        return
    try:
        at_a_time = _rows_at_a_time(file, group, columns)
        for batch in file.iter_batches(at_a_time, row_groups=[group], columns=columns):
            yield from rows_of(batch)
    except (pa.ArrowException, OSError, ValueError) as error:
        yield error


def _rows_at_a_time(file: pq.ParquetFile, group: int, columns: list[str]) -> int:
    """How many rows fit into memory, should a single one hold all bytes of the row group.

    Raises ValueError where a column expands as no real one does.
    """
    metadata = file.metadata.row_group(group)
    total = 0
    for number in range(metadata.num_columns):
        chunk = metadata.column(number)
        name = chunk.path_in_schema.split(".")[0]
        if name not in columns:
            continue
        size, stored = chunk.total_uncompressed_size, chunk.total_compressed_size
        total += size
        if name == "image":
            refused = size > _EXPANSION * stored
        else:
            refused = size > metadata.num_rows * MAX_ANNOTATION_BYTES
        if refused and size > _SMALL:
            raise ValueError(
                f"its column '{name}' expands from {stored:,} bytes to {size:,}: no real data do"
                if name == "image"
                else f"its column '{name}' has {size:,} bytes in {metadata.num_rows:,} rows"
            )
    if "image" not in columns:
        return _AT_A_TIME
    return max(1, min(_AT_A_TIME, _BYTES_AT_A_TIME // max(1, total)))


@lru_cache(maxsize=4096)
def _group_rows(path: Path, fingerprint: str) -> tuple[int, ...]:
    """Rows of each row group; kept for as long as the file stays the same."""
    metadata = _open(path).metadata
    return tuple(metadata.row_group(each).num_rows for each in range(metadata.num_row_groups))


def _open(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unanswered(path, error) from error
        raise DataError(
            f"{path}: not a readable Parquet file ({error})", remedy="Fetch or write it again."
        ) from error
