"""Plan a build: compare a source with a store without loading a model or decoding images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

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
from marsretrieval.errors import DataError, StoreError, StoreMismatchError, UsageError
from marsretrieval.io import is_safe_name, locked, make_folder, remove_stale, sha256_json

if TYPE_CHECKING:
    from marsretrieval.datasets import ImageSource, Shard
    from marsretrieval.encoders import Encoder


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
            remedy=f"Parts are numbered from 1/{parts} to {parts}/{parts}.",
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
            f"data: {len(lost)} of its {len(manifest.shards)} shards (such as {lost[0]}) "
            f"are not in {source}"
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
