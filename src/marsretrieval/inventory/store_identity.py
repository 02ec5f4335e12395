"""Identity of the store of an inventory, and the vectors that rank it."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import UsageError
from marsretrieval.inventory.files import InventoryError, InventoryFiles, StoreIdentity, statuses
from marsretrieval.io import atomic_path, sha256_json, write_json
from marsretrieval.search import rows_of
from marsretrieval.search.index.find import known_of
from marsretrieval.search.learned import Whitening
from marsretrieval.search.tiles import rows_below
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.embeddings import EmbeddingStore

Vector = npt.NDArray[np.float32]

WHITENING, SEARCHES = "whitening.npz", "searches"

_PLACE_TILES = 1.5  # neighbours, diagonal ones included, are closer than this many tile sizes
_PLACE_DEG = 0.3  # for tiles of unknown size


def check_store(files: InventoryFiles, store: EmbeddingStore) -> None:
    """Check that an inventory belongs to a store.

    Args:
        files: The opened inventory.
        store: The store.

    Raises:
        InventoryError: If encoder or tiles differ; the message names the difference.
    """
    _check_encoder(files, store)
    identity = files.header.store
    if _shards_hash(store) == identity.shards or store.set_hash == identity.set_hash:
        return
    if store.rows != identity.rows:
        verb = "grown" if store.rows > identity.rows else "shrunk"
        what = f"has {verb} from {identity.rows:,} to {pluralize(store.rows, 'tile')}"
    else:
        what = f"holds other tiles (set hash {store.set_hash[:12]}, not {identity.set_hash[:12]})"
    raise InventoryError(
        f"{store.path} {what} since {files.path} was made",
        remedy="If it is the same store, keep the marks: "
        f"marsretrieval inventory update {files.path} --store {store.path}",
    )


def update_store(files: InventoryFiles, store: EmbeddingStore) -> dict[str, int]:
    """Continue an inventory with a store that has grown or moved.

    Args:
        files: The inventory, open for writing.
        store: A store of the same encoder that holds all marked tiles.

    Returns:
        Tiles before and after, and the number of marked tiles.

    Raises:
        UsageError: If an audit is open, or a marked tile is missing.
        InventoryError: If the encoder differs.
        OutputError: If the header cannot be written.
    """
    _check_encoder(files, store)
    if files.audits and files.audits[-1].state == "open":
        raise UsageError(
            f"{files.path}: audit {files.audits[-1].number} is open, and it is an audit of the "
            "store as it was",
            remedy="Close it first: marsretrieval inventory audit NAME close.",
        )
    marked = statuses(files.marks, files.audits)
    rows_of(store, list(marked))
    empty = rows_below(store, None)
    before = files.header.store.rows
    files.write_header(
        replace(
            files.header,
            store=identify_store(store),
            without_data=0 if empty is None else int(empty.sum()),
        )
    )
    return {"before": before, "after": store.rows, "marked": len(marked)}


def check_vector(vector: npt.ArrayLike, dimension: int, source: str = "query vector") -> Vector:
    """Check a query vector and scale it to unit length.

    Args:
        vector: Shape (dimension,).
        dimension: Dimension of the store.
        source: Where it comes from, for messages.

    Returns:
        float32 array of shape (dimension,).

    Raises:
        UsageError: If it has another shape, is not finite, or is zero.
    """
    values = np.asarray(vector, dtype=np.float64)
    if values.shape == (1, dimension):
        values = values[0]
    if values.shape != (dimension,):
        raise UsageError(
            f"{source}: shape {values.shape}; the store holds vectors of {dimension} numbers",
            remedy="Use a vector of the model that made the store.",
        )
    length = float(np.linalg.norm(values))
    if not np.isfinite(length) or length < 1e-12:
        raise UsageError(
            f"{source}: zero, NaN or infinite",
            remedy="Save a vector of finite numbers that are not all 0.",
        )
    return np.asarray(values / length, dtype=np.float32)


def cached_whitening(files: InventoryFiles, store: EmbeddingStore) -> Whitening:
    """Return the whitening of the store, saved in the inventory's folder for the next time.

    Args:
        files: The opened inventory; the file is written if it is open for writing.
        store: Its store.

    Returns:
        The whitening; computed anew if the file is missing, damaged or of another store.

    Raises:
        OutputError: If the file cannot be written.
    """
    path, key = files.path / WHITENING, files.header.store.shards
    try:
        with np.load(path, allow_pickle=False) as saved:
            if str(saved["store"]) == key:
                return Whitening(
                    saved["mean"].astype(np.float64),
                    saved["covariance"].astype(np.float64),
                    saved["factor"].astype(np.float64),
                )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # derived data: computed again
    whitening = Whitening.from_store(known_of(store))
    arrays = {
        name: getattr(whitening, name).astype(np.float32)
        for name in ("mean", "covariance", "factor")
    }
    if files.writable:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, store=np.array(key), **arrays)
    # Rounded as in the file, so that the same marks always give the same vector.
    return Whitening(*(array.astype(np.float64) for array in arrays.values()))


def _check_encoder(files: InventoryFiles, store: EmbeddingStore) -> None:
    from marsretrieval.embeddings.manifest import differences

    lines = differences(files.header.store.encoder, store.encoder)
    if lines:
        raise InventoryError(
            f"{store.path}: made by another encoder than the store of {files.path}: "
            f"{'; '.join(lines).replace(' in the store', ' in the inventory')}",
            remedy="Open the inventory with its own store, or make a new inventory for this one.",
        )


def identify_store(store: EmbeddingStore) -> StoreIdentity:
    """Describe a store for the header of an inventory.

    Args:
        store: The store.

    Returns:
        Its identity.
    """
    return StoreIdentity(
        path=str(store.path.resolve()),
        rows=store.rows,
        set_hash=store.set_hash,
        shards=_shards_hash(store),
        encoder=dict(store.encoder),
    )


def _shards_hash(store: EmbeddingStore) -> str:
    return sha256_json(sorted([entry.shard, entry.rows, entry.sha256] for entry in store.entries))


def place_distance(store: EmbeddingStore) -> float:
    """Return the distance below which tiles are neighbours, diagonally too.

    Args:
        store: The store.

    Returns:
        Degrees.
    """
    height = known_of(store).extents()[:, 1]
    heights = height[np.isfinite(height) & (height > 0)]
    return round(float(np.median(heights)) * _PLACE_TILES, 9) if len(heights) else _PLACE_DEG


def save_vector(path: Path, vector: Vector) -> None:
    """Write a vector as a NumPy file, atomically.

    Args:
        path: The file.
        vector: The vector.

    Raises:
        OutputError: If it cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, vector)


def save_search(files: InventoryFiles, vector: Vector, about: Mapping[str, Any]) -> str:
    """Keep the query vector of a search from which tiles are marked, once per vector.

    Args:
        files: The inventory, open for writing.
        vector: Query vector, shape (dimension,).
        about: Description of the search.

    Returns:
        Key of the search: `searches/KEY.npy` holds the vector, `searches/KEY.json` the
        description.

    Raises:
        UsageError: If the inventory is open for reading.
        OutputError: If it cannot be written.
    """
    files.require_writable()
    key = hashlib.sha256(vector.tobytes()).hexdigest()[:16]
    path = files.path / SEARCHES / f"{key}.json"
    if not path.exists():
        save_vector(path.with_suffix(".npy"), vector)
        write_json(path, dict(about))
    return key


def load_vector(path: Path, dimension: int) -> Vector:
    """Read a query vector.

    Args:
        path: NumPy file.
        dimension: Dimension of the store.

    Returns:
        float32 array of shape (dimension,), unit length.

    Raises:
        InventoryError: If it cannot be read.
        UsageError: If it does not fit the store.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InventoryError(
            f"{path}: cannot be read ({error.strerror or error})", remedy="Restore the file."
        ) from error
    except (ValueError, EOFError) as error:  # NumPy's text recommends unsafe options
        raise InventoryError(f"{path}: not a NumPy array", remedy="Restore the file.") from error
    return check_vector(values, dimension, str(path))
