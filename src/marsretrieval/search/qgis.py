"""QGIS 3 styles of exported layers, as .qml files or inside a GeoPackage with its further layers.

Scores are colours, ranks are labels. Table `layer_styles` of a GeoPackage is what QGIS writes with
*Save Style > In Database*: it applies the default style of each layer on loading.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.io import atomic_path
from marsretrieval.search.provenance import write_gpkg_metadata

if TYPE_CHECKING:
    from marsretrieval.search.hits import Hits


Kind = Literal["fill", "marker"]

_MARK = "Written by marsretrieval; replaced with the layer. Saved from QGIS, it is kept."
_RASTER_MARK = "Heat map style by marsretrieval; replaced with the raster, kept if saved from QGIS."
_COLOURS = ("254,227,145", "254,196,79", "254,153,41", "217,95,14", "153,52,4")  # weak to strong
_KNOWN_COLOUR = "if(\"known\", '29,95,138,255', '90,30,10,255')"
_KNOWN_WIDTH = 'if("known", 0.9, 0.3)'
_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"

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


def write_style(hits: Hits, path: Path) -> Path | None:
    """Write a .qml style file unless the user has saved one there.

    Args:
        hits: The hits of the layer.
        path: The style file.

    Returns:
        The path; None if an existing style was kept.

    Raises:
        OutputError: If the file cannot be written.
    """
    if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return None
    outlines = any(isinstance(shape, list) for shape in hits.shapes)
    kind: Kind = "fill" if outlines or not len(hits) else "marker"
    with atomic_path(path) as temporary:
        text = style_xml(hits.scores, kind, mark_known=hits.known is not None)
        temporary.write_text(text, encoding="utf-8")
    return path


def write_raster_style(values: npt.NDArray[np.float32], path: Path) -> Path | None:
    """Write the .qml style file of a heat map unless another style is there.

    Args:
        values: Scores, NaN without a tile.
        path: The style file.

    Returns:
        The path; None if an existing style, saved by the user or of a vector layer, was kept.

    Raises:
        OutputError: If the file cannot be written.
    """
    if path.exists() and _RASTER_MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return None
    with atomic_path(path) as temporary:
        temporary.write_text(raster_style_xml(values), encoding="utf-8")
    return path


def raster_style_xml(values: npt.NDArray[np.float32]) -> str:
    """Make a QGIS style of a heat map: colours from the second percentile to the maximum.

    Args:
        values: Scores, NaN without a tile.

    Returns:
        The XML document.
    """
    scores = values[np.isfinite(values)].astype(np.float64)
    low, high = np.percentile(scores, (2, 100)) if len(scores) else (0.0, 1.0)
    high = max(high, low + 1e-6)
    root = ET.Element("qgis", version="3.10.0", styleCategories="Symbology")
    root.append(ET.Comment(_RASTER_MARK))
    pipe = ET.SubElement(root, "pipe")
    limits = {"classificationMin": f"{low:.7f}", "classificationMax": f"{high:.7f}"}
    renderer = ET.SubElement(
        pipe,
        "rasterrenderer",
        {"type": "singlebandpseudocolor", "band": "1", "opacity": "1", "alphaBand": "-1", **limits},
    )
    ET.SubElement(renderer, "rasterTransparency")
    shader = ET.SubElement(
        ET.SubElement(renderer, "rastershader"),
        "colorrampshader",
        colorRampType="INTERPOLATED",
        classificationMode="1",
        clip="0",
        minimumValue=f"{low:.7f}",
        maximumValue=f"{high:.7f}",
    )
    stops = ("255,255,229", *_COLOURS, "102,37,6")
    for share, colour in zip(np.linspace(0, 1, len(stops)).tolist(), stops, strict=True):
        value = low + share * (high - low)
        red, green, blue = (int(part) for part in colour.split(","))
        ET.SubElement(
            shader,
            "item",
            value=f"{value:.7f}",
            color=f"#{red:02x}{green:02x}{blue:02x}",
            alpha="255",
            label=f"{value:.3f}",
        )
    ET.SubElement(pipe, "brightnesscontrast", brightness="0", contrast="0")
    ET.SubElement(pipe, "huesaturation", saturation="0", colorizeOn="0", grayscaleMode="0")
    ET.SubElement(pipe, "rasterresampler", maxOversampling="2")
    ET.SubElement(root, "blendMode").text = "0"
    ET.indent(root)
    return f"{_DOCTYPE}\n{ET.tostring(root, encoding='unicode')}\n"


def style_xml(
    scores: npt.NDArray[np.float32],
    kind: Kind,
    *,
    label: str = "rank",
    alpha: int = 150,
    mark_known: bool = False,
) -> str:
    """Make a QGIS style with up to five score classes of equal counts, of the column `score`.

    Args:
        scores: Scores of the rows.
        kind: `fill` for polygons, `marker` for points.
        label: Column of the labels.
        alpha: Opacity of the fill, 0 to 255.
        mark_known: Draw rows whose column `known` is true with a blue outline.

    Returns:
        The XML document.
    """
    root = ET.Element(
        "qgis", version="3.10.0", styleCategories="Symbology|Labeling", labelsEnabled="1"
    )
    root.append(ET.Comment(_MARK))
    renderer = ET.SubElement(
        root,
        "renderer-v2",
        type="graduatedSymbol",
        attr="score",
        graduatedMethod="GraduatedColor",
        symbollevels="0",
        enableorderby="0",
        forceraster="0",
    )
    ranges = ET.SubElement(renderer, "ranges")
    symbols = ET.SubElement(renderer, "symbols")
    for number, (low, high, colour) in enumerate(_classes(scores)):
        ET.SubElement(
            ranges,
            "range",
            render="true",
            symbol=str(number),
            lower=f"{low:.7f}",
            upper=f"{high:.7f}",
            label=f"{low:.3f} - {high:.3f}",
        )
        _symbol(symbols, str(number), kind, colour, alpha, mark_known=mark_known)
    source = ET.SubElement(renderer, "source-symbol")
    _symbol(source, "0", kind, _COLOURS[2], alpha)
    ET.SubElement(renderer, "classificationMethod", id="Quantile")
    _labels(root, kind, label)
    ET.SubElement(root, "layerGeometryType").text = "2" if kind == "fill" else "0"
    ET.indent(root)
    return f"{_DOCTYPE}\n{ET.tostring(root, encoding='unicode')}\n"


def _classes(scores: npt.NDArray[np.float32]) -> list[tuple[float, float, str]]:
    """Return lower bound, upper bound and colour of each class; together they cover all scores."""
    if not len(scores):
        return [(-1.0, 1.0, _COLOURS[2])]
    bounds = np.quantile(scores.astype(np.float64), np.linspace(0, 1, len(_COLOURS) + 1))
    bounds = np.unique(np.round(bounds, 7))
    bounds = bounds if len(bounds) > 1 else np.repeat(bounds, 2)
    # Files hold rounded scores, which may exceed the exact bounds.
    bounds[0], bounds[-1] = bounds[0] - 1e-6, bounds[-1] + 1e-6
    colours = _COLOURS[-(len(bounds) - 1) :]
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), colours, strict=True))


def _symbol(
    parent: ET.Element, name: str, kind: Kind, colour: str, alpha: int, *, mark_known: bool = False
) -> None:
    symbol = ET.SubElement(
        parent, "symbol", name=name, type=kind, alpha="1", clip_to_extent="1", force_rhr="0"
    )
    simple = "SimpleFill" if kind == "fill" else "SimpleMarker"
    layer = ET.SubElement(
        symbol, "layer", {"class": simple, "enabled": "1", "locked": "0", "pass": "0"}
    )
    properties = {
        "color": f"{colour},{alpha if kind == 'fill' else 255}",
        "outline_color": "90,30,10,255",
        "outline_style": "solid",
        "outline_width": "0.3",
        "outline_width_unit": "MM",
    }
    if kind == "fill":
        properties["style"] = "solid"
    else:
        properties |= {"name": "circle", "size": "2.6", "size_unit": "MM"}
    for key, value in properties.items():
        ET.SubElement(layer, "prop", k=key, v=value)
    if mark_known:
        _set_by_expression(layer, {"outlineColor": _KNOWN_COLOUR, "outlineWidth": _KNOWN_WIDTH})


def _set_by_expression(layer: ET.Element, expressions: Mapping[str, str]) -> None:
    """Add data-defined properties to a symbol layer."""
    options = ET.SubElement(ET.SubElement(layer, "data_defined_properties"), "Option", type="Map")
    ET.SubElement(options, "Option", name="name", type="QString", value="")
    properties = ET.SubElement(options, "Option", name="properties", type="Map")
    for name, expression in expressions.items():
        item = ET.SubElement(properties, "Option", name=name, type="Map")
        ET.SubElement(item, "Option", name="active", type="bool", value="true")
        ET.SubElement(item, "Option", name="expression", type="QString", value=expression)
        ET.SubElement(item, "Option", name="type", type="int", value="3")
    ET.SubElement(options, "Option", name="type", type="QString", value="collection")


def _labels(root: ET.Element, kind: Kind, column: str) -> None:
    """Add labels, black with white halos; better ranks take precedence."""
    labelling = ET.SubElement(root, "labeling", type="simple")
    settings = ET.SubElement(labelling, "settings")
    style = ET.SubElement(
        settings,
        "text-style",
        fieldName=column,
        isExpression="0",
        fontFamily="Sans Serif",
        fontSize="8",
        fontSizeUnit="Point",
        textColor="30,20,15,255",
        textOpacity="1",
    )
    ET.SubElement(
        style,
        "text-buffer",
        bufferDraw="1",
        bufferSize="0.8",
        bufferSizeUnits="MM",
        bufferColor="255,255,255,255",
        bufferOpacity="0.8",
    )
    ET.SubElement(
        settings, "placement", placement="1" if kind == "fill" else "6", priority="5", dist="0"
    )
    ET.SubElement(settings, "rendering", obstacle="0", displayAll="0", scaleVisibility="0")


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
