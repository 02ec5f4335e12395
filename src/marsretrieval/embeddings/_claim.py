"""A folder becomes the store of one encoder, or is found to be another's."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from marsretrieval.embeddings._manifest import (
    Manifest,
    ModelRequest,
    differences,
    entry_path,
    require_own_shards,
    shards_folder,
    write_manifest,
)
from marsretrieval.embeddings._plan import BuildPlan, existing_manifest, finished
from marsretrieval.errors import StoreMismatchError
from marsretrieval.files import locked, make_folder, remove_stale

if TYPE_CHECKING:
    from marsretrieval.encoders import Encoder


def claim_store(
    plan: BuildPlan, encoder: Encoder, *, request: ModelRequest | None, role: str | None = None
) -> Manifest:
    """Make the folder and its manifest, or check that the one there is of this encoder.

    Raises StoreMismatchError naming each difference.
    """
    there, wanted = _wanted(plan, encoder, request, role)  # nothing is made where it does not fit
    folder = shards_folder(plan.store)
    if there == wanted and not plan.todo and not os.access(folder, os.W_OK):
        return wanted
    make_folder(folder)
    # Others begin the same store at the same moment, or finish a shard of it.
    require_own_shards(plan.store)
    with locked(folder):
        there, wanted = _wanted(plan, encoder, request, role)
        if wanted != there:
            write_manifest(plan.store, wanted)
        _drop_outdated(plan, wanted)
    return wanted


def _wanted(
    plan: BuildPlan, encoder: Encoder, request: ModelRequest | None, role: str | None
) -> tuple[Manifest | None, Manifest]:
    """The manifest that is there now, and the one that is to be."""
    there = existing_manifest(plan.store, force=plan.force)
    shards = tuple(shard.name for shard in plan.shards)
    if there is None:
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
    lines = differences(there.encoder, encoder.fingerprint)
    pairs = {"dtype": (there.dtype, plan.dtype), "role": (there.role, role)}
    lines += [f"{key}: {old} in the store, {new} now" for key, (old, new) in pairs.items()
              if old != new]  # fmt: skip
    if lines:
        raise StoreMismatchError(
            f"{plan.store}: made by another encoder: {'; '.join(lines)}",
            remedy="Choose another folder, or --force to replace what is there.",
        )
    return there, replace(
        there, dataset=plan.dataset, shards=shards, request=request or there.request
    )


def _drop_outdated(plan: BuildPlan, manifest: Manifest) -> None:
    """Make room: entries of shards that are to be embedded again, shards that the source no
    longer has, and what killed processes left behind."""
    # With force all goes; else what another process finished since the plan was made stays.
    fresh = {} if plan.force else finished(plan.store, manifest, plan.todo)
    for shard in plan.todo:
        if shard.name not in fresh:
            entry_path(plan.store, shard.name).unlink(missing_ok=True)
    planned = {shard.name for shard in plan.shards}
    remove_stale(shards_folder(plan.store).glob(".*"))
    for path in shards_folder(plan.store).iterdir():
        if path.suffix in (".json", ".arrow") and path.stem not in planned:
            path.unlink(missing_ok=True)
