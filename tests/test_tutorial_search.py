"""The first search of the tutorial finds the landform of its query."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marsretrieval import geo
from marsretrieval.cli.app import app
from marsretrieval.datasets import ImageSource, Record, decode_rgb, open_images
from marsretrieval.encoders import find
from tests.doc_pages import DOCS, blocks, lines_of

# Half the diagonal of a tile of 0.2 degrees: a point closer than this may lie in the tile.
WITHIN_DEG = 0.15


def first_command(command: str) -> list[str]:
    """Return the words of the tutorial's first `marsretrieval COMMAND` without the program name."""
    lines = [line for block in blocks(DOCS / "tutorials" / "search.md", "bash")
             for line in lines_of(block)]  # fmt: skip
    return next(words[1:] for words in map(shlex.split, lines) if words[1] == command)


def first_images(source: ImageSource) -> list[Image.Image]:
    """Read the images of the first shard."""
    items = source.read(source.shards()[0])
    return [decode_rgb(item.data, item.source) for item in items if isinstance(item, Record)]


def test_tiny_planet_matches_the_model_resolution(tiny_planet: Path) -> None:
    images = first_images(open_images(tiny_planet / "Mars-Global-Geolocalization" / "tiles"))
    edge = find("mars-nano").image_size
    assert {image.size for image in images} == {(edge, edge)}
    landforms = first_images(open_images(tiny_planet / "Mars-Landforms"))
    assert min(min(image.size) for image in landforms) >= edge


def test_the_first_search_of_the_tutorial_finds_pitted_cones(
    tiny_planet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planet").symlink_to(tiny_planet)
    assert not app(first_command("embed"), standalone_mode=False)
    words = first_command("search")
    landform = words[words.index("--text") + 1]
    words[words.index("-o") + 1] = "hits.csv"  # which needs no extra package
    assert not app(words, standalone_mode=False)

    with Path("hits.csv").open(newline="") as file:
        hits = list(csv.DictReader(file))[:10]
    features = json.loads(Path("planet/planet.json").read_text())["features"]
    truth = [feature for feature in features if feature["class"] == landform.replace(" ", "_")]
    lon, lat = (np.array([feature[name] for feature in truth]) for name in ("lon", "lat"))
    distances = [
        float(geo.great_circle_deg(float(hit["lon"]), float(hit["lat"]), lon, lat).min())
        for hit in hits
    ]
    assert len(distances) == 10
    assert sum(distance <= WITHIN_DEG for distance in distances) >= 8, distances
