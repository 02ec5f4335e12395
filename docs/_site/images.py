"""Make the pictures of the documentation again, from the demo's synthetic planet:

marsretrieval demo --out demo
python docs/_site/images.py demo
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from marsretrieval.datasets import Record, open_images
from marsretrieval.embeddings import open_store
from marsretrieval.encoders import load
from marsretrieval.search import exact_topk, make_query

NAMES = ("alluvial fans", "pitted cones", "yardangs")
COUNT, SIDE, GAP, LABEL = 6, 128, 6, 22
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


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
