"""QGIS 3 style files for exported layers: scores as colours, ranks as labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np

from marsretrieval.io import atomic_path

if TYPE_CHECKING:
    from marsretrieval.search.hits import Hits

_MARK = "Written by marsretrieval; replaced with the layer. Saved from QGIS, it is kept."
_COLOURS = ("254,227,145", "254,196,79", "254,153,41", "217,95,14", "153,52,4")  # weak to strong
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
    with atomic_path(path) as temporary:
        temporary.write_text(style_xml(hits), encoding="utf-8")
    return path


def style_xml(hits: Hits) -> str:
    """Make a QGIS style with up to five score classes of equal hit counts.

    Args:
        hits: The hits of the layer.

    Returns:
        The XML document.
    """
    outlines = any(isinstance(shape, list) for shape in hits.shapes)
    kind = "fill" if outlines or not len(hits) else "marker"
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
    for number, (low, high, colour) in enumerate(_classes(hits)):
        ET.SubElement(
            ranges,
            "range",
            render="true",
            symbol=str(number),
            lower=f"{low:.7f}",
            upper=f"{high:.7f}",
            label=f"{low:.3f} - {high:.3f}",
        )
        _symbol(symbols, str(number), kind, colour)
    source = ET.SubElement(renderer, "source-symbol")
    _symbol(source, "0", kind, _COLOURS[2])
    ET.SubElement(renderer, "classificationMethod", id="Quantile")
    _labels(root, kind)
    ET.SubElement(root, "layerGeometryType").text = "2" if kind == "fill" else "0"
    ET.indent(root)
    return f"{_DOCTYPE}\n{ET.tostring(root, encoding='unicode')}\n"


def _classes(hits: Hits) -> list[tuple[float, float, str]]:
    """Return lower bound, upper bound and colour of each class; together they cover all scores."""
    if not len(hits):
        return [(-1.0, 1.0, _COLOURS[2])]
    bounds = np.quantile(hits.scores.astype(np.float64), np.linspace(0, 1, len(_COLOURS) + 1))
    bounds = np.unique(np.round(bounds, 7))
    bounds = bounds if len(bounds) > 1 else np.repeat(bounds, 2)
    # Files hold rounded scores, which may exceed the exact bounds.
    bounds[0], bounds[-1] = bounds[0] - 1e-6, bounds[-1] + 1e-6
    colours = _COLOURS[-(len(bounds) - 1) :]
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), colours, strict=True))


def _symbol(parent: ET.Element, name: str, kind: str, colour: str) -> None:
    symbol = ET.SubElement(
        parent, "symbol", name=name, type=kind, alpha="1", clip_to_extent="1", force_rhr="0"
    )
    simple = "SimpleFill" if kind == "fill" else "SimpleMarker"
    layer = ET.SubElement(
        symbol, "layer", {"class": simple, "enabled": "1", "locked": "0", "pass": "0"}
    )
    properties = {
        "color": f"{colour},{150 if kind == 'fill' else 255}",
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


def _labels(root: ET.Element, kind: str) -> None:
    """Add rank labels, black with white halos; better ranks take precedence."""
    labelling = ET.SubElement(root, "labeling", type="simple")
    settings = ET.SubElement(labelling, "settings")
    style = ET.SubElement(
        settings,
        "text-style",
        fieldName="rank",
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
