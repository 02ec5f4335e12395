"""Maps of hits and heat maps at any scale, on terrain."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PathCollection, PolyCollection
from PIL import Image

from marsretrieval import geo
from marsretrieval.api import open_store
from marsretrieval.plotting import map_style
from marsretrieval.search import heatmap_of
from marsretrieval.search.maps import draw_hits
from tests.fakes import FakeEncoder
from tests.search.places import Place, hits_of, make_store

SIDE = 0.0085
SCENE: list[Place] = [
    (137.41 + (column + 0.5) * SIDE, -4.62 + (row + 0.5) * SIDE, SIDE)
    for row in range(12)
    for column in range(10)
]


def visible_labels(chart: Any) -> list[str]:
    return [text.get_text() for text in chart.figure.findobj(lambda a: hasattr(a, "get_text"))]


def test_a_scene_fills_its_map(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", SCENE)
    result = open_store(store.path, encoder=FakeEncoder()).search("dunes", k=6)
    chart = result.map()
    assert 0.1 < chart.box.height < 0.2 and chart.box.width < 0.2
    assert not chart.axes.images  # the base map has too few pixels
    drawn = [a for a in chart.axes.collections if isinstance(a, PolyCollection)]
    outline, tiles = drawn
    assert np.ptp(outline.get_paths()[0].vertices, axis=0) == pytest.approx([0.085, 0.102])
    sizes = [np.ptp(path.vertices, axis=0) for path in tiles.get_paths()]
    assert len(sizes) == 6 and np.allclose(sizes, SIDE)
    assert "1 km" in visible_labels(chart)
    chart.save(tmp_path / "map.png")  # cartopy places labels when it draws
    (lines,) = (a for a in chart.axes.get_children() if type(a).__name__ == "Gridliner")
    meridians = [text for text in lines.bottom_label_artists if text.get_visible()]
    assert len(meridians) >= 3 and all(text.get_text().startswith("137.") for text in meridians)
    edges = sorted((text.get_window_extent() for text in meridians), key=lambda edge: edge.x0)
    assert all(a.x1 < b.x0 for a, b in pairwise(edges))
    heat = result.heatmap().draw(result.hits)
    assert heat.box.height < 0.15
    frames = [a for a in heat.axes.collections if isinstance(a, PolyCollection)]
    assert all(len(frame.get_paths()) == 6 for frame in frames)


def test_few_hits_in_a_large_store_keep_their_surroundings(tmp_path: Path) -> None:
    positions: list[Place] = [
        (float(lon), float(lat), 0.2) for lon in range(0, 60, 5) for lat in (0, 40)
    ]
    store = make_store(tmp_path / "store", positions)
    result = open_store(store.path, encoder=FakeEncoder()).search("dunes", k=1)
    assert result.map().box.height == pytest.approx(2.0)


@pytest.mark.parametrize("style", ["light", "dark"])
def test_terrain_and_its_credit(tmp_path: Path, style: str) -> None:
    positions: list[Place] = [
        (float(lon), float(lat), 1.0) for lon in range(-180, 180, 30) for lat in (-40, 40)
    ]
    hits = hits_of(make_store(tmp_path / "store", positions))
    chart = draw_hits(hits, style=style)
    (image,) = chart.axes.images
    shades = image.get_array()
    assert not np.ma.is_masked(shades) and np.std(shades) > 10
    assert any("Viking MDIM 2.1, USGS/NASA" in label for label in visible_labels(chart))
    plain = draw_hits(hits, style=map_style(style, "none"))
    assert not plain.axes.images
    assert not any("Viking" in label for label in visible_labels(plain))


@pytest.mark.parametrize("domain", [180, 360])
def test_a_base_map_lies_where_it_should(tmp_path: Path, domain: int) -> None:
    lon, lat = np.meshgrid(np.arange(-180, 180, 0.5) + 0.25, np.arange(90, -90, -0.5) - 0.25)
    rgb = np.dstack([(lon + 180) / 360, (lat + 90) / 180, np.zeros_like(lon)])
    Image.fromarray((rgb * 255).astype(np.uint8)).save(tmp_path / "own.png")
    positions: list[Place] = [(-170.0, -60.0, 0.5), (0.0, 0.0, 0.5), (170.0, 60.0, 0.5)]
    hits = hits_of(make_store(tmp_path / "store", positions), domain)
    chart = draw_hits(hits, style=map_style("light", str(tmp_path / "own.png")))
    (image,) = chart.axes.images
    pixels = np.asarray(image.get_array())
    left, right, bottom, top = chart.frame.extent
    for x, y in ((-100.0, 30.0), (0.5, -80.0), (150.0, 45.0)):
        u, v = (float(value) for value in chart.frame.project(x, y))
        row = int((top - v) / (top - bottom) * len(pixels))
        column = int((u - left) / (right - left) * pixels.shape[1])
        assert pixels[row, column, 0] * 360 - 180 == pytest.approx(x, abs=2)
        assert pixels[row, column, 1] * 180 - 90 == pytest.approx(y, abs=2)


def test_a_lone_tile_is_visible_in_a_heat_map_of_the_planet(tmp_path: Path) -> None:
    positions: list[Place] = [(-170.0, -60.0, 0.02), (0.0, 0.0, 0.05), (170.0, 60.0, 0.02)]
    store = make_store(tmp_path / "store", positions)
    heat = heatmap_of(store, np.array([0.1, 0.9, 0.2]))
    chart = heat.draw(None, style=map_style("light", "none"))
    (image,) = chart.axes.images
    values = image.get_array()
    assert sorted(np.unique(values.compressed()).round(3)) == [0.1, 0.2, 0.9]
    assert (~values.mask).sum() >= 3 * 9


def test_rings_are_few_and_footprints_are_framed(tmp_path: Path) -> None:
    positions: list[Place] = [
        (0.1 + 0.2 * n, 0.1 + 0.2 * m, 0.2) for n in range(20) for m in range(10)
    ]
    store = make_store(tmp_path / "store", positions)
    hits = hits_of(store, k=150)
    chart = heatmap_of(store, np.linspace(0, 1, 200)).draw(hits)
    frames = [a for a in chart.axes.collections if isinstance(a, PolyCollection)]
    assert all(len(frame.get_paths()) == 50 for frame in frames)
    assert not any(
        len(a.get_offsets()) for a in chart.axes.collections if isinstance(a, PathCollection)
    )
    assert geo.area_km2(geo.to_shapely(hits.shapes)).min() > 130
