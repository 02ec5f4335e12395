"""Build stores on every device of a machine or a cluster with Ray.

One actor per device embeds a few shards at a time and writes them itself, so that the driver holds
no vectors. Ray restarts actors that die and repeats their tasks; a finished shard is not repeated.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from marsretrieval.datasets import ImageSource
from marsretrieval.embeddings.builder import (
    BuildReport,
    Target,
    build_stores,
    open_shard_writer,
    plan_targets,
    require_any,
    require_none_skipped,
    require_readable,
)
from marsretrieval.embeddings.pipeline import DecodeIn, Decoders
from marsretrieval.embeddings.plan import BuildPlan
from marsretrieval.embeddings.shard_writer import ShardWriter, decoders_of, embed_shards
from marsretrieval.errors import MarsRetrievalError, MissingDependencyError, UsageError
from marsretrieval.progress import NO_PROGRESS, Progress, time_left
from marsretrieval.system import usable_cpus

_TASKS_A_WORKER = 4  # at least, so that the last ones end at about the same time
_SHARDS_A_TASK = 8  # at most: what a death may cost
_DEATHS = 5  # of workers, on the same shards: then the shards are at fault
_NO_TASK = -1
_CPUS_AN_ACTOR = 4  # where there is no GPU
_ANSWER_S = 10.0
_OBJECT_STORE = 128 * 2**20  # bytes; nothing large goes through it


@dataclass(frozen=True, slots=True)
class RayOptions:
    """Where to run. Without an `address` Ray starts on this machine alone.

    `workers`: CPUs of each actor, which decode (and without `gpus`, embed). `decode_in`: as of
    `build_stores`.
    """

    address: str | None = None
    workers: int | None = None
    gpus: bool = True  # use those there are
    decode_in: DecodeIn = "auto"


def build_stores_with_ray(
    targets: Sequence[Target],
    source: ImageSource,
    *,
    dtype: str = "float16",
    batch_size: int | None = None,
    force: bool = False,
    strict: bool = False,
    options: RayOptions | None = None,
    progress: Progress = NO_PROGRESS,
) -> list[BuildReport]:
    """`build_stores` on all devices that Ray offers; the same stores, the same errors.

    `source` and the encoders' load functions are sent to other processes: they must be picklable,
    and source and stores be seen under the same paths by every machine.

    Raises MissingDependencyError without Ray, UsageError when an encoder is an object already or
    no cluster answers.
    """
    options = options or RayOptions()
    ray = _import_ray()
    if not all(target.to_load for target in targets):
        raise UsageError("with Ray each process loads its own encoder: pass a function")
    targets = [replace(target, path=target.path.resolve()) for target in targets]
    plans = plan_targets(targets, source, dtype=dtype, force=force)
    if strict:
        require_none_skipped(plans)
    if not any(plan.todo for plan in plans):
        return build_stores(targets, source, dtype=dtype, progress=progress)
    start = time.perf_counter()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, options.address)
    try:
        outcomes, devices = _drive(
            ray,
            Job(source, tuple(targets), dtype, batch_size, options.decode_in, strict),
            plans,
            options,
            force,
            progress,
        )
    except ray.exceptions.RayTaskError as error:
        # Its own class holds the traceback of the other process in its message.
        if isinstance(error.cause, MarsRetrievalError):
            raise error.cause from None
        if isinstance(error.cause, ImportError):
            raise MarsRetrievalError(
                f"a worker of the cluster cannot import what it needs: {error.cause}",
                remedy="Install marsretrieval, and your own encoder, on every machine.",
            ) from error
        raise
    except ray.exceptions.RayError as error:
        raise MarsRetrievalError(
            f"Ray gave up: {type(error).__name__}: {error}",
            remedy="Finished shards are kept: the same command goes on from there.",
        ) from error
    finally:
        if ours:
            ray.shutdown()
    elapsed = time.perf_counter() - start
    require_readable(
        [
            (len(plan.todo), [shard for outcome in outcomes for shard in outcome.failed[number]])
            for number, plan in enumerate(plans)
        ]
    )
    reports = []
    for number, now in enumerate(plan_targets(targets, source, dtype=dtype)):
        there = {entry.shard for entry in plans[number].done}
        seconds = {
            name: sum(outcome.seconds[number][name] for outcome in outcomes)
            for name in ("decode", "embed", "write")
        }
        reports.append(
            BuildReport.of(
                [entry for entry in now.done if entry.shard in there],
                [entry for entry in now.done if entry.shard not in there],
                min(filter(None, (o.batch_sizes[number] for o in outcomes)), default=None),
                {
                    **seconds,
                    "wait": max(0.0, elapsed - _busy(outcomes) / devices),
                    "total": elapsed,
                },
            )
        )
    require_any(source, reports)
    return reports


def _drive(
    ray: Any,
    job: Job,
    plans: Sequence[BuildPlan],
    options: RayOptions,
    force: bool,
    progress: Progress,
) -> tuple[list[Outcome], int]:
    """Give every actor a task at a time until none is left; outcomes, and the number of actors
    that worked."""
    wanted = {shard.name for plan in plans for shard in plan.todo}
    names = [shard.name for shard in plans[0].shards if shard.name in wanted]
    count, resources = _actors(ray, options, len(names))
    cpus = int(resources["num_cpus"])
    size = max(1, min(_SHARDS_A_TASK, len(names) // (count * _TASKS_A_WORKER)))
    tasks = [tuple(names[at : at + size]) for at in range(0, len(names), size)]
    counts = [plan.todo_rows for plan in plans]
    total = None if None in counts else sum(rows or 0 for rows in counts)
    ledger = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Ledger).remote()
    actor = ray.remote(max_restarts=-1, max_task_retries=-1, **resources)(Worker)
    first = actor.remote(job, cpus)
    with progress.start(f"embed on {count}", total, "vectors") as bar:
        bar.note("waiting for the cluster")
        # The manifests are there before a second actor looks for them.
        ray.get(first.begin.remote(force, ledger))
        # No task goes to an actor that has not started: there may never be room for it.
        running = {
            one.ready.remote(): one for one in (actor.remote(job, cpus) for _ in range(1, count))
        }
        running[first.ready.remote()] = first
        del first
        outcomes: list[Outcome] = []
        started = given = 0
        clock = time.perf_counter()
        while len(outcomes) < len(tasks):
            done, _ = ray.wait(list(running), num_returns=1)
            one = running.pop(done[0])
            outcome: Outcome | None = ray.get(done[0])
            if outcome is None:
                started += 1
            else:
                outcomes.append(outcome)
                bar.advance(outcome.items)
                elapsed = time.perf_counter() - clock
                left = "" if total is not None else time_left(elapsed, len(outcomes) / len(tasks))
                bar.note(_state(outcomes, started, elapsed, left))
            if given < len(tasks):
                running[one.embed.remote(tasks[given], given, ledger)] = one
                given += 1
            # Else it is let go, and its device is free: for one that lost its machine, too.
            del one
    return outcomes, max(1, started)


def _busy(outcomes: Sequence[Outcome]) -> float:
    """Seconds in which a device worked, over all of them."""
    return sum(each.seconds[0]["total"] - each.seconds[0]["wait"] for each in outcomes)


def _state(outcomes: Sequence[Outcome], actors: int, elapsed: float, left: str) -> str:
    idle = min(1.0, max(0.0, 1 - _busy(outcomes) / max(1e-9, elapsed * actors)))
    failed = sum(len(shards) for each in outcomes for shards in each.failed)
    unread = f"{failed} shards not read" if failed else ""
    return ", ".join(filter(None, [left, f"device idle {idle:.0%}", unread, f"{actors} at work"]))


def _actors(ray: Any, options: RayOptions, most: int) -> tuple[int, dict[str, float]]:
    """Return the number of actors and the resources of each, which one machine must have."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    machines = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]
    with_gpu = [machine for machine in machines if options.gpus and machine[1]]
    share = min((cpus // gpus for cpus, gpus in with_gpu), default=_CPUS_AN_ACTOR)
    largest = max(cpus for cpus, _ in with_gpu or machines)
    size = max(1, min(options.workers or share, largest))
    resources = {"num_cpus": float(size)}
    if with_gpu:
        resources["num_gpus"] = 1.0
        count = sum(min(gpus, cpus // size) for cpus, gpus in with_gpu)
    else:
        count = sum(cpus // size for cpus, _ in machines)
    if not count:
        raise UsageError(
            "no machine of the cluster has a CPU to give",
            remedy="Start Ray there with --num-cpus.",
        )
    return min(count, most), resources


def _connect(ray: Any, address: str | None) -> None:
    local = {
        "num_cpus": usable_cpus(),
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE,
    }
    try:
        host, colon, port = (address or "").rpartition(":")
        if colon and port.isdecimal():
            # Ray itself waits for minutes where nobody answers.
            socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        ray.init(address or "local", **quiet, **({} if address else local))
    except Exception as error:  # Ray raises OSError, ValueError, RuntimeError and plain Exception
        if address is None:
            raise MarsRetrievalError(
                f"Ray did not start on this machine ({error})",
                remedy="Run the command again, or use --engine local.",
            ) from error
        raise UsageError(
            f"no Ray cluster answers at {address} ({error})",
            remedy="Start one (ray start --head), or leave out --ray-address to use this machine.",
        ) from error


def _import_ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise MissingDependencyError("ray", "ray", needed_for="--engine ray") from error
    return ray


@dataclass(frozen=True, slots=True)
class Job:
    """What every actor is told; the encoders are loaded by the actor."""

    source: ImageSource
    targets: tuple[Target, ...]
    dtype: str
    batch_size: int | None
    decode_in: DecodeIn
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one task, for each target."""

    items: int  # embedded or left out, for all targets together
    failed: list[list[tuple[str, MarsRetrievalError]]]
    seconds: list[dict[str, float]]
    batch_sizes: list[int]


class Ledger:
    """Counts how often a task was begun; a task begun again has killed its process before."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, task: int) -> int:
        self._begun[task] += 1
        return self._begun[task] - 1


class Worker:
    """An actor: has the models, embeds the shards that it is given."""

    def __init__(self, job: Job, workers: int) -> None:
        self._job = job
        self._workers = workers
        self._lanes: list[tuple[ShardWriter, BuildPlan]] = []
        self._decoders: Decoders | None = None  # of all tasks: processes take long to start

    def begin(self, force: bool, ledger: Any) -> None:
        """What the first actor does before all others start: see `_claim`."""
        import ray

        if ray.get(ledger.begin.remote(_NO_TASK)) >= _DEATHS:
            raise MarsRetrievalError(
                f"the process that loads the models died {_DEATHS} times",
                remedy="Is there memory enough? Fewer models at once, or float16, need less.",
            )
        self._claim(force)

    def ready(self) -> None:
        """Answers once the actor runs."""

    def _claim(self, force: bool) -> None:
        """Load the models and make the stores' manifests, or check them."""
        job = self._job
        self._lanes.clear()
        plans = plan_targets(job.targets, job.source, dtype=job.dtype, force=force)
        for target, plan in zip(job.targets, plans, strict=True):
            # An entry of another actor's shard is none of ours to remove, except with force.
            mine = plan if force else replace(plan, todo=())
            self._lanes.append(
                (open_shard_writer(target, mine, job.batch_size, strict=job.strict), plan)
            )

    def embed(self, names: tuple[str, ...], task: int, ledger: Any) -> Outcome:
        import ray

        deaths = ray.get(ledger.begin.remote(task))
        if deaths >= _DEATHS:
            error = MarsRetrievalError(f"the process that embeds it died {deaths} times")
            nothing = dict.fromkeys(("decode", "embed", "write", "wait", "total"), 0.0)
            each = len(self._job.targets)
            return Outcome(
                0, [[(name, error) for name in names]] * each, [nothing] * each, [0] * each
            )
        if not self._lanes:
            self._claim(force=False)
        lanes = [lane.fresh(plan, names) for lane, plan in self._lanes]
        if self._decoders is None:
            all_lanes = [lane for lane, _ in self._lanes]
            self._decoders = decoders_of(all_lanes, self._workers, self._job.decode_in)
        seconds = embed_shards(lanes, self._job.source, self._decoders)
        return Outcome(
            sum(lane.left_out + sum(entry.rows for entry in lane.written) for lane in lanes),
            [lane.failed for lane in lanes],
            [{**lane.seconds, **seconds} for lane in lanes],
            [lane.forward.size for lane in lanes],
        )
