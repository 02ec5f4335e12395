"""Parquet as Hugging Face writes it: an image column, ClassLabel names in the metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval.datasets._listing import file_fingerprint
from marsretrieval.datasets._protocol import Record, Shard, Skipped
from marsretrieval.errors import DataError, TableError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

__all__ = ["ParquetSource"]

_TEXTS = ("refined_caption", "ori_caption", "caption")
_IDS = ("image_id", "id", "key")


@dataclass(frozen=True)
class ParquetSource:
    """One shard a row group. Columns: `image` (a struct of bytes and path, or binary), and any of
    label, image_id or id or key, refined_caption, ori_caption, caption, lon, lat. Without an id
    the row number over all files is the id, as in the published code."""

    name: str
    files: tuple[Path, ...]
    kind: str = "parquet"

    def shards(self) -> Sequence[Shard]:
        shards = []
        for number, path in enumerate(self.files):
            fingerprint = file_fingerprint(path)
            metadata = _open(path).metadata
            for group in range(metadata.num_row_groups):
                rows = metadata.row_group(group).num_rows
                shards.append(Shard(f"{number:04d}-{group:05d}", f"{fingerprint}-{group}", rows))
        return shards

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        import pyarrow as pa

        number, group = (int(part) for part in shard.name.split("-"))
        path = self.files[number]
        table = _open(path)
        columns = _columns(path, table)
        wanted = [name for name in columns.wanted if images or name != "image"]
        first = self._first_row(number, group)
        try:
            rows = table.read_row_group(group, columns=wanted)
        except (pa.ArrowException, OSError) as error:
            yield Skipped(shard.name, f"{path}:row group {group}", f"cannot be read ({error})")
            return
        position = first
        for batch in rows.to_batches(max_chunksize=256):
            for row in batch.to_pylist():
                yield columns.item(path, position, row, images=images)
                position += 1

    def _first_row(self, number: int, group: int) -> int:
        before: int = sum(_open(path).metadata.num_rows for path in self.files[:number])
        metadata = _open(self.files[number]).metadata
        rows = [int(metadata.row_group(each).num_rows) for each in range(group)]
        return before + sum(rows)


@dataclass(frozen=True)
class _Columns:
    wanted: list[str]
    id: str | None
    label_names: list[str] | None

    def item(self, path: Path, position: int, row: dict[str, Any], *, images: bool) -> Any:
        key = str(row[self.id]) if self.id and row.get(self.id) is not None else str(position)
        source = f"{path}:row {position}"
        data = b""
        if images:
            data = _bytes(row.get("image"), path.parent)
            if not data:
                return Skipped(key, source, "no image in this row")
        try:
            label = self._label(row.get("label"))
        except (IndexError, TypeError):
            return Skipped(key, source, f"label {row.get('label')!r} is none of the dataset's")
        original = row.get("ori_caption")
        return Record(
            id=key,
            data=data,
            source=source,
            caption=row.get("refined_caption") or row.get("caption") or original,
            original_caption=original,
            label=label,
            lon=row.get("lon"),
            lat=row.get("lat"),
        )

    def _label(self, value: Any) -> str | None:
        if value is None:
            return None
        if isinstance(value, str) or self.label_names is None:
            return str(value)
        if value < 0:
            raise IndexError(value)
        return str(self.label_names[value])


def _open(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: not a readable Parquet file ({error})", remedy="Fetch or write it again."
        ) from error


def _columns(path: Path, table: pq.ParquetFile) -> _Columns:
    schema = table.schema_arrow
    if "image" not in schema.names:
        raise TableError(
            f"{path}: no column 'image' (there are {', '.join(schema.names)})",
            remedy="Images are expected as Hugging Face writes them: a struct of bytes and path.",
        )
    names = None
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata is not None:
        try:
            features = json.loads(metadata)["info"]["features"]
            names = features.get("label", {}).get("names")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TableError(f"{path}: its Hugging Face metadata cannot be read") from error
    identity = next((name for name in _IDS if name in schema.names), None)
    known = {"image", "label", "lon", "lat", *_TEXTS, identity}
    return _Columns([name for name in schema.names if name in known], identity, names)


def _bytes(value: Any, folder: Path) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        if value.get("bytes"):
            return bytes(value["bytes"])
        if value.get("path") and (folder / value["path"]).is_file():
            return (folder / str(value["path"])).read_bytes()
    return b""
