"""Locate, verify, build and remove the search index of a store.

An index is valid only for the fingerprint of its store: it lies in `view/FINGERPRINT` in the
store, or in the user's cache folder if the store is not writable. `view/stamp.json` records file
times so that `open_index` need not read the shard entries; it is optional.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import warnings
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval.errors import (
    DataError,
    MarsRetrievalError,
    MarsRetrievalWarning,
    OutputError,
    StoreError,
)
from marsretrieval.io import read_json, sha256_file, sha256_json, write_json
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search.index import HEADER, SearchIndex
from marsretrieval.text import confined

if TYPE_CHECKING:
    from marsretrieval.embeddings import EmbeddingStore

_MIN_VALUES = 2**26  # below, a search without an index takes about 0.05 s
_SETTLED_SECONDS = 2.0  # a more recent change may be followed by one with the same mtime

_open_indexes: weakref.WeakKeyDictionary[Any, SearchIndex] = weakref.WeakKeyDictionary()


class SearchIndexWarning(MarsRetrievalWarning):
    """A search index could not be built or used; the search runs without it, more slowly."""


def is_index_worthwhile(store: EmbeddingStore) -> bool:
    """Whether the store is complete and large enough for an index to save time.

    Args:
        store: The store.

    Returns:
        True for complete stores of at least 2^26 values.
    """
    return store.complete and store.rows * store.dimension >= _MIN_VALUES


def open_index(
    path: str | Path, *, build: bool = True, progress: Progress = NO_PROGRESS
) -> SearchIndex | None:
    """Open the index of a store by the fastest way.

    If the files are unchanged since the last use, not even the list of shards is read.

    Args:
        path: The store folder.
        build: Build the index if there is none.
        progress: Progress display for building.

    Returns:
        The index; None if there is none and `build` is not set.

    Raises:
        StoreError: If `path` is not a store.
        OutputError: If the index cannot be written anywhere.
    """
    path = Path(path)
    signature = _stat_signature(path)
    for root in _roots(path):
        with suppress(OSError, ValueError, KeyError, TypeError, DataError, StoreError):
            stamp = read_json(root / "stamp.json")
            if signature is not None and stamp["look"] == signature:
                return SearchIndex(confined(root, stamp["fingerprint"], nested=False), path)
    from marsretrieval.embeddings import open_store

    store = open_store(path)
    index = make_index(store, progress=progress) if build else existing_index(store)
    if index is not None and signature is not None:
        _write_stamp(index.path.parent, index.fingerprint, signature)
    return index


def index_of(
    store: EmbeddingStore, *, build: bool, progress: Progress = NO_PROGRESS
) -> SearchIndex | None:
    """Return the index to search `store` with.

    If building fails, a SearchIndexWarning gives the reason.

    Args:
        store: The store.
        build: Build a missing index if it is worthwhile.
        progress: Progress display for building.

    Returns:
        The index; None if the store is searched without one.

    Raises:
        StoreError: If a shard is damaged or a vector is not of unit length.
    """
    index = _open_indexes.get(store) or existing_index(store)
    if index is None and build and is_index_worthwhile(store):
        try:
            index = make_index(store, progress=progress, wait=False)
        except OutputError as error:
            warnings.warn(
                f"{error.message}; searching without a search index, which is slower",
                SearchIndexWarning,
                stacklevel=3,
            )
    if index is not None:
        _open_indexes[store] = index
    return index


def known_of(store: EmbeddingStore) -> EmbeddingStore | SearchIndex:
    """Return the fastest reader of ids, positions and sources of rows.

    The index reads them from memory maps; the store opens one file per shard.

    Args:
        store: The store.

    Returns:
        The existing index of the store, else the store.
    """
    return index_of(store, build=False) or store


def existing_index(store: EmbeddingStore) -> SearchIndex | None:
    """Open the index with the fingerprint of this store, if it exists.

    Args:
        store: The store.

    Returns:
        The index; None if it is missing, or damaged (with a SearchIndexWarning).
    """
    fingerprint = _fingerprint(store)
    for root in _roots(store.path):
        folder = root / fingerprint
        if (folder / HEADER).exists():
            try:
                index = SearchIndex(folder, store.path)
            except (StoreError, ValueError, OSError) as error:
                reason = error.message if isinstance(error, MarsRetrievalError) else error
                warnings.warn(f"search index not used: {reason}", SearchIndexWarning, stacklevel=3)
                continue
            return index
    return None


def make_index(
    store: EmbeddingStore,
    *,
    anew: bool = False,
    wait: bool = True,
    progress: Progress = NO_PROGRESS,
) -> SearchIndex:
    """Open or build the index of a store and remove its outdated indexes.

    Args:
        store: The store.
        anew: Build it even if it exists.
        wait: Wait for another process that builds it.
        progress: Progress display.

    Returns:
        The index.

    Raises:
        OutputError: If the index cannot be written anywhere, or another process is building it and
            `wait` is not set.
        StoreError: If the store is damaged.
    """
    from marsretrieval.search.index.build import IndexBuildInProgressError, build_index, build_lock

    fingerprint = _fingerprint(store)
    problems: list[str] = []
    link = store.path / "view"
    if link.is_symlink():
        warnings.warn(
            f"{link}: a link, which is not followed; the search index is made in the cache. "
            "Replace the link by a folder.",
            SearchIndexWarning,
            stacklevel=2,
        )
    for root in _roots(store.path):
        try:
            with build_lock(root, wait=wait):
                existing = None if anew else existing_index(store)
                if existing is not None:
                    return existing
                folder = build_index(store, root, fingerprint, progress=progress)
                for other in _index_folders(root):
                    if other != folder:
                        shutil.rmtree(other, ignore_errors=True)
                return SearchIndex(folder, store.path)
        except OutputError as error:
            problems.append(error.message)
        except IndexBuildInProgressError:
            problems.append(f"{root}: another process is building the search index")
            break
    raise OutputError(
        "; ".join(problems), remedy="A search index needs a writable folder with free space."
    )


def drop_index(path: str | Path) -> int:
    """Remove all indexes of a store.

    Args:
        path: The store folder.

    Returns:
        The number of bytes freed.

    Raises:
        StoreError: If `path` is not a store.
    """
    path = Path(path)
    if not (path / "manifest.json").is_file():
        raise StoreError(
            f"{path}: no embedding store (no manifest.json)", remedy="Name the folder of a store."
        )
    freed = 0
    for root in _roots(path):
        for folder in _index_folders(root):
            freed += sum(file.stat().st_size for file in folder.iterdir())
            shutil.rmtree(folder)
        for name in ("stamp.json", ".lock"):
            with suppress(OSError):
                (root / name).unlink()
        with suppress(OSError):
            root.rmdir()
    return freed


def discard_index(index: SearchIndex) -> StoreError:
    """Remove a damaged index.

    Args:
        index: The index.

    Returns:
        The error to raise.
    """
    shutil.rmtree(index.path, ignore_errors=True)
    for store in [store for store, opened in _open_indexes.items() if opened is index]:
        del _open_indexes[store]
    return StoreError(
        f"{index.path}: the search index was damaged; it has been removed",
        remedy="Search again: it is built again. If this happens again, check the disk, and the "
        "store itself with: marsretrieval store verify",
    )


def verify_index(path: str | Path) -> list[str]:
    """Check all indexes of a store against their checksums and remove damaged ones.

    Args:
        path: The store folder.

    Returns:
        One line per problem.
    """
    path = Path(path)
    problems: list[str] = []
    for folder in (folder for root in _roots(path) for folder in _index_folders(root)):
        if folder.suffix == ".tmp":
            continue
        index_problems: list[str] = []
        try:
            header = SearchIndex(folder, path).header
            for name, entry in header["files"].items():
                if sha256_file(folder / name) != entry.get("sha256"):
                    index_problems.append(f"{folder / name}: checksum mismatch")
        except (StoreError, ValueError, OSError) as error:
            index_problems.append(
                error.message if isinstance(error, MarsRetrievalError) else str(error)
            )
        if index_problems:
            shutil.rmtree(folder, ignore_errors=True)
        problems += index_problems
    return problems


def _index_folders(root: Path) -> list[Path]:
    """Return the index folders in `root`, unfinished ones included."""
    if not root.is_dir():
        return []
    return [
        folder
        for folder in root.iterdir()
        if folder.is_dir()
        and not folder.is_symlink()
        and ((folder / HEADER).exists() or folder.suffix == ".tmp")
    ]


def _fingerprint(store: EmbeddingStore) -> str:
    """Return a hash of the contents and order of all rows."""
    shards = [[entry.shard, entry.rows, entry.bytes, entry.sha256] for entry in store.entries]
    return sha256_json([store.manifest.made_by, shards])


def _roots(path: Path) -> list[Path]:
    """Return the folders that may hold indexes, in order of preference.

    A symbolic link in the store is skipped: stores may come from untrusted sources, and outdated
    indexes and temporary folders in these folders are deleted.
    """
    store_key = sha256_json(str(path.resolve()))[:16]
    store_root = path / "view"
    return [
        *([] if store_root.is_symlink() else [store_root]),
        _cache_folder() / "marsretrieval" / "views" / store_key,
    ]


def _cache_folder() -> Path:
    configured = os.environ.get("XDG_CACHE_HOME")
    if configured:
        return Path(configured)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~")).expanduser()
    return Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache").expanduser()


def _stat_signature(path: Path) -> list[int] | None:
    """Return file attributes that change with the store's files; None if unknown."""
    with suppress(OSError):
        manifest = (path / "manifest.json").stat()
        shards = (path / "shards").stat()
        return [
            manifest.st_size,
            manifest.st_mtime_ns,
            manifest.st_ino,
            shards.st_mtime_ns,
            shards.st_ino,
        ]
    return None


def _write_stamp(root: Path, fingerprint: str, signature: list[int]) -> None:
    """Write the stamp; `signature` must have been read before the shard entries."""
    if time.time() - max(signature[1], signature[3]) / 1e9 >= _SETTLED_SECONDS:
        with suppress(OutputError):
            write_json(root / "stamp.json", {"fingerprint": fingerprint, "look": signature})
