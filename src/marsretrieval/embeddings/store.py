"""Read a store through memory maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets import ItemWarning, Skipped, set_hash
from marsretrieval.embeddings.manifest import (
    DatasetIdentity,
    Dtype,
    Entry,
    Kind,
    Manifest,
    ModelRequest,
    differences,
    read_entry,
    read_manifest,
)
from marsretrieval.embeddings.shards import Block, open_block
from marsretrieval.errors import StoreMismatchError, UsageError, as_path
from marsretrieval.progress import NO_PROGRESS, Progress

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Columns:
    """Metadata of n rows; NaN where a number is unknown.

    Attributes:
        ids: Ids.
        lon: Longitude of the centre, degrees.
        lat: Latitude of the centre, degrees.
        width_deg: Extent in longitude, degrees.
        height_deg: Extent in latitude, degrees.
        sources: File or member that contains each item.
    """

    ids: list[str]
    lon: Floats
    lat: Floats
    width_deg: Floats
    height_deg: Floats
    sources: list[str]


class EmbeddingStore:
    """Vectors of images or texts with their ids, in the fixed order of shards and rows.

    Opening a store reads JSON only; a shard is mapped when it is first used. Rows are numbered
    from 0 over the finished shards.

    Attributes:
        path: Folder of the store.
        manifest: Manifest of the store.
        entries: Entries of the finished shards, in order.
    """

    def __init__(self, path: Path, manifest: Manifest, entries: Sequence[Entry]) -> None:
        """Create a store object; `open_store` reads manifest and entries.

        Args:
            path: Folder of the store.
            manifest: Manifest of the store.
            entries: Entries of the finished shards, in order.
        """
        self.path = path
        self.manifest = manifest
        self.entries = tuple(entries)
        self._starts = np.cumsum([0, *(entry.rows for entry in entries)])
        self._blocks: dict[int, Block] = {}

    @property
    def kind(self) -> Kind:
        """Whether the rows are images or texts."""
        return self.manifest.kind

    @property
    def encoder(self) -> Mapping[str, Any]:
        """Fingerprint of the encoder."""
        return self.manifest.encoder

    @property
    def model(self) -> ModelRequest:
        """Model name and options that load the encoder again, in the precision of the vectors.

        For a user's class, the precision is the requested one, since the class may not record it.
        """
        prompts = self.encoder.get("prompts")
        preset = prompts.get("preset", "paper") if isinstance(prompts, Mapping) else "paper"
        request = self.manifest.request or ModelRequest(
            model=str(self.encoder.get("id")), prompts=str(preset)
        )
        if ":" in request.model:
            return request
        return replace(request, dtype=str(self.encoder.get("dtype", request.dtype)))

    @property
    def dataset(self) -> DatasetIdentity:
        """Name, kind and fingerprint of the dataset."""
        return self.manifest.dataset

    @property
    def dimension(self) -> int:
        """Vector dimension."""
        return self.manifest.dimension

    @property
    def dtype(self) -> Dtype:
        """Vector dtype."""
        return self.manifest.dtype

    @property
    def rows(self) -> int:
        """Number of rows of the finished shards."""
        return int(self._starts[-1])

    @property
    def skipped(self) -> list[Skipped]:
        """Items without a vector, with the reason."""
        return [item for entry in self.entries for item in entry.skipped]

    @property
    def missing(self) -> list[str]:
        """Planned shards that are not finished."""
        finished = {entry.shard for entry in self.entries}
        return [name for name in self.manifest.shards if name not in finished]

    @property
    def complete(self) -> bool:
        """Whether all shards are finished."""
        return len(self.entries) == len(self.manifest.shards)

    def seconds(self, stage: str) -> float:
        """Time of a stage, summed over the shards.

        Args:
            stage: "decode", "embed", "elapsed" (wall time of the process that made a shard) or
                "wait" (the part of it during which the device was idle).

        Returns:
            Seconds.
        """
        return sum(entry.seconds.get(stage, 0.0) for entry in self.entries)

    @cached_property
    def set_hash(self) -> str:
        """Hash of the set of ids and contents, independent of their order."""
        return set_hash(
            pair for block in self.blocks() for pair in zip(block.ids, block.contents, strict=True)
        )

    def require_encoder(self, fingerprint: Mapping[str, Any]) -> None:
        """Raise unless the store was made by an encoder.

        Args:
            fingerprint: Fingerprint of the encoder.

        Raises:
            StoreMismatchError: If the fingerprints differ. Names each difference.
        """
        lines = differences(self.encoder, fingerprint)
        if lines:
            raise StoreMismatchError(
                f"{self.path}: made with another encoder: {'; '.join(lines)}",
                remedy="Vectors of two encoders cannot be compared: load the model of the store.",
            )

    def blocks(self) -> Iterator[Block]:
        """Iterate over all shards in order.

        Returns:
            The blocks.

        Raises:
            StoreError: If a shard is damaged. Names the shard.
        """
        return (self._block(index) for index in range(len(self.entries)))

    def load(self) -> tuple[list[str], npt.NDArray[np.float32]]:
        """Load all ids and vectors into memory, for small stores.

        Returns:
            Ids, and a float32 array of shape (rows, dimension).
        """
        ids: list[str] = []
        matrix = np.empty((self.rows, self.dimension), dtype=np.float32)
        for block in self.blocks():
            ids += block.ids
            matrix[block.start : block.start + len(block)] = block.vectors
        return ids, matrix

    def positions(self) -> Floats:
        """(rows, 2) longitude and latitude of all centres, degrees; NaN where unknown."""
        return self._columns("lon", "lat")

    def extents(self) -> Floats:
        """(rows, 2) width and height of all tiles, degrees; NaN where unknown."""
        return self._columns("width_deg", "height_deg")

    def valid(self) -> Floats:
        """(rows,) fraction of each tile with data, 0 to 1; NaN where unknown."""
        return self._columns("valid")[:, 0]

    @property
    def warnings(self) -> list[ItemWarning]:
        """Parts of annotations that were ignored, with the reason."""
        return [item for entry in self.entries for item in entry.warnings]

    def content_hashes(self) -> list[bytes]:
        """Content hashes of all rows, 16 bytes each. Equal contents have equal hashes."""
        return [content for block in self.blocks() for content in block.contents]

    def ids(self, rows: npt.ArrayLike) -> list[str]:
        """Return the ids of rows.

        Args:
            rows: n row numbers.

        Returns:
            n ids, in the order of `rows`.

        Raises:
            IndexError: If a row number is out of range.
        """
        result: list[str] = [""] * len(np.atleast_1d(np.asarray(rows)))
        for block, local, positions in self._rows_by_block(rows):
            for position, name in zip(positions, block.texts("id", local), strict=True):
                result[position] = name
        return result

    @property
    def parts(self) -> Mapping[str, EmbeddingStore]:
        """The stores that it consists of, by name: itself, or those of a `CombinedStore`."""
        return {self.path.name: self}

    def store_names(self, rows: npt.ArrayLike) -> list[str] | None:
        """Return the name of the store of each row, if this is several stores as one.

        Args:
            rows: n row numbers.

        Returns:
            None: this is one store. See `CombinedStore.store_names`.
        """
        return None

    def find(self, name: str) -> int:
        """Find the first row with an id.

        Takes a few milliseconds for a million rows whose shards are open.

        Args:
            name: The id.

        Returns:
            The row number, or -1.
        """
        import pyarrow.compute as pc

        for block in self.blocks():
            column = block.column("id")
            # By prefix, then in full: a comparison with a scalar would import pandas.
            candidates = pc.indices_nonzero(pc.starts_with(column, pattern=name))
            for row in candidates.to_pylist():
                if column[row].as_py() == name:
                    return block.start + int(row)
        return -1

    def vectors(self, rows: npt.ArrayLike) -> npt.NDArray[Any]:
        """Copy the vectors of rows.

        Args:
            rows: n row numbers.

        Returns:
            Array of shape (n, dimension) in the dtype of the store, in the order of `rows`.

        Raises:
            IndexError: If a row number is out of range.
        """
        count = len(np.atleast_1d(np.asarray(rows)))
        result = np.empty((count, self.dimension), dtype=self.dtype)
        for block, local, positions in self._rows_by_block(rows):
            result[positions] = block.vectors[local]
        return result

    def take(self, rows: npt.ArrayLike) -> Columns:
        """Return the metadata of rows.

        Args:
            rows: n row numbers.

        Returns:
            The metadata, in the order of `rows`.

        Raises:
            IndexError: If a row number is out of range.
        """
        count = len(np.atleast_1d(np.asarray(rows)))
        numbers = {name: np.empty(count) for name in ("lon", "lat", "width_deg", "height_deg")}
        sources = [""] * count
        for block, local, positions in self._rows_by_block(rows):
            for name, values in numbers.items():
                values[positions] = getattr(block, name)[local]
            for position, source in zip(positions, block.texts("source", local), strict=True):
                sources[position] = source
        return Columns(ids=self.ids(rows), sources=sources, **numbers)

    def content_hash(self, row: int) -> bytes:
        """Return the content hash of the item of a row, without reading other rows.

        Args:
            row: Row number.

        Returns:
            The first 16 bytes of the SHA-256 of the encoded item.

        Raises:
            IndexError: If the row is out of range.
        """
        if not 0 <= row < self.rows:
            raise IndexError(row)
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        block = self._block(number)
        content: bytes = block.column("content")[row - block.start].as_py()
        return content

    def verify(self, *, progress: Progress = NO_PROGRESS) -> list[str]:
        """Read the whole store and compare it with its checksums.

        Args:
            progress: Progress display.

        Returns:
            One line per problem.
        """
        from marsretrieval.embeddings.verify import verify_store

        return [str(problem) for problem in verify_store(self.path, progress=progress).problems]

    def _columns(self, *names: str) -> Floats:
        result = np.empty((self.rows, len(names)))
        for block in self.blocks():
            for number, name in enumerate(names):
                result[block.start : block.start + len(block), number] = getattr(block, name)
        return result

    def _block(self, index: int) -> Block:
        block = self._blocks.get(index)
        if block is None:
            start = int(self._starts[index])
            block = open_block(self.path, self.entries[index], start, self.dimension, self.dtype)
            self._blocks[index] = block
        return block

    def _rows_by_block(
        self, rows: npt.ArrayLike
    ) -> Iterator[tuple[Block, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Group row numbers by shard.

        Yields the block, the rows within it, and their positions in `rows`.
        """
        row_numbers = np.atleast_1d(np.asarray(rows))
        if row_numbers.size and row_numbers.dtype.kind not in "iu":
            raise UsageError(
                f"rows are of type {row_numbers.dtype}, not whole numbers",
                remedy="Give row numbers; np.flatnonzero(mask) makes them of a mask.",
            )
        row_numbers = row_numbers.astype(np.int64)
        if len(row_numbers) and not 0 <= row_numbers.min() <= row_numbers.max() < self.rows:
            raise IndexError(f"rows must be within 0..{self.rows - 1}")
        shard = np.searchsorted(self._starts, row_numbers, side="right") - 1
        order = np.argsort(shard, kind="stable")
        for positions in np.split(order, np.flatnonzero(np.diff(shard[order])) + 1):
            if len(positions):
                block = self._block(int(shard[positions[0]]))
                yield block, row_numbers[positions] - block.start, positions


class TruncatedStore(EmbeddingStore):
    """A store in memory with the truncated vectors of another one, searched without an index."""

    def __init__(self, store: EmbeddingStore, dim: int) -> None:
        """Wrap a store.

        Args:
            store: The store of the full vectors.
            dim: Number of dimensions to keep.
        """
        # A path that does not exist: an index of the full vectors must not be used.
        path = Path(f"{store.path} (first {dim} dimensions)")
        super().__init__(path, replace(store.manifest, dimension=dim), store.entries)
        self._store = store

    def _block(self, index: int) -> Block:
        block = self._blocks.get(index)
        if block is None:
            block = _TruncatedBlock(self._store._block(index), self.dimension)
            self._blocks[index] = block
        return block


class _TruncatedBlock(Block):
    """Rows of a shard with truncated vectors, computed at first use."""

    def __init__(self, block: Block, dim: int) -> None:
        super().__init__(block.batch, block.start, dim)
        self._full = block
        self._truncated: npt.NDArray[Any] | None = None

    @property
    def vectors(self) -> npt.NDArray[Any]:
        """(n, dimension) in the dtype of the store."""
        if self._truncated is None:
            from marsretrieval.encoders.base import truncate

            self._truncated = truncate(self._full.vectors, self.dimension)
        return self._truncated


def open_store(path: str | Path) -> EmbeddingStore:
    """Open a complete or partial store.

    Args:
        path: Folder of the store.

    Returns:
        The store. Its `complete` says whether all shards are finished.

    Raises:
        StoreError: If the folder is no store, or its manifest or an entry is damaged.
    """
    path = as_path(path, "path")
    manifest = read_manifest(path)
    entries = (read_entry(path, name) for name in manifest.shards)
    return EmbeddingStore(
        path, manifest, [entry for entry in entries if entry is not None and entry.fits(manifest)]
    )
