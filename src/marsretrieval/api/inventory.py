"""Open and create inventories from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from marsretrieval import embeddings
from marsretrieval.api.store import Store, open_store
from marsretrieval.embeddings import EmbeddingStore
from marsretrieval.errors import StoreError, UsageError
from marsretrieval.inventory import Inventory, InventoryError, InventoryFiles, inventory_path
from marsretrieval.text import has_control_characters, printable


def open_inventory(
    name: str | Path,
    *,
    store: str | Path | Store | None = None,
    text: str | Sequence[str] | None = None,
    similar_to: str | Sequence[str] = (),
    vector: npt.ArrayLike | None = None,
    landform: str | None = None,
    read_only: bool = False,
    **model: Any,
) -> Inventory:
    """Open an inventory; with a text, example tiles or a vector, create it if it does not exist.

    Args:
        name: Name or path, with or without the suffix `.inventory`.
        store: The store; default: where it was when the inventory was made.
        text: What to look for, when creating; of several texts the vectors are averaged.
        similar_to: Ids of example tiles of the store, when creating.
        vector: Query vector, shape (dimension,), when creating; instead of `text`.
        landform: Name of the landform, when creating; default: the text.
        read_only: Do not take the lock, so that another process may write.
        **model: Options of `open_store` that load the store's model for a text.

    Returns:
        The inventory; its lock ends with `close()` or a `with` block.

    Raises:
        InventoryError: If it does not exist, is open elsewhere, or belongs to another store.
        UsageError: If options exclude each other.
        StoreError: If the store is missing or damaged.
    """
    path = inventory_path(name)
    query_given = text is not None or len(similar_to) > 0 or vector is not None
    if not (path / "inventory.json").exists() and query_given:
        if read_only:
            raise UsageError(
                f"{path}: does not exist; read_only opens what there is",
                remedy="Check the path, or open it without read_only to create it.",
            )
        if store is None:
            raise UsageError("a new inventory needs a store", remedy="Give store=.")
        opened = store if isinstance(store, Store) else open_store(store, **model)
        return create_inventory(
            path, opened, text=text, similar_to=similar_to, vector=vector, landform=landform
        )
    files = InventoryFiles(path, write=not read_only)
    try:
        return Inventory(files, find_store(files, store))
    except BaseException:
        files.close()
        raise


def create_inventory(
    path: str | Path,
    store: Store,
    *,
    text: str | Sequence[str] | None = None,
    similar_to: str | Sequence[str] = (),
    vector: npt.ArrayLike | None = None,
    landform: str | None = None,
) -> Inventory:
    """Create an inventory.

    Args:
        path: Folder to create.
        store: The store.
        text: What to look for.
        similar_to: Ids of example tiles of the store.
        vector: Query vector, instead of a text and examples.
        landform: Name of the landform; default: the text, else the name of the folder.

    Returns:
        The inventory, open for writing.

    Raises:
        UsageError: If there is nothing to look for, options exclude each other, or the store is
            several stores opened as one.
        InventoryError: If it exists already.
        OutputError: If it cannot be written.
    """
    path = Path(path)
    texts = [text] if isinstance(text, str) else list(text or ())
    if (path / "inventory.json").exists():
        raise InventoryError(f"{path}: exists already", remedy="Choose another name.")
    if vector is not None and (texts or len(similar_to)):
        raise UsageError("a vector and a text or example", remedy="Give one of them.")
    _require_one_store(store)
    if vector is None:
        vector = store.vector(store.prepare_search(texts or None, like=similar_to))
    return Inventory.create(
        path,
        store.embeddings,
        landform=_check_landform(landform) or "; ".join(texts) or path.stem,
        query=vector,
        texts=texts,
    )


def _require_one_store(store: Store) -> None:
    if isinstance(store.embeddings, embeddings.CombinedStore):
        raise UsageError(
            f"an inventory of {len(store.embeddings.stores)} stores",
            remedy="Merge them first (marsretrieval store merge), or make one inventory per store.",
        )


def find_store(files: InventoryFiles, store: str | Path | Store | None = None) -> EmbeddingStore:
    """Open the store of an inventory.

    Args:
        files: The opened inventory.
        store: The store or its folder; None: where it was when the inventory was made.

    Returns:
        The store.

    Raises:
        StoreError: If there is no store.
        UsageError: If it is several stores opened as one.
    """
    if isinstance(store, Store):
        _require_one_store(store)
        return store.embeddings
    folder = Path(store or files.header.store.path)
    if store is None and not folder.exists():
        raise StoreError(
            f"{folder}: the store of {files.path} is gone",
            remedy="Name the folder where it is now with --store (in Python store=...).",
        )
    return embeddings.open_store(folder)


def _check_landform(name: str | None) -> str | None:
    if name is not None and has_control_characters(name):
        raise UsageError(
            f"the name of the landform, '{printable(name, one_line=True)}', has control characters",
            remedy="Write it on one line, without tabs.",
        )
    return name
