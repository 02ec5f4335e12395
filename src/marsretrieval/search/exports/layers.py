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

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from marsretrieval.search.hits import Hits

__all__ = ["to_geodataframe", "write_layer"]

_TEXT_BYTES = 254  # the widest text of a dBASE table


def to_geodataframe(hits: Hits) -> GeoDataFrame:
    """One row a hit with its footprint, CRS IAU_2015:49900; `attrs["marsretrieval"]` says what
    was asked. Raises MissingDependencyError without the extra `gis`."""
    try:
        import geopandas
        import pyproj
        import shapely
    except ImportError as error:
        raise MissingDependencyError("geopandas", "gis", needed_for="a GeoDataFrame") from error

    geometry = geo.GeometryColumn()
    names = ["rank", "score", "id", "lon", "lat", "quad", "tiles", "source",
             "z", "percentile"]  # fmt: skip
    if hits.tiles is None:
        names.remove("tiles")
    if hits.z is None:
        names = names[:-2]
    rows = list(hits.records())
    numbers = {"rank": "int32", "score": "float32", "lon": "float64", "lat": "float64",
               "tiles": "int32", "z": "float32", "percentile": "float64"}  # fmt: skip
    frame = geopandas.GeoDataFrame(
        {name: [row[name] for row in rows] for name in names},
        geometry=shapely.from_wkb([geometry.wkb(shape) for shape in hits.shapes]),
        crs=pyproj.CRS.from_json_dict(geo.MARS_CRS),
    ).astype({name: kind for name, kind in numbers.items() if name in names})
    frame["score"] = hits.scores  # not rounded: min_score=frame.score.min() finds all again
    frame.attrs["marsretrieval"] = dict(hits.about)
    return frame


def write_layer(hits: Hits, path: Path, driver: str) -> None:
    """Write into a folder beside `path`, then rename: an earlier file stays until all is there."""
    import pyogrio

    frame = to_geodataframe(hits)
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
    if driver == "FlatGeobuf" and frame.geometry.isna().any():
        options["SPATIAL_INDEX"] = "NO"  # an index cannot hold hits without a place
    make_folder(path.parent)
    with temporary_folder(path.parent, path.name) as folder:
        try:
            pyogrio.write_dataframe(
                frame,
                folder / name,
                driver=driver,
                geometry_type=_geometry_type(hits),
                promote_to_multi=_geometry_type(hits) == "MultiPolygon",
                **options,
            )
            _require_written(folder / name, len(frame))
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


def _require_written(path: Path, rows: int) -> None:
    """Raise OSError unless the layer can be read: GDAL reports no error of a disk that is full
    when a file is closed."""
    import pyogrio

    try:
        table = pyogrio.read_dataframe(path)
    except Exception as error:  # whatever GDAL says of half a file
        raise OSError(f"what was written cannot be read: is the disk full? {error}") from error
    if len(table) != rows:
        raise OSError(f"{len(table)} of {rows} rows were written: is the disk full?")


def _name_authority(path: Path) -> None:
    """GDAL calls the authority of IAU_2015:49900 just IAU in a GeoPackage. PROJ knows no such one,
    and QGIS 3.22 then takes the layer for one without a reference system."""
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(
            "UPDATE gpkg_spatial_ref_sys SET organization = 'IAU_2015', "
            """definition = replace(definition, 'AUTHORITY["IAU",', 'AUTHORITY["IAU_2015",') """
            "WHERE organization = 'IAU'"
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
