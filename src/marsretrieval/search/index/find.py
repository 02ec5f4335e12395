"""Where the view of a store lies, whether it is the one, and who makes it.

A view counts only under the fingerprint of its store: the folder `view/FINGERPRINT`. It stands in
the store, or where that cannot be written, in the cache folder of the user. `view/stamp.json`
spares reading the entries of all shards: it remembers what the files looked like when they were
last read. It is never needed.
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
from marsretrieval.io import confined, read_json, sha256_file, sha256_json, write_json
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search.index.index import HEADER, SearchIndex

if TYPE_CHECKING:
    from marsretrieval.embeddings import EmbeddingStore

_WORTH_NUMBERS = 2**26  # in all vectors; below, searching without a view takes about 0.05 s
_SETTLED_SECONDS = 2.0  # a folder changed this recently may change again within one tick

_open: weakref.WeakKeyDictionary[Any, SearchIndex] = weakref.WeakKeyDictionary()


class SearchIndexWarning(MarsRetrievalWarning):
    """A search view could not be made or used; the search goes on without it, more slowly."""


def worth_a_view(store: EmbeddingStore) -> bool:
    """Is the store complete, and so large that a view saves time?"""
    return store.complete and store.rows * store.dimension >= _WORTH_NUMBERS


def open_index(
    path: Path, *, build: bool = True, progress: Progress = NO_PROGRESS
) -> SearchIndex | None:
    """The view of the store at `path`, by the shortest way: where the files have not changed
    since it was last used, not even the list of shards is read.

    Makes it where there is none, with `build`; else None. Raises StoreError when there is no
    store, OutputError when a view can be written nowhere.
    """
    look = _look(path)
    for root in _roots(path):
        with suppress(OSError, ValueError, KeyError, TypeError, DataError, StoreError):
            stamp = read_json(root / "stamp.json")
            if look is not None and stamp["look"] == look:
                return SearchIndex(confined(root, stamp["fingerprint"], nested=False), path)
    from marsretrieval.embeddings import open_store

    store = open_store(path)
    view = make_index(store, progress=progress) if build else existing_index(store)
    if view is not None and look is not None:
        _stamp(view.path.parent, view.fingerprint, look)
    return view


def index_of(
    store: EmbeddingStore, *, build: bool, progress: Progress = NO_PROGRESS
) -> SearchIndex | None:
    """The view to search `store` with, or None where it is searched without one.

    With `build` it is made if it is worth it. Where that fails, SearchIndexWarning says why.
    """
    found = _open.get(store) or existing_index(store)
    if found is None and build and worth_a_view(store):
        try:
            found = make_index(store, progress=progress, wait=False)
        except OutputError as error:
            warnings.warn(
                f"{error.message}; searching without a search view, which is slower",
                SearchIndexWarning,
                stacklevel=3,
            )
    if found is not None:
        _open[store] = found
    return found


def known_of(store: EmbeddingStore) -> EmbeddingStore | SearchIndex:
    """Where ids, places and sources of rows are looked up: the view if there is one, for the
    store opens a file for each shard that is asked."""
    return index_of(store, build=False) or store


def existing_index(store: EmbeddingStore) -> SearchIndex | None:
    """The view of exactly this store; None where there is none, or where it is damaged (with a
    SearchIndexWarning)."""
    fingerprint = _fingerprint(store)
    for root in _roots(store.path):
        folder = root / fingerprint
        if (folder / HEADER).exists():
            try:
                view = SearchIndex(folder, store.path)
            except (StoreError, ValueError, OSError) as error:
                what = error.message if isinstance(error, MarsRetrievalError) else error
                warnings.warn(f"search view not used: {what}", SearchIndexWarning, stacklevel=3)
                continue
            return view
    return None


def make_index(
    store: EmbeddingStore,
    *,
    anew: bool = False,
    wait: bool = True,
    progress: Progress = NO_PROGRESS,
) -> SearchIndex:
    """The view of `store`, made unless it is there (`anew`: even then). Views of other contents
    of the same store are removed.

    Raises OutputError when it can be written nowhere, or when another process is making it and
    `wait` is not set; StoreError when the store is damaged.
    """
    from marsretrieval.search.index.build import ViewInTheMaking, build_view, turn_to_build

    fingerprint = _fingerprint(store)
    problems: list[str] = []
    link = store.path / "view"
    if link.is_symlink():
        warnings.warn(
            f"{link}: a link, which is not followed; the search view is made in the cache. "
            "Replace the link by a folder.",
            SearchIndexWarning,
            stacklevel=2,
        )
    for root in _roots(store.path):
        try:
            with turn_to_build(root, wait=wait):
                there = None if anew else existing_index(store)
                if there is not None:
                    return there
                folder = build_view(store, root, fingerprint, progress=progress)
                for other in _views(root):
                    if other != folder:
                        shutil.rmtree(other, ignore_errors=True)
                return SearchIndex(folder, store.path)
        except OutputError as error:
            problems.append(error.message)
        except ViewInTheMaking:
            problems.append(f"{root}: another process is making the search view")
            break
    raise OutputError(
        "; ".join(problems), remedy="A search view needs a folder that can be written, with space."
    )


def drop_index(path: Path) -> int:
    """Remove all views of the store at `path`; the bytes that this set free. Raises StoreError
    when there is no store."""
    if not (path / "manifest.json").is_file():
        raise StoreError(f"{path}: no embedding store (no manifest.json)")
    freed = 0
    for root in _roots(path):
        for folder in _views(root):
            freed += sum(each.stat().st_size for each in folder.iterdir())
            shutil.rmtree(folder)
        for name in ("stamp.json", ".lock"):
            with suppress(OSError):
                (root / name).unlink()
        with suppress(OSError):
            root.rmdir()
    return freed


def discard_index(view: SearchIndex) -> StoreError:
    """Remove a view that was found to be damaged; the error to raise."""
    shutil.rmtree(view.path, ignore_errors=True)
    for store in [store for store, there in _open.items() if there is view]:
        del _open[store]
    return StoreError(
        f"{view.path}: the search view was damaged; it has been removed",
        remedy="Search again: it is made anew. If this comes back, check the disk, and the store "
        "itself with: marsretrieval store verify",
    )


def verify_index(path: Path) -> list[str]:
    """Read all views of the store at `path` and compare them with their checksums; a line for
    each problem. A view with problems is removed: the next search makes it anew."""
    problems: list[str] = []
    for folder in (folder for root in _roots(path) for folder in _views(root)):
        if folder.suffix == ".tmp":
            continue
        found: list[str] = []
        try:
            header = SearchIndex(folder, path).header
            for name, told in header["files"].items():
                if sha256_file(folder / name) != told.get("sha256"):
                    found.append(f"{folder / name}: not as it was written (checksum)")
        except (StoreError, ValueError, OSError) as error:
            found.append(error.message if isinstance(error, MarsRetrievalError) else str(error))
        if found:
            shutil.rmtree(folder, ignore_errors=True)
        problems += found
    return problems


def _views(root: Path) -> list[Path]:
    """Folders of views in `root`, whole or half-written."""
    if not root.is_dir():
        return []
    return [
        each
        for each in root.iterdir()
        if each.is_dir()
        and not each.is_symlink()
        and ((each / HEADER).exists() or each.suffix == ".tmp")
    ]


def _fingerprint(store: EmbeddingStore) -> str:
    """Of the contents and the order of all rows."""
    shards = [[each.shard, each.rows, each.bytes, each.sha256] for each in store.entries]
    return sha256_json([store.manifest.made_by, shards])


def _roots(path: Path) -> list[Path]:
    """Folders for a view, the best first. A link in the store is none: a store may come from
    anywhere, and old views and temporary folders of these folders are removed."""
    place = sha256_json(str(path.resolve()))[:16]
    inside = path / "view"
    return [
        *([] if inside.is_symlink() else [inside]),
        _cache() / "marsretrieval" / "views" / place,
    ]


def _cache() -> Path:
    told = os.environ.get("XDG_CACHE_HOME")
    if told:
        return Path(told)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~")).expanduser()
    return Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache").expanduser()


def _look(path: Path) -> list[int] | None:
    """What changes whenever a file of the store is put into place or removed. None: unknown."""
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


def _stamp(root: Path, fingerprint: str, look: list[int]) -> None:
    """Remember `look`, which must have been taken before the entries were read."""
    if time.time() - max(look[1], look[3]) / 1e9 >= _SETTLED_SECONDS:
        with suppress(OutputError):
            write_json(root / "stamp.json", {"fingerprint": fingerprint, "look": look})
