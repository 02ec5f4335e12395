"""GeoDataFrames, and through GDAL: GeoPackage, FlatGeobuf, Shapefile."""

from __future__ import annotations

import json
import os
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval import geo
from marsretrieval.errors import MissingDependencyError, OutputError, UsageError
from marsretrieval.files import make_folder, temporary_folder
from marsretrieval.search.exports._parquet import to_arrow

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from marsretrieval.search.hits import Hits

_TEXT_BYTES = 254  # the widest text of a dBASE table


def to_geodataframe(hits: Hits) -> GeoDataFrame:
    """One row a hit with its footprint, CRS IAU_2015:49900; `attrs["marsretrieval"]` says what
    was asked. Raises MissingDependencyError without the extra `gis`."""
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
    """Write into a folder beside `path`, then rename: an earlier file stays until all is there."""
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
        options["dataset_metadata"] = _about(hits)
    if driver == "FlatGeobuf" and None in hits.shapes:
        options["SPATIAL_INDEX"] = "NO"  # an index cannot hold hits without a place
    make_folder(path.parent)
    with temporary_folder(path.parent, path.name) as folder:
        try:
            pyogrio.write_arrow(
                table,
                folder / name,
                driver=driver,
                geometry_name="geometry",
                geometry_type=kind,
                crs=_crs(),
                **options,
            )
            _require_written(folder / name, len(hits))
            if driver == "GPKG":
                _name_authority(folder / name)
            if zipped:
                _zip(folder, path.name)
            main = folder / (path.name if zipped else name)
            parts = {main: path}
            if not zipped:  # a Shapefile has several
                parts = {each: path.parent / each.name for each in main.parent.iterdir()} | parts
            for file in sorted(parts, key=lambda each: each == main):
                with file.open("rb") as written:
                    os.fsync(written.fileno())
                file.replace(parts[file])
        except (OSError, RuntimeError, sqlite3.Error) as error:
            raise OutputError(
                f"{path}: cannot be written ({error})",
                remedy="Check that the folder is yours and has free space, or choose another.",
            ) from error


def _crs() -> str:
    """IAU_2015:49900 as PROJJSON with longitude first, as the coordinates are written."""
    axes = geo.MARS_CRS["coordinate_system"]
    axes = {**axes, "axis": axes["axis"][::-1]}
    return json.dumps({**geo.MARS_CRS, "coordinate_system": axes})


def _require_written(path: Path, rows: int) -> None:
    """Raise OSError unless the layer can be read: GDAL reports no error of a disk that is full
    when a file is closed."""
    import pyogrio

    try:
        _, table = pyogrio.read_arrow(path)
    except Exception as error:  # whatever GDAL says of half a file
        raise OSError(f"what was written cannot be read: is the disk full? {error}") from error
    if table.num_rows != rows:
        raise OSError(f"{table.num_rows} of {rows} rows were written: is the disk full?")


def _name_authority(path: Path) -> None:
    """Name the authority of IAU_2015:49900 in a GeoPackage, which GDAL shortens to IAU. PROJ has no
    such authority, and QGIS 3.22 would read the layer as one without a reference system."""
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(
            "UPDATE gpkg_spatial_ref_sys SET organization = 'IAU_2015', "
            """definition = replace(definition, 'AUTHORITY["IAU",', 'AUTHORITY["IAU_2015",') """
            "WHERE organization IN ('IAU', 'IAU_2015')"
        )


def _geometry_type(hits: Hits) -> str:
    """What the layer says of its shapes: outlines, centres, or both."""
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
            if len(getattr(hit, name).encode()) > _TEXT_BYTES:
                raise UsageError(
                    f"{path}: the {name} of hit {hit.rank} is longer than the {_TEXT_BYTES} bytes "
                    "that a Shapefile holds",
                    remedy="Use a .gpkg, .geojson or .parquet file.",
                )


def _about(hits: Hits) -> dict[str, str]:
    """Texts as they are, all else as JSON."""
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
