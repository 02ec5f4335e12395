"""Further layers of a GeoPackage of hits: points, merged outlines, QGIS styles, provenance.

Table `layer_styles` is what QGIS writes with *Save Style > In Database*: it applies the default
style of each layer on loading.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from marsretrieval import geo
from marsretrieval.search.provenance import write_gpkg_metadata
from marsretrieval.search.qgis import Kind, style_xml

if TYPE_CHECKING:
    from marsretrieval.search.hits import Hits

POINTS, PLACES = "points", "places"

# Layer, kind, scores, column of the labels, opacity, whether known hits are marked.
_LayerStyle = tuple[str, Kind, Any, str, int, bool]

_STYLES_TABLE = """
CREATE TABLE layer_styles (
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256),
  f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256),
  styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT,
  owner TEXT(30), ui TEXT(30), update_time DATETIME DEFAULT CURRENT_TIMESTAMP)
"""


def main_layer(stem: str) -> str:
    """Return the name of the layer of hits.

    Args:
        stem: Name of the file without suffix.

    Returns:
        The stem, or `hits` if another layer has this name.
    """
    return "hits" if stem.lower() in (POINTS, PLACES, "layer_styles") else stem


def add_layers(path: Path, hits: Hits, table: Any, layer: str, crs: str) -> None:
    """Add layers, styles and provenance to a GeoPackage with the layer of footprints.

    If the hits have outlines, layer `points` holds their centres, visible at any scale, and
    layer `places` the merged outlines, see `merge_places`.

    Args:
        path: The GeoPackage.
        hits: The hits.
        table: Their columns without geometry, a `pyarrow.Table`.
        layer: Name of the layer of footprints.
        crs: Their CRS as PROJJSON, longitude first.
    """
    import pyogrio

    outlines = any(isinstance(shape, list) for shape in hits.shapes)
    has_known = hits.known is not None
    kind: Kind = "fill" if outlines or not len(hits) else "marker"
    styles: list[_LayerStyle] = [(layer, kind, hits.scores, "rank", 150, has_known)]
    if outlines:
        points = _centres(hits)
        merged_hits, merged = merge_places(hits)
        settings = {"driver": "GPKG", "geometry_name": "geometry", "crs": crs}
        for name, geometry_type, rows, geometries in (
            (POINTS, "Point", table, points),
            (PLACES, "MultiPolygon", merged_hits, merged),
        ):
            encoded = _geometry_column(geometries)
            with_geometry = rows.append_column("geometry", encoded)
            pyogrio.write_arrow(
                with_geometry, path, layer=name, geometry_type=geometry_type, **settings
            )
        styles.append((POINTS, "marker", hits.scores, "rank", 255, has_known))
        scores = merged_hits.column("score").to_numpy(zero_copy_only=False)
        styles.append((PLACES, "fill", scores, "place", 40, False))
    _write_styles(path, styles)
    write_gpkg_metadata(path, hits.about)


def merge_places(hits: Hits) -> tuple[Any, Any]:
    """Merge footprints into places.

    Merged hits (`Hits.merge`) are one place each: the outline of all tiles of the cluster. Other
    hits form a place if their footprints overlap or touch. Hits without a footprint are left out.

    Args:
        hits: The hits.

    Returns:
        A `pyarrow.Table`, best place first: `place` (from 1), `score` and `best_id` of its best
        tile, `n_hits`, `area_km2`, `lon`, `lat` (centre of the best tile), and `best_store` for
        hits of several stores. And the outlines, an array of shapely geometries.
    """
    import pyarrow as pa

    shapes = geo.to_shapely(hits.shapes)
    if hits.members is None:
        groups = geo.touching_groups(shapes)
        parts = [shapes[group] for group in groups]
        counts = [len(group) for group in groups]
    else:
        clusters = [geo.to_shapely(members) for members in hits.members]
        sized = [_polygons(cluster) for cluster in clusters]
        groups = [[index] for index, cluster in enumerate(sized) if len(cluster)]
        parts = [sized[index] for (index,) in groups]
        counts = [(hits.tiles or [1] * len(hits))[index] for (index,) in groups]
    outlines = np.full(len(groups), None, dtype=object)
    for number, part in enumerate(parts):
        outlines[number] = geo.merge_outlines(list(part))
    best = [group[0] for group in groups]  # hits are in descending score order
    columns = {
        "place": pa.array(range(1, len(groups) + 1), pa.int32()),
        "score": pa.array([hits.scores[index] for index in best], pa.float32()),
        "n_hits": pa.array(counts, pa.int32()),
        "area_km2": pa.array(np.round(geo.area_km2(outlines), 6), pa.float64()),
        "best_id": pa.array([hits.ids[index] for index in best], pa.utf8()),
        "lon": pa.array([hits.lon[index] for index in best], pa.float64()),
        "lat": pa.array([hits.lat[index] for index in best], pa.float64()),
    }
    if hits.stores is not None:
        columns["best_store"] = pa.array([hits.stores[index] for index in best], pa.utf8())
    return pa.table(columns), outlines


def name_authority(path: Path) -> None:
    """Set the CRS authority of a GeoPackage to IAU_2015, which GDAL shortens to IAU.

    PROJ has no authority IAU, so QGIS 3.22 would read the layer without a reference system.

    Args:
        path: The GeoPackage.
    """
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(
            "UPDATE gpkg_spatial_ref_sys SET organization = 'IAU_2015', "
            """definition = replace(definition, 'AUTHORITY["IAU",', 'AUTHORITY["IAU_2015",') """
            "WHERE organization IN ('IAU', 'IAU_2015')"
        )


def _polygons(shapes: Any) -> Any:
    import shapely

    return shapes[np.isin(shapely.get_type_id(shapes), (3, 6))]


def _centres(hits: Hits) -> Any:
    return geo.to_shapely(
        [
            None if lon is None or lat is None else (lon, lat)
            for lon, lat in zip(hits.lon, hits.lat, strict=True)
        ]
    )


def _geometry_column(geometries: Any) -> Any:
    import pyarrow as pa

    return pa.array(geo.GeometryColumn().encode(geometries), pa.binary())


def _write_styles(path: Path, styles: list[_LayerStyle]) -> None:
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(_STYLES_TABLE)
        file.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles')"
        )
        columns = dict(file.execute("SELECT table_name, column_name FROM gpkg_geometry_columns"))
        for layer, kind, scores, label, alpha, mark_known in styles:
            file.execute(
                "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, "
                "f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, "
                "owner) VALUES ('', '', ?, ?, ?, ?, '', 1, 'by marsretrieval', '')",
                (
                    layer,
                    columns[layer],
                    layer[:30],
                    style_xml(scores, kind, label=label, alpha=alpha, mark_known=mark_known),
                ),
            )
