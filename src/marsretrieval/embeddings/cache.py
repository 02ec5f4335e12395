"""Cache of the stores that the benchmark builds for one version of one model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marsretrieval.embeddings.manifest import differences, manifest_path, read_manifest
from marsretrieval.embeddings.manifest import shards_folder as _shards_folder
from marsretrieval.errors import DataError, OutputError, StoreError
from marsretrieval.io import read_json, sha256_json, write_json

_FILE = "model.json"
_EARLIER = ".earlier"
_INVALID = {"invalid": True}


def prepare_cache(
    folder: str | Path, identity: Mapping[str, Any], fingerprint: Mapping[str, Any]
) -> str | None:
    """Prepare a folder of stores for a model; rename the stores of another version.

    Args:
        folder: Folder that contains the stores of one model on one dataset.
        identity: What identifies the model before it is loaded (for example its source file).
        fingerprint: Fingerprint of the loaded encoder.

    Returns:
        Why stores were renamed. None if none were.

    Raises:
        OutputError: If stores cannot be renamed, or the folder cannot be written.
    """
    folder = Path(folder)
    current = {
        "identity": sha256_json(dict(identity)),
        "fingerprint": sha256_json(dict(fingerprint)),
    }
    reason = None
    stores = _stores(folder)
    if stores:
        reason = _difference(folder, stores, current, identity, fingerprint)
        if reason is not None:
            drop_stores(folder)
    if reason is not None or _read(folder) != current:
        write_json(folder / _FILE, current)
    return reason


def invalidate_cache(folder: str | Path) -> None:
    """Mark the stores of a cache as outdated: the next `prepare_cache` renames them.

    Args:
        folder: Folder that contains stores. Nothing is written if it contains none.

    Raises:
        OutputError: If the folder cannot be written.
    """
    folder = Path(folder)
    if _stores(folder):
        write_json(folder / _FILE, _INVALID)


def drop_stores(folder: str | Path) -> bool:
    """Rename the stores of a cache to ``NAME.earlier``, replacing earlier renamed ones.

    They are not deleted, because they may have taken hours and the model may be restored.

    Args:
        folder: Folder that contains stores.

    Returns:
        Whether the folder contained any.

    Raises:
        OutputError: If a store cannot be renamed.
    """
    folder = Path(folder)
    stores = _stores(folder)
    for store in stores:
        earlier = store.with_name(f"{store.name}{_EARLIER}")
        try:
            if earlier.is_dir() and not earlier.is_symlink():
                shutil.rmtree(earlier)
            store.rename(earlier)
        except OSError as error:
            raise OutputError(
                f"{store}: cannot be renamed to {earlier.name} ({error.strerror or error})",
                remedy="Remove it, or choose another folder with --results.",
            ) from error
    return bool(stores)


def _stores(folder: Path) -> list[Path]:
    """List the folders that contain a complete or partial store; links are not followed."""
    if not folder.is_dir():
        return []
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_dir()
        and not path.is_symlink()
        and not path.name.endswith(_EARLIER)
        and (manifest_path(path).exists() or _shards_folder(path).is_dir())
    ]


def _read(folder: Path) -> Any:
    try:
        return read_json(folder / _FILE)
    except DataError:
        return None


def _difference(
    folder: Path,
    stores: list[Path],
    current: Mapping[str, str],
    identity: Mapping[str, Any],
    fingerprint: Mapping[str, Any],
) -> str | None:
    previous = _read(folder)
    if previous == _INVALID:
        return "--force"
    if isinstance(previous, dict):
        if previous == current:
            return None
        if previous.get("fingerprint") == current["fingerprint"]:
            return "the model's source has changed"
    elif "source_sha256" in identity and "source_sha256" not in fingerprint:
        return "they do not record the version of the model's source"
    lines: list[str] = []
    for store in stores:
        try:
            lines += differences(read_manifest(store).encoder, fingerprint)
        except StoreError as error:
            lines.append(error.message)
    if lines and all(line.startswith("source_sha256:") for line in lines):
        return "the model's source has changed"
    if lines:
        return f"made with another encoder: {'; '.join(dict.fromkeys(lines))}"
    return None if previous is None else "the model has changed"
