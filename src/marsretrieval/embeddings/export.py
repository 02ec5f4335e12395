"""Export a store as one GeoParquet file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from marsretrieval import geo
from marsretrieval.errors import StoreError, UsageError, as_path
from marsretrieval.io import atomic_path, check_output
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.text import pluralize, verb

if TYPE_CHECKING:
    from marsretrieval.embeddings.shards import Block
    from marsretrieval.embeddings.store import EmbeddingStore


def export_parquet(
    store: EmbeddingStore, path: str | Path, *, progress: Progress = NO_PROGRESS
) -> None:
    """Write the ids, positions, sources, vectors and footprints of a store to GeoParquet 1.1.

    The CRS is IAU_2015:49900 with longitudes from -180 to 180 degrees. Footprints are split at the
    antimeridian. A row without an extent has a point, one without a position no geometry.

    Args:
        store: A complete store.
        path: File to write, ending in .parquet or .geoparquet.
        progress: Progress display.

    Raises:
        UsageError: If the name has another suffix.
        StoreError: If the store is incomplete.
        OutputError: If the file cannot be written.
    """
    path = as_path(path, "path")
    if path.suffix.lower() not in (".parquet", ".geoparquet"):
        raise UsageError(f"{path}: not a Parquet file name", remedy="Use one ending in .parquet.")
    check_output(path)
    if not store.complete:
        raise StoreError(
            f"{store.path}: {len(store.missing)} of "
            f"{pluralize(len(store.manifest.shards), 'shard')} "
            f"{verb(len(store.missing), 'is', 'are')} not embedded yet",
            remedy="Run the command that started it again to finish it.",
        )
    valid = bool(np.isfinite(store.valid()).any())
    number = pa.float16() if store.dtype == "float16" else pa.float32()
    columns = pa.schema(
        [
            pa.field("id", pa.utf8(), nullable=False),
            pa.field("lon", pa.float64()),
            pa.field("lat", pa.float64()),
            pa.field("width_deg", pa.float32()),
            pa.field("height_deg", pa.float32()),
            *([pa.field("valid", pa.float32())] if valid else []),
            pa.field("source", pa.utf8(), nullable=False),
            # Not every Parquet reader supports fixed-size lists.
            pa.field("vector", pa.list_(number), nullable=False),
            pa.field("geometry", pa.binary()),
        ]
    )
    geometry = geo.GeometryColumn()
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(
            temporary,
            columns,
            compression="zstd",
            use_dictionary=["source"],
            use_byte_stream_split=["vector.list.element"],
        ) as writer,
        progress.start("export", store.rows, "rows") as bar,
    ):
        for block in store.blocks():
            writer.write_table(_table(block, geometry, columns))
            bar.advance(len(block))
        writer.add_key_value_metadata(geometry.metadata())


def _table(block: Block, geometry: geo.GeometryColumn, columns: pa.Schema) -> pa.Table:
    shapes = geo.outlines(block.lon, block.lat, block.width_deg, block.height_deg)
    arrays = [
        pa.array(block.valid, pa.float32(), from_pandas=True)
        if name == "valid"
        else block.column(name).cast(columns.field(name).type)
        for name in columns.names
        if name != "geometry"
    ]
    return pa.Table.from_arrays(
        [*arrays, pa.array(geometry.encode(shapes), pa.binary())], schema=columns
    )
