"""What a build would do, found out without loading a model or decoding an image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from marsretrieval.datasets import ImageSource, Shard
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
    from marsretrieval.encoders import Encoder


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """`todo` and `done` are the shards of this part; `shards` are those of the whole store."""

    store: Path
    shards: tuple[Shard, ...]
    todo: tuple[Shard, ...]
    done: tuple[Entry, ...]
    manifest: Manifest | None  # None: the store is still to be made, or made anew
    force: bool
    dataset: DatasetIdentity
    dtype: Dtype
    kind: Kind

    @property
    def todo_rows(self) -> int | None:
        """Items still to embed; None where counting would mean reading them."""
        counts = [shard.rows for shard in self.todo]
        return None if None in counts else sum(count for count in counts if count is not None)


def plan_build(
    source: ImageSource,
    store: Path,
    *,
    dtype: str = "float16",
    part: tuple[int, int] | None = None,
    force: bool = False,
) -> BuildPlan:
    """Compare a source with what `store` already holds.

    `part` (i, n), i from 1 to n, takes every n-th shard. With `force` nothing there is kept.
    Raises StoreMismatchError when the store was made with another dtype or from other data,
    StoreError when the folder holds something else, DataError when the source is wrong.
    """
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
    """`plan_build` for shards of any kind; `may_shrink` lets the source lose shards."""
    if dtype not in get_args(Dtype):
        raise UsageError(f"unknown vector dtype '{dtype}'", remedy="Use float16 or float32.")
    repeated = [
        shard_name for shard_name, count in Counter(s.name for s in shards).items() if count > 1
    ]
    if repeated:
        raise DataError(f"{name}: two shards are called {repeated[0]}", remedy="Rename one.")
    for shard in shards:
        if not is_safe_name(f"{shard.name}.arrow"):
            raise DataError(
                f"{name}: {shard.name!r} cannot name the files of a shard", remedy="Rename it."
            )
    number, parts = part or (1, 1)
    if not 1 <= number <= parts:
        raise UsageError(
            f"part {number}/{parts} does not exist", remedy=f"Parts run from 1/{parts} on."
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
                f"{store}: another store is here: {'; '.join(lines)}",
                remedy="Choose another folder, or --force to replace what is there.",
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
    """The manifest of a store that is to be continued; None where there is none, or with `force`.

    Raises StoreError when it is damaged, or when the folder holds something else.
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
    """Shards whose entry fits the manifest, the source and the size of the file on disk."""
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
    """A source may grow and its files may change; but one that lost shards, or of another name
    and without any shard in common, is another source."""
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
    """Make the folder and its manifest, or check that the one there is of this encoder.

    Raises StoreMismatchError naming each difference.
    """
    existing, manifest = _expected_manifest(
        plan, encoder, request, role
    )  # nothing is made where it does not fit
    folder = shards_folder(plan.store)
    if existing == manifest and not plan.todo and not os.access(folder, os.W_OK):
        return manifest
    make_folder(folder)
    # Others begin the same store at the same moment, or finish a shard of it.
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
    """The manifest that is there now, and the one that is to be."""
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
            f"{plan.store}: made by another encoder: {'; '.join(lines)}",
            remedy="Choose another folder, or --force to replace what is there.",
        )
    return existing, replace(
        existing, dataset=plan.dataset, shards=shards, request=request or existing.request
    )


def _drop_outdated(plan: BuildPlan, manifest: Manifest) -> None:
    """Make room: entries of shards that are to be embedded again, shards that the source no
    longer has, and what killed processes left behind."""
    # With force all goes; else what another process finished since the plan was made stays.
    fresh = {} if plan.force else finished_entries(plan.store, manifest, plan.todo)
    for shard in plan.todo:
        if shard.name not in fresh:
            entry_path(plan.store, shard.name).unlink(missing_ok=True)
    planned = {shard.name for shard in plan.shards}
    remove_stale(shards_folder(plan.store).glob(".*"))
    for path in shards_folder(plan.store).iterdir():
        if path.suffix in (".json", ".arrow") and path.stem not in planned:
            path.unlink(missing_ok=True)
