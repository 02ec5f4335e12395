"""CPU time per image of decoding and preprocessing: grey tiles in RGB beside one channel.

    python -m benchmarks.embed.decode --images 64 --rounds 7

Both ways take turns on every tile, in one thread, with torch held to one thread: on a shared
machine only times of the same run can be compared. The first tiles are checked for equal tensors.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.embed.run import records, write_tiles
from marsretrieval.datasets import Record, decode_image, decode_rgb, open_images
from marsretrieval.encoders import find
from marsretrieval.encoders.open_clip import OpenClipPreprocess
from marsretrieval.system import hardware

# One per image size: the preprocessing of the published weights of these models.
_MODELS = {
    224: "dfn2b-clip-vit-l-14",
    336: "pe-core-l-14-336",
    384: "vit-l-16-siglip-384",
    512: "vit-l-16-siglip2-512",
}
_WAYS: dict[str, Callable[[bytes, str], Image.Image]] = {"rgb": decode_rgb, "grey": decode_image}


def measure(preprocess: OpenClipPreprocess, tiles: list[Record], rounds: int) -> dict[str, Any]:
    """Time both ways.

    Args:
        preprocess: The transform of a model.
        tiles: Encoded grey images.
        rounds: How often every tile is decoded and preprocessed in each way.

    Returns:
        `rgb` and `grey`: median over the rounds of the process CPU time per image, in ms;
        `ratio`: the first over the second, and `ratio_range`: its least and greatest value over
        the rounds.
    """
    for tile in tiles[:4]:
        grey, rgb = (preprocess(way(tile.data, tile.source)) for way in _WAYS.values())
        if not torch.equal(grey, rgb):
            raise SystemExit(f"{tile.source}: the tensors differ")
    per_round: dict[str, list[float]] = {name: [] for name in _WAYS}
    for _ in range(rounds):
        spent = dict.fromkeys(_WAYS, 0.0)
        for tile in tiles:
            for name, way in _WAYS.items():
                start = time.process_time()
                preprocess(way(tile.data, tile.source))
                spent[name] += time.process_time() - start
        for name, seconds in spent.items():
            per_round[name].append(1000 * seconds / len(tiles))
    ratios = [rgb / grey for rgb, grey in zip(per_round["rgb"], per_round["grey"], strict=True)]
    return {
        **{name: round(statistics.median(times), 3) for name, times in per_round.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=512, help="of a tile, pixels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_tiles(Path(folder), settings.images, settings.side)
        tiles = list(records(open_images(Path(folder))))
    figures = {}
    for side, model in _MODELS.items():
        preprocess = OpenClipPreprocess({"size": side, **find(model).settings["preprocess"]})
        figures[str(side)] = {"model": model, **measure(preprocess, tiles, settings.rounds)}
        print(side, json.dumps(figures[str(side)]), flush=True)
    report = {
        "images": settings.images,
        "side": settings.side,
        "rounds": settings.rounds,
        "hardware": hardware("cpu"),
        "cpu_ms": figures,
    }
    if settings.out:
        settings.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
