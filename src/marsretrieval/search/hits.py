"""What a search found, for people, maps and tables: CSV, GeoJSON, GeoParquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.embeddings import Columns, EmbeddingStore
from marsretrieval.errors import UsageError
from marsretrieval.files import atomic_path
from marsretrieval.search.topk import Ranking

__all__ = ["Hits", "check_hits_path", "write_hits"]

_DECIMALS = 9  # of a degree: 0.06 mm


@dataclass(frozen=True, slots=True)
class Hits:
    """The hits of one query, best first.

    shapes: the footprint of each, its centre where the extent is unknown, None without a place.
    about: what was asked, for the files' metadata. Longitudes are -180..180 or 0..360.
    """

    scores: npt.NDArray[np.float32]
    ids: list[str]
    lon: list[float | None]
    lat: list[float | None]
    sources: list[str]
    shapes: list[geo.Shape | None]
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        store: EmbeddingStore,
        ranking: Ranking,
        *,
        query: int = 0,
        domain: int = 180,
        about: Mapping[str, Any] | None = None,
    ) -> Hits:
        """Look up what the store knows of the rows found for one query."""
        scores, rows = ranking.hits(query)
        found = store.take(rows)
        turn = geo.wrap_lon if domain == 180 else geo.lon_180_to_360
        return cls(
            scores=scores,
            ids=found.ids,
            lon=_known(turn(found.lon)),
            lat=_known(found.lat),
            sources=found.sources,
            shapes=list(_shapes(found, domain)),
            about=about or {},
        )

    def __len__(self) -> int:
        return len(self.ids)

    def records(self) -> Iterator[dict[str, Any]]:
        """One mapping a hit: rank (from 1), score, id, lon, lat, source."""
        columns = (self.scores.tolist(), self.ids, self.lon, self.lat, self.sources)
        for rank, (score, *rest) in enumerate(zip(*columns, strict=True), 1):
            values = (rank, round(score, 7), *rest)
            yield dict(zip(("rank", "score", "id", "lon", "lat", "source"), values, strict=True))


def write_hits(hits: Hits, path: Path) -> None:
    """Write to a .csv, .geojson or .parquet file, as its name says.

    All places are in IAU_2015:49900, the Mars sphere. Raises UsageError, OutputError.
    """
    write = check_hits_path(path)
    with atomic_path(path) as temporary:
        write(hits, temporary)


def check_hits_path(path: Path) -> Callable[[Hits, Path], None]:
    """The writer for this file name. Raises UsageError when there is none."""
    writers = {
        ".csv": _write_csv,
        ".geojson": _write_geojson,
        ".json": _write_geojson,
        ".parquet": _write_parquet,
    }
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise UsageError(
            f"{path}: no format for '{path.suffix}'",
            remedy="Use a name that ends in .csv, .geojson or .parquet.",
        )
    return writer


def _write_csv(hits: Hits, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["rank", "score", "id", "lon", "lat", "source", "footprint"])
        for record, shape in zip(hits.records(), hits.shapes, strict=True):
            table.writerow([*record.values(), geo.wkt(shape)])


def _write_geojson(hits: Hits, path: Path) -> None:
    # RFC 7946 knows no coordinate system but that of the Earth. GDAL, QGIS and geopandas still
    # read the older member "crs"; a reader that does not would put Mars on the Earth anyway.
    features = [
        {
            "type": "Feature",
            "id": record["id"],
            "geometry": geo.geojson_geometry(shape),
            "properties": record,
        }
        for record, shape in zip(hits.records(), hits.shapes, strict=True)
    ]
    collection = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": geo.MARS_CRS_URN}},
        "marsretrieval": dict(hits.about),
        "features": features,
    }
    path.write_text(json.dumps(collection, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def _write_parquet(hits: Hits, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    geometry = geo.GeometryColumn()
    table = pa.table(
        {
            "rank": pa.array(range(1, len(hits) + 1), pa.int32()),
            "score": pa.array(hits.scores, pa.float32()),
            "id": pa.array(hits.ids, pa.utf8()),
            "lon": pa.array(hits.lon, pa.float64()),
            "lat": pa.array(hits.lat, pa.float64()),
            "source": pa.array(hits.sources, pa.utf8()),
            "geometry": pa.array(map(geometry.wkb, hits.shapes), pa.binary(), size=len(hits)),
        }
    )
    about = {"marsretrieval": json.dumps(dict(hits.about), ensure_ascii=False)}
    pq.write_table(
        table.replace_schema_metadata({**geometry.metadata(), **about}), path, compression="zstd"
    )


def _known(values: npt.NDArray[np.float64]) -> list[float | None]:
    return [float(each) if np.isfinite(each) else None for each in np.round(values, _DECIMALS)]


def _shapes(found: Columns, domain: int) -> Iterator[geo.Shape | None]:
    for place in zip(found.lon, found.lat, found.width_deg, found.height_deg, strict=True):
        yield geo.outline(*map(float, place), domain=domain)
