"""Milliseconds of the map's page in chromium over a synthetic planet.

    python -m benchmarks.web.page --folder planet --rows 200000 --out page.json

The server runs in a process of its own; the page is driven without a window, with example tiles, so
that no model is used. Measured in the page, by its own clock:

- query to pixels: from the submission of a query until the frame that shows its scores is drawn;
- slider: the work of a frame in which the threshold moves (colours, histogram, map), and the time
  between such frames;
- first page: from the start of the navigation until the map is drawn and can be used, each time
  with an empty cache. The first after the start of the server is listed apart.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.generate import generate
from benchmarks.web.speed import Server, spread, write_figures
from marsretrieval.embeddings import open_store
from marsretrieval.search.index.find import index_of
from marsretrieval.system import hardware, package_versions

GOALS_MS = {
    "query to pixels": {"p50": 300, "p95": 600},
    "slider, work of a frame": {"p95": 16},
    "first page": {"p95": 2000},
}
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
VIEWPORT = {"width": 1440, "height": 900}

READY = """
new MutationObserver(() => {
  if (!document.body?.dataset.ready || window.readyAt !== undefined) return;
  window.readyAt = null;
  const map = window.marsMap.map.map;
  const done = () => { window.readyAt = performance.now(); };
  map.once('postrender', () => requestAnimationFrame(done));
  map.render();
}).observe(document, { attributes: true, subtree: true, childList: true });
"""
# Resolves after the frame that follows the one in which the scores are drawn.
QUERY = """(id) => new Promise((done) => {
  const app = window.marsMap, start = performance.now();
  new MutationObserver((_, observer) => {
    observer.disconnect();
    const answered = performance.now() - start;
    app.map.map.once('postrender', () =>
      requestAnimationFrame(() => done({ answered, pixels: performance.now() - start })));
  }).observe(document.body, { attributes: true, attributeFilter: ['data-search'] });
  app.like(id);
})"""
SLIDER = """(frames) => new Promise((done) => {
  const slider = document.getElementById('threshold'), map = window.marsMap.map.map;
  const work = [], between = [], high = Number(slider.max);
  let last = null;
  const step = (now) => {
    if (last !== null) between.push(now - last);
    last = now;
    if (work.length === frames) { done({ work, between }); return; }
    slider.value = String(1 + Math.round((high - 1) * Math.abs(Math.sin(work.length / 9))));
    const start = performance.now();
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    map.renderSync();
    work.push(performance.now() - start);
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""


def measure(url: str, names: list[str], *, frames: int, loads: int) -> dict[str, list[float]]:
    """Drive the page.

    Args:
        url: Address of the server.
        names: Example tiles; the first is a warm-up.
        frames: Number of frames in which the threshold moves.
        loads: Number of loads of the page.

    Returns:
        Name of a step to its times in milliseconds.
    """
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if program is None:
        raise SystemExit("error: chromium is not installed. Install it, and run this again.")
    times: dict[str, list[float]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )

        def open_page() -> Any:
            page = browser.new_context(viewport=VIEWPORT).new_page()
            page.set_default_timeout(120_000)
            page.add_init_script(READY)
            page.goto(url)
            page.wait_for_selector("body[data-ready]")
            while not page.evaluate("window.readyAt"):
                page.wait_for_timeout(20)
            return page

        for number in range(loads + 1):
            page = open_page()
            name = "first page" if number else "first page, server just started"
            times.setdefault(name, []).append(page.evaluate("window.readyAt"))
            if number < loads:
                page.context.close()
        page.evaluate(QUERY, names[0])
        answers = [page.evaluate(QUERY, name) for name in names[1:]]
        times["query to answer and raster"] = [answer["answered"] for answer in answers]
        times["query to pixels"] = [answer["pixels"] for answer in answers]
        slider = page.evaluate(SLIDER, frames)
        times["slider, work of a frame"] = slider["work"]
        times["slider, between frames"] = slider["between"]
        browser.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=20, help="number of queries")
    parser.add_argument("--frames", type=int, default=120, help="number of frames of the slider")
    parser.add_argument("--loads", type=int, default=5, help="number of loads of the page")
    parser.add_argument("--out", type=Path)
    settings = parser.parse_args()
    generate(settings.folder, settings.rows, settings.dimension)
    store = open_store(settings.folder / "store")
    index_of(store, build=True)
    rng = np.random.default_rng(1)
    names = store.ids(rng.choice(store.rows, settings.rounds + 1, replace=False))
    load = [os.getloadavg()[0]]
    with Server([str(settings.folder / "store")]) as server:
        times = measure(
            str(server.client.base_url), names, frames=settings.frames, loads=settings.loads
        )
    load.append(os.getloadavg()[0])
    results = {
        "rows": settings.rows,
        "dimension": settings.dimension,
        "date": time.strftime("%Y-%m-%d"),
        "load_average": {"before": load[0], "after": load[1]},
        "page_ms": {name: spread(values) for name, values in times.items()},
        "goals_ms": GOALS_MS,
        "machine": hardware(),
        "packages": package_versions(),
    }
    write_figures(results, settings.out)


if __name__ == "__main__":
    main()
