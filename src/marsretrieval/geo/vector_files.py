"""Read geometries and fields of GeoPackage, Shapefile, FlatGeobuf, KML and GeoParquet files."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError, MissingDependencyError
from marsretrieval.text import suggest_path

EXPORT_AGAIN = "Export it again as GeoPackage, GeoJSON or GeoParquet."

_MAGIC = {
    ".gpkg": b"SQLite format 3\0",
    ".shp": b"\x00\x00\x27\x0a",
    ".fgb": b"fgb",
    ".zip": b"PK\x03\x04",
    ".kml": b"",  # text, checked by _is_kml
}
_ZIP_PARTS = (".shp", ".shx", ".dbf", ".prj", ".cpg")
_ZIP_BYTES = 2**31  # of all extracted files
# GDAL's names of an undefined system in a GeoPackage.
_UNDEFINED_CRS = ("Undefined geographic SRS", "Undefined Cartesian SRS", "Undefined SRS")
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
    """

    names: list[str]
    columns: list[list[Any]]
    shapes: Sequence[bytes | None] | None
    count: int
    crs: str | None = None
    name: str = ""


def read_vector(
    path: str | Path,
    *,
    fields: bool = True,
    layer: str | None = None,
    layer_option: str = "--layer",
) -> Layer:
    """Read one layer of a vector file; the suffix selects the format.

    Args:
        path: File with one of `VECTOR_SUFFIXES`; a .zip file holds one or several Shapefiles.
        fields: Whether to read the fields, too.
        layer: Name of the layer; needed only if the file has several.
        layer_option: Option that chooses the layer, for messages; empty: there is none.

    Returns:
        The layer.

    Raises:
        DataError: If the file is missing, damaged or of another format than its suffix says, or
            it has several layers or not the named one.
        MissingDependencyError: If the format needs the extra `gis`.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in PARQUET_SUFFIXES:
        if layer is not None:
            raise no_layers_error(path, layer_option)
        return read_parquet(path, fields=fields)
    _check_content(path, suffix)
    if suffix == ".zip":
        return _read_zip(path, fields, layer, layer_option)
    return _read_with_gdal(path, path, fields, layer, layer_option)


def no_layers_error(path: Path, layer_option: str = "--layer") -> DataError:
    """Make the error for a layer named in a format without layers.

    Args:
        path: The file.
        layer_option: Option that names the layer.

    Returns:
        The error.
    """
    return DataError(f"{path}: a file without layers", remedy=f"Leave {layer_option} out.")


def _check_content(path: Path, suffix: str) -> None:
    """Check that content and suffix agree.

    GDAL selects its driver by content; this rejects formats that could reference other files.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file", remedy=suggest_path(path)) from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: not readable ({error})",
            remedy="Check that the file is complete, or export it again.",
        ) from error
    if not head.startswith(_MAGIC[suffix]) or (suffix == ".kml" and not _is_kml(head)):
        raise DataError(f"{path}: not a {suffix[1:]} file", remedy=EXPORT_AGAIN)


def _is_kml(head: bytes) -> bool:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return start.startswith((b"<?xml", b"<kml")) and b"<kml" in head and b"VRTData" not in head


def _read_with_gdal(
    path: Path, file: Path, fields: bool, layer: str | None, layer_option: str
) -> Layer:
    try:
        import pyogrio
    except ImportError as error:
        raise MissingDependencyError("pyogrio", "gis", needed_for=f"{path}") from error
    try:
        names = [str(name) for name, kind in pyogrio.list_layers(file) if kind is not None]
        if not names:
            raise DataError(f"{path}: no layer with geometries", remedy=EXPORT_AGAIN)
        chosen = _choose_layer(path, names, layer, layer_option)
        columns: list[str] | None = None if fields else []
        meta, _, shapes, values = pyogrio.raw.read(file, layer=chosen, columns=columns)
    except DataError:
        raise
    except Exception as error:  # pyogrio raises its own types with GDAL messages
        text = str(error).replace(str(file), path.name)
        raise DataError(f"{path}: not readable ({text})", remedy=EXPORT_AGAIN) from error
    crs = meta.get("crs") or None
    return Layer(
        names=[str(name) for name in meta["fields"]] if fields else [],
        columns=[column.tolist() for column in values] if fields else [],
        shapes=list(shapes),
        count=len(shapes),
        crs=None if crs is None or any(name in crs for name in _UNDEFINED_CRS) else crs,
        name=chosen,
    )


def _choose_layer(path: Path, names: Sequence[str], layer: str | None, option: str) -> str:
    listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    if layer is not None:
        if layer not in names:
            raise DataError(
                f"{path}: no layer '{layer}' (there are: {listed})",
                remedy=f"Name one of these layers with {option}.",
            )
        return layer
    if len(names) > 1:
        remedy = f"Choose one with {option} NAME." if option else "Save one layer in its own file."
        raise DataError(f"{path}: {len(names)} layers ({listed})", remedy=remedy)
    return names[0]


def _read_zip(path: Path, fields: bool, layer: str | None, layer_option: str) -> Layer:
    """Read a Shapefile of a .zip archive through a temporary folder."""
    try:
        with (
            zipfile.ZipFile(path) as archive,
            tempfile.TemporaryDirectory(prefix="marsretrieval-") as folder,
        ):
            members = {
                PurePosixPath(info.filename): info
                for info in archive.infolist()
                if not info.is_dir() and "__MACOSX" not in PurePosixPath(info.filename).parts
            }
            shapefiles = {
                member.stem: member for member in members if member.suffix.lower() == ".shp"
            }
            if not shapefiles:
                raise DataError(
                    f"{path}: no Shapefile in the archive",
                    remedy="Extract it and name the file to read.",
                )
            name = _choose_layer(path, sorted(shapefiles), layer, layer_option)
            main = shapefiles[name]
            parts = {
                member.suffix.lower(): info
                for member, info in members.items()
                if member.parent == main.parent
                and member.stem == main.stem
                and member.suffix.lower() in _ZIP_PARTS
            }
            size = sum(info.file_size for info in parts.values())
            if size > _ZIP_BYTES:
                raise DataError(
                    f"{path}: a Shapefile of {size >> 20:,} MiB, more than {_ZIP_BYTES >> 20:,}",
                    remedy="Extract the archive and name the .shp file.",
                )
            for suffix, info in parts.items():
                target = Path(folder) / f"layer{suffix}"
                with archive.open(info) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
            file = Path(folder) / "layer.shp"
            _check_content(file, ".shp")
            return replace(_read_with_gdal(path, file, fields, None, layer_option), name=name)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise DataError(
            f"{path}: not a readable .zip file ({error})", remedy=EXPORT_AGAIN
        ) from error


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
        raise DataError(f"{path}: no such file", remedy=suggest_path(path)) from error
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
