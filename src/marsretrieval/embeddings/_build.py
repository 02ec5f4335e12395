"""Embed a source of images into stores: resumable shard by shard, one device, one process."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from marsretrieval._environment import usable_cpus
from marsretrieval.datasets import ImageSource, Shard
from marsretrieval.embeddings._claim import claim_store
from marsretrieval.embeddings._forward import Forward, batch_sizes, on_cpu
from marsretrieval.embeddings._lane import Batch, Lane
from marsretrieval.embeddings._manifest import ModelRequest
from marsretrieval.embeddings._pipeline import Decoded, ShardEnd, decode_ahead
from marsretrieval.embeddings._plan import BuildPlan, plan_shards
from marsretrieval.embeddings._report import BuildReport
from marsretrieval.errors import DataError, MarsRetrievalError, UsageError
from marsretrieval.progress import NO_PROGRESS, Progress, ProgressTask, time_left

if TYPE_CHECKING:
    from marsretrieval.encoders import Encoder

__all__ = [
    "Target",
    "build_store",
    "build_stores",
    "embed_shards",
    "open_lane",
    "plan_targets",
    "require_any",
    "require_readable",
]

_BATCHES_IN_FLIGHT = 2  # one in the model, one waiting for it
_DECODED_AHEAD = 16  # images, and four for each worker


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
    part: tuple[int, int] | None = None,
    force: bool = False,
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
        part=part,
        force=force,
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
    part: tuple[int, int] | None = None,
    force: bool = False,
    progress: Progress = NO_PROGRESS,
) -> list[BuildReport]:
    """Embed every image of `source` that a target's store does not hold yet, with each image
    read and decoded once for all targets; a report for each of them.

    Several processes may build parts (i, n) of one store at once. After any interruption the same
    call goes on, and a shard whose files changed is embedded again. Unreadable images are left
    out and listed; an unreadable shard is passed over and raised as DataError at the end.

    Raises StoreMismatchError when a store was made by another encoder or from other data,
    OutputError when one cannot be written; finished shards are kept.
    """
    plans = plan_targets(targets, source, dtype=dtype, part=part, force=force)
    lanes: list[Lane | None] = []
    for target, plan in zip(targets, plans, strict=True):
        lanes.append(
            None if _nothing_changed(plan, target.request) else open_lane(target, plan, batch_size)
        )
    open_lanes = [lane for lane in lanes if lane is not None and lane.plan.todo]
    seconds = embed_shards(open_lanes, source, workers=workers, progress=progress)
    require_readable([(len(lane.plan.todo), lane.failed) for lane in open_lanes])
    reports = [_report(plan, lane, seconds) for plan, lane in zip(plans, lanes, strict=True)]
    if part is None:
        require_any(source, reports)
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


def embed_shards(
    lanes: Sequence[Lane],
    source: ImageSource,
    *,
    workers: int | None = None,
    progress: Progress = NO_PROGRESS,
) -> dict[str, float]:
    """Put every shard that a lane's plan has to do through its model, and write it. Seconds:
    total, and wait, while the device had nothing to do."""
    if not lanes:
        return {}
    counts = [lane.plan.todo_rows for lane in lanes]
    known = [count for count in counts if count is not None]
    total = sum(known) if len(known) == len(counts) else None
    label, unit = ("embed", "images") if len(lanes) == 1 else (f"embed x {len(lanes)}", "vectors")
    start = time.perf_counter()
    with progress.start(label, total, unit) as bar, _one_thread_each(lanes):
        device = _Device(bar, None if total is not None else len(_wanted(lanes)))
        device.run(lanes, source, usable_cpus() if workers is None else workers)
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


def require_readable(
    outcomes: Sequence[tuple[int, Sequence[tuple[str, MarsRetrievalError]]]],
) -> None:
    """Of each store the number of shards tried, and those that could not be read. Raises
    DataError if there are any."""
    tried, failed = max(outcomes, key=lambda each: len(each[1]), default=(0, []))
    if failed:
        name, error = failed[0]
        raise DataError(
            f"{len(failed)} of {tried} shards could not be read (first: {name}: {error.message})",
            remedy="The others are embedded and kept. Repair these files, then run again.",
        )


def require_any(source: ImageSource, reports: Sequence[BuildReport]) -> None:
    """Raises DataError where a store has no row, only items that were left out."""
    for report in reports:
        if not report.rows and report.skipped:
            lost = report.skipped[0]
            raise DataError(
                f"{source.name}: none of {len(report.skipped)} images could be read "
                f"(first: {lost.source}: {lost.reason})",
                remedy="Where only access to them was wrong, run again with --force.",
            )


class _Device:
    """Feeds the lanes, runs their batches on a thread of its own so that the next one is ready
    when the device is free, and gives the vectors back."""

    def __init__(self, bar: ProgressTask, shards: int | None) -> None:
        """shards: how many are to be read, where the bar does not know the number of images."""
        self.busy = 0.0
        self._bar = bar
        self._shards = shards
        self._read = 0
        self._start = time.perf_counter()
        self._running: deque[tuple[Lane, Batch, Future[tuple[npt.NDArray[np.float32], float]]]]
        self._running = deque()

    def run(self, lanes: Sequence[Lane], source: ImageSource, workers: int) -> None:
        events = decode_ahead(
            source, _work(lanes), workers=workers, depth=_DECODED_AHEAD + 4 * workers
        )
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")
        writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write")
        try:
            for shard, takers, event in events:
                for number, lane in enumerate(takers):
                    features = event.features[number] if isinstance(event, Decoded) else None
                    if not lane.take(shard, event, features):
                        self._bar.advance()
                    for batch in lane.batches():
                        self._submit(thread, lane, batch)
                    lane.write(writer, self.busy)
                self._read += isinstance(event, ShardEnd)
            while self._running:
                self._settle()
            for lane in lanes:
                lane.write(writer, self.busy)
                lane.finish()
        finally:
            events.close()
            thread.shutdown(wait=True, cancel_futures=True)
            writer.shutdown(wait=True)
            self._note(lanes)

    def _submit(self, thread: ThreadPoolExecutor, lane: Lane, batch: Batch) -> None:
        while len(self._running) >= _BATCHES_IN_FLIGHT:
            self._settle()
            self._note([lane])
        self._running.append((lane, batch, thread.submit(_forward, lane.forward, batch)))

    def _settle(self) -> None:
        lane, batch, future = self._running.popleft()
        vectors, spent = future.result()
        self.busy += spent
        lane.scatter(batch, vectors, spent)
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


def _forward(forward: Forward, batch: Batch) -> tuple[npt.NDArray[np.float32], float]:
    start = time.perf_counter()
    vectors = forward([features for _, features in batch])
    return vectors, time.perf_counter() - start


def _wanted(lanes: Sequence[Lane]) -> set[str]:
    return {shard.name for lane in lanes for shard in lane.plan.todo}


def _work(lanes: Sequence[Lane]) -> Iterator[tuple[Shard, tuple[Lane, ...]]]:
    """Each shard that some lane has to do, with those lanes, in the order of the source."""
    wanted = _wanted(lanes)
    for shard in lanes[0].plan.shards:
        if shard.name in wanted:
            takers = tuple(lane for lane in lanes if lane.needs(shard))
            if takers:
                yield shard, takers


def open_lane(target: Target, plan: BuildPlan, batch_size: int | None) -> Lane:
    """Load the model and claim its store."""
    encoder = target.encoder
    model = cast("Encoder", cast(Any, encoder)() if target.to_load else encoder)
    manifest = claim_store(plan, model, request=target.request)
    size, limit = (batch_size, batch_size) if batch_size else batch_sizes(model)
    forward = Forward(
        model.encode_preprocessed, name=model.id, dimension=model.dimension, size=size, limit=limit
    )
    return Lane(plan, manifest, model.preprocess, forward, on_cpu=on_cpu(model))


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


def _report(plan: BuildPlan, lane: Lane | None, seconds: dict[str, float]) -> BuildReport:
    if lane is None or not plan.todo:
        return BuildReport.of(plan.done, [], None, {})
    return BuildReport.of(
        [*plan.done, *lane.found], lane.written, lane.forward.size, {**lane.seconds, **seconds}
    )
