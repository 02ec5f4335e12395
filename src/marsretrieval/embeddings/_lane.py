"""One model's way into its store: batches within a shard, shards written whole."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets import ItemWarning, Shard, Skipped
from marsretrieval.embeddings._decode import Decoded, Preprocess
from marsretrieval.embeddings._forward import Embedded, Forward
from marsretrieval.embeddings._manifest import Entry, Manifest, finished_entry
from marsretrieval.embeddings._pipeline import ShardEnd
from marsretrieval.embeddings._plan import BuildPlan
from marsretrieval.embeddings._shards import Item, write_shard
from marsretrieval.errors import DataError, MarsRetrievalError

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


class Lane:
    """Takes the events of `decode_ahead`, gives batches, takes their vectors back, writes.

    Used by one thread; only `needs` may be called from another.
    """

    def __init__(
        self,
        plan: BuildPlan,
        manifest: Manifest,
        preprocess: Preprocess,
        forward: Forward,
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

    def fresh(self, plan: BuildPlan, names: Collection[str]) -> Lane:
        """The same way with nothing on it yet, for some shards of a plan."""
        todo = tuple(shard for shard in plan.todo if shard.name in names)
        return Lane(
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
