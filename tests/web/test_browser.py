"""The page of the map in chromium: what users see and do, from a search to an export."""

from __future__ import annotations

import csv
import json
import math
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

KM_PER_DEGREE = 3396.19 * math.pi / 180
QUERY = "#q=pitted+cones"
SCORE_CODE = """([lon, lat]) => {
  const map = window.marsMap.map;
  const canvas = document.querySelector('.layer-score canvas');
  const [x, y] = map.map.getPixelFromCoordinate(map.toMap(lon, lat));
  const ratio = canvas.width / canvas.clientWidth;
  const pixel = canvas.getContext('2d').getImageData(x * ratio, y * ratio, 1, 1).data;
  return [...pixel];
}"""


class Visit:
    """Opens pages of the server, and collects what must not happen on them."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        self.url = url
        self.problems: list[str] = []
        self.offline = False
        self.contexts: list[Any] = []

    def __call__(self, address: str = "", **options: Any) -> Any:
        context = self.browser.new_context(
            **{"viewport": {"width": 1200, "height": 760}, "color_scheme": "dark"} | options
        )
        self.contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("console", self._console)
        page.on("request", self._request)
        page.goto(self.url + address)
        page.wait_for_selector("body[data-ready]")
        if "q=" in address or "like=" in address:
            page.wait_for_selector("body[data-search]")
        return page

    def _console(self, message: Any) -> None:
        if message.type == "error" and not self.offline:
            self.problems.append(f"console: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.problems.append(f"request: {request.url}")


@pytest.fixture
def visit(browser: Any, map_url: str) -> Iterator[Visit]:
    """Open a page of the map; fails on errors in the console and requests to elsewhere."""
    opened = Visit(browser, map_url)
    yield opened
    for context in opened.contexts:
        context.close()
    assert opened.problems == []


def until(page: Any, script: str, argument: Any = None) -> None:
    """Wait until a script is true. Playwright's own function for this is refused by the policy."""
    for _ in range(400):
        if page.evaluate(script, argument):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {script}")


def ask(page: Any, text: str) -> None:
    """Type a query and wait for its hits."""
    before = page.evaluate("document.body.dataset.search ?? ''")
    page.keyboard.press("/")
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    until(page, "before => (document.body.dataset.search ?? before) !== before", before)


def api(visit: Visit, path: str) -> Any:
    with urllib.request.urlopen(f"{visit.url}api/v1{path}", timeout=30) as response:
        return json.load(response)


def hits(page: Any) -> list[dict[str, Any]]:
    hit_list: list[dict[str, Any]] = page.evaluate("window.marsMap.gallery.hits")
    return hit_list


def ids(page: Any) -> list[str]:
    return [hit["id"] for hit in hits(page)]


def settle(page: Any) -> None:
    """Wait until the map has been drawn."""
    page.evaluate(
        "() => new Promise(done => { const map = window.marsMap.map.map;"
        " map.once('rendercomplete', () => requestAnimationFrame(done)); map.render(); })"
    )


def test_a_search_colours_the_best_tile_and_the_slider_counts(visit):
    page = visit()
    assert page.locator("#empty").is_visible()
    ask(page, "pitted cones")
    settle(page)
    gallery_hits = hits(page)
    assert page.locator("[role=option]").first.get_attribute("data-id") == gallery_hits[0]["id"]
    best, worst = ([hit["lon"], hit["lat"]] for hit in (gallery_hits[0], gallery_hits[-1]))
    page.evaluate("([lon, lat]) => window.marsMap.map.zoomTo(lon, lat, 0.05)", best)
    page.wait_for_timeout(400)
    settle(page)
    red, green, _, alpha = page.evaluate(SCORE_CODE, best)
    assert alpha > 180
    assert red > 240 and green > 200  # the colour of the best tile
    key = page.evaluate("document.body.dataset.search")
    slider = page.locator("#threshold")
    for position in (30, 60):
        slider.fill(str(position))
        count = int(re.match(r"[\d,]+", page.locator("#share").inner_text())[0].replace(",", ""))
        listed = api(visit, f"/searches/{key}/hits?cut={position}&limit=500")
        assert not listed["more"]
        assert count == len(listed["hits"]) > 0
    slider.fill(slider.get_attribute("max"))
    settle(page)
    assert page.evaluate(SCORE_CODE, worst)[3] < 40  # now below the threshold


def test_a_lone_best_tile_is_seen_at_every_zoom_level_and_at_the_pole(visit):
    page = visit(QUERY)
    visible = page.evaluate("""() => {
      const codes = new Uint8Array(3600 * 1800);
      const lon = 30, lat = 70, column = (lon + 180) * 10, row = (90 - lat) * 10;
      codes.fill(5);
      codes[row * 3600 + column] = 200;
      const counts = new Array(256).fill(0);
      counts[5] = codes.length - 1; counts[200] = 1;
      const raster = new window.marsMap.raster.constructor(
        { west: -180, north: 90, cell_lon: 0.1, cell_lat: 0.1, columns: 3600, rows: 1800 });
      raster.load(codes, counts);
      raster.recolour(150);
      const hot = (canvas) => {
        const { width, height } = canvas;
        const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
        const found = [];
        for (let at = 0; at < width * height; at += 1)
          if (data[4 * at + 3] > 180) found.push([at % width, Math.floor(at / width)]);
        return found;
      };
      const planes = [];
      for (let wide = 100; wide < 6000; wide *= 1.37) {
        const canvas = document.createElement('canvas');
        canvas.width = 300; canvas.height = 150;
        const per = wide / 360;  // pixels per degree
        raster.draw(canvas.getContext('2d'),
          [lon - 150 / per, lat - 75 / per, lon + 150 / per, lat + 75 / per], 300);
        const near = hot(canvas).filter(([x, y]) => Math.abs(x - 150) < 9 && Math.abs(y - 75) < 9);
        planes.push(near.length);
      }
      const polar = raster.polar(1), spots = hot(polar);
      return { planes, spots, size: polar.width, south: hot(raster.polar(-1)).length };
    }""")
    assert len(visible["planes"]) > 10
    assert min(visible["planes"]) >= 1
    assert visible["south"] == 0
    # Stereographic projection to 45 degrees, computed here; north is seen from above, 0 E is down.
    distance = math.tan(math.radians(20) / 2) / math.tan(math.radians(45) / 2)
    angle = math.radians(30.05)
    column = (1 + distance * math.sin(angle)) * visible["size"] / 2
    row = (1 + distance * math.cos(angle)) * visible["size"] / 2
    assert visible["spots"]
    for x, y in visible["spots"]:
        assert abs(x - column) < 6
        assert abs(y - row) < 6


def test_the_poles_and_the_scale_bar(visit):
    page = visit(QUERY + "&c=0,0&z=0.1")
    for latitude in (0, 60):
        page.evaluate("lat => window.marsMap.map.setView('plane', [10, lat], 0.1)", latitude)
        settle(page)
        bar = page.locator(".ol-scale-line-inner")
        number, unit = bar.inner_text().split()
        km = float(number) / (1 if unit == "km" else 1000)
        width = float(bar.evaluate("element => element.style.width").removesuffix("px"))
        expected = width * 0.1 * KM_PER_DEGREE * math.cos(math.radians(latitude))
        assert km == pytest.approx(expected, rel=0.01)
    page.get_by_role("button", name="North pole").click()
    settle(page)
    assert page.evaluate("window.marsMap.map.drawn").get("score")
    assert "p=north" in page.url
    assert page.get_by_role("button", name="North pole").get_attribute("aria-pressed") == "true"


def test_a_region_over_the_antimeridian(visit):
    page = visit(QUERY + "&c=180,0&z=0.05")
    with page.expect_response(lambda answer: answer.url.endswith("/searches")) as answer:
        page.get_by_role("button", name="This view").click()
    west, _, east, _ = answer.value.request.post_data_json["bbox"]
    assert west < 180 < east
    until(page, "window.marsMap.query.bbox !== null")
    longitudes = [hit["lon"] for hit in hits(page)]
    assert longitudes
    assert all((lon - west) % 360 <= east - west for lon in longitudes)
    page.get_by_role("button", name="Whole planet").click()
    until(page, "window.marsMap.query.bbox === null")


@pytest.mark.parametrize("is_submitted", [True, False])
def test_what_is_typed_while_the_store_opens_is_kept(visit, is_submitted):
    held: list[Any] = []
    is_typed = False

    def hold(route: Any) -> None:
        if is_typed:
            route.continue_()
        else:
            held.append(route)

    context = visit.browser.new_context()
    visit.contexts.append(context)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.route(re.compile(r"/api/v1/(store|inventory)\b"), hold)
    page.goto(visit.url, wait_until="domcontentloaded")
    page.fill("#text", "yardangs")
    if is_submitted:
        page.press("#text", "Enter")
    assert page.get_attribute("body", "data-ready") is None
    is_typed = True
    assert held
    for route in held:
        route.continue_()
    page.wait_for_selector("body[data-ready]")
    assert page.input_value("#text") == "yardangs"
    if is_submitted:
        page.wait_for_selector("body[data-search]")
        assert page.input_value("#text") == "yardangs"
        assert "q=yardangs" in page.url and len(hits(page)) > 0


def test_back_reload_and_more_like_this(visit):
    page = visit(QUERY)
    first = ids(page)
    page.keyboard.press("m")
    until(page, "window.marsMap.query.like.length === 1")
    until(page, "first => window.marsMap.gallery.hits[1].id !== first", first[1])
    like = ids(page)
    assert f"like={first[0]}" in page.url
    page.reload()
    page.wait_for_selector("body[data-search]")
    assert ids(page) == like
    page.go_back()
    until(page, "window.marsMap.query.text[0] === 'pitted cones'")
    until(page, "id => window.marsMap.gallery.hits[1].id === id", first[1])
    assert page.locator("#text").input_value() == "pitted cones"
    page.go_forward()
    until(page, "id => window.marsMap.gallery.hits[1].id === id", like[1])


def test_marks_by_keyboard_survive_a_server_that_is_gone(visit):
    page = visit(QUERY)
    rank = 20
    page.evaluate("rank => window.marsMap.gallery.focus(rank)", rank)
    names = ids(page)[rank : rank + 3]
    page.keyboard.press("y")
    page.keyboard.press("n")
    page.keyboard.press("u")
    until(page, "window.marsMap.inventory.queued === 0")
    marks = {one["id"]: one["mark"] for one in api(visit, "/marks")}
    assert [marks.get(name) for name in names] == ["yes", "no", "unsure"]
    page.keyboard.press("Backspace")
    until(page, "window.marsMap.inventory.queued === 0")
    assert names[2] not in {one["id"] for one in api(visit, "/marks")}
    visit.offline = True
    page.context.set_offline(True)
    page.keyboard.press("y")
    page.wait_for_selector("#banner[data-kind=offline]")
    with page.expect_event("dialog") as warning:  # leaving would lose the mark
        page.close(run_before_unload=True)
    assert warning.value.type == "beforeunload"
    warning.value.dismiss()
    assert page.evaluate("window.marsMap.inventory.queued") == 1
    assert "1 not saved yet" in page.locator("#mark-count").text_content()
    page.context.set_offline(False)
    until(page, "window.marsMap.inventory.queued === 0")
    page.wait_for_selector("#banner", state="hidden")


def test_another_store_and_back(visit):
    page = visit(QUERY)
    first = ids(page)
    page.locator("#stores").select_option(label="plain")
    until(page, "window.marsMap.store.name.endsWith('plain.store')")
    until(page, "window.marsMap.search !== null && window.marsMap.search.total === 12")
    assert "plain.store" in page.url and "q=pitted+cones" in page.url
    # Without positions: said in words, and what needs them is gone.
    assert "no positions" in page.locator("#no-positions").inner_text()
    assert not page.locator("#polygon").is_visible()
    assert not page.locator("#cut").is_visible()
    assert len(hits(page)) == 12
    assert page.evaluate("window.marsMap.map.drawn.hits") == 0
    page.reload()
    page.wait_for_selector("body[data-search]")
    assert page.locator("#stores").input_value().endswith("plain.store")
    page.go_back()
    until(
        page, "window.marsMap.store.name.endsWith('planet.store') && window.marsMap.search !== null"
    )
    until(page, "id => window.marsMap.gallery.hits[0]?.id === id", first[0])
    assert page.locator("#stores").input_value().endswith("planet.store")
    assert not page.locator("#no-positions").is_visible()


def drag(page: Any, corners: list[tuple[float, float]], *, shift: bool) -> None:
    """Drag between two points, given as shares of the map's width and height."""
    box = page.locator("#map").bounding_box()
    (x, y), (to_x, to_y) = (
        (box["x"] + a * box["width"], box["y"] + b * box["height"]) for a, b in corners
    )
    if shift:
        page.keyboard.down("Shift")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(to_x, to_y, steps=4)
    page.mouse.up()
    if shift:
        page.keyboard.up("Shift")


def test_a_box_about_the_pole_and_a_drawn_polygon(visit):
    page = visit(QUERY)
    page.get_by_role("button", name="North pole").click()
    settle(page)
    drag(page, [(0.3, 0.3), (0.7, 0.7)], shift=True)
    until(page, "window.marsMap.query.region !== null && !document.body.matches('.busy')")
    ring = page.evaluate("window.marsMap.query.region.coordinates[0]")
    assert abs(ring[-1][0] - ring[0][0]) == 360  # once around the pole
    # Independently: inside the box of the projection, seen from above with 0 E down.
    corner_lon, corner_lat = ring[0]
    half = math.tan(math.radians(90 - corner_lat) / 2)
    half_x = abs(half * math.sin(math.radians(corner_lon)))
    half_y = abs(half * math.cos(math.radians(corner_lon)))
    until(page, "window.marsMap.gallery.hits.every((hit) => hit.lat > 0)")
    for hit in hits(page):
        distance = math.tan(math.radians(90 - hit["lat"]) / 2)
        assert distance * abs(math.sin(math.radians(hit["lon"]))) <= half_x * 1.02
        assert distance * abs(math.cos(math.radians(hit["lon"]))) <= half_y * 1.02
    page.get_by_role("button", name="Whole planet").click()
    page.get_by_role("button", name="Map", exact=True).click()
    page.get_by_role("button", name="Polygon").click()
    box = page.locator("#map").bounding_box()
    for x, y in ((0.2, 0.3), (0.8, 0.3), (0.5, 0.7)):
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.wait_for_timeout(260)  # not a double click
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.7 * box["height"])
    until(page, "window.marsMap.query.region?.coordinates[0].length === 4")
    assert page.locator("#polygon").get_attribute("aria-pressed") == "false"
    until(page, "!document.body.matches('.busy')")
    assert page.evaluate("window.marsMap.query.like") == []  # the last click was of the drawing


def test_dropped_images_are_examples(visit, tiny_planet: Path):
    page = visit()
    image = next(path for path in tiny_planet.rglob("*") if path.suffix in (".png", ".jpg"))
    page.evaluate(
        """([name, bytes]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], name, { type: 'image/png' }));
          const init = { dataTransfer: transfer, bubbles: true, cancelable: true };
          document.body.dispatchEvent(new DragEvent('dragover', init));
          window.dropShown = !document.getElementById('drop').hidden;
          document.body.dispatchEvent(new DragEvent('drop', init));
        }""",
        [image.name, list(image.read_bytes())],
    )
    page.wait_for_selector("body[data-search]")
    assert page.evaluate("window.dropShown")
    assert not page.locator("#drop").is_visible()
    assert page.locator(".chip").inner_text().startswith("image 1")
    assert "image=" in page.url and len(hits(page)) > 100


def test_marks_of_another_tab_and_a_read_only_server(visit):
    page, other = visit(QUERY), visit(QUERY)
    other.evaluate("window.marsMap.gallery.focus(60)")
    other.keyboard.press("y")
    until(other, "window.marsMap.inventory.queued === 0")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    until(page, "window.marsMap.gallery.hits[60].mark === 'yes'")

    def refuse(route: Any) -> None:
        answer = route.fetch()
        info = answer.json() | {"read_only": True, "read_only_reason": "cones is open elsewhere"}
        route.fulfill(response=answer, json=info)

    page.route("**/api/v1/store*", refuse)
    page.reload()
    page.wait_for_selector("body[data-search]")
    assert page.locator("#read-only").is_visible()
    page.keyboard.press("2")
    assert "cones is open elsewhere" in page.locator("#panel-inventory .notice").inner_text()
    page.keyboard.press("y")
    assert "cones is open elsewhere" in page.locator("#status").inner_text()


def test_the_inventory_follows_marks_and_a_long_gallery_stays_small(visit):
    page = visit(QUERY)
    page.evaluate("window.marsMap.gallery.focus(80)")
    page.keyboard.press("2")
    page.keyboard.press("y")  # with the panel open
    until(page, "window.marsMap.inventory.queued === 0")
    page.get_by_role("button", name=re.compile("^Learn")).and_(page.locator(":enabled")).wait_for()
    page.keyboard.press("1")
    cells = page.evaluate("""() => {
      const { gallery } = window.marsMap, hit = gallery.hits[0];
      const many = Array.from({ length: 2000 }, (_, at) => ({ ...hit, rank: at + 1 }));
      gallery.show(many, { store: window.marsMap.store.name, images: false });
      gallery.focus(1500);
      return gallery.root.querySelectorAll('[role=option]').length;
    }""")
    assert 3 <= cells <= 80
    selected = page.locator("[role=option][aria-selected=true]")
    assert selected.get_attribute("aria-posinset") == "1501"
    assert selected.get_attribute("aria-setsize") == "2000"
    page.keyboard.press("End")
    assert page.locator("[role=option][aria-posinset='2000']").is_visible()


def test_learn_audit_to_the_end_and_export(visit, tmp_path: Path):
    page = visit(QUERY)
    before = ids(page)
    likely = set(before[:40])
    for start, key in ((0, "y"), (100, "n")):
        page.evaluate("start => window.marsMap.gallery.focus(start)", start)
        for _ in range(6):
            page.keyboard.press(key)
    until(page, "window.marsMap.inventory.queued === 0")
    page.keyboard.press("l")
    until(page, "window.marsMap.query.learned")
    until(page, "id => window.marsMap.gallery.hits.some((hit, at) => hit.id !== id[at])", before)
    page.keyboard.press("2")
    page.evaluate("window.marsMap.inventory.domain = 20")  # less than the slider offers
    page.get_by_role("button", name="Start an audit").click()
    page.wait_for_selector("body.audit")
    # Blind: nothing tells how the model ranks these tiles, or what was said of them before.
    options = page.locator("#gallery [role=option]")
    assert not re.search(r"\d\.\d{3}|rank", " ".join(options.all_inner_texts()))
    assert all(
        name.startswith("image ")
        for name in options.evaluate_all("all => all.map(one => one.ariaLabel)")
    )
    assert page.evaluate("window.marsMap.map.drawn") == {"hits": 0, "marks": 0, "score": False}
    assert not page.locator("#cut").is_visible()
    assert all(hit["score"] is None and hit["rank"] == 0 for hit in hits(page))
    for _ in range(400):
        if not page.evaluate("window.marsMap.inventory.auditing"):
            break
        tile = page.evaluate("""() => {
          const app = window.marsMap, at = app.gallery.hits.findIndex((hit) => !hit.mark);
          if (at >= 0) app.gallery.focus(at);
          return at < 0 ? null : app.gallery.hits[at].id;
        }""")
        if tile is None:
            page.wait_for_timeout(30)  # the next page is on its way
            continue
        page.keyboard.press("y" if tile in likely else "n")
    until(page, "!window.marsMap.inventory.auditing")
    page.keyboard.press("2")
    page.get_by_role("button", name="Close the audit").click()
    page.get_by_role("button", name="Start an audit").wait_for()
    sentence = page.locator(".sentence").inner_text()
    assert re.search("95 ?% interval", sentence) or "confirmed" in sentence
    assert page.locator(".estimate").count() >= 1
    with page.expect_download() as download:
        page.get_by_role("button", name="ground_truth.csv").click()
    path = tmp_path / "truth.csv"
    download.value.save_as(path)
    rows = [row for row in csv.reader(path.open()) if not row[0].startswith("#")]
    assert rows[0][:2] == ["lon", "lat"]
    yes = sum(one["mark"] == "yes" for one in api(visit, "/marks"))
    assert 1 <= len(rows) - 1 <= yes


def test_roles_keyboard_and_panels(visit):
    page = visit(QUERY)
    snapshot = page.locator("body").aria_snapshot()
    for role in ("search", "tablist", "tab ", "listbox", "option ", "status", "slider"):
        assert re.search(rf"^\s*- {role}", snapshot, re.MULTILINE), role
    page.locator("#tab-gallery").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tab-inventory").get_attribute("aria-selected") == "true"
    page.keyboard.press("3")
    assert "marsretrieval search" in page.locator("#cli").inner_text()
    page.keyboard.press("1")
    page.keyboard.press("j")
    selected = page.locator("[role=option][aria-selected=true]")
    assert selected.get_attribute("aria-posinset") == "2"
    assert page.locator("#gallery").get_attribute(
        "aria-activedescendant"
    ) == selected.get_attribute("id")
    page.keyboard.press(" ")
    page.wait_for_selector("#tile")
    title = page.locator("#tile-title").inner_text()
    page.keyboard.press("j")  # the next tile, without closing
    until(page, "title => document.getElementById('tile-title').textContent !== title", title)
    page.keyboard.press("Escape")
    assert not page.locator("#tile").is_visible()
    page.keyboard.press("?")
    assert page.locator("#shortcuts").is_visible()
    page.keyboard.press("Escape")
    page.locator("#order").select_option("places")
    until(page, "document.getElementById('status').textContent.includes('place')")


def test_unknown_tile_is_a_banner_with_a_remedy(visit):
    visit.offline = True  # the browser reports the status 422 in the console
    page = visit()
    page.evaluate("window.marsMap.like('no-such-tile')")
    page.wait_for_selector("#banner[data-kind=error]")
    assert "no-such-tile" in page.locator("#banner").inner_text()


CONTRAST = """() => {
  const style = getComputedStyle(document.documentElement);
  const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const light = (name) => {
    context.fillStyle = style.getPropertyValue(name).trim();
    context.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const pairs = [['--ink', '--page'], ['--muted', '--page'], ['--muted', '--surface'],
    ['--muted', '--well'], ['--ink', '--tint'], ['--link', '--surface'],
    ['--on-accent', '--accent'], ['--muted', '--tint'], ['--ink', '--surface']];
  return pairs.map(([text, back]) => {
    const [a, b] = [light(text), light(back)];
    return [`${text} on ${back}`, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  });
}"""


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_a_phone_in_both_schemes(visit, scheme):
    page = visit(QUERY, viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("getComputedStyle(document.body).colorScheme") == scheme
    for name, contrast in page.evaluate(CONTRAST):
        assert contrast >= 4.5, name
    for selector in ("#text", "#threshold", "[role=option] >> nth=0", "#scale"):
        box = page.locator(selector).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 391


def test_the_page_allows_no_inline_code(visit):
    with urllib.request.urlopen(visit.url, timeout=30) as response:
        policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
