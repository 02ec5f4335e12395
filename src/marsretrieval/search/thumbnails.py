"""Thumbnails of hits, read from the files that the store records as sources."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval.datasets.base import Record, content_hash
from marsretrieval.datasets.images import MAX_BYTES, make_thumbnail
from marsretrieval.datasets.listing import read_regular
from marsretrieval.datasets.open import open_images
from marsretrieval.datasets.webdataset import read_members
from marsretrieval.embeddings.combine import CombinedStore
from marsretrieval.embeddings.store import open_store
from marsretrieval.errors import ImageError, MarsRetrievalError
from marsretrieval.progress import NO_PROGRESS, Progress

if TYPE_CHECKING:
    from marsretrieval.embeddings.store import EmbeddingStore
    from marsretrieval.search.hits import Hits

SIDE, QUALITY = 256, 75  # longer side in pixels; WebP quality
_THREADS, _AT_A_TIME = 4, 16
_INSIDE = re.compile(r"(.+?\.(?:tar|tar\.gz|tgz|parquet|arrow)):(.+)", re.IGNORECASE | re.DOTALL)
_TABLES = (".parquet", ".arrow")
_CHANGED = "the file has changed since it was embedded"

Key = tuple[str, str]  # id and source of a tile


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small image of a tile, or the reason why there is none.

    Attributes:
        image: WebP file; None if the image cannot be read.
        reason: Why there is no image; empty if there is one.
    """

    image: bytes | None
    reason: str = ""


class TileImages:
    """Reads images of tiles by their ids and sources, and keeps the thumbnails in memory.

    A relative source is searched in the working folder, then in the folders that contain the
    store. An image whose content is not what was embedded is refused.

    Args:
        store: Store, or several stores as one, that records ids, sources and content hashes; None:
            images are not compared with the store, and rows of tables cannot be read.
        side: Longer side of the thumbnails in pixels.
        quality: WebP quality, 0 to 100.
    """

    def __init__(
        self, store: EmbeddingStore | None = None, *, side: int = SIDE, quality: int = QUALITY
    ) -> None:
        self._readers = {"": ImageReader(store)}
        if isinstance(store, CombinedStore):
            self._readers = {
                name: ImageReader(part)
                for name, part in zip(store.names, store.stores, strict=True)
            }
        self._side, self._quality = side, quality
        self._thumbnails: dict[tuple[str, Key], Thumbnail] = {}

    def load(
        self,
        ids: Sequence[str],
        sources: Sequence[str],
        stores: Sequence[str] | None = None,
        *,
        progress: Progress = NO_PROGRESS,
    ) -> list[Thumbnail]:
        """Load thumbnails; those loaded before are not read again.

        Args:
            ids: n ids of tiles.
            sources: Their n sources, as in `Hits.sources`.
            stores: Names of the stores that hold them; None for a single store.
            progress: Progress display.

        Returns:
            n thumbnails, in order.
        """
        names = [""] * len(ids) if stores is None else stores
        keys = list(zip(names, zip(ids, sources, strict=True), strict=True))
        missing: dict[str, dict[Key, None]] = defaultdict(dict)
        for name, key in keys:
            if (name, key) not in self._thumbnails:
                missing[name][key] = None
        if missing:
            with (
                progress.start("read images", sum(map(len, missing.values())), "images") as bar,
                ThreadPoolExecutor(_THREADS) as pool,
            ):
                for name, tiles in missing.items():
                    images = self._readers[name].read(list(tiles))
                    while batch := list(islice(images, _AT_A_TIME)):
                        for key, thumbnail in pool.map(self._make, batch):
                            self._thumbnails[name, key] = thumbnail
                        bar.advance(len(batch))
        return [self._thumbnails[key] for key in keys]

    def load_hits(
        self, hits: Hits, count: int | None = None, *, progress: Progress = NO_PROGRESS
    ) -> list[Thumbnail]:
        """Load the thumbnails of the best hits.

        Args:
            hits: The hits.
            count: Number of hits; None for all.
            progress: Progress display.

        Returns:
            One thumbnail per hit, in order.
        """
        stores = None if hits.stores is None else hits.stores[:count]
        return self.load(hits.ids[:count], hits.sources[:count], stores, progress=progress)

    def _make(self, item: tuple[Key, bytes | str]) -> tuple[Key, Thumbnail]:
        key, data = item
        if isinstance(data, str):
            return key, Thumbnail(None, data)
        try:
            image = make_thumbnail(data, key[1], side=self._side, quality=self._quality)
        except ImageError as error:
            return key, Thumbnail(None, error.message.removeprefix(f"{key[1]}: "))
        return key, Thumbnail(image)


class ImageReader:
    """Reads encoded images of the tiles of one store.

    Args:
        store: As of `TileImages`.
    """

    def __init__(self, store: EmbeddingStore | None) -> None:
        self._store = store

    def read(self, keys: Sequence[Key]) -> Iterator[tuple[Key, bytes | str]]:
        """Read encoded images, grouped by the file that contains them.

        Args:
            keys: Ids and sources of tiles, without duplicates.

        Yields:
            Key, and the encoded image or the reason why it cannot be read; one per key.
        """
        rows = self._find_rows(keys)
        tars: dict[str, dict[str, Key]] = defaultdict(dict)
        tables: list[Key] = []
        for key in keys:
            inside = _INSIDE.fullmatch(key[1])
            if inside is None:
                yield key, self._check(key, rows, self._read_file(key[1]))
            elif inside[1].lower().endswith(_TABLES):
                tables.append(key)
            else:
                tars[inside[1]][inside[2]] = key
        for name, members in tars.items():
            yield from self._read_tar(name, members, rows)
        if tables:
            yield from self._read_tables(tables, rows)

    def _find_rows(self, keys: Sequence[Key]) -> dict[Key, list[tuple[str, bytes]]]:
        """Shard and content hash of all rows of each key."""
        import pyarrow as pa
        import pyarrow.compute as pc

        rows: dict[Key, list[tuple[str, bytes]]] = {key: [] for key in keys}
        if self._store is None or not keys:
            return rows
        ids = sorted({key[0] for key in keys})
        for entry, block in zip(self._store.entries, self._store.blocks(), strict=True):
            column = block.column("id")
            numbers = pc.indices_nonzero(pc.is_in(column, pa.array(ids, column.type))).to_numpy()
            if not len(numbers):
                continue
            names, sources = block.texts("id", numbers), block.texts("source", numbers)
            contents = block.column("content")
            for number, key in zip(numbers.tolist(), zip(names, sources, strict=True), strict=True):
                if key in rows:
                    rows[key].append((entry.shard, contents[number].as_py()))
        return rows

    def _check(
        self, key: Key, rows: dict[Key, list[tuple[str, bytes]]], data: bytes | str
    ) -> bytes | str:
        """Return the image, or a reason if its content is not what was embedded."""
        if isinstance(data, str) or not rows[key]:
            return data
        return data if content_hash(data) in {content for _, content in rows[key]} else _CHANGED

    def _resolve(self, name: str) -> Path:
        path = Path(name)
        folders = [] if self._store is None else self._store.path.resolve().parents
        paths = [path, *(folder / path for folder in folders)]
        return next((candidate for candidate in paths if candidate.exists()), path)

    def _read_file(self, name: str) -> bytes | str:
        try:
            return read_regular(self._resolve(name), MAX_BYTES)
        except (MarsRetrievalError, ValueError, OSError) as error:
            return _describe(error)

    def _read_tar(
        self, name: str, members: dict[str, Key], rows: dict[Key, list[tuple[str, bytes]]]
    ) -> Iterator[tuple[Key, bytes | str]]:
        missing, reason = dict(members), "the tar has no such member"
        try:
            for member, data in read_members(self._resolve(name), members):
                key = missing.pop(member)
                yield key, self._check(key, rows, data)
        except (MarsRetrievalError, ValueError, OSError) as error:
            reason = _describe(error)
        yield from ((key, reason) for key in missing.values())

    def _read_tables(
        self, keys: Sequence[Key], rows: dict[Key, list[tuple[str, bytes]]]
    ) -> Iterator[tuple[Key, bytes | str]]:
        """Read rows of tables through the dataset that the store records."""
        missing = dict.fromkeys(keys)
        reason = "the row is not in the store" if self._store else "rows of tables need the store"
        by_content = {
            (key[0], content): key for key in keys for _, content in rows[key]
        }  # fmt: skip
        shards = {shard for key in keys for shard, _ in rows[key]}
        if self._store is not None and by_content:
            reason = "the dataset has no such row, or it has changed since it was embedded"
            try:
                source = open_images(self._resolve(str(self._store.dataset["name"])))
                for shard in source.shards():
                    if shard.name not in shards:
                        continue
                    for item in source.read(shard):
                        if not isinstance(item, Record):
                            continue
                        key = by_content.get((item.id, content_hash(item.data)))
                        if key in missing:
                            del missing[key]
                            yield key, item.data
                    if not missing:
                        return
            except (MarsRetrievalError, ValueError, OSError) as error:
                reason = _describe(error)
        yield from ((key, reason) for key in missing)


def searched_store(about: Mapping[str, Any]) -> EmbeddingStore | None:
    """Open the store, or the stores as one, that hits describe.

    Args:
        about: Description of the request, as in `Hits.about`.

    Returns:
        The store; None if it is not named or cannot be opened.
    """
    try:
        parts = [open_store(Path(part["path"])) for part in about.get("stores") or ()]
        return CombinedStore(parts) if parts else open_store(Path(str(about["store"])))
    except (KeyError, MarsRetrievalError):
        return None


def _describe(error: Exception) -> str:
    return error.message if isinstance(error, MarsRetrievalError) else str(error)
