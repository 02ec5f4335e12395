"""Maps: hits, false alarms, missed points and enlarged regions."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from marsretrieval.report.grouping import ResultSet, result_sets
from marsretrieval.report.html import charts as map_module
from marsretrieval.report.html import write_html
from marsretrieval.report.html.charts import Maps, maps_of, regions_of
from marsretrieval.report.result_files import ResultFile
from tests.report.made import make_geolocalization, result, write
from tests.report.pages import page_of

needs_gis = pytest.mark.usefixtures("gis")


@pytest.fixture
def gis() -> None:
    pytest.importorskip("cartopy")


@pytest.fixture(scope="module")
def points_set(results: list[Path]) -> ResultSet:
    return result_sets([ResultFile.read(path) for path in results])[2]


@pytest.fixture(scope="module")
def maps(points_set: ResultSet) -> Maps:
    pytest.importorskip("cartopy")
    return maps_of(points_set)


def test_marks_are_counted_at_the_best_depth(points_set: ResultSet, maps: Maps) -> None:
    group = maps.groups[0]
    for view in group.views:
        strict = group.entry.metrics[f"{view.scene.landform}/{group.mode}"]["strict"]
        best, scene = strict["best"], view.scene
        assert scene.k == best["k"] == len(scene.hits) + len(scene.alarms)
        assert len(scene.hits) / scene.k == pytest.approx(best["precision"])
        points = len(scene.missed) + len(scene.found)
        assert len(scene.found) / points == pytest.approx(best["recall"])
        assert f"{len(scene.missed)} of {points} points missed" in scene.text


def test_first_model_shows_all_query_modes_and_others_the_best(
    points_set: ResultSet, maps: Maps
) -> None:
    drawn = [(group.entry.label, group.mode) for group in maps.groups]
    first = points_set.entries[0].label
    assert sorted(mode for label, mode in drawn if label == first) == ["hybrid", "image", "text"]
    assert sorted(label for label, _ in drawn if label != first) == ["blurred-2", "eyes-only"]


def pixels(uri: str) -> np.ndarray:
    data = base64.b64decode(uri.partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGBA")).astype(int)


def test_marks_are_at_the_hit_positions(maps: Maps) -> None:
    view = maps.groups[0].views[0]
    marks, basemap = pixels(view.marks), pixels(maps.basemap)
    assert marks.shape == basemap.shape
    high, wide = marks.shape[:2]
    assert (wide, high) == tuple(int(inches * 144) for inches in maps.size)
    blue = (marks[..., 3] > 200) & (abs(marks[..., :3] - (0, 0x67, 0xA8)).sum(axis=2) < 40)
    for lon, lat in view.scene.hits:
        x = (0.4 + 6.55 * (lon + 180) / 360) * 144
        y = (0.05 + (3.3 - 6.55 / 2) / 2 + 6.55 / 2 * (90 - lat) / 180) * 144
        assert blue[int(y) - 4 : int(y) + 5, int(x) - 4 : int(x) + 5].any()
    assert blue.mean() < 0.02


def test_maps_stay_within_the_budget(
    points_set: ResultSet, maps: Maps, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(maps.groups[0].views[0].marks)
    monkeypatch.setattr(map_module, "_MARKS_BUDGET", size + 10)
    drawn = maps_of(points_set)
    assert len(drawn.groups) == 1 and len(drawn.groups[0].views) == 1
    assert "1 of 10 maps" in drawn.notes


def test_maps_have_text_descriptions(
    results: list[Path], maps: Maps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marsretrieval.report.html.page.maps_of", lambda *_, **__: maps)
    page = page_of(results, tmp_path / "report.html")
    figure = page.all("figure", class_="map")[0]
    svg = figure.one("svg")
    assert svg.attributes["aria-label"].startswith("Map of Mars, cones by ")
    assert "false alarms" in figure.one("figcaption").text
    basemap = page.section(svg.one("use").attributes["href"][1:])
    assert basemap.attributes["href"].startswith("data:image/webp;base64,")


@needs_gis
def test_landform_names_are_escaped(tmp_path: Path) -> None:
    evil = '"><script>alert(1)<|script>'
    made = make_geolocalization(landforms=(evil,), modes=("text",), tiles=200)
    path = write(result("geolocalization", evil, made), made, tmp_path / "results")
    page = page_of([path], tmp_path / "report.html")
    label = page.all("figure", class_="map")[0].one("svg").attributes["aria-label"]
    assert evil in label and len(page.all("script")) == 1


def test_without_the_extra_the_page_names_it(
    results: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    report = write_html([ResultFile.read(path) for path in results], tmp_path / "a.html")
    (note,) = [note for note in report.notes if "maps" in note]
    assert "marsretrieval[gis]" in note
    text = (tmp_path / "a.html").read_text()
    assert "No maps:" in text and "marsretrieval[gis]" in text
    assert '<figure class="map">' not in text


@needs_gis
def test_regions_are_below_the_planet(tmp_path: Path) -> None:
    made = make_geolocalization(modes=("text",))
    for column in (made.hits.lon, made.hits.lat):
        column[:] = [None if value is None else value % 3 + 0.1 for value in column]
    for group in made.groups.values():
        if group.per_query:
            for name in ("lon", "lat"):
                group.per_query[name] = np.array(group.per_query[name]) % 3  # type: ignore[index]
    path = write(result("geolocalization", "model", made), made, tmp_path)
    (points_set,) = result_sets([ResultFile.read(path)])
    drawn = maps_of(points_set)
    assert drawn.size == pytest.approx((7.0, 6.25))
    assert pixels(drawn.groups[0].views[0].marks)[530:, :, 3].any()


def test_neighbouring_quads_are_one_region_across_the_antimeridian() -> None:
    lonlat = np.array([[178.0, 1.0], [-178.0, 3.0], [-178.0, -1.0], [20.5, 36.5]])
    boxes = [(box.west, box.south, box.east, box.north) for box in regions_of(lonlat)]
    assert boxes == [(20, 36, 24, 40), (176, -4, -176, 4)]


def test_no_regions_for_global_tiles() -> None:
    assert regions_of(np.empty((0, 2))) == []
    assert regions_of(np.array([[np.nan, np.nan]])) == []
    assert regions_of(np.column_stack([np.arange(0.5, 60), np.zeros(60)])) == []
    assert regions_of(np.column_stack([np.arange(-170.0, 170, 10), np.zeros(34)])) == []
    assert regions_of(np.column_stack([np.arange(-180.0, 180, 4), np.zeros(90)])) == []


def _degrees(most: int) -> st.SearchStrategy[float]:
    """Compare to five decimals, the precision of catalogues."""
    return st.integers(-most * 10**5, most * 10**5).map(lambda value: value / 10**5)


@given(st.lists(st.tuples(_degrees(180), _degrees(90)), min_size=1, max_size=30).map(np.array))
def test_regions_cover_every_position_or_are_omitted(lonlat: np.ndarray) -> None:
    regions = regions_of(lonlat)
    inside = np.zeros(len(lonlat), dtype=bool)
    for box in regions:
        inside |= box.contains(lonlat[:, 0], lonlat[:, 1])
        assert box.width <= 24 and box.height <= 24
    assert not regions or inside.all()
