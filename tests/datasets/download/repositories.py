"""Repositories for a local hub, and their downloads."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from marsretrieval.datasets import Record, open_images
from marsretrieval.datasets.download import LinkSettings, download
from tests.datasets.download.servers import Hub, picture

__all__ = [
    "SHA",
    "Publish",
    "items",
    "landform_files",
    "landforms",
    "pair_table",
    "paired",
    "parquet",
]

Publish = Callable[[Hub], Hub]
SHA = "1234567890abcdef1234567890abcdef12345678"


def parquet(**columns: list[object]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def landform_files(rows: int = 3) -> dict[str, bytes]:
    images = [{"bytes": picture(row), "path": f"{row}.jpg"} for row in range(rows)]
    body = parquet(image=images, label=["yardangs"] * rows)  # type: ignore[arg-type]
    return {"README.md": b"card", ".gitattributes": b"x", "data/train-0.parquet": body}


def landforms(rows: int = 3) -> Hub:
    return Hub("SUSTech/Mars-Landforms", SHA, landform_files(rows))


def pair_table(base: str, names: list[str], keys: list[str] | None = None) -> Hub:
    """Create a repository of pairs whose image links begin with `base`."""
    body = parquet(
        key=list(keys or [f"k{number}" for number in range(len(names))]),
        image_url=[f"{base}/{name}" for name in names],
        ori_caption=[f"original {name}" for name in names],
        refined_caption=[f"refined {name}" for name in names],
    )
    return Hub("SUSTech/Mars-VL-Pairs", SHA, {"data/train-0.parquet": body})


def paired(out: Path, settings: LinkSettings, **options: Any) -> dict[str, Any]:
    """Download the pairs from their links."""
    options = {"variant": "whole", "revision": SHA, **options}
    report = download("paired", out, settings=settings, **options)
    return report.to_dict()


def items(folder: Path) -> dict[str, Record]:
    source = open_images(folder)
    records = [item for shard in source.shards() for item in source.read(shard)]
    assert all(isinstance(item, Record) for item in records)
    return {item.id: item for item in records if isinstance(item, Record)}
