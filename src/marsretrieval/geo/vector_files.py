"""Read geometries and fields of GeoPackage, Shapefile, FlatGeobuf and GeoParquet files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError, MissingDependencyError

EXPORT_AGAIN = "Export it again as GeoPackage, GeoJSON or GeoParquet."

_MAGIC = {
    ".gpkg": b"SQLite format 3\0",
    ".shp": b"\x00\x00\x27\x0a",
    ".fgb": b"fgb",
}
PARQUET_SUFFIXES = (".parquet", ".geoparquet")
_GEOMETRY_NAMES = ("geometry", "geom", "wkb_geometry")
VECTOR_SUFFIXES = (*_MAGIC, *PARQUET_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Layer:
    """Features of one layer.

    Attributes:
        names: Names of the fields.
        columns: Values of the fields, one list per name.
        shapes: Geometries as WKB, None where a feature has none; None if the file has no column
            of geometries.
        count: Number of features.
        crs: Coordinate reference system: authority and code, WKT or PROJJSON; None if not named.
        name: Name of the layer, empty in formats without layers.
        other_layers: Names of the layers that were not read.
    """

    names: list[str]
    columns: list[list[Any]]
    shapes: Sequence[bytes | None] | None
    count: int
    crs: str | None = None
    name: str = ""
    other_layers: Sequence[str] = ()


def read_layer(path: str | Path, *, fields: bool = True) -> Layer:
    """Read the first layer with geometries of a GeoPackage, Shapefile or FlatGeobuf file.

    Args:
        path: File whose suffix is .gpkg, .shp or .fgb.
        fields: Whether to read the fields, too.

    Returns:
        The layer, as GDAL reads it.

    Raises:
        DataError: If it is missing, damaged or of another format than its suffix says.
        MissingDependencyError: If pyogrio is not installed.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable ({error})") from error
    # GDAL selects its driver by content; reject formats that could reference other files.
    if not head.startswith(_MAGIC[path.suffix.lower()]):
        raise DataError(f"{path}: not a {path.suffix[1:]} file", remedy=EXPORT_AGAIN)
    try:
        import pyogrio
    except ImportError as error:
        raise MissingDependencyError("pyogrio", "gis", needed_for=f"{path}") from error
    try:
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        if not layers:
            raise DataError(f"{path}: no layer with geometries", remedy=EXPORT_AGAIN)
        columns: list[str] | None = None if fields else []
        meta, _, shapes, values = pyogrio.raw.read(path, layer=layers[0], columns=columns)
    except DataError:
        raise
    except Exception as error:  # pyogrio raises its own types with GDAL messages
        raise DataError(f"{path}: not readable ({error})", remedy=EXPORT_AGAIN) from error
    return Layer(
        names=[str(name) for name in meta["fields"]] if fields else [],
        columns=[column.tolist() for column in values] if fields else [],
        shapes=list(shapes),
        count=len(shapes),
        crs=meta.get("crs") or None,
        name=layers[0],
        other_layers=layers[1:],
    )


def read_parquet(path: str | Path, *, fields: bool = True) -> Layer:
    """Read a Parquet file, with the geometries of its GeoParquet column if it has one.

    Args:
        path: Parquet file.
        fields: Whether to read the columns other than geometries, too.

    Returns:
        The rows, without nested columns.

    Raises:
        DataError: If it is missing or damaged, or its geometries are not WKB.
    """
    path = Path(path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        geometry, crs = _geometry_column(path, schema)
        flat = [field.name for field in schema if not pa.types.is_nested(field.type)]
        names = [name for name in flat if name not in (geometry, *_GEOMETRY_NAMES)]
        names = names if fields else []
        content = file.read(columns=[*names, *([geometry] if geometry else [])])
        return Layer(
            names=names,
            columns=[content.column(name).to_pylist() for name in names],
            shapes=content.column(geometry).to_pylist() if geometry else None,
            count=file.metadata.num_rows,
            crs=crs,
        )
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable Parquet file ({error})", remedy=EXPORT_AGAIN
        ) from error


def _geometry_column(path: Path, schema: Any) -> tuple[str | None, str | None]:
    """Return the name of the geometry column and its CRS; None each if absent."""
    try:
        described = json.loads((schema.metadata or {}).get(b"geo", b"{}"))
        name = described.get("primary_column")
        column = described.get("columns", {}).get(name, {})
        encoding, crs = column.get("encoding", "WKB"), column.get("crs")
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: invalid GeoParquet metadata", remedy=EXPORT_AGAIN) from error
    if isinstance(name, str) and name in schema.names:
        if encoding != "WKB":
            raise DataError(
                f"{path}: the geometries are encoded as {encoding}, not WKB", remedy=EXPORT_AGAIN
            )
        return name, _crs_text(crs)
    return next((name for name in _GEOMETRY_NAMES if name in schema.names), None), None


def _crs_text(crs: Any) -> str | None:
    """Return authority and code of PROJJSON, or all of it as text."""
    if not isinstance(crs, dict):
        return crs if isinstance(crs, str) else None
    name = crs.get("id")
    if isinstance(name, dict) and {"authority", "code"} <= name.keys():
        version = f"_{name['version']}" if name["authority"] == "IAU" and "version" in name else ""
        return f"{name['authority']}{version}:{name['code']}"
    return json.dumps(crs)


def parse_wkb(path: Path, shapes: Sequence[bytes | None]) -> npt.NDArray[np.object_]:
    """Parse the geometries of a file into shapely's.

    Args:
        path: File that they come from, for messages.
        shapes: WKB or None.

    Returns:
        Array of shapely geometries and None, shape (n,).

    Raises:
        DataError: If one is not valid WKB.
    """
    import shapely

    try:
        return np.asarray(shapely.from_wkb(np.array(list(shapes), dtype=object)), dtype=object)
    except (shapely.errors.ShapelyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: invalid geometry ({error})", remedy=EXPORT_AGAIN) from error
