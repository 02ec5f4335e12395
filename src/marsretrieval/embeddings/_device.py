"""Shards through the models of one device: decoded and collated ahead, embedded, written, all at
once."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from marsretrieval._environment import usable_cpus
from marsretrieval.datasets import ImageSource, Shard
from marsretrieval.embeddings._decode import Decoded
from marsretrieval.embeddings._forward import Embedded, Forward
from marsretrieval.embeddings._lane import Batch, Lane
from marsretrieval.embeddings._pipeline import ShardEnd, decode_ahead
from marsretrieval.embeddings._workers import DecodeIn, Decoders, open_decoders
from marsretrieval.progress import NO_PROGRESS, Progress, ProgressTask, time_left

_BATCHES_IN_FLIGHT = 2  # one in the model, one waiting for it
_DECODED_AHEAD = 16  # images, and four for each worker


def decoders_of(lanes: Sequence[Lane], workers: int | None, decode_in: DecodeIn) -> Decoders:
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
    lanes: Sequence[Lane],
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
        device = _Device(bar, None if total is not None else len(_wanted(lanes)))
        device.run(lanes, source, decoders)
    elapsed = time.perf_counter() - start
    return {"wait": max(0.0, elapsed - device.busy), "total": elapsed}


@contextmanager
def _one_thread_each(lanes: Sequence[Lane]) -> Iterator[None]:
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


class _Device:
    """Feeds the lanes, runs their batches on a thread of its own, the next one collated on
    another so that it is ready when the device is free, and gives the vectors back."""

    def __init__(self, bar: ProgressTask, shards: int | None) -> None:
        """shards: how many are to be read, where the bar does not know the number of images."""
        self.busy = 0.0
        self._bar = bar
        self._shards = shards
        self._read = 0
        self._start = time.perf_counter()
        self._running: deque[tuple[Lane, Batch, Future[tuple[Embedded, float]]]]
        self._running = deque()

    def run(self, lanes: Sequence[Lane], source: ImageSource, decoders: Decoders) -> None:
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
        self, collating: ThreadPoolExecutor, device: ThreadPoolExecutor, lane: Lane, batch: Batch
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

    def _note(self, lanes: Sequence[Lane]) -> None:
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
    forward: Forward, features: list[Any], collated: Future[Any]
) -> tuple[Embedded, float]:
    ready = collated.result()
    start = time.perf_counter()  # until here the device had nothing to do
    embedded = forward.embed(features, ready)
    return embedded, time.perf_counter() - start


def _wanted(lanes: Sequence[Lane]) -> set[str]:
    return {shard.name for lane in lanes for shard in lane.plan.todo}


def _work(lanes: Sequence[Lane]) -> Iterator[tuple[Shard, tuple[int, ...]]]:
    """Each shard that some lane has to do, with those lanes' places, in the order of the source."""
    wanted = _wanted(lanes)
    for shard in lanes[0].plan.shards:
        if shard.name in wanted:
            takers = tuple(place for place, lane in enumerate(lanes) if lane.needs(shard))
            if takers:
                yield shard, takers
