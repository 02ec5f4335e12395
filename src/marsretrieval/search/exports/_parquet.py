"""GeoParquet, and the Arrow table that all vector formats are written from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval import geo
from marsretrieval.files import atomic_path

if TYPE_CHECKING:
    from marsretrieval.search.hits import Hits


def to_arrow(hits: Hits) -> Any:
    """Make a table of hits without their geometries.

    Args:
        hits: n hits.

    Returns:
        A `pyarrow.Table` of n rows: the columns of `Hit.record`, scores not rounded.
    """
    import pyarrow as pa

    kinds: dict[str, Any] = {
        "rank": pa.int32(),
        "score": pa.float32(),
        "id": pa.utf8(),
        "lon": pa.float64(),
        "lat": pa.float64(),
        "quad": pa.utf8(),
        "tiles": pa.int32(),
        "source": pa.utf8(),
        "z": pa.float32(),
        "percentile": pa.float64(),
    }
    if hits.z is None:
        del kinds["z"], kinds["percentile"]
    if hits.tiles is None:
        del kinds["tiles"]
    rows = list(hits.records())
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()}
    columns["score"] = pa.array(hits.scores, pa.float32())  # min_score=min(score) finds all again
    return pa.table(columns)


def write_parquet(hits: Hits, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    geometry = geo.GeometryColumn()
    shapes = pa.array(geometry.encode(geo.to_shapely(hits.shapes)), pa.binary())
    about = {"marsretrieval": json.dumps(dict(hits.about), ensure_ascii=False)}
    table = to_arrow(hits).append_column("geometry", shapes)
    table = table.replace_schema_metadata({**geometry.metadata(), **about})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
