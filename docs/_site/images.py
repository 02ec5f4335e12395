"""Make the pictures of the documentation again, from the demo's synthetic planet:

marsretrieval demo --out demo
python docs/_site/images.py demo
"""

from __future__ import annotations

import io
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from marsretrieval.datasets import Record, open_images, read_points
from marsretrieval.embeddings import EmbeddingStore, open_store
from marsretrieval.encoders import Encoder, load
from marsretrieval.geo import Box
from marsretrieval.plotting import planet_map
from marsretrieval.search import exact_topk, make_query

NAMES = ("alluvial fans", "pitted cones", "yardangs")
REGION = Box(176.0, -4.0, -176.0, 0.0)  # two quads of the planet, on both sides of 180
COUNT, SIDE, GAP, LABEL = 6, 128, 6, 22
MARKS = "yyyyyy"  # the keys for six tiles marked yes
OUT = Path(__file__).parent.parent / "img"


def main(demo: Path) -> None:
    tiles = open_images(demo / "planet" / "Mars-Global-Geolocalization" / "tiles")
    (found,) = (demo / "results" / "mars-nano" / "embeddings").glob("*Geolocalization*/images")
    store = open_store(found)
    encoder = load("mars-nano")
    queries = np.stack([make_query(encoder, text=name) for name in NAMES])
    hits = [store.take(rows).ids for rows in exact_topk(store, queries, COUNT).rows]
    wanted = {key for ids in hits for key in ids}
    pictures = {
        item.id: Image.open(io.BytesIO(item.data)).convert("L").resize((SIDE, SIDE))
        for shard in tiles.shards()
        for item in tiles.read(shard)
        if isinstance(item, Record) and item.id in wanted
    }
    OUT.mkdir(exist_ok=True)
    gallery(hits, pictures).save(OUT / "search.png", optimize=True)
    points = demo / "planet" / "Mars-Global-Geolocalization" / "ground_truth" / "pitted_cones.csv"
    draw_map(store, encoder, points, OUT / "map.png")
    take_screenshots(found)


def gallery(hits: list[list[str]], pictures: dict[str, Image.Image]) -> Image.Image:
    """A row a name, best hit first; grey on transparent, readable in light and in dark."""
    row = LABEL + SIDE + GAP
    sheet = Image.new("LA", (COUNT * (SIDE + GAP) - GAP, len(hits) * row - GAP), (0, 0))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(findfont("DejaVu Sans"), 14)
    for line, (name, ids) in enumerate(zip(NAMES, hits, strict=True)):
        draw.text((0, line * row), name, fill=(128, 255), font=font)
        for at, key in enumerate(ids):
            sheet.paste(pictures[key].convert("LA"), (at * (SIDE + GAP), line * row + LABEL))
    return sheet


def draw_map(store: EmbeddingStore, encoder: Encoder, catalogue: Path, out: Path) -> None:
    """Every tile of a region by its cosine with a name, and the points of the catalogue."""
    ranking = exact_topk(store, make_query(encoder, text="pitted cones")[None], store.rows)
    found, scores = store.take(ranking.rows[0]), ranking.scores[0]
    inside = REGION.contains(found.lon, found.lat)
    sheet = planet_map(
        REGION,
        width=8.0,
        title="pitted cones",
        subtitle="synthetic terrain: cosine of each tile with the name, and where cones are",
    )
    tiles = sheet.tiles(found.lon[inside], found.lat[inside], 0.2, 0.2, scores[inside], vmin=0)
    known = read_points(catalogue)
    sheet.points(known.lon, known.lat, colour="black", hollow=True, size=30, label="catalogue")
    sheet.colour_bar(tiles, "cosine").legend().scale_bar()
    sheet.save(out, dpi=110)


def take_screenshots(store: Path) -> None:
    """Screenshots of `marsretrieval serve`: a region, the planet in dark colours, and marks."""
    from playwright.sync_api import sync_playwright

    from marsretrieval.web.server import MapServer, ServeOptions

    folder = tempfile.TemporaryDirectory()
    inventory = Path(folder.name) / "cones.inventory"
    server = MapServer(ServeOptions([store], port=0, inventory=inventory, landform="pitted cones"))
    threading.Thread(target=server.run, daemon=True).start()
    region = "&c=178,-2&z=0.006"
    views = {
        "serve.webp": ("light", region, ()),
        "serve-planet.webp": ("dark", "", ()),
        "serve-marks.webp": ("light", region, MARKS),
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        for name, (scheme, view, keys) in views.items():
            page = browser.new_page(
                viewport={"width": 1400, "height": 860},
                color_scheme=scheme,  # type: ignore[arg-type]
            )
            page.goto(f"{server.url}#q=pitted+cones{view}")
            page.wait_for_selector("body[data-search]", timeout=120_000)
            for key in keys:
                page.keyboard.press(key)
                page.wait_for_timeout(200)
            page.wait_for_timeout(5_000)
            page.wait_for_load_state("networkidle")  # images of the tiles
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            picture.save(OUT / name, quality=82, method=6)
        browser.close()
    server.stop()
    folder.cleanup()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
