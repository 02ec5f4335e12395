"""Embed images and texts into stores on one device, resumable shard by shard."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from marsretrieval.datasets.base import Shard, content_hash
from marsretrieval.embeddings.batches import BatchRunner, batch_sizes, on_cpu, quote_text
from marsretrieval.embeddings.manifest import Entry
from marsretrieval.embeddings.plan import BuildPlan, create_or_validate, plan_shards
from marsretrieval.embeddings.shard_writer import ShardWriter, embed_shards, open_decoders_for
from marsretrieval.embeddings.shards import Item, write_shard
from marsretrieval.errors import (
    DataError,
    MarsRetrievalError,
    ModalityError,
    UsageError,
    as_int,
    as_optional,
)
from marsretrieval.io import sha256_json
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.datasets import ImageSource, ItemWarning, Skipped
    from marsretrieval.embeddings.manifest import ModelRequest
    from marsretrieval.embeddings.pipeline import DecodeIn
    from marsretrieval.encoders import Encoder, TextRole

_TEXTS_PER_SHARD = 4096
_TEXTS_PER_BATCH = 64


@dataclass(frozen=True, slots=True)
class BuildReport:
    """Outcome of a build.

    Attributes:
        rows: Rows of this part of the store.
        embedded: Rows that this build computed.
        reused: Rows that were already stored, or that another process finished meanwhile.
        skipped: Items of this part without a vector.
        batch_size: Final batch size. None if nothing was computed.
        seconds: Seconds by stage: total, decode, embed, write, wait.
        warnings: Parts of annotations that were ignored.
    """

    rows: int
    embedded: int
    reused: int
    skipped: list[Skipped]
    batch_size: int | None
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[ItemWarning] = ()

    @property
    def images_per_s(self) -> float | None:
        """Embedded images per second of wall time. None if nothing was computed."""
        total = self.seconds.get("total", 0.0)
        return self.embedded / total if self.embedded and total else None

    @property
    def device_idle(self) -> float | None:
        """Fraction of the wall time during which the device was idle, 0 to 1."""
        wait, total = self.seconds.get("wait"), self.seconds.get("total")
        return None if wait is None or not total else min(1.0, wait / total)

    @property
    def timings(self) -> dict[str, float]:
        """Seconds by stage, images per second and the device's idle fraction, for result files.

        `decode` is summed over the workers, `embed` is spent in this model, and `wait` is the time
        during which the device was idle.
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
        """Summarize the entries of a store's shards.

        Args:
            done: Entries that were not computed by this build.
            written: Entries that this build wrote.
            batch_size: Final batch size. None if nothing was computed.
            seconds: Seconds by stage.

        Returns:
            The report.
        """
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
    """A model and the store that its vectors are written to.

    Attributes:
        encoder: The encoder, or a function that loads it. The function is not called if the store
            is complete and `request` is pinned and equals the store's request.
        path: Folder of the store.
        request: Model name and load options, kept in the manifest.
    """

    encoder: Encoder | Callable[[], Encoder]
    path: Path
    request: ModelRequest | None = None

    @property
    def to_load(self) -> bool:
        """Whether `encoder` is a function or class that loads the encoder.

        A torch module is callable too, therefore `callable()` does not answer this.
        """
        return isinstance(self.encoder, type) or not hasattr(self.encoder, "encode_preprocessed")


def build_store(
    encoder: Encoder | Callable[[], Encoder],
    source: ImageSource,
    path: str | Path,
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
    """Embed every image of a source that is not in the store yet.

    Same as `build_stores` for one model.

    Args:
        encoder: The encoder, or a function that loads it.
        source: Images to embed.
        path: Folder of the store.
        dtype: Vector dtype, float16 or float32.
        batch_size: Fixed batch size. None chooses it by throughput.
        workers: Number of decoding workers. None uses every available CPU.
        decode_in: "threads", "processes" or "auto".
        part: (i, n) embeds part i of n, counted from 1.
        force: Replace an existing store.
        strict: Raise on the first image that cannot be embedded.
        request: Model name and load options, kept in the manifest.
        progress: Progress display.

    Returns:
        The report of the build.

    Raises:
        StoreMismatchError: If the store holds vectors of another encoder or of other data.
        DataError: If a shard cannot be read, or with `strict` an image cannot be embedded.
        OutputError: If the store cannot be written.
        MarsRetrievalError: If a decoding process dies. Finished shards are kept.
    """
    path = Path(path)
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
    """Embed every image of a source into the stores of several models.

    Each image is read and decoded once for all targets. Several processes may build parts of one
    store at the same time. After an interruption, the same call resumes the build; shards whose
    files changed are embedded again. Images that cannot be read, or on which the model fails, are
    skipped and listed.

    Decoding processes import the script that calls this function, so that its work must stand
    below ``if __name__ == "__main__"``.

    Args:
        targets: Models and their stores.
        source: Images to embed.
        dtype: Vector dtype, float16 or float32.
        batch_size: Fixed batch size. None chooses it by throughput.
        workers: Number of decoding workers. None uses every available CPU.
        decode_in: "threads", "processes" or "auto".
        part: (i, n) embeds part i of n, counted from 1.
        force: Replace existing stores.
        strict: Raise on the first image that cannot be embedded.
        progress: Progress display.

    Returns:
        One report per target, in their order.

    Raises:
        StoreMismatchError: If a store holds vectors of another encoder or of other data.
        DataError: If a shard cannot be read (after all others are embedded), if no image can be
            embedded, or with `strict` if one cannot be embedded.
        OutputError: If a store cannot be written.
        MarsRetrievalError: If a decoding process dies. Finished shards are kept.
    """
    batch_size = as_optional(as_int, batch_size, "batch_size")
    workers = as_optional(as_int, workers, "workers")
    for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0)):
        if value is not None and value < least:
            raise UsageError(f"{name} must be at least {least}, not {value}")
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


def build_text_store(
    encoder: Encoder,
    items: Sequence[tuple[str, str]],
    path: str | Path,
    *,
    role: TextRole,
    dtype: str = "float32",
    batch_size: int | None = None,
    force: bool = False,
    progress: Progress = NO_PROGRESS,
) -> BuildReport:
    """Embed texts into a store; texts that are already stored are not embedded again.

    The texts of a shard are sorted by length before they are batched, which reduces padding. The
    rows keep the order of `items`.

    Args:
        encoder: The model.
        items: Pairs of id and text.
        path: Folder of the store.
        role: Whether the texts are queries or captions.
        dtype: Vector dtype, float16 or float32.
        batch_size: Batch size. None means 64.
        force: Replace an existing store.
        progress: Progress display.

    Returns:
        The report of the build.

    Raises:
        ModalityError: If the model has no text encoder.
        DataError: If two texts have the same id.
        StoreMismatchError: If the store holds vectors of another encoder.
        OutputError: If the store cannot be written.
    """
    path = Path(path)
    if "text" not in encoder.modalities:
        raise ModalityError(f"{encoder.id} is a vision-only model and cannot embed text")
    if len({key for key, _ in items}) != len(items):
        raise DataError(f"{path}: two texts have the same id")
    shards: list[Shard] = []
    items_by_shard = {}
    for first in range(0, len(items), _TEXTS_PER_SHARD):
        rows = items[first : first + _TEXTS_PER_SHARD]
        fingerprint = sha256_json([[key, text] for key, text in rows])
        shards.append(Shard(f"texts-{len(shards):06d}", fingerprint, len(rows)))
        items_by_shard[shards[-1].name] = rows
    plan = plan_shards(
        shards,
        path,
        name="texts",
        dataset_kind="texts",
        kind="text",
        dtype=dtype,
        force=force,
        may_shrink=True,
    )
    manifest = create_or_validate(plan, encoder, request=None, role=role)
    runner = BatchRunner(
        lambda texts: encoder.encode_texts(texts, role=role),
        name=encoder.id,
        dimension=encoder.dimension,
        size=batch_size or _TEXTS_PER_BATCH,
        describe=quote_text,
    )
    seconds = {"embed": 0.0, "write": 0.0}
    start = time.perf_counter()
    written = []
    with progress.start("embed texts", plan.todo_rows, "texts") as bar:
        for shard in plan.todo:
            texts = items_by_shard[shard.name]
            began = time.perf_counter()
            vectors = np.empty((len(texts), encoder.dimension), dtype=np.float32)
            order = np.argsort([len(text) for _, text in texts], kind="stable")
            embedded = 0
            while embedded < len(order):
                batch = order[embedded : embedded + runner.size]
                vectors[batch] = runner([texts[row][1] for row in batch])
                embedded += len(batch)
                bar.advance(len(batch))
            spent = time.perf_counter() - began
            seconds["embed"] += spent
            began = time.perf_counter()
            entry = Entry(
                shard=shard.name,
                fingerprint=shard.fingerprint,
                made_by=manifest.made_by,
                seconds={"embed": round(spent, 6)},
            )
            stored = [Item(key, "text", content_hash(text.encode())) for key, text in texts]
            written.append(write_shard(path, entry, stored, vectors, manifest.dtype))
            seconds["write"] += time.perf_counter() - began
    if written:
        seconds["total"] = time.perf_counter() - start
    return BuildReport.from_entries(
        plan.done, written, runner.size if written else None, seconds if written else {}
    )


def plan_targets(
    targets: Sequence[Target],
    source: ImageSource,
    *,
    dtype: str,
    part: tuple[int, int] | None = None,
    force: bool = False,
) -> list[BuildPlan]:
    """Plan the builds of several targets. The source is listed once.

    Args:
        targets: Models and their stores.
        source: Images to embed.
        dtype: Vector dtype, float16 or float32.
        part: (i, n) plans part i of n, counted from 1.
        force: Replace existing stores.

    Returns:
        One plan per target.

    Raises:
        UsageError: If two targets share a store.
        StoreMismatchError: If a store has another dtype or was made from other data.
        StoreError: If a folder contains other files.
        DataError: If the source is invalid.
    """
    if len({target.path.resolve() for target in targets}) != len(targets):
        raise UsageError("two models cannot share one store", remedy="Use one folder per model.")
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
    """Raise if a build could not read some shards.

    Args:
        outcomes: For each store, the number of shards that were tried, and the name and error of
            each shard that failed.

    Raises:
        DataError: If any shard failed.
    """
    tried, failed = max(outcomes, key=lambda outcome: len(outcome[1]), default=(0, []))
    if failed:
        name, error = failed[0]
        raise DataError(
            f"{len(failed)} of {pluralize(tried, 'shard')} could not be read (first: {name}: "
            f"{error.message})",
            remedy="The other shards are embedded. Repair these files, then run again.",
        )


def require_none_skipped(plans: Sequence[BuildPlan]) -> None:
    """Raise if a finished shard has skipped items.

    Args:
        plans: Plans of the stores to check.

    Raises:
        DataError: If a store has skipped items.
    """
    for plan in plans:
        items = [item for entry in plan.done for item in entry.skipped]
        if items:
            raise DataError(
                f"{plan.store}: {len(items)} images are left out (first: {items[0].source}: "
                f"{items[0].reason})",
                remedy="Repair or remove them, or leave out --strict to skip such images.",
            )


def require_rows(source: ImageSource, reports: Sequence[BuildReport]) -> None:
    """Raise if a store has skipped items but no rows.

    Args:
        source: The images that were embedded.
        reports: Reports of the builds.

    Raises:
        DataError: If every image of a store was skipped.
    """
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
    """Choose the remedy if no image could be read.

    File permissions are not part of a shard's fingerprint, so that a retry needs --force.
    """
    if any(os.strerror(code) in reason for code in (errno.EACCES, errno.EPERM)):
        return "Allow access to the files, then run again with --force."
    return (
        f"Correct the files, then run again. marsretrieval data verify {source.name} lists all of "
        "them with the reasons."
    )


def open_shard_writer(
    target: Target, plan: BuildPlan, batch_size: int | None, *, strict: bool = False
) -> ShardWriter:
    """Load a target's model and open its store for writing.

    Args:
        target: Model and store.
        plan: Plan of the store.
        batch_size: Fixed batch size. None chooses it by throughput.
        strict: Raise on the first image that cannot be embedded.

    Returns:
        The writer for the shards of the plan.

    Raises:
        StoreMismatchError: If the store holds vectors of another encoder.
        ModelLoadError: If the model cannot be loaded.
    """
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
    """Return an image with contrast, which every working model embeds."""
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
