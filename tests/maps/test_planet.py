"""Maps: where things are drawn, over the seam too, and what is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from marsretrieval.errors import UsageError
from marsretrieval.geo import Box
from marsretrieval.maps import DARK, LIGHT, planet_map


@pytest.mark.parametrize("lon", [180, 360])
def test_the_planet(lon: int) -> None:
    chart = planet_map(lon=lon)  # type: ignore[arg-type]
    low = -180 if lon == 180 else 0
    assert chart.axes.get_xlim() == (low, low + 360) and chart.axes.get_ylim() == (-90, 90)
    labels = [text.get_text() for text in chart.axes.get_xticklabels()]
    assert labels[:2] == (["180°", "150°W"] if lon == 180 else ["0°E", "30°E"])
    assert chart.axes.get_aspect() == 1


@given(st.floats(-180, 359.9), st.floats(1, 300), st.floats(-720, 720))
def test_every_longitude_has_one_place(west: float, width: float, lon: float) -> None:
    chart = planet_map(Box(west, -10, (west + width + 180) % 360 - 180, 10), axes=_axes())
    x = float(chart.x(lon))
    assert chart.west <= x < chart.west + 360 + 1e-9
    assert abs((x - lon + 180) % 360 - 180) < 1e-9


def _axes():  # type: ignore[no-untyped-def]
    from matplotlib.figure import Figure

    return Figure().add_subplot()


def test_over_the_seam() -> None:
    chart = planet_map(Box(170, -10, -170, 10))
    assert chart.axes.get_xlim() == (170, 190)
    labels = [text.get_text() for text in chart.axes.get_xticklabels()]
    assert "180°" in labels and "172°W" in labels
    points = chart.points([179, -179, 0], [0, 5, 0])
    assert points.get_offsets().tolist() == [[179, 0], [181, 5]]
    tiles = chart.tiles([180, -169.9, 30], [0, 0, 0], 0.4, 0.2, values=[1.0, 2.0, 3.0])
    edges = [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in tiles.get_paths()]
    np.testing.assert_allclose(edges, [(179.8, 180.2), (189.9, 190.3)])
    assert tiles.get_array().tolist() == [1.0, 2.0]


def test_a_tile_on_the_edge_of_the_planet_is_drawn_on_both_sides() -> None:
    tiles = planet_map().tiles([180.0], [0.0], 0.4, 0.4)
    edges = sorted(path.vertices[:, 0].min() for path in tiles.get_paths())
    np.testing.assert_allclose(edges, [-180.2, 179.8])


def test_rasters_and_backgrounds_lie_where_they_should() -> None:
    chart = planet_map(Box(-10, -10, 10, 10), lon=360)
    assert chart.axes.get_xlim() == (350, 370)
    chart.background(np.zeros((4, 8), np.uint8))
    # An image from -180 to 180, one turn on.
    assert [tuple(each.get_extent()) for each in chart.axes.images] == [(180, 540, -90, 90)]
    whole = planet_map(lon=360).background(np.zeros((4, 8), np.uint8))
    extents = sorted(tuple(each.get_extent()) for each in whole.axes.images)
    assert extents == [(-180, 180, -90, 90), (180, 540, -90, 90)]
    values = np.array([[np.nan, 1.0], [2.0, 3.0]])
    drawn = chart.raster(values, Box(0, 0, 4, 4))
    assert drawn.get_clim() == (1, 3)
    assert chart.axes.get_xlim() == (350, 370)
    nowhere = chart.raster(values, Box(100, 0, 104, 4))
    chart.colour_bar(nowhere, "nothing to see")
    everything = chart.raster(np.full((2, 2), np.nan))
    assert everything.get_clim() == (0, 1)


def test_shapes_are_true_at_the_middle_latitude() -> None:
    assert planet_map(Box(0, 50, 10, 70)).axes.get_aspect() == pytest.approx(2)
    assert planet_map(Box(0, -10, 10, 10)).axes.get_aspect() == pytest.approx(1)


def test_names_keep_clear_of_points_and_of_each_other() -> None:
    chart = planet_map(Box(100, -60, 180, 60))
    chart.points([154.74], [2.98])  # upon Elysium Planitia
    chart.features()
    texts = [text for text in chart.axes.texts if text.get_text()]
    assert {"Elysium Mons", "Gale", "Gusev"} <= {text.get_text() for text in texts}
    boxes = [text.get_window_extent() for text in texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    mark = chart.axes.transData.transform((154.74, 2.98))
    assert not any(box.contains(*mark) for box in boxes)
    few = planet_map().features(at_most=5, smallest_km=1000)
    assert len(few.axes.texts) == 5


def test_a_word_beside_a_mark_stays_on_the_map() -> None:
    chart = planet_map(Box(0, -10, 10, 10))
    chart.mark_text(9.95, 0, "12").mark_text(5, 0, "3")
    texts = {text.get_text(): text.get_window_extent() for text in chart.axes.texts}
    frame, marks = chart.axes.get_window_extent(), chart.axes.transData
    assert texts["12"].x1 < marks.transform((9.95, 0))[0] < frame.x1
    assert texts["3"].x0 > marks.transform((5, 0))[0]


@pytest.mark.parametrize("style", ["light", "dark"])
def test_files(tmp_path: Path, style: str) -> None:
    box = Box(130, -10, 140, 0)
    chart = planet_map(box, style=style, title="Gale", subtitle="with < and &", width=6)
    drawn = chart.raster(np.random.default_rng(0).random((10, 10)), box)
    chart.points([137], [-5], label="hits")
    chart.features().scale_bar().colour_bar(drawn, "cosine").legend()
    for name in ("a.png", "b.png", "a.svg", "b.svg", "a.pdf"):
        chart.save(tmp_path / name, transparent=name.endswith("svg"))
    for kind in ("png", "svg"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    pixels = Image.open(tmp_path / "a.png").convert("RGB")
    paper = (LIGHT if style == "light" else DARK).paper
    assert "#{:02x}{:02x}{:02x}".format(*pixels.getpixel((2, 2))) == paper  # type: ignore[misc]
    svg = chart.svg()
    assert svg.startswith("<svg") and ElementTree.fromstring(svg).tag.endswith("svg")
    assert re.search(r">Gale</text>", svg) and "with &lt; and &amp;" in svg and "500 km" not in svg
    assert paper not in svg.split('id="axes_1"')[0]


def test_on_axes_of_ones_own() -> None:
    axes = _axes()
    chart = planet_map(Box(0, 0, 10, 10), axes=axes, title="mine")
    drawn = chart.tiles([5], [5], 1, 1, values=[1.0])
    chart.colour_bar(drawn, "cosine").legend()
    assert chart.axes is axes and len(axes.figure.axes) == 2


def test_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="light or dark"):
        planet_map(style="sepia")
    with pytest.raises(UsageError, match="180 or 360"):
        planet_map(lon=90)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"\.png"):
        planet_map().save(tmp_path / "map.gif")


def test_matplotlib_is_imported_to_draw_only() -> None:
    code = (
        "import sys, marsretrieval.maps as m; m.features(); assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
