"""Several stores as one: read them together, merge them, and make a store of selected rows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marsretrieval.embeddings.manifest import (
    DatasetIdentity,
    Dtype,
    Entry,
    Manifest,
    differences,
    shards_folder,
    vectors_path,
    write_entry,
    write_manifest,
)
from marsretrieval.embeddings.shards import Block
from marsretrieval.embeddings.store import EmbeddingStore, open_store
from marsretrieval.errors import (
    DataError,
    OutputError,
    StoreError,
    StoreMismatchError,
    UsageError,
)
from marsretrieval.geo import Region
from marsretrieval.io import atomic_path, make_folder, sha256_file, sha256_json, temporary_folder
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.text import pluralize

Mask = npt.NDArray[np.bool_]

_MAX_NAMED = 3


class CombinedStore(EmbeddingStore):
    """Several stores of one encoder, read as one; rows are numbered store after store.

    An id may occur in several stores; ``NAME:ID`` then names that of one store.

    Attributes:
        stores: The stores.
        names: Name of each store: its folder, or its path if two folders have the same name.
    """

    def __init__(self, stores: Sequence[EmbeddingStore]) -> None:
        """Combine stores.

        Args:
            stores: At least two stores of one encoder.

        Raises:
            UsageError: If a store is given twice.
            StoreMismatchError: If the encoders or the kinds of rows differ.
        """
        require_one_encoder(stores)
        self.stores = tuple(stores)
        self.names = store_names(stores)
        labelled = [
            replace(entry, shard=f"{name}:{entry.shard}")
            for name, store in zip(self.names, stores, strict=True)
            for entry in store.entries
        ]
        shards = [
            f"{name}:{shard}"
            for name, store in zip(self.names, stores, strict=True)
            for shard in store.manifest.shards
        ]
        dtype: Dtype = "float32" if any(s.dtype == "float32" for s in stores) else "float16"
        manifest = replace(
            stores[0].manifest, shards=tuple(shards), dtype=dtype, dataset=_joint_dataset(stores)
        )
        path = Path(", ".join(str(store.path) for store in stores))
        super().__init__(path, manifest, labelled)
        self.first_rows = np.cumsum([0, *(store.rows for store in stores)])
        self._owners = [
            (store, index, int(first))
            for store, first in zip(stores, self.first_rows, strict=False)
            for index in range(len(store.entries))
        ]

    @property
    def parts(self) -> Mapping[str, EmbeddingStore]:
        """The combined stores, by name."""
        return dict(zip(self.names, self.stores, strict=True))

    def store_names(self, rows: npt.ArrayLike) -> list[str]:
        """Return the name of the store of each row.

        Args:
            rows: n row numbers.

        Returns:
            n names.
        """
        numbers = np.searchsorted(self.first_rows, np.asarray(rows, np.int64), side="right") - 1
        return [self.names[number] for number in numbers]

    def find(self, name: str) -> int:
        """Find the row with an id.

        Args:
            name: The id, or ``NAME:ID`` for the id in one store.

        Returns:
            The row number, or -1.

        Raises:
            UsageError: If several stores hold the id.
        """
        matches = self._find(name)
        for label, store, first in zip(self.names, self.stores, self.first_rows, strict=False):
            if not matches and name.startswith(f"{label}:"):
                row = store.find(name.removeprefix(f"{label}:"))
                if row >= 0:
                    return int(first) + row
        if len(matches) > 1:
            raise UsageError(
                f"tile '{name}' is in {pluralize(len(matches), 'store')}: "
                f"{', '.join(label for label, _ in matches)}",
                remedy=f"Name the store: {matches[0][0]}:{name}",
            )
        return matches[0][1] if matches else -1

    def verify(self, *, progress: Progress = NO_PROGRESS) -> list[str]:
        """Read all stores and compare them with their checksums.

        Args:
            progress: Progress display.

        Returns:
            One line per problem.
        """
        return [
            f"{store.path}: {line}"
            for store in self.stores
            for line in store.verify(progress=progress)
        ]

    def _find(self, name: str) -> list[tuple[str, int]]:
        rows = ((label, store.find(name), int(first)) for label, store, first
                in zip(self.names, self.stores, self.first_rows, strict=False))  # fmt: skip
        return [(label, first + row) for label, row, first in rows if row >= 0]

    def _block(self, index: int) -> Block:
        store, number, first = self._owners[index]
        block = store._block(number)
        return block.renumbered(first + block.start)


@dataclass(frozen=True, slots=True)
class DerivedStore:
    """A store made from others, or the plan of one.

    Attributes:
        path: Folder of the store.
        rows: Number of rows.
        shards: Number of shards.
        linked: Number of shards whose files are those of the sources (hard links or copies).
        duplicates: Number of rows left out because another row has their id.
        written: Whether this call wrote the store; False for a plan, and if it existed before.
        exists: Whether the store existed before, made from the same sources.
    """

    path: Path
    rows: int
    shards: int
    linked: int
    duplicates: int = 0
    written: bool = False
    exists: bool = False


@dataclass(frozen=True, slots=True)
class _StorePart:
    """A shard to write: the rows of a block that stay (None: all)."""

    store: EmbeddingStore
    index: int
    shard: str
    keep: Mask | None
    rows: int


def require_one_encoder(stores: Sequence[EmbeddingStore]) -> None:
    """Check that stores can be searched or merged together.

    Args:
        stores: At least one store.

    Raises:
        UsageError: If there is none, or a store is given twice.
        StoreMismatchError: If the encoders or the kinds of rows differ. Names each difference.
    """
    if not stores:
        raise UsageError("no store", remedy="Give at least one.")
    resolved = [store.path.resolve() for store in stores]
    for store, path in zip(stores, resolved, strict=True):
        if resolved.count(path) > 1:
            raise UsageError(f"{store.path}: given twice", remedy="Give every store once.")
    first = stores[0]
    for other in stores[1:]:
        sides = (f"in {first.path}", f"in {other.path}")
        lines = differences(first.encoder, other.encoder, sides=sides)
        if first.kind != other.kind:
            lines.append(f"kind: {first.kind} {sides[0]}, {other.kind} {sides[1]}")
        if lines:
            raise StoreMismatchError(
                f"{first.path} and {other.path} cannot be compared: {'; '.join(lines)}",
                remedy="Use stores of one model with the same settings.",
            )


def store_names(stores: Sequence[EmbeddingStore]) -> list[str]:
    """Name stores for messages and hits.

    Args:
        stores: The stores.

    Returns:
        The name of each folder, or its path if two folders have the same name.
    """
    names = [store.path.resolve().name for store in stores]
    if len(set(names)) == len(names):
        return names
    return [str(store.path) for store in stores]


def merge_stores(
    stores: Sequence[EmbeddingStore | str | Path],
    out: str | Path,
    *,
    prefer: Literal["first"] | None = None,
    dry_run: bool = False,
    progress: Progress = NO_PROGRESS,
) -> DerivedStore:
    """Merge complete stores of one encoder into a new one.

    Files of shards are hard-linked, or copied to another file system. Rows with the same id and the
    same vector are kept once. The new store appears whole or not at all.

    Args:
        stores: At least two stores, or their folders.
        out: Folder of the new store.
        prefer: "first": keep the row of the first store of each id that has several vectors.
        dry_run: Check everything, and write nothing.
        progress: Progress display.

    Returns:
        The new store.

    Raises:
        StoreMismatchError: If the encoders, the kinds of rows or the vector types differ.
        StoreError: If a store is incomplete or damaged.
        DataError: If an id has different vectors, and `prefer` is not set.
        OutputError: If `out` exists, or cannot be written.
    """
    opened = [_opened(store) for store in stores]
    if len(opened) < 2:
        raise UsageError("one store to merge", remedy="Give two or more.")
    require_one_encoder(opened)
    for store in opened:
        _require_complete(store)
        if store.dtype != opened[0].dtype:
            raise StoreMismatchError(
                f"{opened[0].path} holds {opened[0].dtype} vectors, {store.path} {store.dtype}",
                remedy="Embed one of them again with the other's --vectors.",
            )
    parts, duplicates = _merge_parts(opened, prefer)
    options = {} if prefer is None else {"prefer": prefer}
    derived = _provenance("merge", opened, options)
    dataset: DatasetIdentity = {**_joint_dataset(opened), "derived": derived}
    return _write(parts, Path(out), dataset, duplicates, dry_run=dry_run, progress=progress)


def subset_store(
    store: EmbeddingStore | str | Path,
    out: str | Path,
    *,
    region: Region | None = None,
    ids: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    progress: Progress = NO_PROGRESS,
) -> DerivedStore:
    """Make a new store of the rows within a region, or of the rows with certain ids.

    Args:
        store: A complete store, or its folder.
        out: Folder of the new store.
        region: Area that contains the centres of the rows (a `geo.Box` or `geo.Area`).
        ids: Ids of the rows, in place of a region.
        options: Description of the selection for the manifest.
        dry_run: Check everything, and write nothing.
        progress: Progress display.

    Returns:
        The new store.

    Raises:
        UsageError: If neither or both of `region` and `ids` are given.
        StoreError: If the store is incomplete or damaged.
        DataError: If no row is selected, or an id is missing.
        OutputError: If `out` exists, or cannot be written.
    """
    source = _opened(store)
    if (region is None) == (ids is None):
        raise UsageError("a subset is of a region or of ids", remedy="Give one of them.")
    _require_complete(source)
    parts = []
    remaining = set(ids or ())
    for index, block in enumerate(source.blocks()):
        if region is not None:
            keep = region.contains(block.lon, block.lat)
        else:
            keep = np.fromiter((name in remaining for name in block.ids), np.bool_, len(block))
        if keep.any():
            shard = source.entries[index].shard
            part = _StorePart(source, index, shard, None if keep.all() else keep, int(keep.sum()))
            parts.append(part)
    if ids is not None:
        selected = {name for part in parts for name in _part_ids(part)}
        missing = [name for name in dict.fromkeys(ids) if name not in selected]
        if missing:
            raise DataError(
                f"{source.path} lacks {len(missing):,} of {pluralize(len(set(ids)), 'id')}: "
                f"{_listed(missing)}",
                remedy="Remove them from the list.",
            )
    if not parts:
        raise DataError(
            f"{source.path} holds no tile in this selection", remedy="Select a larger region."
        )
    selection = (
        {} if ids is None else {"ids": len(set(ids)), "ids_sha256": sha256_json(sorted(set(ids)))}
    )
    derived = _provenance("subset", [source], {**selection, **(options or {})})
    dataset: DatasetIdentity = {
        **source.dataset,
        "fingerprint": sha256_json([source.dataset["fingerprint"], derived["options"]]),
        "derived": derived,
    }
    return _write(parts, Path(out), dataset, 0, dry_run=dry_run, progress=progress)


def _opened(store: EmbeddingStore | str | Path) -> EmbeddingStore:
    return store if isinstance(store, EmbeddingStore) else open_store(store)


def _require_complete(store: EmbeddingStore) -> None:
    if not store.complete:
        raise StoreError(
            f"{store.path}: not finished: {pluralize(len(store.missing), 'shard')} missing",
            remedy="Run the command that made it again.",
        )


def _joint_dataset(stores: Sequence[EmbeddingStore]) -> DatasetIdentity:
    kinds = {store.dataset["kind"] for store in stores}
    return {
        "name": "+".join(dict.fromkeys(store.dataset["name"] for store in stores)),
        "kind": kinds.pop() if len(kinds) == 1 else "merged",
        "fingerprint": sha256_json([store.dataset["fingerprint"] for store in stores]),
    }


def _provenance(
    operation: str, stores: Sequence[EmbeddingStore], options: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "operation": operation,
        "options": dict(options),
        "sources": [
            {
                "path": str(store.path.resolve()),
                "set_hash": store.set_hash,
                "rows": store.rows,
                "dataset": dict(store.dataset),
            }
            for store in stores
        ],
    }


def _merge_parts(
    stores: Sequence[EmbeddingStore], prefer: str | None
) -> tuple[list[_StorePart], int]:
    """Shards of the merged store, and the number of rows that repeat an id of another store."""
    first_of: dict[str, tuple[EmbeddingStore, int]] = {}
    parts: list[_StorePart] = []
    used: set[str] = set()
    duplicates, conflicts = 0, []
    for label, store in zip(store_names(stores), stores, strict=True):
        own: dict[str, tuple[EmbeddingStore, int]] = {}
        for index, block in enumerate(store.blocks()):
            keep = np.ones(len(block), np.bool_)
            for row, name in enumerate(block.ids):
                earlier = first_of.get(name)
                if earlier is None:
                    own.setdefault(name, (store, block.start + row))
                    continue
                keep[row] = False
                other = earlier[0].vectors([earlier[1]])[0]
                if not np.array_equal(other, block.vectors[row]):
                    conflicts.append(name)
            duplicates += int((~keep).sum())
            if keep.any() or not len(block):
                shard = store.entries[index].shard
                shard = shard if shard not in used else _unused(f"{Path(label).name}-{shard}", used)
                used.add(shard)
                rows = int(keep.sum())
                parts.append(_StorePart(store, index, shard, None if keep.all() else keep, rows))
        first_of |= own
    if conflicts and prefer is None:
        raise DataError(
            f"{pluralize(len(conflicts), 'id')} with different vectors in several stores: "
            f"{_listed(conflicts)}",
            remedy="Use --prefer first (prefer='first') to keep those of the first store.",
        )
    return parts, duplicates


def _unused(name: str, used: set[str]) -> str:
    candidate, number = name, 1
    while candidate in used:
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def _part_ids(part: _StorePart) -> Iterator[str]:
    ids = part.store._block(part.index).ids
    keep = [True] * len(ids) if part.keep is None else part.keep.tolist()
    return (name for name, stays in zip(ids, keep, strict=True) if stays)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED:,} more" if len(names) > _MAX_NAMED else ""
    return f"{', '.join(names[:_MAX_NAMED])}{more}"


def _write(
    parts: Sequence[_StorePart],
    out: Path,
    dataset: DatasetIdentity,
    duplicates: int,
    *,
    dry_run: bool,
    progress: Progress,
) -> DerivedStore:
    plan = DerivedStore(
        out,
        rows=sum(part.rows for part in parts),
        shards=len(parts),
        linked=sum(part.keep is None for part in parts),
        duplicates=duplicates,
    )
    if out.exists() and not _is_empty_folder(out):
        with suppress(StoreError):
            existing = open_store(out)
            same = existing.dataset.get("derived") == dataset["derived"]
            if same and existing.complete and existing.rows == plan.rows:
                return replace(plan, exists=True)
        raise OutputError(
            f"{out}: exists already", remedy="Choose another folder with -o, or remove this one."
        )
    for record in dataset["derived"]["sources"]:
        if out.resolve().is_relative_to(record["path"]):
            raise OutputError(
                f"{out}: inside the store {record['path']}",
                remedy="Choose a folder outside the stores that are read.",
            )
    source = parts[0].store
    if dry_run:
        return plan
    manifest = replace(
        source.manifest, dataset=dataset, shards=tuple(part.shard for part in parts), created=""
    )
    make_folder(out.parent)
    with temporary_folder(out.parent, out.name) as folder:
        make_folder(shards_folder(folder))
        with progress.start("write", len(parts), "shards") as bar:
            for part in parts:
                _write_part(folder, manifest, part)
                bar.advance()
        write_manifest(folder, manifest)
        try:
            if out.exists():
                out.rmdir()
            folder.rename(out)
        except OSError as error:
            raise OutputError(f"{out}: cannot be written ({error.strerror or error})") from error
    return replace(plan, written=True)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _write_part(folder: Path, manifest: Manifest, part: _StorePart) -> None:
    source = part.store
    block = source._block(part.index)  # checks the file
    entry = replace(source.entries[part.index], shard=part.shard, made_by=manifest.made_by)
    original = vectors_path(source.path, source.entries[part.index].shard)
    target = vectors_path(folder, part.shard)
    if part.keep is None:
        _link(original, target)
    else:
        entry = _write_rows(target, entry, block, part.keep)
    write_entry(folder, entry)


def _link(original: Path, target: Path) -> None:
    try:
        os.link(original.resolve(), target)
    except OSError:  # another file system, or one without hard links
        with atomic_path(target) as temporary:
            shutil.copyfile(original, temporary)


def _write_rows(target: Path, entry: Entry, block: Block, keep: Mask) -> Entry:
    rows = np.flatnonzero(keep)
    batch = block.batch.take(pa.array(rows.tolist(), pa.int64()))
    with atomic_path(target) as temporary:
        with (
            pa.OSFile(str(temporary), "wb") as file,
            pa.ipc.new_file(file, block.batch.schema) as writer,
        ):
            writer.write_batch(batch)
        size, checksum = temporary.stat().st_size, sha256_file(temporary)
    return replace(entry, rows=len(rows), bytes=size, sha256=checksum, seconds={})
