"""A small store with tiles at given positions, and its hits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from marsretrieval.datasets import Record, Shard, Skipped
from marsretrieval.embeddings import EmbeddingStore, build_store, open_store
from marsretrieval.search import Hits, exact_topk
from tests.fakes import FakeEncoder, FakeSource

__all__ = ["FOUR", "Place", "hits_of", "make_store"]

Place = tuple[float | None, float | None, float | None]  # lon, lat, side

# One tile across the antimeridian, one across the prime meridian, one without an extent, one
# without a place.
FOUR: list[Place] = [
    (180.0, 10.0, 0.2), (0.0, -10.0, 0.2), (-59.9, 45.1, None), (None, None, None),
]  # fmt: skip


def make_store(
    folder: Path, positions: Sequence[Place], names: Sequence[str] = ()
) -> EmbeddingStore:
    """Write tiles in the order of `places`, with ids tile-000000 ... or `names`."""

    class Placed(FakeSource):
        def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
            for number, record in enumerate(super().read(shard)):
                assert isinstance(record, Record)
                lon, lat, side = positions[number]
                name = names[number] if names else record.id
                yield replace(record, id=name, lon=lon, lat=lat, width_deg=side, height_deg=side)

    build_store(FakeEncoder(), Placed((len(positions),)), folder)
    return open_store(folder)


def hits_of(store: EmbeddingStore, domain: int = 180, k: int = 1000) -> Hits:
    query = FakeEncoder().encode_texts(["pitted cones"])
    return Hits.from_ranking(
        store, exact_topk(store, query, k), domain=domain, about={"text": "pitted cones"}
    )
