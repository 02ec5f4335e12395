"""Readers of GIS files and Parquet as tables: GeoPackage, Shapefile, FlatGeobuf, GeoJSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets.tables import Table, listed
from marsretrieval.errors import DataError, TableError
from marsretrieval.files import read_json
from marsretrieval.geo import vector_files

T = TypeVar("T")

_EXPORT = "Export it again as GeoPackage, GeoJSON or CSV."


def _read_geojson(path: Path) -> Table:
    try:
        value = read_json(path)
    except TableError:
        raise
    except DataError as error:
        raise TableError(error.message, remedy=error.remedy or _EXPORT) from error
    features = value.get("features") if isinstance(value, dict) else None
    if not isinstance(features, list) or not all(isinstance(item, dict) for item in features):
        raise TableError(f"{path}: not a GeoJSON FeatureCollection", remedy=_EXPORT)
    crs = value.get("crs")
    if isinstance(crs, dict):
        properties = crs.get("properties")
        _require_degrees(path, properties.get("name") if isinstance(properties, dict) else None)
    records: list[dict[str, Any]] = []
    points = np.full((len(features), 2), np.nan)
    others: list[int] = []
    for number, feature in enumerate(features):
        properties = feature.get("properties")
        record = dict(properties) if isinstance(properties, dict) else {}
        if "id" in feature:
            record.setdefault("id", feature["id"])
        records.append(record)
        geometry = feature.get("geometry")
        if not isinstance(geometry, dict):
            continue
        if geometry.get("type") != "Point":
            others.append(number)
            continue
        try:
            lon, lat = geometry["coordinates"][:2]
            points[number] = float(lon), float(lat)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise TableError(
                f"{path}: feature {number + 1}: invalid coordinates of a point", remedy=_EXPORT
            ) from error
    header = list(dict.fromkeys(str(name) for record in records for name in record))
    table = _typed(path, header, [[record.get(name) for name in header] for record in records],
                   "feature", points)  # fmt: skip
    if others and not _positions_in_columns(table):
        import shapely.geometry

        try:
            shapes = [shapely.geometry.shape(features[number]["geometry"]) for number in others]
        except Exception as error:  # shapely raises whatever the values of the file lead to
            raise TableError(f"{path}: invalid geometry ({error})", remedy=_EXPORT) from error
        points[others] = _centroids(np.array(shapes, dtype=object))
    return table


def _read_parquet(path: Path) -> Table:
    layer = _as_table_error(lambda: vector_files.read_parquet(path))
    table = _typed(path, layer.names, _rows(layer), "row")
    if layer.shapes is None or _positions_in_columns(table):
        return table
    _require_degrees(path, layer.crs)
    return _with_geometry(table, layer.shapes)


def _read_layer(path: Path) -> Table:
    layer = _as_table_error(lambda: vector_files.read_layer(path))
    _require_degrees(path, layer.crs)
    notes: tuple[str, ...] = ()
    if layer.other_layers:
        notes = (f"{path}: layer {layer.name} is read; left out: {listed(layer.other_layers)}",)
    table = _typed(path, layer.names, _rows(layer), "feature", notes=notes)
    return _with_geometry(table, layer.shapes or [])


def _as_table_error(read: Callable[[], T]) -> T:
    try:
        return read()
    except TableError:
        raise
    except DataError as error:
        raise TableError(error.message, remedy=error.remedy) from error


def _rows(layer: vector_files.Layer) -> list[list[Any]]:
    if not layer.columns:
        return [[] for _ in range(layer.count)]
    return [list(row) for row in zip(*layer.columns, strict=True)]


def _typed(
    path: Path,
    header: list[str],
    rows: list[list[Any]],
    what: str,
    geometry: npt.NDArray[np.float64] | None = None,
    notes: tuple[str, ...] = (),
) -> Table:
    labels = [f"{what} {number + 1}" for number in range(len(rows))]
    return Table(path, header, rows, labels, notes, geometry=geometry)


def _with_geometry(table: Table, shapes: Sequence[bytes | None]) -> Table:
    parsed = _as_table_error(lambda: vector_files.parse_wkb(table.path, shapes))
    return replace(table, geometry=_centroids(parsed))


def _positions_in_columns(table: Table) -> bool:
    return table.index(["lon", "longitude"]) is not None and (
        table.index(["lat", "latitude"]) is not None
    )


def _centroids(shapes: npt.NDArray[np.object_]) -> npt.NDArray[np.float64]:
    """Centroids in degrees, shape (n, 2); of shapes across the seam on the seam's side."""
    import shapely

    bounds = shapely.bounds(shapes)
    across = bounds[:, 2] - bounds[:, 0] > 180
    moved = shapes.copy()
    moved[across] = shapely.transform(
        shapes[across], lambda xy: np.column_stack([xy[:, 0] % 360.0, xy[:, 1]])
    )
    middle = shapely.centroid(moved)
    points = np.column_stack([shapely.get_x(middle), shapely.get_y(middle)])
    points[across, 0] = (points[across, 0] + 180) % 360 - 180
    return points


def _require_degrees(path: Path, crs: object) -> None:
    """Refuse a projected CRS. Its name alone is looked at: PROJ need not be asked."""
    text = str(crs or "")
    projected = text.lstrip().upper().startswith(("PROJCS", "PROJCRS"))
    if not projected and text:
        try:
            import pyproj
        except ImportError:
            return
        try:
            projected = bool(pyproj.CRS.from_user_input(text).is_projected)
        except pyproj.exceptions.CRSError:
            return
    if projected:
        raise TableError(
            f"{path}: its coordinates are metres of a projection ({text[:60]})",
            remedy="Export it in longitude and latitude (IAU_2015:49900).",
        )


READERS: dict[str, Callable[[Path], Table]] = {
    ".geojson": _read_geojson,
    ".json": _read_geojson,
    ".parquet": _read_parquet,
    ".geoparquet": _read_parquet,
    ".gpkg": _read_layer,
    ".fgb": _read_layer,
    ".shp": _read_layer,
}
