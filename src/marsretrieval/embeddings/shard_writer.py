"""Embed the shards of a source with several models and write them to their stores."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets import ImageSource, ItemWarning, Shard, Skipped
from marsretrieval.datasets.base import EncodingFailure
from marsretrieval.embeddings.manifest import Entry, Manifest, finished_entry
from marsretrieval.embeddings.pipeline import (
    Decoded,
    DecodeIn,
    Decoders,
    Preprocess,
    ShardEnd,
    decode_ahead,
    open_decoders,
)
from marsretrieval.embeddings.shards import Item, write_shard
from marsretrieval.errors import DataError, MarsRetrievalError
from marsretrieval.progress import NO_PROGRESS, Progress, ProgressTask, time_left
from marsretrieval.system import usable_cpus

if TYPE_CHECKING:
    from marsretrieval.embeddings.batches import BatchRunner, Embedded
    from marsretrieval.embeddings.plan import BuildPlan

_MAX_WRITES_IN_FLIGHT = 2
_MAX_BATCHES_IN_FLIGHT = 2  # one in the model, one queued
_IMAGES_AHEAD = 16  # plus four per worker


@dataclass(slots=True)
class _OpenShard:
    """A shard that is being embedded."""

    shard: Shard
    items: list[Item] = field(default_factory=list)
    vectors: list[npt.NDArray[np.float32]] = field(default_factory=list)
    skipped: list[tuple[int, Skipped]] = field(default_factory=list)  # with its position
    positions: list[int] = field(default_factory=list)  # of the items in the shard
    count: int = 0
    warnings: list[ItemWarning] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    decode_seconds: float = 0.0
    embed_seconds: float = 0.0
    ended: bool = False
    failed: bool = False


Batch = list[tuple[_OpenShard, Any]]


class ShardWriter:
    """Collect the items of each shard, batch them for one model, and write complete shards.

    Not thread-safe, except for `needs_embedding`, which another thread may call.

    Attributes:
        plan: Plan of the store.
        strict: Whether the first skipped image raises DataError.
        on_cpu: Whether the model runs on a CPU.
        preprocess: Preprocessing of the model.
        runner: Runs the model on batches.
        written: Entries of the written shards.
        finished_elsewhere: Entries that another process wrote after the plan was made.
        failed: Name and error of each shard that could not be read.
        skipped_count: Number of skipped items.
        seconds: Seconds by stage: decode, embed, write.
    """

    def __init__(
        self,
        plan: BuildPlan,
        manifest: Manifest,
        preprocess: Preprocess,
        runner: BatchRunner,
        *,
        on_cpu: bool,
        strict: bool = False,
    ) -> None:
        """Create a writer for the shards of a plan.

        Args:
            plan: Plan of the store.
            manifest: Manifest of the store.
            preprocess: Preprocessing of the model.
            runner: Runs the model on batches.
            on_cpu: Whether the model runs on a CPU.
            strict: Raise DataError for the first image that is skipped.
        """
        self.plan = plan
        self.strict = strict
        self.on_cpu = on_cpu
        self.preprocess = preprocess
        self.runner = runner
        self.written: list[Entry] = []
        self.finished_elsewhere: list[Entry] = []
        self.failed: list[tuple[str, MarsRetrievalError]] = []
        self.skipped_count = 0
        self.seconds = {"decode": 0.0, "embed": 0.0, "write": 0.0}
        self._manifest = manifest
        self._todo = {shard.name for shard in plan.todo}
        self._open: deque[_OpenShard] = deque()
        self._batch: Batch = []
        self._writes: deque[Future[tuple[Entry, float]]] = deque()
        self._clock = (time.perf_counter(), 0.0)

    def for_shards(self, plan: BuildPlan, names: Collection[str]) -> ShardWriter:
        """Create a writer with the same model and store for other shards.

        Args:
            plan: Plan of the store.
            names: Names of the shards to embed.

        Returns:
            The writer.
        """
        todo = tuple(shard for shard in plan.todo if shard.name in names)
        return ShardWriter(
            replace(plan, todo=todo),
            self._manifest,
            self.preprocess,
            self.runner,
            on_cpu=self.on_cpu,
            strict=self.strict,
        )

    def needs_embedding(self, shard: Shard) -> bool:
        """Check whether a shard still has to be embedded, just before it is read.

        Args:
            shard: A shard of the source.

        Returns:
            False if it is not part of the plan, or if another process finished it.

        Raises:
            StoreError: If its files cannot be read.
        """
        if shard.name not in self._todo:
            return False
        entry = finished_entry(
            self.plan.store, self._manifest.made_by, shard.name, shard.fingerprint
        )
        if entry is not None:
            self.finished_elsewhere.append(entry)
        return entry is None

    def add(self, shard: Shard, event: Decoded | Skipped | ShardEnd, features: Any = None) -> bool:
        """Add an event of a shard.

        Args:
            shard: The shard.
            event: An image, a skipped item or the end of the shard.
            features: This model's features of a decoded image, or a Skipped.

        Returns:
            False if the item is skipped.

        Raises:
            DataError: If the item is skipped and the writer is strict.
        """
        if not self._open or self._open[-1].shard is not shard:
            self._open.append(_OpenShard(shard))
        current = self._open[-1]
        if isinstance(event, ShardEnd):
            current.ended = True
            if event.error is not None:
                current.failed = True
                self.failed.append((shard.name, event.error))
            return True
        if isinstance(event, Decoded):
            item = event.item
            if isinstance(features, Skipped):
                event = features
            elif item.id in current.ids:
                event = Skipped(item.id, item.source, "duplicate id in one shard")
        if isinstance(event, Skipped):
            self._skip(current, current.count, event)
            current.count += 1
            return False
        current.ids.add(event.item.id)
        current.items.append(event.item)
        current.warnings += event.warnings
        current.positions.append(current.count)
        current.count += 1
        current.decode_seconds += event.seconds
        self.seconds["decode"] += event.seconds
        self._batch.append((current, features))
        return True

    def batches(self) -> Iterator[Batch]:
        """Yield full batches, and the remaining items at the end of a shard.

        A batch never contains images of two shards. The other images of a batch change the last
        bits of a vector, and a shard must not depend on when or where the others are embedded.

        Yields:
            Pairs of shard and features.
        """
        while self._batch and (self._open[-1].ended or len(self._batch) >= self.runner.size):
            size = self.runner.size
            batch, self._batch = self._batch[:size], self._batch[size:]
            yield batch

    def assign_vectors(self, batch: Batch, embedded: Embedded, seconds: float) -> None:
        """Append the vectors of a batch to their shards.

        Items on which the model failed are removed from their shard and listed as skipped.

        Args:
            batch: The batch.
            embedded: Vectors and failures of the batch.
            seconds: Time of the model.

        Raises:
            DataError: If an item is skipped and the writer is strict.
        """
        self.seconds["embed"] += seconds
        vectors = iter(embedded.vectors)
        for number, (open_shard, _) in enumerate(batch):
            open_shard.embed_seconds += seconds / len(batch)
            if number not in embedded.failures:
                open_shard.vectors.append(next(vectors))
                continue
            # Vectors are in the order of the items: this item is the first without one.
            item = open_shard.items.pop(len(open_shard.vectors))
            position = open_shard.positions.pop(len(open_shard.vectors))
            reason = f"the model's vector is missing: {embedded.failures[number]}"
            self._skip(open_shard, position, EncodingFailure(item.id, item.source, reason))

    def _skip(self, open_shard: _OpenShard, position: int, item: Skipped) -> None:
        if self.strict:
            raise DataError(
                f"{item.source}: {item.reason}",
                remedy="Repair or remove it, or leave out --strict to skip such images.",
            )
        open_shard.skipped.append((position, item))
        self.skipped_count += 1

    def write_finished(self, executor: Executor, busy: float) -> None:
        """Submit every complete shard to be written.

        Args:
            executor: Runs the writes.
            busy: Busy time of the device so far, in seconds.

        Raises:
            MarsRetrievalError: If the preprocessing failed on all images of a shard.
            OutputError: If an earlier shard could not be written.
        """
        while self._open:
            open_shard = self._open[0]
            if not open_shard.ended or len(open_shard.vectors) < len(open_shard.items):
                return
            self._open.popleft()
            if open_shard.failed:
                continue
            _raise_if_preprocessing_failed(open_shard)
            now = time.perf_counter()
            elapsed, used = now - self._clock[0], busy - self._clock[1]
            self._clock = (now, busy)
            seconds = {
                "decode": open_shard.decode_seconds,
                "embed": open_shard.embed_seconds,
                "elapsed": elapsed,
                "wait": max(0.0, elapsed - used),
            }
            while len(self._writes) >= _MAX_WRITES_IN_FLIGHT:
                self._collect()
            self._writes.append(executor.submit(self._write, open_shard, seconds))

    def finish(self) -> None:
        """Wait for pending writes.

        Raises:
            OutputError: If a shard cannot be written.
        """
        while self._writes:
            self._collect()

    def _write(self, open_shard: _OpenShard, seconds: dict[str, float]) -> tuple[Entry, float]:
        start = time.perf_counter()
        manifest = self._manifest
        vectors = np.array(open_shard.vectors, dtype=manifest.dtype).reshape(-1, manifest.dimension)
        entry = Entry(
            shard=open_shard.shard.name,
            fingerprint=open_shard.shard.fingerprint,
            made_by=manifest.made_by,
            skipped=tuple(item for _, item in sorted(open_shard.skipped, key=itemgetter(0))),
            warnings=tuple(open_shard.warnings),
            seconds={name: round(value, 6) for name, value in seconds.items()},
        )
        written = write_shard(self.plan.store, entry, open_shard.items, vectors, manifest.dtype)
        return written, time.perf_counter() - start

    def _collect(self) -> None:
        entry, spent = self._writes.popleft().result()
        self.written.append(entry)
        self.seconds["write"] += spent


def _raise_if_preprocessing_failed(open_shard: _OpenShard) -> None:
    """Raise if the model fails on every image, which is a fault of the model."""
    failures = [item for _, item in open_shard.skipped if isinstance(item, EncodingFailure)]
    if failures and not open_shard.items:
        raise MarsRetrievalError(
            f"shard {open_shard.shard.name}: {failures[0].reason} (on all of its "
            f"{len(failures)} readable images; first: {failures[0].source})"
        )


def open_decoders_for(
    writers: Sequence[ShardWriter], workers: int | None, decode_in: DecodeIn
) -> Decoders:
    """Start decoding workers for the models of some writers.

    Args:
        writers: One writer per model.
        workers: Number of workers. None uses every available CPU.
        decode_in: "threads", "processes" or "auto".

    Returns:
        The workers, to be closed by the caller.

    Raises:
        UsageError: If `decode_in` is "processes" and a model's preprocessing cannot be pickled.
    """
    counts = [writer.plan.todo_rows for writer in writers]
    return open_decoders(
        [writer.preprocess for writer in writers],
        usable_cpus() if workers is None else workers,
        decode_in,
        gpu=not any(writer.on_cpu for writer in writers),
        images=None if None in counts else max(count or 0 for count in counts),
    )


def embed_shards(
    writers: Sequence[ShardWriter],
    source: ImageSource,
    decoders: Decoders,
    *,
    progress: Progress = NO_PROGRESS,
) -> dict[str, float]:
    """Embed and write every shard that the writers' plans require.

    Args:
        writers: One writer per model.
        source: Images to embed.
        decoders: Workers with the preprocessing of each writer, in the order of `writers`.
        progress: Progress display.

    Returns:
        Seconds: `total`, and `wait`, during which the device was idle.

    Raises:
        MarsRetrievalError: If a model or a decoding worker fails.
        DataError: If an item is skipped and a writer is strict.
        OutputError: If a shard cannot be written.
    """
    counts = [writer.plan.todo_rows for writer in writers]
    known_counts = [count for count in counts if count is not None]
    total = sum(known_counts) if len(known_counts) == len(counts) else None
    label, unit = (
        ("embed", "images") if len(writers) == 1 else (f"embed x {len(writers)}", "vectors")
    )
    start = time.perf_counter()
    with progress.start(label, total, unit) as bar, _single_torch_thread(writers):
        pipeline = EmbeddingPipeline(
            bar, None if total is not None else len(_pending_shards(writers))
        )
        pipeline.run(writers, source, decoders)
    elapsed = time.perf_counter() - start
    return {"wait": max(0.0, elapsed - pipeline.busy), "total": elapsed}


@contextmanager
def _single_torch_thread(writers: Sequence[ShardWriter]) -> Iterator[None]:
    """Limit torch to one thread per call if no model runs on a CPU.

    Preprocessing uses one thread per CPU. Without the limit, each of them would start as many
    threads again for small operations.
    """
    torch = sys.modules.get("torch")
    if torch is None or any(writer.on_cpu for writer in writers):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class EmbeddingPipeline:
    """Connect decoders, models and writers.

    The models run on one thread. Another thread collates the next batch meanwhile, and a third
    one writes finished shards.

    Attributes:
        busy: Busy time of the device, in seconds.
    """

    def __init__(self, bar: ProgressTask, shards: int | None) -> None:
        """Create a pipeline.

        Args:
            bar: Progress of the build.
            shards: Number of shards to read, if the number of images is unknown. Else None.
        """
        self.busy = 0.0
        self._bar = bar
        self._shards = shards
        self._read = 0
        self._start = time.perf_counter()
        self._running: deque[tuple[ShardWriter, Batch, Future[tuple[Embedded, float]]]]
        self._running = deque()

    def run(self, writers: Sequence[ShardWriter], source: ImageSource, decoders: Decoders) -> None:
        """Embed all shards.

        Args:
            writers: One writer per model.
            source: Images to embed.
            decoders: Workers with the preprocessing of each writer.

        Raises:
            MarsRetrievalError: If a model or a worker fails, or a shard cannot be written.
        """
        depth = _IMAGES_AHEAD + 4 * decoders.workers
        events = decode_ahead(source, _iterate_pending(writers), decoders, depth=depth)
        collate_pool, device_pool, write_pool = (
            ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
            for name in ("collate", "device", "write")
        )
        try:
            for shard, model_indexes, event in events:
                for number, index in enumerate(model_indexes):
                    writer = writers[index]
                    features = event.features[number] if isinstance(event, Decoded) else None
                    if not writer.add(shard, event, features):
                        self._bar.advance()
                    for batch in writer.batches():
                        self._submit(collate_pool, device_pool, writer, batch)
                    writer.write_finished(write_pool, self.busy)
                self._read += isinstance(event, ShardEnd)
            while self._running:
                self._collect()
            for writer in writers:
                writer.write_finished(write_pool, self.busy)
                writer.finish()
        finally:
            events.close()
            collate_pool.shutdown(wait=True, cancel_futures=True)
            device_pool.shutdown(wait=True, cancel_futures=True)
            write_pool.shutdown(wait=True)
            self._update_note(writers)

    def _submit(
        self,
        collate_pool: ThreadPoolExecutor,
        device_pool: ThreadPoolExecutor,
        writer: ShardWriter,
        batch: Batch,
    ) -> None:
        while len(self._running) >= _MAX_BATCHES_IN_FLIGHT:
            self._collect()
            self._update_note([writer])
        features = [item for _, item in batch]
        collated = collate_pool.submit(writer.runner.collate, features)
        work = device_pool.submit(_run_batch, writer.runner, features, collated)
        self._running.append((writer, batch, work))

    def _collect(self) -> None:
        writer, batch, future = self._running.popleft()
        embedded, spent = future.result()
        self.busy += spent
        writer.assign_vectors(batch, embedded, spent)
        self._bar.advance(len(batch))

    def _update_note(self, writers: Sequence[ShardWriter]) -> None:
        elapsed = time.perf_counter() - self._start
        idle = max(0.0, 1 - self.busy / max(1e-9, elapsed))
        left_out = sum(writer.skipped_count for writer in writers)
        parts = [
            time_left(elapsed, self._read / self._shards) if self._shards else "",
            f"device idle {idle:.0%}",
            f"{left_out} left out" if left_out else "",
        ]
        self._bar.note(", ".join(filter(None, parts)))


def _run_batch(
    runner: BatchRunner, features: list[Any], collated: Future[Any]
) -> tuple[Embedded, float]:
    ready = collated.result()
    start = time.perf_counter()  # the device is idle until here
    embedded = runner.embed(features, ready)
    return embedded, time.perf_counter() - start


def _pending_shards(writers: Sequence[ShardWriter]) -> set[str]:
    return {shard.name for writer in writers for shard in writer.plan.todo}


def _iterate_pending(writers: Sequence[ShardWriter]) -> Iterator[tuple[Shard, tuple[int, ...]]]:
    """Yield the shards to embed, in source order, with the indexes of their writers."""
    pending = _pending_shards(writers)
    for shard in writers[0].plan.shards:
        if shard.name in pending:
            model_indexes = tuple(
                index for index, writer in enumerate(writers) if writer.needs_embedding(shard)
            )
            if model_indexes:
                yield shard, model_indexes
