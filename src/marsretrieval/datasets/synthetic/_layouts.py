"""The planet's pictures in the layouts of the published datasets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets._tar import write_tar
from marsretrieval.datasets.synthetic._ground import Rng
from marsretrieval.datasets.synthetic._pairs import sample_pair
from marsretrieval.datasets.synthetic._planet import Feature
from marsretrieval.datasets.synthetic._regions import TILES, PlanetSize
from marsretrieval.datasets.synthetic._registry import LANDFORMS
from marsretrieval.datasets.synthetic._scene import sample
from marsretrieval.progress import NO_PROGRESS, Progress

Grey = npt.NDArray[np.uint8]

_PAIRS_A_TAR = 200
_ROWS_A_GROUP = 100
_FILES = 2
_QUALITY = 92
_GORE = 0.1  # share of landform pictures whose edge has no data


def write_pairs(
    folder: Path, size: PlanetSize, seed: int, rng: Rng, progress: Progress = NO_PROGRESS
) -> None:
    """`000000.tar` and on: `key.jpg` beside `key.json` with both captions, all of them unique."""
    folder.mkdir(parents=True)
    seen: set[str] = set()
    with progress.start("pairs", size.pairs, "images") as bar:
        for number, start in enumerate(range(0, size.pairs, _PAIRS_A_TAR)):
            members: list[tuple[str, bytes]] = []
            for index in range(start, min(start + _PAIRS_A_TAR, size.pairs)):
                picture, terse, refined = sample_pair(rng)
                while terse in seen or refined in seen:
                    picture, terse, refined = sample_pair(rng)
                seen |= {terse, refined}
                key = f"{number:05d}{index - start:04d}"
                told = {
                    "key": key,
                    "image_url": f"synthetic://planet/{seed}/{key}.jpg",
                    "ori_caption": terse,
                    "refined_caption": refined,
                }
                members += [(f"{key}.jpg", _jpeg(picture)), (f"{key}.json", _json(told))]
                bar.advance()
            write_tar(folder / f"{number:06d}.tar", members)


def write_landforms(
    folder: Path, size: PlanetSize, rng: Rng, progress: Progress = NO_PROGRESS
) -> dict[str, int]:
    """Parquet as Hugging Face writes it; returns the images of each class."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = sorted(size.classes or LANDFORMS)
    counts = _class_sizes(len(names), size.landform_images, rng)
    labels = rng.permutation(np.repeat(np.arange(len(names)), counts))
    features = {
        "image": {"_type": "Image"},
        "label": {"names": names, "_type": "ClassLabel"},
        "image_id": {"dtype": "string", "_type": "Value"},
    }
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
            ("image_id", pa.string()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    (folder / "data").mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    with progress.start("landforms", len(labels), "images") as bar:
        for row, label in enumerate(labels):
            edge = int(rng.integers(size.landform_px[0], size.landform_px[1] + 1))
            picture, _ = sample(names[label], rng, edge)
            if rng.random() < _GORE:
                _cut_corner(picture, rng)
            key = f"synthetic-{row:05d}"
            image = {"bytes": _jpeg(picture), "path": f"{key}.jpg"}
            rows.append({"image": image, "label": int(label), "image_id": key})
            bar.advance()
    share = -(-len(rows) // _FILES)
    for part in range(_FILES):
        table = pa.Table.from_pylist(rows[part * share : (part + 1) * share], schema=schema)
        path = folder / "data" / f"train-{part:05d}-of-{_FILES:05d}.parquet"
        pq.write_table(table, path, row_group_size=_ROWS_A_GROUP)
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def write_tiles(folder: Path, west: int, south: int, quad: Grey) -> int:
    """`<quad>.tar` of the 20 x 20 tiles of a quad, from its north-west corner; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    name = geo.quad_name(west, south)
    members = list(_tiles(west, south, quad, name))
    write_tar(folder / f"{name}.tar", members)
    return len(members) // 2


def write_ground_truth(folder: Path, features: Sequence[Feature], names: Sequence[str]) -> None:
    """`<name>.csv` with lon, lat and diameter of each feature of that landform."""
    folder.mkdir(parents=True)
    for name in names:
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["lon", "lat", "diameter_km"])
            for feature in features:
                if feature.landform == name:
                    table.writerow(
                        [f"{feature.lon:.5f}", f"{feature.lat:.5f}", f"{feature.size_km:.2f}"]
                    )


def write_examples(folder: Path, size: PlanetSize, names: Sequence[str], rng: Rng) -> None:
    """`<name>/0.png` and on: pictures of the landform that are not of this planet."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for index in range(size.examples):
            picture, _ = sample(name, rng, size.tile_px)
            (folder / name / f"{index}.png").write_bytes(_png(picture))


def _tiles(west: int, south: int, quad: Grey, name: str) -> Iterator[tuple[str, bytes]]:
    edge = quad.shape[0] // TILES
    for row in range(TILES):
        for column in range(TILES):
            left = round(west + column * geo.TILE_DEG, 9)
            bottom = round(south + (TILES - 1 - row) * geo.TILE_DEG, 9)
            window = quad[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge]
            key = geo.tile_name(left, bottom)
            right, top = round(left + geo.TILE_DEG, 9), round(bottom + geo.TILE_DEG, 9)
            told = {
                "bounds": [left, bottom, right, top],
                "center": list(geo.tile_centre(key) or ()),
                "valid": round(float(np.count_nonzero(window)) / window.size, 6),
                "quad": name,
                "synthetic": True,
            }
            yield f"{key}.png", _png(window)
            yield f"{key}.json", _json(told)


def _class_sizes(classes: int, images: int, rng: Rng) -> npt.NDArray[np.int64]:
    """Unequal numbers that add up, the largest several times the smallest."""
    weights = rng.permutation(1 / (np.arange(classes) + 0.25 * classes + 1))
    counts: npt.NDArray[np.int64] = np.maximum(
        2, (images * weights / weights.sum()).astype(np.int64)
    )
    counts[np.argmax(counts)] += images - counts.sum()
    return counts


def _cut_corner(picture: Grey, rng: Rng) -> None:
    """Blacken what lies beyond the edge of an image strip, as map-projected products have it."""
    y, x = np.ogrid[-0.5 : 0.5 : picture.shape[0] * 1j, -0.5 : 0.5 : picture.shape[1] * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    picture[x * np.cos(angle) + y * np.sin(angle) > rng.uniform(0.36, 0.46)] = 0


def _jpeg(picture: Grey) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _png(picture: Grey) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
