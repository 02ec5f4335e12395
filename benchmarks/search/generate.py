"""Write a synthetic planet of embeddings in the two formats that the benchmark compares.

    FOLDER/store/                  this package's store, float16, one shard per quad (400 tiles)
    FOLDER/published/features.npy  float32, in the format of the published code, with ids.pkl and
                                   places.pkl beside it
    FOLDER/queries.npy             ten queries: five similar to tiles, five outside their cone

Rows are generated a few quads at a time, so memory use is small for any size.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.embeddings.manifest import (
    Entry,
    Manifest,
    read_entry,
    shards_folder,
    write_manifest,
)
from marsretrieval.embeddings.shards import Item, write_shard
from marsretrieval.encoders.loading import OBJECT_LOADER
from marsretrieval.geo import tile_name

__all__ = ["generate"]

_QUAD_DEG, _TILE_DEG = 4, 0.2
_SIDE = round(_QUAD_DEG / _TILE_DEG)
_PER_QUAD = _SIDE**2
_QUADS_AT_ONCE = 25
_CLUSTERS, _GROUPS, _FACTORS = 2000, 40, 64


def generate(folder: Path, rows: int, dimension: int) -> None:
    """Write all files unless identical ones exist."""
    settings = {"rows": rows, "dimension": dimension, "version": 1}
    description = folder / "generated.json"
    if description.exists() and json.loads(description.read_text()) == settings:
        return
    (folder / "published").mkdir(parents=True, exist_ok=True)
    corners = _corners(-(-rows // _PER_QUAD))
    names = tuple(f"{number:06d}" for number in range(len(corners)))
    manifest = Manifest(
        kind="image",
        # Made without a model of the registry: no library of models is imported to look for it.
        encoder={"id": "synthetic", "dimension": dimension, "loader": OBJECT_LOADER},
        dataset={"name": "synthetic planet", "kind": "synthetic", "fingerprint": str(rows)},
        dimension=dimension,
        dtype="float16",
        shards=names,
    )
    store = folder / "store"
    shards_folder(store).mkdir(parents=True, exist_ok=True)
    write_manifest(store, manifest)
    clusters = _Clusters(dimension)
    features = np.lib.format.open_memmap(
        folder / "published" / "features.npy", "w+", np.float32, (rows, dimension)
    )
    ids: list[str] = []
    positions: list[tuple[float, float]] = []
    for first in range(0, len(corners), _QUADS_AT_ONCE):
        batch = range(first, min(first + _QUADS_AT_ONCE, len(corners)))
        start, end = first * _PER_QUAD, min(batch.stop * _PER_QUAD, rows)
        vectors = clusters.rows(np.random.default_rng([7, first]), end - start)
        features[start:end] = vectors
        for quad in batch:
            begin, stop = quad * _PER_QUAD, min((quad + 1) * _PER_QUAD, rows)
            here = _tiles(*corners[quad])[: stop - begin]
            ids += [name for name, _, _ in here]
            positions += [(lon, lat) for _, lon, lat in here]
            items = [
                Item(name, name, name.encode().ljust(16)[:16], lon, lat, _TILE_DEG, _TILE_DEG)
                for name, lon, lat in here
            ]
            entry = Entry(names[quad], "", manifest.made_by)
            if read_entry(store, names[quad]) is None:
                write_shard(store, entry, items, vectors[begin - start : stop - start], "float16")
    features.flush()
    del features
    for name, value in (("ids", ids), ("places", positions)):
        with (folder / "published" / f"{name}.pkl").open("wb") as file:
            pickle.dump(value, file)
    np.save(folder / "queries.npy", clusters.queries())
    description.write_text(json.dumps(settings))


class _Clusters:
    """Generator of vectors in Zipf-sized clusters within a narrow cone, as for image embeddings.

    The clusters form groups and have noise of a decaying spectrum.
    """

    def __init__(self, dimension: int) -> None:
        rng = np.random.default_rng(5)
        normal = rng.standard_normal
        unit = dimension**-0.5
        self._cone = normal(dimension).astype(np.float32) * unit
        groups = normal((_GROUPS, dimension)) * (0.55 * unit)
        within = normal((_CLUSTERS, dimension)) * (0.45 * unit)
        self._centres = (groups[rng.integers(0, _GROUPS, _CLUSTERS)] + within).astype(np.float32)
        spread = 0.5 / np.sqrt(np.arange(1, _FACTORS + 1))
        spread *= 0.45 / np.linalg.norm(spread)
        self._factors = (normal((_FACTORS, dimension)) * spread[:, None] * unit).astype(np.float32)
        self._noise = np.float32(0.2 * unit)
        share = 1 / np.arange(1, _CLUSTERS + 1) ** 0.7
        self._shares = share / share.sum()

    def rows(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
        kinds = rng.choice(_CLUSTERS, count, p=self._shares)
        vectors = rng.standard_normal((count, len(self._cone)), dtype=np.float32)
        vectors *= self._noise
        vectors += rng.standard_normal((count, _FACTORS), dtype=np.float32) @ self._factors
        vectors += self._centres[kinds]
        vectors += self._cone
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def queries(self) -> npt.NDArray[np.float32]:
        rng = np.random.default_rng(11)
        images = np.stack([self.rows(rng, 6).mean(axis=0) for _ in range(5)])
        off = rng.standard_normal(len(self._cone)).astype(np.float32) * len(self._cone) ** -0.5
        texts = np.stack([0.4 * self._centres[rng.integers(_CLUSTERS)] + off for _ in range(5)])
        both = np.concatenate([images, texts]).astype(np.float32)
        scaled: npt.NDArray[np.float32] = both / np.linalg.norm(both, axis=1, keepdims=True)
        return scaled


def _corners(count: int) -> list[tuple[int, int]]:
    """Return the south-west corners of quads in a shuffled but fixed order, as in archives."""
    every: list[Any] = [
        (lon, lat) for lat in range(-88, 88, _QUAD_DEG) for lon in range(-180, 180, _QUAD_DEG)
    ]
    if count > len(every):
        raise SystemExit(f"at most {len(every) * _PER_QUAD:,} rows")
    return [every[i] for i in np.random.default_rng(3).permutation(len(every))[:count]]


def _tiles(west: int, south: int) -> list[tuple[str, float, float]]:
    """Return the ids and centres of the tiles of a quad."""
    steps = [round(step * _TILE_DEG, 9) for step in range(_SIDE)]
    return [
        (
            tile_name(west + x, south + y),
            round(west + x + _TILE_DEG / 2, 9),
            round(south + y + _TILE_DEG / 2, 9),
        )
        for y in steps
        for x in steps
    ]
