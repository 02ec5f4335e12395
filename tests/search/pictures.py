"""Stores of real image files, for pages and sheets of hits."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from marsretrieval.datasets import open_images
from marsretrieval.embeddings import EmbeddingStore, build_store, open_store
from tests.fakes import FakeEncoder

__all__ = ["picture", "picture_store"]


def picture(seed: int, side: int = 48) -> bytes:
    """A PNG of a smooth random surface."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def picture_store(
    folder: Path,
    positions: Sequence[tuple[float, float, float] | None],
    names: Sequence[str] = (),
) -> EmbeddingStore:
    """Embed one PNG per position (lon, lat, side in degrees), or without a position."""
    images = folder / "images"
    images.mkdir(parents=True)
    for number, position in enumerate(positions):
        name = names[number] if names else f"tile-{number:03d}"
        (images / f"{name}.png").write_bytes(picture(number))
        if position is not None:
            lon, lat, side = position
            fields = {"lon": lon, "lat": lat, "width_deg": side, "height_deg": side}
            (images / f"{name}.json").write_text(json.dumps(fields))
    build_store(FakeEncoder(), open_images(images), folder / "store")
    return open_store(folder / "store")
