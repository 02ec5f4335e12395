"""The page of hits: complete, self-contained, safe, with a map at any scale."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

import marsretrieval
from marsretrieval.embeddings import EmbeddingStore
from marsretrieval.errors import MissingImagesWarning, UsageError
from marsretrieval.search import Hits, write_hits, write_page
from marsretrieval.search.page.links import links_at
from tests.fakes import FakeEncoder
from tests.report.pages import Element, Page
from tests.search.pictures import picture_store
from tests.search.places import hits_of

EVIL = "</style><script>alert('x')<&script> \"q\" {{ 7 * 7 }}".replace("/", "\u2215")
GRID = [(10 + 0.2 * (n % 6), 5 + 0.2 * (n // 6), 0.2) for n in range(30)]


def page_of(hits: Hits, out: Path, **options: Any) -> Page:
    write_page(hits, out, **options)
    return Page(out.read_text(encoding="utf-8"))


def cards(page: Page) -> list[Element]:
    return page.all("article", class_="card")


def rows(page: Page) -> list[list[Any]]:
    (data,) = page.all("script", id="rows")
    return json.loads(data.texts[0])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    return picture_store(tmp_path_factory.mktemp("page"), GRID)


@pytest.fixture(scope="module")
def page(store: EmbeddingStore, tmp_path_factory: pytest.TempPathFactory) -> Page:
    out = tmp_path_factory.mktemp("out") / "hits.html"
    return page_of(hits_of(store), out, store=store)


def test_all_hits_are_there_with_their_values(store: EmbeddingStore, page: Page) -> None:
    hits = hits_of(store)
    assert len(cards(page)) == len(hits) == 30
    for hit, card, row in zip(hits, cards(page), rows(page), strict=True):
        assert row == [hit.id, hit.lon, hit.lat, hit.score]
        assert card.one("span", class_="id").text == hit.id
        assert card.one("span", class_="rank").text == str(hit.rank)
        assert f"{hit.score:.4f}" in card.one("p", class_="numbers").text
        assert f"{hit.lon:g}° E, {hit.lat:g}° N" in card.text
        assert hit.source in card.text
        assert card.one("img").attributes["src"].startswith("data:image/webp;base64,")


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    """Only links leave the page, and the policy allows only this script."""
    policy = next(
        meta.attributes["content"]
        for meta in page.all("meta")
        if meta.attributes.get("http-equiv") == "Content-Security-Policy"
    )
    (script,) = (item for item in page.all("script") if "type" not in item.attributes)
    digest = base64.b64encode(hashlib.sha256("".join(script.texts).encode()).digest()).decode()
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "connect-src" not in policy
    for element in page.elements:
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            if name == "src":
                assert value.startswith("data:")
            if name in ("href", "xlink:href"):
                assert value.startswith("#") or (
                    element.tag == "a" and "noopener" in element.attributes["rel"]
                )
    assert "@import" not in page.source and "url(http" not in page.source


def test_links_of_a_position() -> None:
    west = [[(-71.2, -10.4), (-71.0, -10.4), (-71.0, -10.2), (-71.2, -10.2)]]
    quad, ode, trek = links_at(288.9, -10.3, west)  # type: ignore[arg-type]
    assert quad.href.endswith("/MurrayLab_GlobalCTXMosaic_V01_E-072_N-12.zip")
    query = {name: value for name, (value,) in parse_qs(urlsplit(ode.href).query).items()}
    assert (query["westernlon"], query["easternlon"]) == ("288.80000", "289.00000")
    assert (query["minlat"], query["maxlat"]) == ("-10.40000", "-10.20000")
    assert "x=-71.10000&y=-10.30000" in trek.href
    assert [link.text for link in links_at(0, 89)] == ["ODE", "Trek"]  # outside of the mosaic


def test_markup_in_names_stays_text(tmp_path: Path) -> None:
    names = [EVIL, "\u202egnp", "=1+1"]
    store = picture_store(tmp_path, [None] * 3, names)
    hits = hits_of(store)
    page = page_of(Hits(hits.scores, hits.ids, hits.lon, hits.lat, hits.sources, hits.shapes,
                        about={"text": EVIL, "texts": [EVIL], "model": EVIL}),
                   tmp_path / "x.html", store=store)  # fmt: skip
    assert len(page.all("script")) == 4  # rows, marks, the record and the page's own
    assert page.all("h1")[0].text.startswith("<∕style><script>alert('x')")
    assert "{{ 7 * 7 }}" in page.all("h1")[0].text
    assert {row[0] for row in rows(page)} == {*names}
    texts = {card.one("span", class_="id").text for card in cards(page)}
    assert r"\u202egnp" in texts
    assert not page.all("svg", class_="chart")


def test_hits_without_positions_have_neither_map_nor_links(tmp_path: Path) -> None:
    store = picture_store(tmp_path, [None] * 4)
    page = page_of(hits_of(store), tmp_path / "x.html", store=store)
    assert len(cards(page)) == 4
    assert not page.all("svg", class_="chart")
    assert not [a for a in page.all("a") if a.attributes["href"].startswith("http")]
    assert rows(page)[0][1:3] == [None, None]


@pytest.mark.filterwarnings("ignore::marsretrieval.errors.MissingImagesWarning")
def test_unreadable_images_are_shown_and_counted(tmp_path: Path) -> None:
    store = picture_store(tmp_path, GRID[:6])
    (tmp_path / "images" / "tile-002.png").unlink()
    hits = hits_of(store)
    with pytest.warns(MissingImagesWarning, match=r"1 of 6 images cannot be read.*No such file"):
        summary = write_page(hits, tmp_path / "x.html", store=store)
    assert (summary.images, summary.unreadable, summary.left_out) == (5, 1, 0)
    page = Page((tmp_path / "x.html").read_text(encoding="utf-8"))
    (placeholder,) = page.all("p", class_="noimg")
    assert "No such file" in placeholder.text
    assert any("1 of 6 images cannot be read." in notice.text for notice in page.all("p"))


def test_images_beyond_the_limit_are_left_out_and_counted(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    page = page_of(hits_of(store), tmp_path / "x.html", store=store, images=4)
    assert len(cards(page)) == 30
    assert len([card for card in cards(page) if card.all("img")]) == 4
    assert "26 hits are shown without an image" in page.root.text
    with pytest.raises(UsageError, match="-1 images"):
        write_page(hits_of(store), tmp_path / "x.html", images=-1)


def test_too_many_hits_are_refused(tmp_path: Path) -> None:
    n = 20_001
    hits = Hits(np.zeros(n, np.float32), ["a"] * n, [None] * n, [None] * n, ["b"] * n, [None] * n)
    with pytest.raises(UsageError, match="at most 20,000"):
        write_page(hits, tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_no_hits_make_a_page_that_says_so(store: EmbeddingStore, tmp_path: Path) -> None:
    page = page_of(
        Hits(np.zeros(0, np.float32), [], [], [], [], []), tmp_path / "x.html", store=store
    )
    assert "No tile passed the filters" in page.root.text


def marks(page: Page, number: int = 0) -> list[Element]:
    chart = page.all("svg", class_="chart")[number]
    return list(chart.all("g", class_="marks")[0].children)


def outline(mark: Element) -> np.ndarray:
    numbers = re.findall(r"[-\d.]+", mark.attributes["d"])
    return np.array(numbers, dtype=float).reshape(-1, 2)


def test_a_local_map_is_to_scale(store: EmbeddingStore, page: Page) -> None:
    """Tiles are as wide as the cosine of their latitude says; the scale bar fits them."""
    by_index = {int(mark.attributes["data-i"]): outline(mark) for mark in marks(page)}
    hits = hits_of(store)
    assert by_index.keys() == set(range(30))
    first, second = 0, next(
        n for n in range(1, 30) if hits.lat[n] == hits.lat[0] and hits.lon[n] != hits.lon[0]
    )  # fmt: skip
    (width, height), centre = np.ptp(by_index[first], axis=0), by_index[first].mean(axis=0)
    assert width / height == pytest.approx(math.cos(math.radians(5.4)), rel=0.01)
    moved = by_index[second].mean(axis=0) - centre
    tiles_apart = (float(hits.lon[second]) - float(hits.lon[first])) / 0.2
    assert moved[0] == pytest.approx(tiles_apart * width, rel=0.03)
    bar = page.all("g", class_="scale")[0]
    length = float(re.search(r"h([\d.]+)v", bar.all("path")[0].attributes["d"])[1])  # type: ignore[index]
    kilometres = float(bar.one("text").text.removesuffix(" km"))
    tile_km = 0.2 * math.pi / 180 * 3396.19
    assert length / height == pytest.approx(kilometres / tile_km, rel=0.03)


def test_the_map_goes_down_to_a_single_scene(tmp_path: Path) -> None:
    """Tiles of 0.0005 degrees (30 m) are outlines, with a scale bar in metres."""
    positions = [(137.4 + 0.0005 * n, -4.6, 0.0005) for n in range(5)]
    store = picture_store(tmp_path, positions)
    page = page_of(hits_of(store), tmp_path / "x.html", store=store)
    heights = [np.ptp(outline(mark), axis=0)[1] for mark in marks(page)]
    assert min(heights) > 20
    assert page.all("g", class_="scale")[0].one("text").text.endswith(" m")


def test_far_groups_have_close_ups(tmp_path: Path) -> None:
    positions = [*GRID[:6], *((lon - 150, lat - 40, side) for lon, lat, side in GRID[6:12])]
    store = picture_store(tmp_path, positions)
    page = page_of(hits_of(store), tmp_path / "x.html", store=store)
    assert len(page.all("svg", class_="chart")) == 3
    assert [len(marks(page, number)) for number in range(3)] == [12, 6, 6]
    assert all(mark.tag == "circle" for mark in marks(page, 0))
    assert all(mark.tag == "path" for mark in marks(page, 1))


def test_polar_hits_lie_around_the_pole(tmp_path: Path) -> None:
    positions = [(lon, 80.0, 0.02) for lon in (0.0, 90.0, 180.0, -90.0)]
    store = picture_store(tmp_path, positions)
    hits = hits_of(store)
    page = page_of(hits, tmp_path / "x.html", store=store)
    at = {
        hits.lon[int(mark.attributes["data-i"])]: (
            float(mark.attributes["cx"]),
            float(mark.attributes["cy"]),
        )
        for mark in marks(page)
    }
    (south_x, south_y), (east_x, east_y) = at[0.0], at[90.0]
    north = at[180.0] if 180.0 in at else at[-180.0]
    assert south_x == pytest.approx(north[0]) and south_y > north[1]  # 0 E is below
    assert east_x > at[-90.0][0] and east_y == pytest.approx(at[-90.0][1])


def test_the_store_is_found_from_the_description(tmp_path: Path) -> None:
    """`write_hits` knows only the hits: the images come from the store that they name."""
    folder = picture_store(tmp_path, GRID[:4]).path
    result = marsretrieval.open_store(folder, encoder=FakeEncoder()).search("cones", k=4)
    write_hits(result.hits, tmp_path / "x.html")
    page = Page((tmp_path / "x.html").read_text(encoding="utf-8"))
    assert len(page.all("img")) == 4


def test_the_query_and_its_command_are_shown(tmp_path: Path) -> None:
    folder = picture_store(tmp_path, GRID).path
    store = marsretrieval.open_store(folder, encoder=FakeEncoder())
    example = tmp_path / "images" / "tile-003.png"
    result = store.search(
        "pitted cones", images=[example], not_text="dunes", not_like="tile-004", k=7,
        bbox="-60,-20,60,20",
    )  # fmt: skip
    result.write(tmp_path / "x.html")
    page = Page((tmp_path / "x.html").read_text(encoding="utf-8"))
    examples = page.all("figure", class_="example")
    assert [figure.one("figcaption").text for figure in examples] == ["tile-003.png", "tile-004"]
    assert "negative" in examples[1].attributes["class"]
    assert page.all("span", class_="chip")[0].text == "dunes"
    command = page.all("pre")[0].text
    assert command == (
        f"marsretrieval search --store {folder} --text 'pitted cones' --image {example} "
        "--negative-text dunes --negative tile-004 --image-weight 0.3 --negative-weight 0.25 "
        f"--bbox=-60,-20,60,20 --count 7 --out {tmp_path / 'x.html'}"
    )
    picture = Image.new("L", (40, 40), 90)
    store.search(images=picture, k=3).write(tmp_path / "y.html")
    without = Page((tmp_path / "y.html").read_text(encoding="utf-8"))
    assert not without.all("pre")
    assert "no command reproduces it" in without.root.text


def test_two_searches_keep_their_marks_apart(store: EmbeddingStore, tmp_path: Path) -> None:
    keys = {
        page_of(hits_of(store, k=k), tmp_path / "x.html", store=store)
        .all("body")[0]
        .attributes["data-key"]
        for k in (4, 5, 4)
    }
    assert len(keys) == 2


@pytest.mark.browser
def test_the_script_runs_under_the_policy(page: Page, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium")
    marked = page.source.replace(
        '<script type="application/json" id="saved">{}',
        '<script type="application/json" id="saved">'
        '{"changed": "2026-01-01", "marks": {"0": "keep", "2": "reject", "99": "keep"}}',
    )
    (tmp_path / "x.html").write_text(marked, encoding="utf-8")
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "x.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert 'data-ready=""' in done.stdout
    assert re.findall(r'id="hit-(\d+)"[^>]*data-mark="(\w+)"', done.stdout) == [
        ("1", "keep"), ("3", "reject"),
    ]  # fmt: skip


def test_known_features_are_named(store: EmbeddingStore, tmp_path: Path) -> None:
    hits = replace(
        hits_of(store, k=2), known=[True, False], nearest_name=["Gale", None],
        nearest_km=[1.25, 80.0],
        about={"against": {"file": "c.csv", "km": 5.0, "known": 1, "new": 1,
                           "without_position": 0}},
    )  # fmt: skip
    first, second = cards(page_of(hits, tmp_path / "x.html", store=store))
    assert "Gale" in first.text and "(known)" in first.text and "(new)" in second.text
