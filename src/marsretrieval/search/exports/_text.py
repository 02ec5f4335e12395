"""CSV and GeoJSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

from marsretrieval import geo
from marsretrieval._words import table_cell
from marsretrieval.files import atomic_path

if TYPE_CHECKING:
    from marsretrieval.search.hits import Hits


def write_csv(hits: Hits, path: Path) -> None:
    """JMARS finds the positions by the names `lon` and `lat`, QGIS the outlines in `footprint`."""
    merged = ["tiles"] if hits.tiles is not None else []
    standing = ["z", "percentile"] if hits.z is not None else []
    columns = [
        "rank",
        "score",
        "id",
        "lon",
        "lat",
        "quad",
        *merged,
        "source",
        *standing,
        "footprint",
    ]
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(columns)
        for hit in hits:
            cells = [table_cell(v) if isinstance(v, str) else v for v in hit.record().values()]
            table.writerow([*cells, geo.wkt(hit.shape)])


def write_geojson(hits: Hits, path: Path) -> None:
    # RFC 7946 knows no coordinate system but that of the Earth. GDAL, QGIS and geopandas still
    # read the older member "crs"; a reader that does not would put Mars on the Earth anyway.
    features = [
        {
            "type": "Feature",
            "id": hit.id,
            "geometry": geo.geojson_geometry(hit.shape),
            "properties": hit.record(),
        }
        for hit in hits
    ]
    collection = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": geo.MARS_CRS_URN}},
        "marsretrieval": dict(hits.about),
        "features": features,
    }
    text = json.dumps(collection, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
