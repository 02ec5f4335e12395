"""Hits as files: tables, vector layers for GIS, and maps, as the name of the file says.

All places are in IAU_2015:49900, the sphere of Mars, never in a system of the Earth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from marsretrieval.errors import UsageError
from marsretrieval.files import check_output

if TYPE_CHECKING:
    from marsretrieval.search.hits import Hits

__all__ = ["FORMATS", "Format", "check_hits_path", "write_hits"]


@dataclass(frozen=True, slots=True)
class Format:
    """suffix: how the name of the file ends; write: takes hits, path and the style of maps;
    is_layer: QGIS opens it as a layer, so that a style goes beside it; needs: libraries of an
    extra."""

    suffix: str
    name: str
    write: Callable[[Hits, Path, str], None]
    is_layer: bool = True
    needs: tuple[str, ...] = ()


def _csv(hits: Hits, path: Path, style: str) -> None:
    from marsretrieval.search.exports._text import write_csv

    write_csv(hits, path)


def _geojson(hits: Hits, path: Path, style: str) -> None:
    from marsretrieval.search.exports._text import write_geojson

    write_geojson(hits, path)


def _parquet(hits: Hits, path: Path, style: str) -> None:
    from marsretrieval.search.exports._parquet import write_parquet

    write_parquet(hits, path)


def _layer(driver: str) -> Callable[[Hits, Path, str], None]:
    def write(hits: Hits, path: Path, style: str) -> None:
        from marsretrieval.search.exports.layers import write_layer

        write_layer(hits, path, driver)

    return write


def _picture(hits: Hits, path: Path, style: str) -> None:
    from marsretrieval.search.exports.picture import draw_hits

    draw_hits(hits, style=style).save(path)


_GIS = ("pyogrio",)
_SHAPEFILE = "ESRI Shapefile"

FORMATS = (
    Format(".csv", "CSV", _csv, is_layer=False),
    Format(".geojson", "GeoJSON", _geojson),
    Format(".json", "GeoJSON", _geojson),
    Format(".parquet", "GeoParquet", _parquet),
    Format(".gpkg", "GeoPackage", _layer("GPKG"), needs=_GIS),
    Format(".fgb", "FlatGeobuf", _layer("FlatGeobuf"), needs=_GIS),
    Format(".shp.zip", "Shapefile, zipped", _layer(_SHAPEFILE), needs=_GIS),
    Format(".shp", "Shapefile", _layer(_SHAPEFILE), needs=_GIS),
    Format(".png", "map", _picture, is_layer=False, needs=("cartopy",)),
    Format(".svg", "map", _picture, is_layer=False, needs=("cartopy",)),
    Format(".pdf", "map", _picture, is_layer=False, needs=("cartopy",)),
)


def check_hits_path(path: Path) -> Format:
    """The format that this file name asks for. Raises UsageError when there is none,
    MissingDependencyError naming the extra, OutputError where it plainly cannot be written."""
    name = path.name.lower()
    for each in FORMATS:
        if name.endswith(each.suffix) and len(name) > len(each.suffix):
            _require(each)
            check_output(path)
            return each
    raise UsageError(
        f"{path}: no format for '{''.join(path.suffixes[-1:])}'",
        remedy=f"Use a name that ends in {', '.join(each.suffix for each in FORMATS[:-1])} "
        f"or {FORMATS[-1].suffix}.",
    )


def write_hits(hits: Hits, path: Path, *, style: str = "light") -> list[Path]:
    """Write to a file of the format that its name says; `FORMATS` has all. Returns what was
    written: the file, and the style for QGIS beside a layer. style: of a map, light or dark.

    Raises UsageError, OutputError, MissingDependencyError.
    """
    chosen = check_hits_path(path)
    chosen.write(hits, path, style)
    if not chosen.is_layer:
        return [path]
    from marsretrieval.search.exports._qgis import write_style

    beside = write_style(hits, path.with_name(path.name[: -len(chosen.suffix)] + ".qml"))
    return [path] if beside is None else [path, beside]


def _require(chosen: Format) -> None:
    from importlib.util import find_spec

    from marsretrieval.errors import MissingDependencyError

    for name in chosen.needs:
        if find_spec(name) is None:
            raise MissingDependencyError(name, "gis", needed_for=f"a {chosen.name}")
