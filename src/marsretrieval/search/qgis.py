"""QGIS 3 style files for exported layers: scores as colours, ranks as labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt

from marsretrieval.io import atomic_path

if TYPE_CHECKING:
    from marsretrieval.search.hits import Hits

Kind = Literal["fill", "marker"]

_MARK = "Written by marsretrieval; replaced with the layer. Saved from QGIS, it is kept."
_RASTER_MARK = "Heat map style by marsretrieval; replaced with the raster, kept if saved from QGIS."
_COLOURS = ("254,227,145", "254,196,79", "254,153,41", "217,95,14", "153,52,4")  # weak to strong
_KNOWN_COLOUR = "if(\"known\", '29,95,138,255', '90,30,10,255')"
_KNOWN_WIDTH = 'if("known", 0.9, 0.3)'
_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"


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
