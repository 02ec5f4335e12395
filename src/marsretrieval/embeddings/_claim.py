"""A folder becomes the store of one encoder, or is found to be another's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from marsretrieval.embeddings._manifest import (
    Manifest,
    ModelRequest,
    differences,
    entry_path,
    shards_folder,
    write_manifest,
)
from marsretrieval.embeddings._plan import BuildPlan, existing_manifest, finished
from marsretrieval.errors import StoreMismatchError
from marsretrieval.files import make_folder, remove_stale

if TYPE_CHECKING:
    from marsretrieval.encoders import Encoder

__all__ = ["claim_store"]


def claim_store(
    plan: BuildPlan, encoder: Encoder, *, request: ModelRequest | None, role: str | None = None
) -> Manifest:
    """Make the folder and its manifest, or check that the one there is of this encoder.

    Raises StoreMismatchError naming each difference.
    """
    fingerprint = encoder.fingerprint
    shards = tuple(shard.name for shard in plan.shards)
    # Another process may have begun the same store while this one was loading its model.
    there = plan.manifest or existing_manifest(plan.store, force=plan.force)
    if there is not None:
        lines = differences(there.encoder, fingerprint)
        if there.role != role:
            lines.append(f"role: {there.role} in the store, {role} now")
        if lines:
            raise StoreMismatchError(
                f"{plan.store}: made by another encoder: {'; '.join(lines)}",
                remedy="Choose another folder, or --force to replace what is there.",
            )
        wanted = replace(
            there, dataset=plan.dataset, shards=shards, request=request or there.request
        )
    else:
        wanted = Manifest(
            kind=plan.kind,
            encoder=fingerprint,
            dataset=plan.dataset,
            dimension=encoder.dimension,
            dtype=plan.dtype,
            shards=shards,
            request=request,
            role=role,
        )
    make_folder(shards_folder(plan.store))
    if wanted != there:
        write_manifest(plan.store, wanted)
    _drop_outdated(plan, wanted)
    return wanted


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
