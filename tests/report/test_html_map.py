"""Maps: what is a hit, a false alarm or missed, and where it is drawn."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsretrieval.report.grouping import ResultSet, result_sets
from marsretrieval.report.html import _map as maps
from marsretrieval.report.html._map import maps_of
from marsretrieval.report.html._regions import Region, regions_of
from marsretrieval.report.result_file import ResultFile
from tests.report.made import make_geolocalization, result, write
from tests.report.pages import page_of


@pytest.fixture(scope="module")
def found(results: list[Path]) -> ResultSet:
    return result_sets([ResultFile.read(path) for path in results])[2]


def test_marks_are_counted_at_the_best_depth(found: ResultSet) -> None:
    group = maps_of(found).groups[0]
    entry, mode = group.entry, group.mode
    for view in group.views:
        strict = entry.metrics[f"{view.scene.landform}/{mode}"]["strict"]
        best, scene = strict["best"], view.scene
        assert scene.k == best["k"] == len(scene.hits) + len(scene.alarms)
        assert len(scene.hits) / scene.k == pytest.approx(best["precision"])
        points = len(scene.missed) + len(scene.found)
        assert len(scene.found) / points == pytest.approx(best["recall"])
        assert f"{len(scene.missed)} of {points} points missed" in scene.told


def test_the_first_model_has_every_kind_of_query_the_others_their_best(found: ResultSet) -> None:
    drawn = [(group.entry.label, group.mode) for group in maps_of(found).groups]
    first = found.entries[0].label
    assert sorted(mode for label, mode in drawn if label == first) == ["hybrid", "image", "text"]
    assert sorted(label for label, _ in drawn if label != first) == ["blurred-2", "eyes-only"]


def cells(path: str, step: float = 0.5) -> list[tuple[float, float]]:
    """The places that a path of dots marks: one for each step of its lines."""
    found = []
    x = y = 0.0
    for across, down, length in re.findall(r"m([-\d.]+) ([-\d.]+)h([-\d.]+)", path):
        x, y = x + float(across), y + float(down)
        found += [(x + step * number, y) for number in range(round(float(length) / step) + 1)]
        x += float(length)
    return found


def test_marks_stand_where_they_lie(found: ResultSet) -> None:
    scene = maps_of(found).groups[0].views[0].scene
    planet = maps_of(found).groups[0].views[0].planet
    places = cells(planet.hits)
    expected = {
        (round((lon + 180) * 4) / 2, round((90 - lat) * 4) / 2) for lon, lat in scene.hits.tolist()
    }
    assert set(places) == expected and len(places) == len(expected)
    assert planet.missed.count("m0-") <= len(scene.missed) and planet.found == ""


def test_crosses_stand_where_points_lie() -> None:
    places = np.array([[10.0, 20.0], [300.5, 7.0], [4.0, 300.0]])
    x = y = 0.0
    middles = []
    for step in re.findall(r"m([-\d.]+) ([-\d.]+)l6 6m0-6l-6 6", maps._crosses(places, 6)):
        x, y = x + float(step[0]), y + float(step[1])
        middles.append((x + 3, y + 3))
        y += 6
    assert sorted(middles) == sorted(map(tuple, places.tolist()))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=60))
def test_every_mark_is_drawn_once_neighbours_as_one_line(places: list[tuple[int, int]]) -> None:
    path = maps._dots(np.array(places, dtype=float).reshape(-1, 2) / 2)
    drawn = cells(path)
    assert sorted(drawn) == sorted({(x / 2, y / 2) for x, y in places})


def test_many_marks_are_rounded_more() -> None:
    places = np.random.default_rng(0).uniform(0, 300, (5000, 2))
    drawn = cells(maps._dots(places), step=1.0)
    assert set(drawn) == {(float(round(x)), float(round(y))) for x, y in places.tolist()}


def test_maps_keep_to_a_budget(found: ResultSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "_BUDGET", 1500)
    drawn = maps_of(found)
    size = sum(view.planet.size for group in drawn.groups for view in group.views)
    assert 0 < size <= 1500 and any("maps" in note for note in drawn.notes)


def test_a_map_is_read_out(results: list[Path], tmp_path: Path) -> None:
    page = page_of(results, tmp_path / "report.html")
    figure = page.all("figure", class_="map")[0]
    svg = figure.all("svg")[0]
    assert svg.attributes["aria-label"].startswith("Map of Mars, cones by ")
    assert "false alarms" in figure.one("figcaption").text
    assert svg.one("use").attributes["href"] == "#mars"


def test_where_few_quads_hold_tiles_they_are_shown_close_up(tmp_path: Path) -> None:
    made = make_geolocalization(modes=("text",))
    hits = made.hits
    for column in (hits.lon, hits.lat):
        column[:] = [None if each is None else each % 3 + 0.1 for each in column]
    for group in made.groups.values():
        if group.per_query:
            for name in ("lon", "lat"):
                group.per_query[name] = np.array(group.per_query[name]) % 3  # type: ignore[index]
    path = write(result("geolocalization", "model", made), made, tmp_path)
    page = page_of([path], tmp_path / "report.html")
    region = page.all("svg", class_="close")[0]
    assert region.attributes["aria-label"] == "cones close up, 0° to 4°E, 0° to 4°N"
    ground = page.section(region.one("use").attributes["href"][1:])
    tiles = {(lon, lat) for lon, lat in zip(hits.lon, hits.lat, strict=True)}
    assert 0 < ground.one("path", class_="m-tile").attributes["d"].count("m") <= len(tiles)


def test_neighbouring_quads_are_one_region_across_the_antimeridian() -> None:
    lonlat = np.array([[178.0, 1.0], [-178.0, 3.0], [-178.0, -1.0], [20.5, 36.5]])
    north, seam = regions_of(lonlat)
    assert north.name == "20°E to 24°E, 36°N to 40°N"
    assert seam.name == "176°E to 176°W, 4°S to 4°N"
    placed = seam.place(lonlat)
    assert len(placed) == 3 and placed[0, 0] < seam.width / 2 < placed[1, 0]
    assert placed[2, 1] > placed[0, 1]


def test_where_tiles_are_everywhere_there_are_no_regions() -> None:
    assert regions_of(np.empty((0, 2))) == []
    assert regions_of(np.array([[np.nan, np.nan]])) == []
    wide = np.column_stack([np.arange(0.5, 60), np.zeros(60)])
    assert regions_of(wide) == []
    apart = np.column_stack([np.arange(-170.0, 170, 10), np.zeros(34)])
    assert regions_of(apart) == []


def _degrees(most: int) -> st.SearchStrategy[float]:
    """To five decimals: catalogues have no more."""
    return st.integers(-most * 10**5, most * 10**5).map(lambda value: value / 10**5)


@given(st.lists(st.tuples(_degrees(180), _degrees(90)), min_size=1, max_size=30).map(np.array))
def test_every_position_is_in_a_region_or_there_are_none(lonlat: np.ndarray) -> None:
    regions = regions_of(lonlat)
    inside = sum(len(each.place(lonlat)) for each in regions)
    assert not regions or inside >= len(lonlat)
    for each in regions:
        placed = each.place(lonlat)
        assert (placed >= -1e-6).all() and (placed <= [each.width + 0.1, each.height + 0.1]).all()


def test_the_edges_of_the_planet_are_on_the_map() -> None:
    planet = Region.planet(720, 360)
    placed = planet.place(np.array([[-180.0, 90.0], [180.0, -90.0], [0.0, 0.0]]))
    assert placed.tolist() == [[0, 0], [720, 360], [360, 180]]
