"""Plan a build: compare a source and a model with existing stores.

No image is decoded, and no model is loaded. Stores that `run` built with another version of a model
are kept with the new ones.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from marsretrieval.embeddings.manifest import (
    DatasetIdentity,
    Dtype,
    Entry,
    Kind,
    Manifest,
    ModelRequest,
    differences,
    entry_path,
    finished_entry,
    manifest_path,
    read_manifest,
    require_own_shards,
    shards_folder,
    write_manifest,
)
from marsretrieval.errors import DataError, OutputError, StoreError, StoreMismatchError, UsageError
from marsretrieval.io import (
    locked,
    make_folder,
    read_json,
    remove_stale,
    sha256_json,
    write_json,
)
from marsretrieval.text import is_safe_name, pluralize

if TYPE_CHECKING:
    from marsretrieval.datasets import ImageSource, Shard
    from marsretrieval.encoders import Encoder

# Identity of the model of the stores that `run` builds.
_MODEL_FILE = "model.json"
_EARLIER = ".earlier"
_INVALID = {"invalid": True}


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """Shards of a store that are to be embedded.

    Attributes:
        store: Folder of the store.
        shards: All shards of the source.
        todo: Shards of this part that are to be embedded.
        done: Entries of the finished shards of this part.
        manifest: The existing manifest. None if the store is new or is replaced.
        force: Whether an existing store is replaced.
        dataset: Identity of the dataset.
        dtype: Vector dtype.
        kind: Whether the rows are images or texts.
    """

    store: Path
    shards: tuple[Shard, ...]
    todo: tuple[Shard, ...]
    done: tuple[Entry, ...]
    manifest: Manifest | None
    force: bool
    dataset: DatasetIdentity
    dtype: Dtype
    kind: Kind

    @property
    def todo_rows(self) -> int | None:
        """Number of items to embed. None if it is unknown before the shards are read."""
        counts = [shard.rows for shard in self.todo]
        return None if None in counts else sum(count for count in counts if count is not None)


def plan_build(
    source: ImageSource,
    store: str | Path,
    *,
    dtype: str = "float16",
    part: tuple[int, int] | None = None,
    force: bool = False,
) -> BuildPlan:
    """Compare an image source with a store.

    Args:
        source: Images to embed.
        store: Folder of the store, which may be missing.
        dtype: Vector dtype, float16 or float32.
        part: (i, n) plans every n-th shard, with i from 1 to n.
        force: Replace an existing store.

    Returns:
        The plan.

    Raises:
        StoreMismatchError: If the store has another dtype or was made from other data.
        StoreError: If the folder contains other files.
        DataError: If the source is invalid.
        UsageError: If the dtype or the part is invalid.
    """
    store = Path(store)
    return plan_shards(
        source.shards(),
        store,
        name=source.name,
        dataset_kind=source.kind,
        kind="image",
        dtype=dtype,
        part=part,
        force=force,
    )


def plan_shards(
    shards: Sequence[Shard],
    store: Path,
    *,
    name: str,
    dataset_kind: str,
    kind: Kind,
    dtype: str,
    part: tuple[int, int] | None = None,
    force: bool = False,
    may_shrink: bool = False,
) -> BuildPlan:
    """Compare a list of shards with a store.

    Args:
        shards: Shards of the source.
        store: Folder of the store, which may be missing.
        name: Name of the dataset.
        dataset_kind: Kind of the dataset.
        kind: Whether the rows are images or texts.
        dtype: Vector dtype, float16 or float32.
        part: (i, n) plans every n-th shard, with i from 1 to n.
        force: Replace an existing store.
        may_shrink: Accept a source that lacks shards of the store.

    Returns:
        The plan.

    Raises:
        StoreMismatchError: If the store has another dtype or was made from other data.
        StoreError: If the folder contains other files.
        DataError: If the names of shards are invalid or repeated.
        UsageError: If the dtype or the part is invalid.
    """
    if dtype not in get_args(Dtype):
        raise UsageError(f"unknown vector dtype '{dtype}'", remedy="Use float16 or float32.")
    repeated = [
        shard_name for shard_name, count in Counter(s.name for s in shards).items() if count > 1
    ]
    if repeated:
        raise DataError(f"{name}: two shards have the name {repeated[0]}", remedy="Rename one.")
    for shard in shards:
        if not is_safe_name(f"{shard.name}.arrow"):
            raise DataError(
                f"{name}: {shard.name!r} cannot be part of the file names of a shard",
                remedy="Rename it.",
            )
    number, parts = part or (1, 1)
    if not 1 <= number <= parts:
        raise UsageError(
            f"part {number}/{parts} does not exist",
            remedy=f"Parts are numbered from 1/{parts} to {parts}/{parts}."
            if parts > 0
            else "The number of parts is at least 1, such as 1/4.",
        )
    dataset: DatasetIdentity = {
        "name": name,
        "kind": dataset_kind,
        "fingerprint": sha256_json([[shard.name, shard.fingerprint] for shard in shards]),
    }
    manifest = existing_manifest(store, force=force)
    entries: dict[str, Entry] = {}
    if manifest is not None:
        entries = finished_entries(store, manifest, shards)
        lines = _mismatches(manifest, dataset, kind, dtype)
        if not may_shrink:
            lines += _other_data(store, manifest, [s.name for s in shards], name, entries)
        if lines:
            raise StoreMismatchError(
                f"{store}: the folder contains another store: {'; '.join(lines)}",
                remedy="Choose another folder, or use --force to replace its contents.",
            )
    part_shards = shards[number - 1 :: parts]
    return BuildPlan(
        store=store,
        shards=tuple(shards),
        todo=tuple(shard for shard in part_shards if shard.name not in entries),
        done=tuple(entries[shard.name] for shard in part_shards if shard.name in entries),
        manifest=manifest,
        force=force,
        dataset=dataset,
        dtype=cast(Dtype, dtype),
        kind=kind,
    )


def existing_manifest(store: Path, *, force: bool) -> Manifest | None:
    """Read the manifest of the store that a build resumes.

    Args:
        store: Folder of the store, which may be missing.
        force: Ignore an existing manifest.

    Returns:
        The manifest. None if there is none, or with `force`.

    Raises:
        StoreError: If the manifest is damaged, or the folder contains other files.
    """
    if manifest_path(store).exists():
        return None if force else read_manifest(store)
    if store.is_dir():
        other_files = [path.name for path in store.iterdir() if not path.name.startswith(".")]
        if other_files and other_files != ["shards"]:
            raise StoreError(
                f"{store}: holds other files ({', '.join(sorted(other_files)[:3])}) and no store",
                remedy="Choose a new or empty folder for the store.",
            )
    return None


def finished_entries(store: Path, manifest: Manifest, shards: Sequence[Shard]) -> dict[str, Entry]:
    """Return the finished shards whose entry matches manifest, source and file size.

    Args:
        store: Folder of the store.
        manifest: Manifest of the store.
        shards: Shards of the source.

    Returns:
        Maps the name of a shard to its entry.

    Raises:
        StoreError: If a file cannot be read.
    """
    entries = {}
    for shard in shards:
        entry = finished_entry(store, manifest.made_by, shard.name, shard.fingerprint)
        if entry is not None:
            entries[shard.name] = entry
    return entries


def _mismatches(manifest: Manifest, dataset: DatasetIdentity, kind: Kind, dtype: str) -> list[str]:
    pairs = {
        "kind": (manifest.kind, kind),
        "dtype": (manifest.dtype, dtype),
        "dataset kind": (manifest.dataset["kind"], dataset["kind"]),
    }
    return [
        f"{label}: {stored} in the store, {current} now"
        for label, (stored, current) in pairs.items()
        if stored != current
    ]


def _other_data(
    store: Path,
    manifest: Manifest,
    names: Sequence[str],
    source: str,
    entries: Mapping[str, Entry],
) -> list[str]:
    """Describe why the source is not the one that the store was made from.

    A source may grow and its files may change. One that lost shards, or has another name and no
    shard in common, is another source.
    """
    lost = sorted(set(manifest.shards) - set(names))
    before = manifest.dataset["name"]
    if lost and before != source and sorted(before.split(", ")) == sorted(source.split(", ")):
        return [f"data: made from {before}, in this order; now {source}"]
    if lost:
        return [
            f"data: {len(lost)} of its {pluralize(len(manifest.shards), 'shard')} (such as "
            f"{lost[0]}) are not in {source}"
        ]
    embedded = any(entry_path(store, name).exists() for name in manifest.shards)
    if embedded and not entries and manifest.dataset["name"] != source:
        return [f"data: {manifest.dataset['name']} in the store, {source} now"]
    return []


def create_or_validate(
    plan: BuildPlan, encoder: Encoder, *, request: ModelRequest | None, role: str | None = None
) -> Manifest:
    """Create a store's manifest, or check that it matches the encoder.

    Args:
        plan: Plan of the store.
        encoder: The loaded encoder.
        request: Model name and load options, kept in the manifest.
        role: Role of the texts, for a store of texts.

    Returns:
        The manifest.

    Raises:
        StoreMismatchError: If the store was made by another encoder. Names each difference.
        OutputError: If the folder cannot be written.
    """
    # Raises before anything is written if the store does not match.
    existing, manifest = _expected_manifest(plan, encoder, request, role)
    folder = shards_folder(plan.store)
    if existing == manifest and not plan.todo and not os.access(folder, os.W_OK):
        return manifest
    make_folder(folder)
    # Other processes may create the same store, or finish a shard of it, at the same time.
    require_own_shards(plan.store)
    with locked(folder):
        existing, manifest = _expected_manifest(plan, encoder, request, role)
        if manifest != existing:
            write_manifest(plan.store, manifest)
        _drop_outdated(plan, manifest)
    return manifest


def _expected_manifest(
    plan: BuildPlan, encoder: Encoder, request: ModelRequest | None, role: str | None
) -> tuple[Manifest | None, Manifest]:
    """Return the existing manifest, if any, and the one that the store must have."""
    existing = existing_manifest(plan.store, force=plan.force)
    shards = tuple(shard.name for shard in plan.shards)
    if existing is None:
        return None, Manifest(
            kind=plan.kind,
            encoder=encoder.fingerprint,
            dataset=plan.dataset,
            dimension=encoder.dimension,
            dtype=plan.dtype,
            shards=shards,
            request=request,
            role=role,
        )
    lines = differences(existing.encoder, encoder.fingerprint)
    pairs = {"dtype": (existing.dtype, plan.dtype), "role": (existing.role, role)}
    lines += [f"{key}: {old} in the store, {new} now" for key, (old, new) in pairs.items()
              if old != new]  # fmt: skip
    if lines:
        raise StoreMismatchError(
            f"{plan.store}: made with another encoder: {'; '.join(lines)}",
            remedy="Choose another folder, or use --force to replace its contents.",
        )
    return existing, replace(
        existing, dataset=plan.dataset, shards=shards, request=request or existing.request
    )


def _drop_outdated(plan: BuildPlan, manifest: Manifest) -> None:
    """Remove the entries of shards that are embedded again and the files of removed shards.

    Also removes temporary files of processes that were killed.
    """
    # Without force, shards that another process finished after planning are kept.
    fresh = {} if plan.force else finished_entries(plan.store, manifest, plan.todo)
    for shard in plan.todo:
        if shard.name not in fresh:
            entry_path(plan.store, shard.name).unlink(missing_ok=True)
    planned = {shard.name for shard in plan.shards}
    remove_stale(shards_folder(plan.store).glob(".*"))
    for path in shards_folder(plan.store).iterdir():
        if path.suffix in (".json", ".arrow") and path.stem not in planned:
            path.unlink(missing_ok=True)


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
        write_json(folder / _MODEL_FILE, current)
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
        write_json(folder / _MODEL_FILE, _INVALID)


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
        and (manifest_path(path).exists() or shards_folder(path).is_dir())
    ]


def _read(folder: Path) -> Any:
    try:
        return read_json(folder / _MODEL_FILE)
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
