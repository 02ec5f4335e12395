"""Pictures of items by their id, read again from the data, as small as a page can carry."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from marsretrieval import geo
from marsretrieval.datasets import ImageSource, Record, Shard, content_hash, decode_rgb
from marsretrieval.embeddings import EmbeddingStore
from marsretrieval.errors import ImageError, MarsRetrievalError
from marsretrieval.progress import NO_PROGRESS, Progress, ProgressTask
from marsretrieval.report.html._places import Place

if TYPE_CHECKING:
    from PIL import Image

BUDGET = 1_900_000  # bytes of all thumbnails, before they are written as base64
_SIDES = ((240, 152), (420, 128), (1_000_000, 104))  # up to so many pictures: longest side
_QUALITY = 62


@dataclass(slots=True)
class Item:
    """What is known of an id again. key: of its thumbnail on the page; None without one."""

    caption: str | None = None
    key: str | None = None


@dataclass(slots=True)
class Wanted:
    """What a gallery needs of one set: pictures, the most important first, and captions."""

    pictures: dict[str, None] = field(default_factory=dict)
    captions: dict[str, None] = field(default_factory=dict)

    def add(self, ids: Iterable[str], captions: Iterable[str] = ()) -> None:
        self.pictures.update(dict.fromkeys(ids))
        self.captions.update(dict.fromkeys(captions))


class Pictures:
    """All thumbnails of a page. Each is in the page once, however often it is shown."""

    def __init__(self, expected: int) -> None:
        self._side = next(side for limit, side in _SIDES if expected <= limit)
        self._left = BUDGET
        self.thumbnails: dict[str, str] = {}  # key to data URI
        self.changed = 0  # pictures that are not what was embedded
        self.too_many = 0  # pictures that there was no room for
        self.unchecked = 0  # pictures shown that no store has a hash of

    def read(
        self,
        wanted: Wanted,
        places: Iterable[Place],
        prefix: str,
        progress: Progress = NO_PROGRESS,
    ) -> dict[str, Item]:
        """Look in one place after the other until all is found. What is missing has no Item."""
        found: dict[str, Item] = {}
        total = len({**wanted.pictures, **wanted.captions})
        with progress.start("read pictures", total, "pictures") as bar:
            for place in places:
                missing = [
                    key for key in {**wanted.pictures, **wanted.captions} if key not in found
                ]
                if not missing:
                    break
                self._from(place, missing, wanted, prefix, found, bar)
        return found

    def first_of(self, source: ImageSource, count: int, prefix: str) -> list[str]:
        """Keys of thumbnails of the first pictures of a source; fewer where some are damaged."""
        keys: list[str] = []
        try:
            for shard in source.shards():
                for item in source.read(shard):
                    if len(keys) == count:
                        return keys
                    if isinstance(item, Record):
                        key = self._thumbnail(item, f"{prefix}-{len(self.thumbnails)}")
                        keys += [key] if key is not None else []
        except (MarsRetrievalError, OSError):
            pass
        return keys

    def _from(
        self,
        place: Place,
        ids: Sequence[str],
        wanted: Wanted,
        prefix: str,
        found: dict[str, Item],
        bar: ProgressTask,
    ) -> None:
        try:
            for record, content in _records(place, ids, wanted.pictures):
                item = Item(record.caption)
                if record.id in wanted.pictures:
                    if content is not None and content_hash(record.data) != content:
                        self.changed += 1
                    else:
                        item.key = self._thumbnail(record, f"{prefix}-{len(self.thumbnails)}")
                        self.unchecked += content is None and item.key is not None
                found[record.id] = item
                bar.advance()
        except (MarsRetrievalError, OSError):
            return  # what was found until here is shown; the page says what is missing

    def _thumbnail(self, record: Record, key: str) -> str | None:
        try:
            encoded = _small(decode_rgb(record.data, record.source), self._side)
        except ImageError:
            return None
        if len(encoded) > self._left:
            self.too_many += 1
            return None
        self._left -= len(encoded)
        self.thumbnails[key] = f"data:image/webp;base64,{base64.b64encode(encoded).decode()}"
        return key


def _small(image: Image.Image, side: int) -> bytes:
    """The whole picture, in its own shape, with `side` pixels on the longer side."""
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "webp", quality=_QUALITY, method=4)
    return buffer.getvalue()


def _records(
    place: Place, ids: Sequence[str], pictures: Mapping[str, None]
) -> Iterator[tuple[Record, bytes | None]]:
    """Records of the ids that the place has, with the content hash that a store has of them.

    First from the shards that the stores name; what is not there is looked for everywhere. Stores
    that know none of the ids are of other data. Where one knows some, no others are shown.
    """
    shards = {shard.name: shard for shard in place.source.shards()}
    where: dict[str, set[str]] = defaultdict(set)
    contents: dict[str, bytes] = {}
    for store in place.stores:
        for name, key, content in _known(store, [each for each in ids if each not in contents]):
            contents[key] = content
            where[name].add(key)
    missing = set(contents or ids)
    for name in (each for each in where if each in shards):
        for record in _read(place, shards[name], where[name], pictures):
            missing.discard(record.id)
            yield record, contents[record.id]
    elsewhere: dict[str, set[str]] = defaultdict(set)
    for name, key in _scanned(place, shards.values(), missing):
        elsewhere[name].add(key)
    for name, keys in elsewhere.items():
        for record in _read(place, shards[name], keys, pictures):
            yield record, contents.get(record.id)


def _read(
    place: Place, shard: Shard, keys: Set[str], pictures: Mapping[str, None]
) -> Iterator[Record]:
    """Records of these ids in a shard, the first of each; no further than the last of them."""
    missing = set(keys)
    for item in place.source.read(shard, images=not keys.isdisjoint(pictures)):
        if isinstance(item, Record) and item.id in missing:
            missing.discard(item.id)
            yield item
            if not missing:
                return


def _known(store: EmbeddingStore, ids: Sequence[str]) -> Iterator[tuple[str, str, bytes]]:
    """Shard, id and content hash of the ids that the store has, the first of each id."""
    import pyarrow as pa
    import pyarrow.compute as pc

    missing = set(ids)
    for entry, block in zip(store.entries, store.blocks(), strict=True):
        if not missing:
            return
        rows = pc.indices_nonzero(pc.is_in(block.column("id"), pa.array(sorted(missing))))
        contents = block.contents if len(rows) else ()
        for row in rows.to_pylist():
            key = block.column("id")[row].as_py()
            if key in missing:
                missing.discard(key)
                yield entry.shard, key, contents[row]


def _scanned(place: Place, shards: Iterable[Shard], ids: Set[str]) -> Iterator[tuple[str, str]]:
    """Shard and id, by reading annotations. Where all ids are names of tiles, a shard that is
    named after a quad without any of them is not read."""
    quads = {_quad(key) for key in ids}
    missing = set(ids)
    for shard in shards:
        if not missing:
            return
        here = geo.parse_quad_name(shard.name)
        if here is not None and None not in quads and here not in quads:
            continue
        for item in place.source.read(shard, images=False):
            if isinstance(item, Record) and item.id in missing:
                missing.discard(item.id)
                yield shard.name, item.id


def _quad(key: str) -> tuple[int, int] | None:
    corner = geo.tile_corner(key)
    if corner is None:
        return None
    lon, lat = (int((degrees + 1e-6) // geo.QUAD_DEG * geo.QUAD_DEG) for degrees in corner)
    return lon, lat
