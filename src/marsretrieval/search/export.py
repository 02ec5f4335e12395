"""Write hits to tables, GIS vector layers and maps; the file suffix selects the format.

All coordinates are in IAU_2015:49900, the sphere of Mars.
"""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval import geo
from marsretrieval.errors import MissingDependencyError, OutputError, UsageError
from marsretrieval.io import atomic_path, check_output, make_folder, temporary_folder
from marsretrieval.text import table_cell

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from marsretrieval.search.hits import Hits

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
        is_layer: Whether QGIS opens the file as a layer, so that a style file is written beside it.
        needs: Required libraries of the extra `gis`.
    """

    suffix: str
    name: str
    write: Callable[[Hits, Path, str], None]
    is_layer: bool = True
    needs: tuple[str, ...] = ()


def _csv(hits: Hits, path: Path, style: str) -> None:

    write_csv(hits, path)


def _geojson(hits: Hits, path: Path, style: str) -> None:

    write_geojson(hits, path)


def _parquet(hits: Hits, path: Path, style: str) -> None:

    write_parquet(hits, path)


def _layer(driver: str) -> Callable[[Hits, Path, str], None]:
    def write(hits: Hits, path: Path, style: str) -> None:

        write_layer(hits, path, driver)

    return write


def _map(hits: Hits, path: Path, style: str) -> None:
    from marsretrieval.search.maps import draw_hits

    draw_hits(hits, style=style).save(path)


def _page(hits: Hits, path: Path, style: str) -> None:
    from marsretrieval.search.page import write_page
    from marsretrieval.search.thumbnails import searched_store

    write_page(hits, path, store=searched_store(hits.about))


FORMATS = (
    Format(".csv", "CSV", _csv, is_layer=False),
    Format(".geojson", "GeoJSON", _geojson),
    Format(".json", "GeoJSON", _geojson),
    Format(".parquet", "GeoParquet", _parquet),
    Format(".gpkg", "GeoPackage", _layer("GPKG"), needs=_GIS),
    Format(".fgb", "FlatGeobuf", _layer("FlatGeobuf"), needs=_GIS),
    Format(".shp.zip", "Shapefile, zipped", _layer(_SHAPEFILE), needs=_GIS),
    Format(".shp", "Shapefile", _layer(_SHAPEFILE), needs=_GIS),
    Format(".png", "map", _map, is_layer=False, needs=("cartopy",)),
    Format(".svg", "map", _map, is_layer=False, needs=("cartopy",)),
    Format(".pdf", "map", _map, is_layer=False, needs=("cartopy",)),
    Format(".html", "page", _page, is_layer=False),
)


def check_hits_path(path: Path) -> Format:
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


def write_hits(hits: Hits, path: Path, *, style: str = "light") -> list[Path]:
    """Write hits to a file in the format of its suffix; see `FORMATS`.

    Args:
        hits: The hits.
        path: The output file.
        style: Colour scheme of a map, `light` or `dark`.

    Returns:
        The files written: `path`, and for a layer its QGIS style file.

    Raises:
        UsageError: If no format has this suffix, or the format cannot hold these hits.
        OutputError: If the file cannot be written.
        MissingDependencyError: If a library of the format is not installed.
    """
    chosen = check_hits_path(path)
    chosen.write(hits, path, style)
    if not chosen.is_layer:
        return [path]
    from marsretrieval.search.qgis import write_style

    style_path = write_style(hits, path.with_name(path.name[: -len(chosen.suffix)] + ".qml"))
    return [path] if style_path is None else [path, style_path]


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
    about = {"marsretrieval": json.dumps(dict(hits.about), ensure_ascii=False)}
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
    frame.attrs["marsretrieval"] = dict(hits.about)
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
    table = to_arrow(hits).append_column(
        "geometry", pa.array(geo.GeometryColumn().encode(shapes), pa.binary())
    )
    options: dict[str, Any] = {}
    zipped = path.suffix.lower() == ".zip"
    stem = path.name[: -len(".shp.zip")] if zipped else path.stem
    if driver == "ESRI Shapefile":
        _check_shapefile(hits, path)
        options["encoding"] = "UTF-8"
        name = f"{stem}.shp"
    else:
        name, options["layer"] = path.name, stem
    if driver == "GPKG":
        options["dataset_metadata"] = _metadata_texts(hits)
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
                _name_authority(folder / name)
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


def _name_authority(path: Path) -> None:
    """Set the CRS authority of a GeoPackage to IAU_2015, which GDAL shortens to IAU.

    PROJ has no authority IAU, so QGIS 3.22 would read the layer without a reference system.
    """
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(
            "UPDATE gpkg_spatial_ref_sys SET organization = 'IAU_2015', "
            """definition = replace(definition, 'AUTHORITY["IAU",', 'AUTHORITY["IAU_2015",') """
            "WHERE organization IN ('IAU', 'IAU_2015')"
        )


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
        for name in ("id", "source"):
            if len(getattr(hit, name).encode()) > _MAX_TEXT_BYTES:
                raise UsageError(
                    f"{path}: the {name} of hit {hit.rank} is longer than the "
                    f"{_MAX_TEXT_BYTES} bytes that a Shapefile holds",
                    remedy="Use a .gpkg, .geojson or .parquet file.",
                )


def _metadata_texts(hits: Hits) -> dict[str, str]:
    """Return the query description with strings unchanged and other values as JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in hits.about.items()
        if value not in (None, [], "")
    }


def _zip(folder: Path, name: str) -> None:
    files = sorted(folder.iterdir())
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, file.name)
