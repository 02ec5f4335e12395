"""Small valid and damaged datasets for verification."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from marsretrieval import geo
from marsretrieval.datasets.inventory import DatasetInventory, Problem
from marsretrieval.datasets.verify import verify
from tests.datasets.layouts import write_tar

__all__ = [
    "check", "grey", "landforms", "named", "pair", "pairs", "tiles", "write_planet", "write_tar",
]  # fmt: skip


def write_planet(folder: Path, **changes: Any) -> None:
    """Write the record of a synthetic planet without datasets, but for `changes`."""
    counts = dict.fromkeys(("pairs", "landform_images", "tiles", "features"), 0)
    value = {
        "synthetic": True, "statement": "", "generator": "", "version": 1, "seed": 0,
        "size": "tiny", "counts": counts, "classes": {}, "quads": [], "features": [], "files": {},
    }  # fmt: skip
    (folder / "planet.json").write_text(json.dumps(value | changes))


def pair(key: str, image: bytes, caption: str | None) -> list[tuple[str, bytes]]:
    fields = {} if caption is None else {"refined_caption": caption, "ori_caption": "o"}
    return [(f"{key}.jpg", image), (f"{key}.json", json.dumps(fields).encode())]


def pairs(folder: Path, *items: tuple[str, bytes, str | None]) -> Path:
    write_tar(folder / "00000.tar", [member for item in items for member in pair(*item)])
    return folder


def landforms(folder: Path, rows: list[dict[str, Any]], name: str = "train-0.parquet") -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    table = {
        "image": [{"bytes": row["image"], "path": None} for row in rows],
        "image_id": [row["id"] for row in rows],
        "label": [row["label"] for row in rows],
    }
    pq.write_table(pa.table(table), folder / "data" / name)
    return folder


def tiles(
    quads: Mapping[tuple[int, int], int], size: tuple[int, int] = (4, 4)
) -> list[tuple[str, bytes]]:
    """Write tiles per quad in the published order, each with different bytes."""
    members = []
    for (lon, lat), count in quads.items():
        for number in range(count):
            west, south = lon + number % 20 * 0.2, lat + number // 20 * 0.2
            members.append((f"{geo.tile_name(west, south)}.png", grey(len(members), size)))
    return members


def grey(number: int, size: tuple[int, int] = (4, 4)) -> bytes:
    values = np.zeros(size, dtype=np.uint8)
    values.flat[:3] = number % 251, number // 251 % 251, 7
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def check(folder: Path, *tasks: str, workers: int = 1) -> DatasetInventory:
    inventory = verify(folder, tasks=tasks, workers=workers)
    assert len(inventory.datasets) == 1
    json.dumps(inventory.to_dict(), allow_nan=False)
    return inventory.datasets[0]


def named(inventory: DatasetInventory) -> dict[str, Problem]:
    assert len({problem.kind for problem in inventory.problems}) == len(inventory.problems)
    return {problem.kind: problem for problem in inventory.problems}
