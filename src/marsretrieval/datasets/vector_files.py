"""Readers of GIS files and Parquet as tables: GeoPackage, Shapefile, FlatGeobuf, GeoJSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets.tables import Table, listed
from marsretrieval.errors import DataError, MissingDependencyError, TableError
from marsretrieval.files import read_json

__all__ = ["READERS"]

_MAGIC = {
    ".gpkg": b"SQLite format 3\0",
    ".shp": b"\x00\x00\x27\x0a",
    ".fgb": b"fgb",
}
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
        shapely = _shapely(path)
        try:
            shapes = [shapely.geometry.shape(features[number]["geometry"]) for number in others]
        except Exception as error:  # shapely raises whatever the values of the file lead to
            raise TableError(f"{path}: invalid geometry ({error})", remedy=_EXPORT) from error
        points[others] = _centroids(np.array(shapes, dtype=object))
    return table


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        wanted = [field.name for field in schema if not pa.types.is_nested(field.type)]
        shapes = [name for name in ("geometry", "geom", "wkb_geometry") if name in wanted]
        data = [name for name in wanted if name not in shapes]
        content = file.read(columns=[*data, *shapes[:1]])
        columns = [content.column(name).to_pylist() for name in data]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TableError(
            f"{path}: not a readable Parquet file ({error})", remedy=_EXPORT
        ) from error
    rows = [list(row) for row in zip(*columns, strict=True)] if columns else []
    table = _typed(path, data, rows or [[] for _ in range(content.num_rows)], "row")
    if not shapes or _positions_in_columns(table):
        return table
    return _with_geometry(table, content.column(shapes[0]).to_pylist())


def _read_layer(path: Path) -> Table:
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise TableError(f"{path}: not readable ({error})") from error
    # GDAL chooses its driver by the content: one that names other files must not reach it.
    if not head.startswith(_MAGIC[path.suffix.lower()]):
        raise TableError(f"{path}: not a {path.suffix[1:]} file", remedy=_EXPORT)
    try:
        import pyogrio
    except ImportError as error:
        raise MissingDependencyError("pyogrio", "gis", needed_for=f"{path}") from error
    notes = []
    try:
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        if not layers:
            raise TableError(f"{path}: no layer with geometries", remedy=_EXPORT)
        if len(layers) > 1:
            notes.append(f"{path}: layer {layers[0]} is read; left out: {listed(layers[1:])}")
        meta, _, geometry, fields = pyogrio.raw.read(path, layer=layers[0])
    except TableError:
        raise
    except Exception as error:  # pyogrio has errors of its own, GDAL's texts in them
        raise TableError(f"{path}: not readable ({error})", remedy=_EXPORT) from error
    _require_degrees(path, meta.get("crs"))
    header = [str(name) for name in meta["fields"]]
    columns = [values.tolist() for values in fields]
    count = len(geometry)
    rows = [list(row) for row in zip(*columns, strict=True)] if columns else [[]] * count
    table = _typed(path, header, rows, "feature", notes=tuple(notes))
    return _with_geometry(table, geometry)


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
    shapely = _shapely(table.path)
    try:
        parsed = shapely.from_wkb(np.array(list(shapes), dtype=object))
    except Exception as error:  # as above
        raise TableError(f"{table.path}: invalid geometry ({error})", remedy=_EXPORT) from error
    return Table(
        table.path, table.header, table.rows, table.labels, table.notes,
        geometry=_centroids(parsed),
    )  # fmt: skip


def _positions_in_columns(table: Table) -> bool:
    return table.index(["lon", "longitude"]) is not None and (
        table.index(["lat", "latitude"]) is not None
    )


def _shapely(path: Path) -> Any:
    try:
        import shapely
        import shapely.geometry
    except ImportError as error:
        raise MissingDependencyError("shapely", "gis", needed_for=f"{path}") from error
    return shapely


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
