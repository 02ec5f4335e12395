"""Embed a source of images into stores: resumable shard by shard, one device, one process."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from marsretrieval.datasets import ImageSource, ItemWarning, Skipped
from marsretrieval.embeddings.batches import BatchRunner, batch_sizes, on_cpu
from marsretrieval.embeddings.manifest import Entry, ModelRequest
from marsretrieval.embeddings.pipeline import DecodeIn
from marsretrieval.embeddings.plan import BuildPlan, create_or_validate, plan_shards
from marsretrieval.embeddings.shard_writer import ShardWriter, embed_shards, open_decoders_for
from marsretrieval.errors import DataError, MarsRetrievalError, UsageError
from marsretrieval.progress import NO_PROGRESS, Progress

if TYPE_CHECKING:
    from marsretrieval.encoders import Encoder


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did. Rows and skipped items are those of this part of the store."""

    rows: int
    embedded: int  # of the rows: computed now
    reused: int  # of the rows: there before, or finished meanwhile by another process
    skipped: list[Skipped]
    batch_size: int | None  # in the end; None when nothing was computed
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[ItemWarning] = ()  # parts of annotations that were ignored

    @property
    def images_per_s(self) -> float | None:
        """Embedded images by wall time; None when nothing was computed."""
        total = self.seconds.get("total", 0.0)
        return self.embedded / total if self.embedded and total else None

    @property
    def device_idle(self) -> float | None:
        """Share of the wall time in which the device had nothing to do, 0 to 1."""
        wait, total = self.seconds.get("wait"), self.seconds.get("total")
        return None if wait is None or not total else min(1.0, wait / total)

    @property
    def timings(self) -> dict[str, float]:
        """Seconds by stage, images a second and the device's idle share, as results record them.

        decode: summed over workers. embed: in this model. wait: the device without work.
        """
        rates = {"images_per_s": self.images_per_s, "device_idle": self.device_idle}
        return {**self.seconds, **{name: value for name, value in rates.items() if value}}

    @classmethod
    def from_entries(
        cls,
        done: Sequence[Entry],
        written: Sequence[Entry],
        batch_size: int | None,
        seconds: Mapping[str, float],
    ) -> BuildReport:
        """From the entries that were there and those written now."""
        embedded = sum(entry.rows for entry in written)
        reused = sum(entry.rows for entry in done)
        return cls(
            rows=embedded + reused,
            embedded=embedded,
            reused=reused,
            skipped=[item for entry in (*done, *written) for item in entry.skipped],
            batch_size=batch_size,
            seconds=seconds,
            warnings=[item for entry in (*done, *written) for item in entry.warnings],
        )


@dataclass(frozen=True, slots=True)
class Target:
    """One model and the store that its vectors go into.

    `encoder` may be a function that loads it: where nothing is to do and `request` (how the model
    was asked for; kept in the manifest) is pinned and that of the store, it is not called.
    """

    encoder: Encoder | Callable[[], Encoder]
    path: Path
    request: ModelRequest | None = None

    @property
    def to_load(self) -> bool:
        """Is `encoder` a function (or class) that loads? Not callable(): a torch module is, too."""
        return isinstance(self.encoder, type) or not hasattr(self.encoder, "encode_preprocessed")


def build_store(
    encoder: Encoder | Callable[[], Encoder],
    source: ImageSource,
    path: Path,
    *,
    dtype: str = "float16",
    batch_size: int | None = None,
    workers: int | None = None,
    decode_in: DecodeIn = "threads",
    part: tuple[int, int] | None = None,
    force: bool = False,
    strict: bool = False,
    request: ModelRequest | None = None,
    progress: Progress = NO_PROGRESS,
) -> BuildReport:
    """Embed every image of `source` that the store at `path` does not hold yet: `build_stores`
    for one model."""
    (report,) = build_stores(
        [Target(encoder, path, request)],
        source,
        dtype=dtype,
        batch_size=batch_size,
        workers=workers,
        decode_in=decode_in,
        part=part,
        force=force,
        strict=strict,
        progress=progress,
    )
    return report


def build_stores(
    targets: Sequence[Target],
    source: ImageSource,
    *,
    dtype: str = "float16",
    batch_size: int | None = None,
    workers: int | None = None,
    decode_in: DecodeIn = "threads",
    part: tuple[int, int] | None = None,
    force: bool = False,
    strict: bool = False,
    progress: Progress = NO_PROGRESS,
) -> list[BuildReport]:
    """Embed every image of `source` that a target's store does not hold yet, with each image
    read and decoded once for all targets; a report for each of them.

    Several processes may build parts (i, n) of one store at once. After any interruption the same
    call goes on, and a shard whose files changed is embedded again. Images that cannot be read, or
    on which the model fails, are left out and listed, or with `strict` raised as DataError; an
    unreadable shard is passed over and raised as DataError at the end.

    `workers` (default: the CPUs there are) decode, in threads, in processes, or as `auto` chooses;
    processes import the script that calls this, whose work must stand below
    `if __name__ == "__main__"`.

    Raises StoreMismatchError when a store was made by another encoder or from other data,
    OutputError when one cannot be written, MarsRetrievalError when a process that decodes dies;
    finished shards are kept.
    """
    plans = plan_targets(targets, source, dtype=dtype, part=part, force=force)
    if strict:
        require_none_skipped(plans)
    writers: list[ShardWriter | None] = []
    for target, plan in zip(targets, plans, strict=True):
        writers.append(
            None
            if _is_up_to_date(plan, target.request)
            else open_shard_writer(target, plan, batch_size, strict=strict)
        )
    active_writers = [writer for writer in writers if writer is not None and writer.plan.todo]
    seconds: dict[str, float] = {}
    if active_writers:
        with closing(open_decoders_for(active_writers, workers, decode_in)) as decoders:
            seconds = embed_shards(active_writers, source, decoders, progress=progress)
    require_readable([(len(writer.plan.todo), writer.failed) for writer in active_writers])
    reports = [_report(plan, writer, seconds) for plan, writer in zip(plans, writers, strict=True)]
    if part is None:
        require_rows(source, reports)
    return reports


def plan_targets(
    targets: Sequence[Target],
    source: ImageSource,
    *,
    dtype: str,
    part: tuple[int, int] | None = None,
    force: bool = False,
) -> list[BuildPlan]:
    """A plan for each target; the source is listed once. Raises as `plan_build` does."""
    if len({target.path.resolve() for target in targets}) != len(targets):
        raise UsageError("two models cannot share one store", remedy="Give each a folder.")
    shards = source.shards()
    return [
        plan_shards(
            shards,
            target.path,
            name=source.name,
            dataset_kind=source.kind,
            kind="image",
            dtype=dtype,
            part=part,
            force=force,
        )
        for target in targets
    ]


def require_readable(
    outcomes: Sequence[tuple[int, Sequence[tuple[str, MarsRetrievalError]]]],
) -> None:
    """Of each store the number of shards tried, and those that could not be read. Raises
    DataError if there are any."""
    tried, failed = max(outcomes, key=lambda outcome: len(outcome[1]), default=(0, []))
    if failed:
        name, error = failed[0]
        raise DataError(
            f"{len(failed)} of {tried} shards could not be read (first: {name}: {error.message})",
            remedy="The others are embedded and kept. Repair these files, then run again.",
        )


def require_none_skipped(plans: Sequence[BuildPlan]) -> None:
    """Raise DataError if a finished shard of a store leaves images out."""
    for plan in plans:
        items = [item for entry in plan.done for item in entry.skipped]
        if items:
            raise DataError(
                f"{plan.store}: {len(items)} images are left out (first: {items[0].source}: "
                f"{items[0].reason})",
                remedy="Repair or remove them, or leave out --strict to skip such images.",
            )


def require_rows(source: ImageSource, reports: Sequence[BuildReport]) -> None:
    """Raises DataError where a store has no row, only items that were left out."""
    for report in reports:
        if not report.rows and report.skipped:
            lost = report.skipped[0]
            reason = lost.reason.removeprefix(f"{lost.source}: ")
            raise DataError(
                f"{source.name}: none of {len(report.skipped)} images could be read "
                f"(first: {lost.source}: {reason})",
                remedy=_remedy(source, lost.reason),
            )


def _remedy(source: ImageSource, reason: str) -> str:
    """What to do where no image could be read: access is not part of a file's fingerprint."""
    if any(os.strerror(code) in reason for code in (errno.EACCES, errno.EPERM)):
        return "Allow access to the files, then run again with --force."
    return (
        f"Correct the files, then run again. marsretrieval data verify {source.name} names every "
        "one and its reason."
    )


def open_shard_writer(
    target: Target, plan: BuildPlan, batch_size: int | None, *, strict: bool = False
) -> ShardWriter:
    """Load the model and claim its store."""
    encoder = target.encoder
    model = cast("Encoder", cast(Any, encoder)() if target.to_load else encoder)
    manifest = create_or_validate(plan, model, request=target.request)
    size, limit = (batch_size, batch_size) if batch_size else batch_sizes(model)
    runner = BatchRunner(
        model.encode_preprocessed,
        name=model.id,
        dimension=model.dimension,
        size=size,
        limit=limit,
        collate=getattr(model, "collate", None),
        sample=lambda: model.preprocess(_sample_image()),
    )
    return ShardWriter(
        plan, manifest, model.preprocess, runner, on_cpu=on_cpu(model), strict=strict
    )


def _sample_image() -> Image.Image:
    """An image with contrast, on which a sound model does not fail."""
    ramp = np.linspace(0, 255, 64 * 64).astype(np.uint8).reshape(64, 64)
    return Image.fromarray(ramp).convert("RGB")


def _is_up_to_date(plan: BuildPlan, request: ModelRequest | None) -> bool:
    manifest = plan.manifest
    return (
        not plan.todo
        and manifest is not None
        and request is not None
        and request.pinned
        and manifest.request == request
        and manifest.dataset == plan.dataset
    )


def _report(plan: BuildPlan, writer: ShardWriter | None, seconds: dict[str, float]) -> BuildReport:
    if writer is None or not plan.todo:
        return BuildReport.from_entries(plan.done, [], None, {})
    return BuildReport.from_entries(
        [*plan.done, *writer.finished_elsewhere],
        writer.written,
        writer.runner.size,
        {**writer.seconds, **seconds},
    )
