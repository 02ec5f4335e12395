"""Images of single tiles for the map, with random access to tars and a cache of small sizes."""

from __future__ import annotations

import io
import tarfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from marsretrieval.datasets import MAX_BYTES, content_hash, decode_rgb, read_regular
from marsretrieval.datasets.base import escape
from marsretrieval.errors import MarsRetrievalError
from marsretrieval.search.thumbnails import ImageReader
from marsretrieval.web.workspace import MapStore

_TAR = ".tar:"
_CHANGED = "the file has changed since it was embedded"
_MAX_MEMBERS = 100_000  # known offsets of all tars, about 250 bytes each
_MAX_PATHS = 10_000  # known paths of sources
_MAX_CACHED_BYTES = 48 * 2**20
_SAMPLE = 20
_QUALITY = 82
# Formats that browsers show; others are converted.
_MEDIA_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


@dataclass(frozen=True, slots=True)
class TileImage:
    """An encoded image, or the reason why there is none.

    Attributes:
        data: Encoded image; None if it cannot be read.
        media_type: Media type of `data`.
        reason: Why there is no image; empty if there is one.
    """

    data: bytes | None
    media_type: str = ""
    reason: str = ""


class MapImages:
    """Reads images of tiles by row.

    A source is searched as the store records it, then below each folder: with its whole path, then
    with fewer and fewer leading folders. An image whose content is not what was embedded is
    refused.

    Args:
        store: The store.
        folders: Folders that contain the images, if they are not where they were embedded from.
    """

    def __init__(self, store: MapStore, folders: Sequence[Path] = ()) -> None:
        self._store = store
        self._folders = [Path(folder) for folder in folders]
        self._lock = threading.Lock()
        self._tars: OrderedDict[tuple[Path, int], dict[str, tuple[int, int]]] = OrderedDict()
        self._paths: dict[str, Path | None] = {}
        self._cache: OrderedDict[tuple[int, int], TileImage] = OrderedDict()
        self._cached_bytes = 0
        self._others = ImageReader(store.store.embeddings)

    def load(self, row: int, size: int) -> TileImage:
        """Load an image.

        Args:
            row: Row of the tile.
            size: Longer side in pixels; 0 for the image as it is.

        Returns:
            The image, or the reason why it cannot be read.
        """
        key = (row, size)
        with self._lock:
            cached = self._cache.get(key)
            if cached is not None:
                self._cache.move_to_end(key)
                return cached
        image = self._make(row, size)
        if image.data is not None and size:
            with self._lock:
                self._cache[key] = image
                self._cached_bytes += len(image.data)
                while self._cached_bytes > _MAX_CACHED_BYTES:
                    _, old = self._cache.popitem(last=False)
                    self._cached_bytes -= len(old.data or b"")
        return image

    def sample(self) -> tuple[int, int]:
        """Return how many images of a random sample of tiles can be read, and the sample size."""
        return self._sample

    @cached_property
    def _sample(self) -> tuple[int, int]:
        rows = self._store.store.embeddings.rows
        chosen = np.random.default_rng(0).choice(rows, min(rows, _SAMPLE), replace=False)
        return sum(self.load(int(row), 96).data is not None for row in chosen), len(chosen)

    def _make(self, row: int, size: int) -> TileImage:
        columns = self._store.tiles.take([row])
        name, source = columns.ids[0], columns.sources[0]
        data = self._read(name, source)
        if isinstance(data, str):
            return TileImage(None, reason=data)
        if content_hash(data) != self._store.store.embeddings.content_hash(row):
            return TileImage(None, reason=_CHANGED)
        media_type = next(
            (kind for start, kind in _MEDIA_TYPES.items() if data.startswith(start)), None
        )
        if not size and media_type is not None:
            return TileImage(data, media_type)
        try:
            image = decode_rgb(data, source)
        except MarsRetrievalError as error:
            return TileImage(None, reason=error.message)
        if size:
            image.thumbnail((size, size))
        buffer = io.BytesIO()
        image.save(buffer, "jpeg", quality=_QUALITY)
        return TileImage(buffer.getvalue(), "image/jpeg")

    def _read(self, name: str, source: str) -> bytes | str:
        """Return the encoded image, or the reason why it cannot be read."""
        container, separator, member = source.partition(_TAR)
        try:
            if separator:
                path = self._find(container + ".tar")
                if path is None:
                    return f"{PurePosixPath(container).name}.tar was not found"
                data = self._read_member(path, member)
                if data is not None:
                    return data
            else:
                path = self._find(source)
                if path is not None:
                    return read_regular(path, MAX_BYTES)
            # Compressed tars and rows of tables.
            ((_, image),) = self._others.read([(name, source)])
        except (MarsRetrievalError, ValueError, OSError, tarfile.TarError) as error:
            return error.message if isinstance(error, MarsRetrievalError) else str(error)
        return image

    def _find(self, name: str) -> Path | None:
        with self._lock:
            if name in self._paths and self._paths[name] is not None:
                return self._paths[name]
        path = Path(name)
        parts = [part for part in path.parts if part != path.anchor]
        candidates = [path]
        for folder in self._folders:
            candidates += [folder.joinpath(*parts[start:]) for start in range(len(parts))]
        if not path.is_absolute():
            parents = self._store.store.path.resolve().parents
            candidates += [folder / path for folder in parents]
        file = next((one for one in candidates if one.is_file()), None)
        with self._lock:
            while len(self._paths) >= _MAX_PATHS:
                self._paths.pop(next(iter(self._paths)))
            self._paths[name] = file
        return file

    def _read_member(self, path: Path, member: str) -> bytes | None:
        """Read a member of a tar at its offset; None for a compressed tar."""
        key = (path, path.stat().st_mtime_ns)
        with self._lock:
            members = self._tars.get(key)
        if members is None:
            try:
                with tarfile.open(path, "r:") as tar:
                    members = {
                        escape(one.name): (one.offset_data, one.size)
                        for one in tar
                        if one.isreg() and not one.issparse()
                    }
            except tarfile.ReadError:
                return None
            with self._lock:
                self._tars[key] = members
                while len(self._tars) > 1 and sum(map(len, self._tars.values())) > _MAX_MEMBERS:
                    self._tars.popitem(last=False)
        if member not in members:
            return None
        offset, size = members[member]
        if size > MAX_BYTES:
            raise ValueError(f"{size:,} bytes, more than {MAX_BYTES:,}")
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)
