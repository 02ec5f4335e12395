"""Maps: positions across the antimeridian, and labels."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from cartopy.mpl.gridliner import Gridliner
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from marsretrieval.errors import MissingDependencyError, UsageError
from marsretrieval.geo import MARS_RADIUS_M, Box, great_circle_deg
from marsretrieval.plotting import DARK, LIGHT, PLANET, PlanetMap, planet_map
from marsretrieval.plotting.projection import is_polar, map_frame


def labels_of(chart: PlanetMap) -> list[str]:
    """Return the drawn labels of the graticule."""
    FigureCanvasAgg(chart.figure).draw()
    (lines,) = (artist for artist in chart.axes.get_children() if isinstance(artist, Gridliner))
    return [label.get_text() for label in lines.label_artists if label.get_visible()]


@pytest.mark.parametrize("lon", [180, 360])
def test_the_planet(lon: int) -> None:
    chart = planet_map(lon=lon)  # type: ignore[arg-type]
    assert chart.axes.get_xlim() == (-180, 180) and chart.axes.get_ylim() == (-90, 90)
    left = chart.frame.locate(-179.99, 0.0)[0]
    assert abs(float(left) - (-179.99 if lon == 180 else 0.01)) < 1e-9
    labels = labels_of(chart)
    assert ("150°W" in labels) == (lon == 180) and ("330°E" in labels) == (lon == 360)
    assert {"0°", "60°N", "60°S"} <= set(labels)


@given(st.floats(-180, 179.9), st.floats(1, 300), st.floats(-720, 720))
def test_equirectangular_coordinates_are_degrees_from_the_centre(
    west: float, width: float, lon: float
) -> None:
    frame = map_frame(Box(west, -10, (west + width + 180) % 360 - 180, 10), west)
    x = float(frame.project(lon, 0.0)[0])
    assert -180 <= x <= 180
    assert abs((x + frame.centre_lon - lon + 180) % 360 - 180) < 1e-9


@given(st.floats(-180, 179.9), st.floats(55, 90), st.sampled_from([1, -1]))
def test_polar_coordinates_follow_the_formula_of_the_sphere(
    lon: float, colatitude: float, pole: int
) -> None:
    lat = pole * colatitude
    box = Box(-180, 50, 180, 90) if pole > 0 else Box(-180, -90, 180, -50)
    frame = map_frame(box, -180.0)
    x, y = (float(value) for value in frame.project(lon, lat))
    # Snyder 1987, p. 157, with k0 = 1 at the pole (PROJ's default for no standard parallel).
    radius = 2 * MARS_RADIUS_M * math.tan(math.radians(90 - abs(lat)) / 2)
    assert x == pytest.approx(radius * math.sin(math.radians(lon)), abs=0.01)
    assert y == pytest.approx(-pole * radius * math.cos(math.radians(lon)), abs=0.01)
    back = [float(value) for value in frame.locate(x, y)]
    assert back[1] == pytest.approx(lat, abs=1e-6)
    if abs(lat) < 89.999:
        assert abs((back[0] - lon + 180) % 360 - 180) < 1e-6


def test_which_boxes_get_a_polar_map() -> None:
    polar = [Box(-180, 50, 180, 90), Box(10, 70, 40, 80), Box(-180, -90, 180, -60)]
    assert all(map(is_polar, polar))
    plain = [PLANET, Box(0, 50, 10, 70), Box(-180, -30, 180, 30), Box(-180, 20, 180, 90)]
    assert not any(map(is_polar, plain))


@pytest.mark.parametrize("pole", [1, -1])
def test_a_polar_cap_is_a_disk(pole: int) -> None:
    chart = planet_map(Box(-180, 60, 180, 90) if pole > 0 else Box(-180, -90, 180, -60))
    left, right = chart.axes.get_xlim()
    assert left == -right and chart.axes.get_ylim() == (left, right)
    inside = chart.shows([0, 90, -135, 0, 0], [pole * lat for lat in (60, 89, 75, 59, -80)])
    assert inside.tolist() == [True, True, True, False, False]
    assert not chart.shows([45.0], [pole * 55.0])[0]  # in a corner of the square
    assert "90°E" in labels_of(chart)


def test_a_sector_near_a_pole_holds_its_box() -> None:
    box = Box(170, -85, -150, -70)
    chart = planet_map(box, style="dark")
    lon, lat = np.meshgrid(np.linspace(170, 210, 9), np.linspace(-85, -70, 7))
    assert chart.shows(lon.ravel(), lat.ravel()).all()
    assert not chart.shows([0.0], [-75.0])[0]


def _axes():  # type: ignore[no-untyped-def]
    from matplotlib.figure import Figure

    return Figure().add_subplot()


def test_over_the_seam() -> None:
    chart = planet_map(Box(170, -10, -170, 10))
    assert chart.axes.get_xlim() == (-10, 10)
    assert {"180°", "172°W"} <= set(labels_of(chart))
    points = chart.points([179, -179, 0], [0, 5, 0])
    np.testing.assert_allclose(points.get_offsets(), [[-1, 0], [1, 5]])
    tiles = chart.tiles([180, -169.9, 30], [0, 0, 0], 0.4, 0.2, values=[1.0, 2.0, 3.0])
    edges = [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in tiles.get_paths()]
    np.testing.assert_allclose(edges, [(-0.2, 0.2), (9.9, 10.3)])
    assert tiles.get_array().tolist() == [1.0, 2.0]


def test_a_tile_on_the_edge_of_the_planet_is_drawn_on_both_sides() -> None:
    tiles = planet_map().tiles([180.0], [0.0], 0.4, 0.4)
    edges = sorted(path.vertices[:, 0].min() for path in tiles.get_paths())
    np.testing.assert_allclose(edges, [-180.2, 179.8])


def test_a_tile_at_a_pole_has_curved_edges() -> None:
    chart = planet_map(Box(-180, 60, 180, 90))
    (path,) = chart.tiles([45.0], [80.0], 40.0, 4.0).get_paths()
    lon, lat = chart.frame.locate(*path.vertices.T)
    assert (lon.min(), lon.max()) == pytest.approx((25, 65))
    assert (lat.min(), lat.max()) == pytest.approx((78, 82))


@pytest.mark.parametrize(
    "box", [Box(-10, -10, 10, 10), Box(170, -10, -170, 10), Box(-180, 60, 180, 90), PLANET]
)
@pytest.mark.parametrize("lon", [180, 360])
def test_rasters_are_at_the_expected_position(box: Box, lon: int) -> None:
    chart = planet_map(box, lon=lon)  # type: ignore[arg-type]
    longitudes, latitudes = np.arange(-179.5, 180), np.arange(89.5, -90, -1)
    drawn = chart.raster(np.broadcast_to(longitudes, (180, 360)))
    across = drawn.get_array()
    upward = chart.raster(np.broadcast_to(latitudes[:, None], (180, 360))).get_array()
    left, right, bottom, top = drawn.get_extent()
    rows, columns = across.shape
    for x, y in [(0.3, 0.4), (0.6, 0.35), (0.52, 0.7)]:
        row, column = int(y * rows), int(x * columns)
        point = chart.frame.locate(
            left + (column + 0.5) / columns * (right - left),
            top - (row + 0.5) / rows * (top - bottom),
        )
        assert abs((across[row, column] - float(point[0]) + 180) % 360 - 180) <= 0.5 + 1e-6
        assert abs(upward[row, column] - float(point[1])) <= 0.5 + 1e-6


def test_rasters_have_scales_and_holes() -> None:
    chart = planet_map(Box(-10, -10, 10, 10), lon=360)
    values = np.array([[np.nan, 1.0], [2.0, 3.0]])
    drawn = chart.raster(values, Box(0, 0, 4, 4))
    assert drawn.get_clim() == (1, 3)
    assert set(np.unique(drawn.get_array().compressed())) == {1, 2, 3}
    elsewhere = chart.raster(values, Box(100, 0, 104, 4))
    assert elsewhere.get_array().mask.all()
    chart.colour_bar(elsewhere, "nothing to see")
    assert chart.raster(np.full((2, 2), np.nan)).get_clim() == (0, 1)
    chart.background(np.zeros((4, 8, 3), np.uint8))
    assert chart.axes.get_xlim() == (-10, 10)


def test_shapes_are_true_at_the_middle_latitude() -> None:
    assert planet_map(Box(0, 50, 10, 70)).axes.get_aspect() == pytest.approx(2)
    assert planet_map(Box(0, -10, 10, 10)).axes.get_aspect() == pytest.approx(1)


@pytest.mark.parametrize("box", [Box(0, 50, 10, 70), Box(10, 70, 40, 80)])
def test_the_scale_is_that_of_the_sphere(box: Box) -> None:
    frame = planet_map(box).frame
    left, right, bottom, top = frame.extent
    x, y = (left + right) / 2, (bottom + top) / 2
    lon, lat = frame.locate([x - frame.width / 200, x + frame.width / 200], [y, y])
    angle = math.radians(float(great_circle_deg(lon[0], lat[0], lon[1], lat[1])))
    expected = angle * MARS_RADIUS_M / 1000 / (frame.width / 100)
    assert frame.kilometres_per_unit(x, y) == pytest.approx(expected, rel=1e-4)


def test_names_do_not_overlap_points_or_each_other() -> None:
    chart = planet_map(Box(100, -60, 180, 60))
    chart.points([154.74], [2.98])  # upon Elysium Planitia
    chart.features()
    texts = [text for text in chart.axes.texts if text.get_text()]
    assert {"Elysium Mons", "Gale", "Gusev"} <= {text.get_text() for text in texts}
    boxes = [text.get_window_extent() for text in texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    x, y = chart.frame.project(154.74, 2.98)
    mark = chart.axes.transData.transform((float(x), float(y)))
    assert not any(box.contains(*mark) for box in boxes)
    few = planet_map().features(at_most=5, smallest_km=1000)
    assert len(few.axes.texts) == 5


def test_a_word_beside_a_mark_stays_on_the_map() -> None:
    chart = planet_map(Box(0, -10, 10, 10))
    chart.mark_text(9.95, 0, "12").mark_text(5, 0, "3")
    texts = {text.get_text(): text.get_window_extent() for text in chart.axes.texts}
    frame, marks = chart.axes.get_window_extent(), chart.axes.transData
    assert texts["12"].x1 < marks.transform((4.95, 0))[0] < frame.x1
    assert texts["3"].x0 > marks.transform((0, 0))[0]


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


def test_map_on_given_axes() -> None:
    axes = _axes()
    chart = planet_map(Box(0, 0, 10, 10), axes=axes, title="mine")
    drawn = chart.tiles([5], [5], 1, 1, values=[1.0])
    chart.colour_bar(drawn, "cosine").legend()
    assert axes not in chart.figure.axes and len(chart.figure.axes) == 2


def test_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="light or dark"):
        planet_map(style="sepia")
    with pytest.raises(UsageError, match="180 or 360"):
        planet_map(lon=90)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"\.png"):
        planet_map().save(tmp_path / "map.gif")


def test_a_map_without_cartopy_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from marsretrieval.search import check_heatmap_path, check_hits_path

    monkeypatch.setitem(sys.modules, "cartopy", None)
    for use in (
        planet_map,
        lambda: check_hits_path(tmp_path / "a.png"),
        lambda: check_heatmap_path(tmp_path / "a.svg"),
    ):
        with pytest.raises(MissingDependencyError, match=r"(?s)cartopy.*gis"):
            use()


def test_labels_are_no_mathematics(tmp_path: Path) -> None:
    chart = planet_map(title=r"$\x", subtitle=r"$\frac", width=4)
    drawn = chart.points([0], [0], [1.0], label=r"$\y")
    chart.mark_text(0, 0, r"$\z").colour_bar(drawn, r"$\w").legend().save(tmp_path / "a.svg")
    assert r"$\x" in (tmp_path / "a.svg").read_text()


def test_matplotlib_is_imported_only_for_drawing() -> None:
    code = (
        "import sys, marsretrieval.plotting as m; m.features(); "
        "assert not {'matplotlib', 'cartopy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
