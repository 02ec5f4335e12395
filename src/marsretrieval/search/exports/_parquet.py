"""GeoParquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval import geo
from marsretrieval.files import atomic_path

if TYPE_CHECKING:
    from marsretrieval.search.hits import Hits

__all__ = ["write_parquet"]


def write_parquet(hits: Hits, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

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
    columns["score"] = pa.array(hits.scores, pa.float32())
    geometry = geo.GeometryColumn()
    shapes = pa.array(map(geometry.wkb, hits.shapes), pa.binary(), size=len(hits))
    table = pa.table({**columns, "geometry": shapes})
    about = {"marsretrieval": json.dumps(dict(hits.about), ensure_ascii=False)}
    told = table.replace_schema_metadata({**geometry.metadata(), **about})
    with atomic_path(path) as temporary:
        pq.write_table(told, temporary, compression="zstd")
