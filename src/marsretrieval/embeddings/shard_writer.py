"""One model's way into its store: batches within a shard, shards written whole."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets import ImageSource, ItemWarning, Shard, Skipped
from marsretrieval.embeddings.batches import BatchRunner, Embedded
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
from marsretrieval.embeddings.plan import BuildPlan
from marsretrieval.embeddings.shards import Item, write_shard
from marsretrieval.errors import DataError, MarsRetrievalError
from marsretrieval.progress import NO_PROGRESS, Progress, ProgressTask, time_left
from marsretrieval.system import usable_cpus

_WRITES_IN_FLIGHT = 2


@dataclass(slots=True)
class _Open:
    """A shard whose images are on their way through the model."""

    shard: Shard
    items: list[Item] = field(default_factory=list)
    vectors: list[npt.NDArray[np.float32]] = field(default_factory=list)
    skipped: list[tuple[int, Skipped]] = field(default_factory=list)  # with its place
    places: list[int] = field(default_factory=list)  # in the shard, of each item
    taken: int = 0
    warnings: list[ItemWarning] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    decode: float = 0.0
    embed: float = 0.0
    ended: bool = False
    failed: bool = False


Batch = list[tuple[_Open, Any]]


class ShardWriter:
    """Takes the events of `decode_ahead`, gives batches, takes their vectors back, writes.

    Used by one thread; only `needs` may be called from another.
    """

    def __init__(
        self,
        plan: BuildPlan,
        manifest: Manifest,
        preprocess: Preprocess,
        forward: BatchRunner,
        *,
        on_cpu: bool,
        strict: bool = False,
    ) -> None:
        """strict: raise DataError for the first image that is left out."""
        self.plan = plan
        self.strict = strict
        self.on_cpu = on_cpu
        self.preprocess = preprocess
        self.forward = forward
        self.written: list[Entry] = []
        self.found: list[Entry] = []  # finished by another process since the plan was made
        self.failed: list[tuple[str, MarsRetrievalError]] = []
        self.left_out = 0
        self.seconds = {"decode": 0.0, "embed": 0.0, "write": 0.0}
        self._manifest = manifest
        self._todo = {shard.name for shard in plan.todo}
        self._open: deque[_Open] = deque()
        self._batch: Batch = []
        self._writes: deque[Future[tuple[Entry, float]]] = deque()
        self._clock = (time.perf_counter(), 0.0)

    def fresh(self, plan: BuildPlan, names: Collection[str]) -> ShardWriter:
        """The same way with nothing on it yet, for some shards of a plan."""
        todo = tuple(shard for shard in plan.todo if shard.name in names)
        return ShardWriter(
            replace(plan, todo=todo),
            self._manifest,
            self.preprocess,
            self.forward,
            on_cpu=self.on_cpu,
            strict=self.strict,
        )

    def needs(self, shard: Shard) -> bool:
        """Is the shard still to be embedded here? Asked just before it is read."""
        if shard.name not in self._todo:
            return False
        there = finished_entry(
            self.plan.store, self._manifest.made_by, shard.name, shard.fingerprint
        )
        if there is not None:
            self.found.append(there)
        return there is None

    def take(self, shard: Shard, event: Decoded | Skipped | ShardEnd, features: Any = None) -> bool:
        """Of a Decoded image this model's features, too; False where an item is left out."""
        if not self._open or self._open[-1].shard is not shard:
            self._open.append(_Open(shard))
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
                event = Skipped(item.id, item.source, "the same id twice in one shard")
        if isinstance(event, Skipped):
            self._skip(current, current.taken, event)
            current.taken += 1
            return False
        current.ids.add(event.item.id)
        current.items.append(event.item)
        current.warnings += event.warnings
        current.places.append(current.taken)
        current.taken += 1
        current.decode += event.seconds
        self.seconds["decode"] += event.seconds
        self._batch.append((current, features))
        return True

    def batches(self) -> Iterator[Batch]:
        """Full batches, and at the end of a shard what is left of it.

        No batch holds images of two shards: what shares a batch with an image moves the last bits
        of its vector, and a shard must not depend on which were done before it, or where.
        """
        while self._batch and (self._open[-1].ended or len(self._batch) >= self.forward.size):
            size = self.forward.size
            batch, self._batch = self._batch[:size], self._batch[size:]
            yield batch

    def scatter(self, batch: Batch, embedded: Embedded, seconds: float) -> None:
        """Give each vector of a batch to the shard that it belongs to.

        Items on which the model failed are taken out of their shard and listed as skipped.
        """
        self.seconds["embed"] += seconds
        vectors = iter(embedded.vectors)
        for number, (owner, _) in enumerate(batch):
            owner.embed += seconds / len(batch)
            if number not in embedded.failures:
                owner.vectors.append(next(vectors))
                continue
            # Vectors come in the order of the items: this one is the first that has none.
            item = owner.items.pop(len(owner.vectors))
            place = owner.places.pop(len(owner.vectors))
            reason = f"the model's vector is missing: {embedded.failures[number]}"
            self._skip(owner, place, Skipped(item.id, item.source, reason))

    def _skip(self, owner: _Open, place: int, item: Skipped) -> None:
        if self.strict:
            raise DataError(
                f"{item.source}: {item.reason}",
                remedy="Repair or remove it, or leave out --strict to skip such images.",
            )
        owner.skipped.append((place, item))
        self.left_out += 1

    def write(self, writer: Executor, busy: float) -> None:
        """Hand every shard that is whole to the writer; `busy` is the device's time so far."""
        while self._open:
            first = self._open[0]
            if not first.ended or len(first.vectors) < len(first.items):
                return
            self._open.popleft()
            if first.failed:
                continue
            _refuse_if_nothing_passed(first)
            now = time.perf_counter()
            elapsed, used = now - self._clock[0], busy - self._clock[1]
            self._clock = (now, busy)
            seconds = {
                "decode": first.decode,
                "embed": first.embed,
                "elapsed": elapsed,
                "wait": max(0.0, elapsed - used),
            }
            while len(self._writes) >= _WRITES_IN_FLIGHT:
                self._settle()
            self._writes.append(writer.submit(self._store, first, seconds))

    def finish(self) -> None:
        """Wait for the last writes. Raises OutputError."""
        while self._writes:
            self._settle()

    def _store(self, done: _Open, seconds: dict[str, float]) -> tuple[Entry, float]:
        start = time.perf_counter()
        manifest = self._manifest
        vectors = np.array(done.vectors, dtype=manifest.dtype).reshape(-1, manifest.dimension)
        entry = Entry(
            shard=done.shard.name,
            fingerprint=done.shard.fingerprint,
            made_by=manifest.made_by,
            skipped=tuple(item for _, item in sorted(done.skipped, key=itemgetter(0))),
            warnings=tuple(done.warnings),
            seconds={name: round(value, 6) for name, value in seconds.items()},
        )
        written = write_shard(self.plan.store, entry, done.items, vectors, manifest.dtype)
        return written, time.perf_counter() - start

    def _settle(self) -> None:
        entry, spent = self._writes.popleft().result()
        self.written.append(entry)
        self.seconds["write"] += spent


def _refuse_if_nothing_passed(done: _Open) -> None:
    """A model whose preprocessing fails on every image is a fault of the model, not of images."""
    failures = [item for _, item in done.skipped if item.reason.startswith("the model's")]
    if failures and not done.items:
        raise MarsRetrievalError(
            f"shard {done.shard.name}: {failures[0].reason} (on all of its "
            f"{len(failures)} readable images; first: {failures[0].source})"
        )


_BATCHES_IN_FLIGHT = 2  # one in the model, one waiting for it
_DECODED_AHEAD = 16  # images, and four for each worker


def decoders_of(lanes: Sequence[ShardWriter], workers: int | None, decode_in: DecodeIn) -> Decoders:
    """Workers for the models of these lanes; to be closed."""
    counts = [lane.plan.todo_rows for lane in lanes]
    return open_decoders(
        [lane.preprocess for lane in lanes],
        usable_cpus() if workers is None else workers,
        decode_in,
        gpu=not any(lane.on_cpu for lane in lanes),
        images=None if None in counts else max(count or 0 for count in counts),
    )


def embed_shards(
    lanes: Sequence[ShardWriter],
    source: ImageSource,
    decoders: Decoders,
    *,
    progress: Progress = NO_PROGRESS,
) -> dict[str, float]:
    """Put every shard that a lane's plan has to do through its model, and write it; `decoders`
    know the lanes by their places. Seconds: total, and wait, while the device had nothing to do."""
    counts = [lane.plan.todo_rows for lane in lanes]
    known = [count for count in counts if count is not None]
    total = sum(known) if len(known) == len(counts) else None
    label, unit = ("embed", "images") if len(lanes) == 1 else (f"embed x {len(lanes)}", "vectors")
    start = time.perf_counter()
    with progress.start(label, total, unit) as bar, _one_thread_each(lanes):
        device = EmbeddingPipeline(bar, None if total is not None else len(_wanted(lanes)))
        device.run(lanes, source, decoders)
    elapsed = time.perf_counter() - start
    return {"wait": max(0.0, elapsed - device.busy), "total": elapsed}


@contextmanager
def _one_thread_each(lanes: Sequence[ShardWriter]) -> Iterator[None]:
    """Where no model computes on the CPUs, torch uses one of them for each call: preprocessing runs
    on as many threads as there are CPUs, and each would otherwise split its small sums among as
    many again."""
    torch = sys.modules.get("torch")
    if torch is None or any(lane.on_cpu for lane in lanes):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class EmbeddingPipeline:
    """Feeds the lanes, runs their batches on a thread of its own, the next one collated on
    another so that it is ready when the device is free, and gives the vectors back."""

    def __init__(self, bar: ProgressTask, shards: int | None) -> None:
        """shards: how many are to be read, where the bar does not know the number of images."""
        self.busy = 0.0
        self._bar = bar
        self._shards = shards
        self._read = 0
        self._start = time.perf_counter()
        self._running: deque[tuple[ShardWriter, Batch, Future[tuple[Embedded, float]]]]
        self._running = deque()

    def run(self, lanes: Sequence[ShardWriter], source: ImageSource, decoders: Decoders) -> None:
        depth = _DECODED_AHEAD + 4 * decoders.workers
        events = decode_ahead(source, _work(lanes), decoders, depth=depth)
        collating, device, writer = (
            ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
            for name in ("collate", "device", "write")
        )
        try:
            for shard, takers, event in events:
                for number, taker in enumerate(takers):
                    lane = lanes[taker]
                    features = event.features[number] if isinstance(event, Decoded) else None
                    if not lane.take(shard, event, features):
                        self._bar.advance()
                    for batch in lane.batches():
                        self._submit(collating, device, lane, batch)
                    lane.write(writer, self.busy)
                self._read += isinstance(event, ShardEnd)
            while self._running:
                self._settle()
            for lane in lanes:
                lane.write(writer, self.busy)
                lane.finish()
        finally:
            events.close()
            collating.shutdown(wait=True, cancel_futures=True)
            device.shutdown(wait=True, cancel_futures=True)
            writer.shutdown(wait=True)
            self._note(lanes)

    def _submit(
        self,
        collating: ThreadPoolExecutor,
        device: ThreadPoolExecutor,
        lane: ShardWriter,
        batch: Batch,
    ) -> None:
        while len(self._running) >= _BATCHES_IN_FLIGHT:
            self._settle()
            self._note([lane])
        features = [each for _, each in batch]
        collated = collating.submit(lane.forward.collate, features)
        work = device.submit(_forward, lane.forward, features, collated)
        self._running.append((lane, batch, work))

    def _settle(self) -> None:
        lane, batch, future = self._running.popleft()
        embedded, spent = future.result()
        self.busy += spent
        lane.scatter(batch, embedded, spent)
        self._bar.advance(len(batch))

    def _note(self, lanes: Sequence[ShardWriter]) -> None:
        elapsed = time.perf_counter() - self._start
        idle = max(0.0, 1 - self.busy / max(1e-9, elapsed))
        left_out = sum(lane.left_out for lane in lanes)
        parts = [
            time_left(elapsed, self._read / self._shards) if self._shards else "",
            f"device idle {idle:.0%}",
            f"{left_out} left out" if left_out else "",
        ]
        self._bar.note(", ".join(filter(None, parts)))


def _forward(
    forward: BatchRunner, features: list[Any], collated: Future[Any]
) -> tuple[Embedded, float]:
    ready = collated.result()
    start = time.perf_counter()  # until here the device had nothing to do
    embedded = forward.embed(features, ready)
    return embedded, time.perf_counter() - start


def _wanted(lanes: Sequence[ShardWriter]) -> set[str]:
    return {shard.name for lane in lanes for shard in lane.plan.todo}


def _work(lanes: Sequence[ShardWriter]) -> Iterator[tuple[Shard, tuple[int, ...]]]:
    """Each shard that some lane has to do, with those lanes' places, in the order of the source."""
    wanted = _wanted(lanes)
    for shard in lanes[0].plan.shards:
        if shard.name in wanted:
            takers = tuple(place for place, lane in enumerate(lanes) if lane.needs(shard))
            if takers:
                yield shard, takers
