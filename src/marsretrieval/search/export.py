"""Write hits to tables, GIS vector layers and maps; the file suffix selects the format.

All coordinates are in IAU_2015:49900, the sphere of Mars.
"""

from __future__ import annotations

import csv
import json
import math
import os
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from marsretrieval import geo
from marsretrieval.errors import MissingDependencyError, OutputError, UsageError
from marsretrieval.io import atomic_path, check_output, make_folder, temporary_folder
from marsretrieval.search.hits import NEAREST_FIELDS
from marsretrieval.search.provenance import (
    KEY,
    picture_metadata,
    provenance,
    to_text,
    write_sidecar,
)
from marsretrieval.search.qgis import add_layers, main_layer, name_authority
from marsretrieval.text import table_cell

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from marsretrieval.plotting import Style
    from marsretrieval.search.hits import Hit, Hits

_GIS = ("pyogrio",)
_SHAPEFILE = "ESRI Shapefile"

_MAX_TEXT_BYTES = 254  # limit of a text field in a dBASE table


@dataclass(frozen=True, slots=True)
class Format:
    """An output format.

    Attributes:
        suffix: File name suffix, with the dot.
        name: Name of the format for messages.
        write: Function that takes hits, path and map style.
        is_layer: Whether QGIS opens the file as a layer.
        needs: Required libraries of the extra `gis`.
        is_styled: Whether the file holds its QGIS styles; others have a style file beside them.
    """

    suffix: str
    name: str
    write: Callable[[Hits, Path, str | Style], None]
    is_layer: bool = True
    needs: tuple[str, ...] = ()
    is_styled: bool = False


def _csv(hits: Hits, path: Path, style: str | Style) -> None:
    write_csv(hits, path)


def _geojson(hits: Hits, path: Path, style: str | Style) -> None:
    write_geojson(hits, path)


def _parquet(hits: Hits, path: Path, style: str | Style) -> None:
    write_parquet(hits, path)


def _layer(driver: str) -> Callable[[Hits, Path, str | Style], None]:
    def write(hits: Hits, path: Path, style: str | Style) -> None:
        write_layer(hits, path, driver)

    return write


def _map(hits: Hits, path: Path, style: str | Style) -> None:
    from marsretrieval.search.maps import draw_hits

    kind = path.suffix.lower().removeprefix(".")
    draw_hits(hits, style=style).save(path, metadata=picture_metadata(hits.about, kind))


def _page(hits: Hits, path: Path, style: str | Style) -> None:
    from marsretrieval.search.page import write_page
    from marsretrieval.search.thumbnails import searched_store

    write_page(hits, path, store=searched_store(hits.about))


FORMATS = (
    Format(".csv", "CSV", _csv, is_layer=False),
    Format(".geojson", "GeoJSON", _geojson),
    Format(".json", "GeoJSON", _geojson),
    Format(".parquet", "GeoParquet", _parquet),
    Format(".gpkg", "GeoPackage", _layer("GPKG"), needs=_GIS, is_styled=True),
    Format(".fgb", "FlatGeobuf", _layer("FlatGeobuf"), needs=_GIS),
    Format(".shp.zip", "Shapefile, zipped", _layer(_SHAPEFILE), needs=_GIS),
    Format(".shp", "Shapefile", _layer(_SHAPEFILE), needs=_GIS),
    Format(".png", "map", _map, is_layer=False, needs=("cartopy",)),
    Format(".svg", "map", _map, is_layer=False, needs=("cartopy",)),
    Format(".pdf", "map", _map, is_layer=False, needs=("cartopy",)),
    Format(".html", "page", _page, is_layer=False),
)


def check_hits_path(path: str | Path) -> Format:
    """Select the output format by file suffix and check that the path is writable.

    Args:
        path: The output file.

    Returns:
        The format.

    Raises:
        UsageError: If no format has this suffix.
        MissingDependencyError: If a library of the format is not installed.
        OutputError: If the file cannot be written.
    """
    path = Path(path)
    name = path.name.lower()
    for candidate in FORMATS:
        if name.endswith(candidate.suffix) and len(name) > len(candidate.suffix):
            _require_libraries(candidate)
            check_output(path)
            return candidate
    suffixes = [candidate.suffix for candidate in FORMATS]
    raise UsageError(
        f"{path}: no format for '{''.join(path.suffixes[-1:])}'",
        remedy=f"Use a name that ends in {', '.join(suffixes[:-1])} or {suffixes[-1]}.",
    )


def write_hits(hits: Hits, path: str | Path, *, style: str | Style = "light") -> list[Path]:
    """Write hits to a file in the format of its suffix; see `FORMATS`.

    Args:
        hits: The hits.
        path: The output file.
        style: Colour scheme of a map, `light`, `dark` or a `plotting.Style`.

    Returns:
        The files written: `path`, its QGIS style file, and `NAME.json` with the provenance if the
        format cannot hold it.

    Raises:
        UsageError: If no format has this suffix, or the format cannot hold these hits.
        OutputError: If the file cannot be written.
        MissingDependencyError: If a library of the format is not installed.
    """
    path = Path(path)
    chosen = check_hits_path(path)
    chosen.write(hits, path, style)
    written: list[Path | None] = [path]
    if chosen.is_layer and not chosen.is_styled:
        from marsretrieval.search.qgis import write_style

        style_path = path.with_name(path.name[: -len(chosen.suffix)] + ".qml")
        written.append(write_style(hits, style_path))
    written.append(write_sidecar(hits.about, path))
    return [file for file in written if file is not None]


def _require_libraries(chosen: Format) -> None:
    from importlib.util import find_spec

    from marsretrieval.errors import MissingDependencyError

    for name in chosen.needs:
        if find_spec(name) is None:
            raise MissingDependencyError(name, "gis", needed_for=f"a {chosen.name}")


def to_arrow(hits: Hits) -> Any:
    """Make a table of hits without their geometries.

    Args:
        hits: n hits.

    Returns:
        A `pyarrow.Table` of n rows: the columns of `Hit.record`, scores not rounded, and
        `area_km2`, the area of the footprint on the sphere.
    """
    import pyarrow as pa

    kinds: dict[str, Any] = {
        "rank": pa.int32(),
        "score": pa.float32(),
        "id": pa.utf8(),
        "store": pa.utf8(),
        "lon": pa.float64(),
        "lat": pa.float64(),
        "quad": pa.utf8(),
        "tiles": pa.int32(),
        "source": pa.utf8(),
        "z": pa.float32(),
        "percentile": pa.float64(),
        "nearest_name": pa.utf8(),
        "nearest_km": pa.float64(),
        "known": pa.bool_(),
        "area_km2": pa.float64(),
    }
    if hits.z is None:
        del kinds["z"], kinds["percentile"]
    if hits.tiles is None:
        del kinds["tiles"]
    if hits.stores is None:
        del kinds["store"]
    if hits.known is None:
        kinds = {name: kind for name, kind in kinds.items() if name not in NEAREST_FIELDS}
    rows = [{**row, "area_km2": area} for _, row, area in _with_areas(hits)]
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()}
    # Unrounded, so that min_score=min(score) returns all hits again.
    columns["score"] = pa.array(hits.scores, pa.float32())
    return pa.table(columns)


def write_parquet(hits: Hits, path: Path) -> None:
    """Write a GeoParquet file.

    Args:
        hits: The hits.
        path: The output file.

    Raises:
        OutputError: If the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    geometry = geo.GeometryColumn()
    shapes = pa.array(geometry.encode(geo.to_shapely(hits.shapes)), pa.binary())
    about = {KEY: to_text(hits.about)}
    table = to_arrow(hits).append_column("geometry", shapes)
    table = table.replace_schema_metadata({**geometry.metadata(), **about})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_csv(hits: Hits, path: Path) -> None:
    """Write a CSV file with the outlines as WKT in the column `footprint`.

    JMARS reads positions from the columns `lon` and `lat`, QGIS outlines from `footprint`.

    Args:
        hits: The hits.
        path: The output file.

    Raises:
        OutputError: If the file cannot be written.
    """
    store = ["store"] if hits.stores is not None else []
    merged = ["tiles"] if hits.tiles is not None else []
    standing = ["z", "percentile"] if hits.z is not None else []
    columns = [
        "rank",
        "score",
        "id",
        *store,
        "lon",
        "lat",
        "quad",
        *merged,
        "source",
        *standing,
        *(NEAREST_FIELDS if hits.known is not None else ()),
        "area_km2",
        "footprint",
    ]
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(columns)
        for hit, row, area in _with_areas(hits):
            cells = [table_cell(v) if isinstance(v, str) else v for v in row.values()]
            table.writerow([*cells, area, geo.wkt(hit.shape)])


def write_geojson(hits: Hits, path: Path) -> None:
    """Write a GeoJSON FeatureCollection with a `crs` member.

    RFC 7946 allows only WGS 84; GDAL, QGIS and geopandas still read the older member `crs`.

    Args:
        hits: The hits.
        path: The output file.

    Raises:
        OutputError: If the file cannot be written.
    """
    features = [
        {
            "type": "Feature",
            "id": hit.name,
            "geometry": geo.geojson_geometry(hit.shape),
            "properties": {**row, "area_km2": area},
        }
        for hit, row, area in _with_areas(hits)
    ]
    collection = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": geo.MARS_CRS_URN}},
        KEY: provenance(hits.about),
        "features": features,
    }
    text = json.dumps(collection, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_geodataframe(hits: Hits) -> GeoDataFrame:
    """Make a GeoDataFrame with one row per hit, its footprint as geometry and CRS IAU_2015:49900.

    Args:
        hits: n hits.

    Returns:
        A GeoDataFrame of n rows; `attrs["marsretrieval"]` describes the query.

    Raises:
        MissingDependencyError: If geopandas is not installed (extra `gis`).
    """
    try:
        import geopandas
        import pyproj
    except ImportError as error:
        raise MissingDependencyError("geopandas", "gis", needed_for="a GeoDataFrame") from error

    frame = geopandas.GeoDataFrame(
        to_arrow(hits).to_pandas(),
        geometry=geo.to_shapely(hits.shapes),
        crs=pyproj.CRS.from_json_dict(geo.MARS_CRS),
    )
    frame.attrs[KEY] = provenance(hits.about)
    return frame


def write_layer(hits: Hits, path: Path, driver: str) -> None:
    """Write a GDAL vector layer atomically, through a temporary folder beside `path`.

    Args:
        hits: The hits.
        path: The output file; a Shapefile has further files beside it unless zipped.
        driver: `GPKG`, `FlatGeobuf` or `ESRI Shapefile`.

    Raises:
        UsageError: If a Shapefile cannot hold these hits.
        OutputError: If the layer cannot be written.
    """
    import pyarrow as pa
    import pyogrio
    import shapely

    kind = _geometry_type(hits)
    shapes = geo.to_shapely(hits.shapes)
    if kind == "MultiPolygon":
        single = shapely.get_type_id(shapes) == shapely.GeometryType.POLYGON
        shapes[single] = shapely.multipolygons(shapes[single][:, None])
    columns = to_arrow(hits)
    table = columns.append_column(
        "geometry", pa.array(geo.GeometryColumn().encode(shapes), pa.binary())
    )
    options: dict[str, Any] = {}
    zipped = path.suffix.lower() == ".zip"
    stem = path.name[: -len(".shp.zip")] if zipped else path.stem
    if driver == "ESRI Shapefile":
        _check_shapefile(hits, path)
        # Names of a dBASE table have at most 10 characters.
        names = ["nearest" if name == "nearest_name" else name for name in table.column_names]
        table = table.rename_columns(names)
        options["encoding"] = "UTF-8"
        name = f"{stem}.shp"
    else:
        name, options["layer"] = path.name, main_layer(stem)
    if driver == "FlatGeobuf" and None in hits.shapes:
        options["SPATIAL_INDEX"] = "NO"  # a spatial index cannot hold hits without a position
    make_folder(path.parent)
    with temporary_folder(path.parent, path.name) as folder:
        try:
            pyogrio.write_arrow(
                table,
                folder / name,
                driver=driver,
                geometry_name="geometry",
                geometry_type=kind,
                crs=_crs_json(),
                **options,
            )
            _require_written(folder / name, len(hits))
            if driver == "GPKG":
                add_layers(folder / name, hits, columns, options["layer"], _crs_json())
                name_authority(folder / name)
            if zipped:
                _zip(folder, path.name)
            main = folder / (path.name if zipped else name)
            parts = {main: path}
            if not zipped:  # a Shapefile consists of several files
                parts = {part: path.parent / part.name for part in main.parent.iterdir()} | parts
            for file in sorted(parts, key=lambda part: part == main):
                with file.open("rb") as written:
                    os.fsync(written.fileno())
                file.replace(parts[file])
        except (OSError, RuntimeError, sqlite3.Error) as error:
            raise OutputError(
                f"{path}: cannot be written ({error})",
                remedy="Check that the folder is yours and has free space, or choose another.",
            ) from error


def write_frame(frame: GeoDataFrame, path: Path, driver: str, **options: Any) -> None:
    """Write a GeoDataFrame as a GDAL vector layer of one file, atomically.

    Args:
        frame: The table; its CRS must be IAU_2015:49900.
        path: The output file.
        driver: `GPKG` or `FlatGeobuf`.
        **options: Options of `geopandas.GeoDataFrame.to_file`.

    Raises:
        OutputError: If the layer cannot be written.
    """
    if driver == "FlatGeobuf" and frame.geometry.isna().any():
        options["SPATIAL_INDEX"] = "NO"  # a spatial index cannot hold rows without a position
    make_folder(path.parent)
    with temporary_folder(path.parent, path.name) as folder:
        temporary = folder / path.name
        try:
            layer = frame.set_crs(_crs_json(), allow_override=True)
            layer.to_file(temporary, driver=driver, engine="pyogrio", **options)
            _require_written(temporary, len(frame))
            if driver == "GPKG":
                name_authority(temporary)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        except (OSError, RuntimeError, sqlite3.Error) as error:
            raise OutputError(
                f"{path}: cannot be written ({error})",
                remedy="Check that the folder is yours and has free space, or choose another.",
            ) from error


def _crs_json() -> str:
    """Return IAU_2015:49900 as PROJJSON with longitude first, the axis order of the coordinates."""
    axes = geo.MARS_CRS["coordinate_system"]
    axes = {**axes, "axis": axes["axis"][::-1]}
    return json.dumps({**geo.MARS_CRS, "coordinate_system": axes})


def _require_written(path: Path, rows: int) -> None:
    """Raise OSError unless the layer is readable: GDAL does not report a full disk on close."""
    import pyogrio

    try:
        _, table = pyogrio.read_arrow(path)
    except Exception as error:  # pyogrio raises several types for a truncated file
        raise OSError(f"what was written cannot be read: is the disk full? {error}") from error
    if table.num_rows != rows:
        raise OSError(f"{table.num_rows} of {rows} rows were written: is the disk full?")


def _with_areas(hits: Hits) -> Iterator[tuple[Hit, dict[str, Any], float | None]]:
    """Iterate over the hits, their table rows and the areas of their footprints (km^2)."""
    areas = np.round(geo.area_km2(geo.to_shapely(hits.shapes)), 6).tolist()
    for hit, row, area in zip(hits, hits.records(), areas, strict=True):
        yield hit, row, None if math.isnan(area) else area


def _geometry_type(hits: Hits) -> str:
    """Return the geometry type of the layer: outlines, centres, or both."""
    points = any(isinstance(shape, tuple) for shape in hits.shapes)
    outlines = any(isinstance(shape, list) for shape in hits.shapes)
    if points:
        return "Unknown" if outlines else "Point"
    return "MultiPolygon"


def _check_shapefile(hits: Hits, path: Path) -> None:
    if _geometry_type(hits) == "Unknown":
        raise UsageError(
            f"{path}: some tiles have outlines and others are points, and a Shapefile holds one "
            "kind of geometry",
            remedy="Use a .gpkg, .geojson or .parquet file.",
        )
    for hit in hits:
        for name in ("id", "store", "source", "nearest_name"):
            if len((getattr(hit, name) or "").encode()) > _MAX_TEXT_BYTES:
                raise UsageError(
                    f"{path}: the {name} of hit {hit.rank} is longer than the "
                    f"{_MAX_TEXT_BYTES} bytes that a Shapefile holds",
                    remedy="Use a .gpkg, .geojson or .parquet file.",
                )


def _zip(folder: Path, name: str) -> None:
    files = sorted(folder.iterdir())
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, file.name)
