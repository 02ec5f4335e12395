"""Deterministic fake encoders and image sources with injectable faults."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from marsretrieval.datasets import Record, Shard, Skipped
from marsretrieval.errors import DataError, ModalityError

__all__ = [
    "FakeEncoder",
    "FakeSource",
    "FakeVisionEncoder",
    "fake_encoder",
    "picture",
    "png_bytes",
    "thumbnail",
]

_SIDE = 16


def thumbnail(image: Image.Image) -> npt.NDArray[np.float32]:
    """Preprocess an image for the fake encoder.

    Args:
        image: Any image.

    Returns:
        float32 array of shape (256,): 16 x 16 grey levels in -0.5..0.5.
    """
    small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.float32).reshape(-1) / 255 - 0.5


class FakeEncoder:
    """Random projection of a thumbnail; a text is the sum of its words' random vectors.

    Args:
        dimension: Length of the vectors.
        seed: Seed of the projection.
        text: Whether it has a text encoder.
        limit: Largest batch that fits its simulated memory; None for no limit.
        delay: Seconds per batch of images.

    Attributes:
        calls: Sizes of the batches so far.
    """

    def __init__(
        self,
        dimension: int = 32,
        *,
        seed: int = 0,
        text: bool = True,
        limit: int | None = None,
        delay: float = 0.0,
    ) -> None:
        self.dimension = dimension
        self.limit = limit
        self.delay = delay
        self.calls: list[int] = []
        self._seed = seed
        self._text = text
        rng = np.random.default_rng(seed)
        self._projection = rng.standard_normal((_SIDE * _SIDE + 1, dimension)).astype(np.float64)

    @property
    def id(self) -> str:
        return f"fake-{self._seed}"

    @property
    def modalities(self) -> frozenset[Any]:
        return frozenset({"image", "text"} if self._text else {"image"})

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "loader": "tests.fakes:fake_encoder",
            "revision": None,
            "weights_sha256": hashlib.sha256(self._projection.tobytes()).hexdigest(),
            "dtype": "float32",
            "preprocessing": {"size": _SIDE},
            "prompts": {"preset": "paper"},
        }

    @property
    def preprocess(self) -> Callable[[Image.Image], npt.NDArray[np.float32]]:
        return thumbnail

    def encode_preprocessed(self, features: Sequence[Any]) -> npt.NDArray[np.float32]:
        self.calls.append(len(features))
        if self.limit is not None and len(features) > self.limit:
            raise MemoryError("CUDA out of memory (pretended)")
        time.sleep(self.delay)
        if not features:
            return np.empty((0, self.dimension), np.float32)
        # One row at a time, so that a batch gives bit for bit what its items give alone.
        return np.stack([self._unit(np.append(row, 1.0)) for row in features])

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        return self.encode_preprocessed([self.preprocess(image) for image in images])

    def encode_texts(self, texts: Sequence[str], *, role: str = "query") -> npt.NDArray[np.float32]:
        if not self._text:
            raise ModalityError(f"{self.id} is a vision-only model and cannot embed text")
        self.calls.append(len(texts))
        if self.limit is not None and len(texts) > self.limit:
            raise MemoryError("CUDA out of memory (pretended)")
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        return np.stack([self._unit(_bag(f"{role} {text}")) for text in texts])

    def count_truncated(self, texts: Sequence[str], *, role: str = "query") -> int | None:
        return None

    def _unit(self, row: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        vector = np.einsum("i,ij->j", row.astype(np.float64), self._projection)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def fake_encoder(record: Any, options: Any) -> FakeEncoder:
    """Load a FakeEncoder for a ModelSpec.

    Args:
        record: ModelSpec whose `settings` are arguments of FakeEncoder.
        options: Ignored.

    Returns:
        The encoder.
    """
    return FakeEncoder(record.dimension, **record.settings)


def _bag(text: str) -> npt.NDArray[np.float64]:
    """(257,): the sum of one pseudo-random vector per word."""
    row = np.zeros(_SIDE * _SIDE + 1)
    for word in text.lower().split():
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
        row += np.random.default_rng(seed).standard_normal(len(row))
    return row


def png_bytes(seed: int, size: int = 24) -> bytes:
    """Encode grey noise as PNG.

    Args:
        seed: Seed of the noise.
        size: Height and width in pixels.

    Returns:
        The PNG file.
    """
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def picture(row: int) -> Image.Image:
    """Decode an image of FakeSource.

    Args:
        row: Row of the image in the source.

    Returns:
        RGB image.
    """
    return Image.open(io.BytesIO(png_bytes(row))).convert("RGB")


@dataclass
class FakeSource:
    """Image source with tiles on a grid and faults by id or shard name.

    Attributes:
        counts: Number of images in each shard.
        corrupt: Ids with bytes that are not an image.
        unreadable: Ids that the reader skips.
        broken: Names of shards that cannot be read.
        versions: Version of a shard's contents; another version has other images.
        with_positions: Whether the records have positions.
        reads: Names of the shards read so far.
    """

    counts: Sequence[int] = (5, 3, 4)
    name: str = "fake planet"
    kind: str = "webdataset"
    corrupt: frozenset[str] = frozenset()
    unreadable: frozenset[str] = frozenset()
    broken: frozenset[str] = frozenset()
    versions: Mapping[str, int] = field(default_factory=dict)
    with_positions: bool = True
    reads: list[str] = field(default_factory=list)

    def shards(self) -> list[Shard]:
        return [
            Shard(name, f"{name}-v{self.versions.get(name, 0)}", count)
            for index, count in enumerate(self.counts)
            for name in [f"{index:06d}"]
        ]

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        self.reads.append(shard.name)
        if shard.name in self.broken:
            raise DataError(f"{shard.name}.tar: unexpected end of file")
        assert shard.rows is not None
        index = int(shard.name)
        for number in range(shard.rows):
            row = 1000 * index + number
            key = f"tile-{row:06d}"
            source = f"{shard.name}.tar:{key}.png"
            if key in self.unreadable:
                yield Skipped(key, source, "no image")
                continue
            seed = row + 7_000_000 * self.versions.get(shard.name, 0)
            data = b"not an image" if key in self.corrupt else png_bytes(seed)
            position: dict[str, float] = {}
            if self.with_positions:
                lon = -180 + (37 * row % 1800) * 0.2 + 0.1
                lat = -80 + (11 * row % 800) * 0.2 + 0.1
                position = {"lon": lon, "lat": lat, "width_deg": 0.2, "height_deg": 0.2}
            yield Record(key, data if images else b"", source, **position)


class FakeVisionEncoder(FakeEncoder):
    """FakeEncoder without a text encoder, declared on the class as plugins do."""

    modalities = frozenset({"image"})  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(text=False)
