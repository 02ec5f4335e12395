"""Embed a source of images into a store: resumable shard by shard, one device, one process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from marsretrieval._environment import usable_cpus
from marsretrieval.datasets import ImageSource, Shard, Skipped
from marsretrieval.embeddings._forward import Forward, default_batch_size
from marsretrieval.embeddings._manifest import (
    Entry,
    Manifest,
    ModelRequest,
    differences,
    shards_folder,
    write_manifest,
)
from marsretrieval.embeddings._pipeline import Decoded, ShardEnd, decode_ahead
from marsretrieval.embeddings._plan import BuildPlan, drop_outdated, existing_manifest, plan_build
from marsretrieval.embeddings._shards import Item, write_shard
from marsretrieval.errors import DataError, MarsRetrievalError, StoreMismatchError
from marsretrieval.files import make_folder
from marsretrieval.progress import NO_PROGRESS, Progress, ProgressTask

if TYPE_CHECKING:
    from marsretrieval.encoders import Encoder

__all__ = ["BuildReport", "build_store", "claim_store"]

_WRITES_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did. Rows and skipped items are those of this part of the store."""

    rows: int
    embedded: int  # of the rows: computed now
    reused: int  # of the rows: there before
    skipped: list[Skipped]
    batch_size: int | None  # in the end; None when nothing was computed
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def images_per_s(self) -> float | None:
        """Embedded images by wall time; None when nothing was computed."""
        total = self.seconds.get("total", 0.0)
        return self.embedded / total if self.embedded and total else None

    @property
    def timings(self) -> dict[str, float]:
        """Seconds by stage and images a second, as results record them.

        decode: summed over workers. embed: in the model. wait: the model waiting for images.
        """
        rate = self.images_per_s
        return {**self.seconds, **({"images_per_s": rate} if rate else {})}


def build_store(
    encoder: Encoder | Callable[[], Encoder],
    source: ImageSource,
    path: Path,
    *,
    dtype: str = "float16",
    batch_size: int | None = None,
    workers: int | None = None,
    part: tuple[int, int] | None = None,
    force: bool = False,
    request: ModelRequest | None = None,
    progress: Progress = NO_PROGRESS,
) -> BuildReport:
    """Embed every image of `source` that the store at `path` does not hold yet.

    `encoder` may be a function that loads it: where nothing is to do and `request` (how the model
    was asked for; kept in the manifest) is pinned and that of the store, it is not called. Several
    processes may build parts (i, n) of one store at once. After any interruption the same call
    goes on, and a shard whose files changed is embedded again. Unreadable images are left out and
    listed; an unreadable shard is passed over and raised as DataError at the end.

    Raises StoreMismatchError when the store was made by another encoder or from other data,
    OutputError when it cannot be written; finished shards are kept.
    """
    plan = plan_build(source, path, dtype=dtype, part=part, force=force)
    if hasattr(encoder, "encode_preprocessed"):  # not callable(): a torch module is both
        model = cast("Encoder", encoder)
    elif _nothing_changed(plan, request):
        return _report(plan, [], None, {})
    else:
        model = encoder()
    manifest = claim_store(plan, model, request=request)
    if not plan.todo:
        return _report(plan, [], None, {})
    forward = Forward(
        model.encode_preprocessed,
        name=model.id,
        dimension=model.dimension,
        size=batch_size or default_batch_size(model),
    )
    workers = usable_cpus() if workers is None else workers
    build = _Build(plan, manifest, forward)
    start = time.perf_counter()
    with progress.start("embed", plan.todo_rows, "images") as bar:
        build.run(source, model.preprocess, workers, bar)
    build.seconds["total"] = time.perf_counter() - start
    if build.failed:
        first = build.failed[0]
        raise DataError(
            f"{len(build.failed)} of {len(plan.todo)} shards could not be read "
            f"(first: {first[0]}: {first[1].message})",
            remedy="The others are embedded and kept. Repair these files, then run again.",
        )
    report = _report(plan, build.written, forward.size, build.seconds)
    if not report.rows and report.skipped and part is None:
        first_lost = report.skipped[0]
        raise DataError(
            f"{source.name}: none of {len(report.skipped)} images could be read "
            f"(first: {first_lost.source}: {first_lost.reason})"
        )
    return report


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
    drop_outdated(plan)
    return wanted


@dataclass(slots=True)
class _Open:
    """A shard whose images are on their way through the model."""

    shard: Shard
    items: list[Item] = field(default_factory=list)
    vectors: list[npt.NDArray[np.float32]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    decode: float = 0.0
    embed: float = 0.0
    ended: bool = False


class _Build:
    """Fills batches across the borders of shards and writes each shard once it is whole."""

    def __init__(self, plan: BuildPlan, manifest: Manifest, forward: Forward) -> None:
        self.written: list[Entry] = []
        self.failed: list[tuple[str, MarsRetrievalError]] = []
        self.seconds = {"decode": 0.0, "embed": 0.0, "wait": 0.0, "write": 0.0}
        self._plan = plan
        self._manifest = manifest
        self._forward = forward
        self._open: deque[_Open] = deque()
        self._batch: list[tuple[_Open, Any]] = []
        self._writes: deque[Future[tuple[Entry, float]]] = deque()
        self._left_out = 0

    def run(
        self, source: ImageSource, preprocess: Callable[[Any], Any], workers: int, bar: ProgressTask
    ) -> None:
        depth = 2 * self._forward.size + workers
        events = decode_ahead(source, self._plan.todo, preprocess, workers=workers, depth=depth)
        writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write")
        try:
            while True:
                start = time.perf_counter()
                event = next(events, None)
                self.seconds["wait"] += time.perf_counter() - start
                if event is None:
                    break
                self._take(*event, bar)
                if len(self._batch) >= self._forward.size:
                    self._embed(bar)
                self._write(writer)
            self._embed(bar)
            self._write(writer)
            while self._writes:
                self._settle()
        finally:
            events.close()
            writer.shutdown(wait=True)

    def _take(self, shard: Shard, event: Decoded | Skipped | ShardEnd, bar: ProgressTask) -> None:
        if not self._open or self._open[-1].shard is not shard:
            self._open.append(_Open(shard))
        current = self._open[-1]
        if isinstance(event, ShardEnd):
            current.ended = True
            if event.error is not None:
                self.failed.append((shard.name, event.error))
            return
        if isinstance(event, Decoded) and event.item.id in current.ids:
            item = event.item
            event = Skipped(item.id, item.source, "the same id twice in one shard")
        if isinstance(event, Skipped):
            current.skipped.append(event)
            self._left_out += 1
            bar.note(f"{self._left_out} left out")
            bar.advance()
            return
        current.ids.add(event.item.id)
        current.items.append(event.item)
        current.decode += event.seconds
        self.seconds["decode"] += event.seconds
        self._batch.append((current, event.features))

    def _embed(self, bar: ProgressTask) -> None:
        if not self._batch:
            return
        start = time.perf_counter()
        vectors = self._forward([features for _, features in self._batch])
        spent = time.perf_counter() - start
        self.seconds["embed"] += spent
        for (owner, _), vector in zip(self._batch, vectors, strict=True):
            owner.vectors.append(vector)
            owner.embed += spent / len(self._batch)
        bar.advance(len(self._batch))
        self._batch.clear()

    def _write(self, writer: ThreadPoolExecutor) -> None:
        """Hand every shard that is whole to the writer."""
        while self._open:
            first = self._open[0]
            if not first.ended or len(first.vectors) < len(first.items):
                return
            self._open.popleft()
            if any(name == first.shard.name for name, _ in self.failed):
                continue
            _refuse_if_nothing_passed(first)
            while len(self._writes) >= _WRITES_IN_FLIGHT:
                self._settle()
            self._writes.append(writer.submit(self._store, first))

    def _store(self, done: _Open) -> tuple[Entry, float]:
        start = time.perf_counter()
        manifest = self._manifest
        vectors = np.array(done.vectors, dtype=manifest.dtype).reshape(-1, manifest.dimension)
        entry = Entry(
            shard=done.shard.name,
            fingerprint=done.shard.fingerprint,
            made_by=manifest.made_by,
            skipped=tuple(done.skipped),
            seconds={"decode": round(done.decode, 6), "embed": round(done.embed, 6)},
        )
        written = write_shard(self._plan.store, entry, done.items, vectors, manifest.dtype)
        return written, time.perf_counter() - start

    def _settle(self) -> None:
        entry, spent = self._writes.popleft().result()
        self.written.append(entry)
        self.seconds["write"] += spent


def _refuse_if_nothing_passed(done: _Open) -> None:
    """A model whose preprocessing fails on every image is a fault of the model, not of images."""
    failures = [item for item in done.skipped if item.reason.startswith("the model's")]
    if failures and not done.items:
        raise MarsRetrievalError(
            f"shard {done.shard.name}: {failures[0].reason} (on all of its "
            f"{len(failures)} readable images; first: {failures[0].source})"
        )


def _nothing_changed(plan: BuildPlan, request: ModelRequest | None) -> bool:
    manifest = plan.manifest
    return (
        not plan.todo
        and manifest is not None
        and request is not None
        and request.pinned
        and manifest.request == request
        and manifest.dataset == plan.dataset
    )


def _report(
    plan: BuildPlan, written: list[Entry], batch_size: int | None, seconds: dict[str, float]
) -> BuildReport:
    embedded = sum(entry.rows for entry in written)
    reused = sum(entry.rows for entry in plan.done)
    return BuildReport(
        rows=embedded + reused,
        embedded=embedded,
        reused=reused,
        skipped=[item for entry in (*plan.done, *written) for item in entry.skipped],
        batch_size=batch_size,
        seconds=seconds,
    )
