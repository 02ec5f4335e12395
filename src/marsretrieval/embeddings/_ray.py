"""The same build on every device of a machine or a cluster, driven by Ray.

One actor a device; each takes some shards at a time and writes them itself, so that the driver
holds no vectors. Ray calls an actor's method at least once: shards are idempotent, a repeated one
is found finished. Actors that die are started again and their work repeated.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from marsretrieval._environment import usable_cpus
from marsretrieval.datasets import ImageSource
from marsretrieval.embeddings._build import (
    Target,
    build_stores,
    plan_targets,
    require_any,
    require_none_skipped,
    require_readable,
)
from marsretrieval.embeddings._plan import BuildPlan
from marsretrieval.embeddings._ray_actor import Job, Ledger, Outcome, Worker
from marsretrieval.embeddings._report import BuildReport
from marsretrieval.embeddings._workers import DecodeIn
from marsretrieval.errors import MarsRetrievalError, MissingDependencyError, UsageError
from marsretrieval.progress import NO_PROGRESS, Progress, time_left

_TASKS_A_WORKER = 4  # at least, so that the last ones end at about the same time
_SHARDS_A_TASK = 8  # at most: what a death may cost
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
            (len(plan.todo), [each for outcome in outcomes for each in outcome.failed[number]])
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
    count, cpus, resources = _actors(ray, options, len(names))
    size = max(1, min(_SHARDS_A_TASK, len(names) // (count * _TASKS_A_WORKER)))
    tasks = [tuple(names[at : at + size]) for at in range(0, len(names), size)]
    counts = [plan.todo_rows for plan in plans]
    total = None if None in counts else sum(each or 0 for each in counts)
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


def _actors(ray: Any, options: RayOptions, most: int) -> tuple[int, int, dict[str, float]]:
    """How many actors, the CPUs of each, and what each of them takes. An actor is on one machine,
    so that what it takes must be there on one."""
    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    machines = [(int(each.get("CPU", 0)), int(each.get("GPU", 0))) for each in there]
    with_gpu = [(cpus, gpus) for cpus, gpus in machines if gpus and options.gpus]
    if with_gpu:
        cpus = options.workers or min(cpus // gpus for cpus, gpus in with_gpu)
    else:
        cpus = options.workers or _CPUS_AN_ACTOR
    cpus = max(1, min(cpus, max(cpus for cpus, _ in with_gpu or machines)))
    count = (
        sum(min(gpus, has // cpus) for has, gpus in with_gpu)
        if with_gpu
        else sum(has // cpus for has, _ in machines)
    )
    if not count:
        raise UsageError(
            "no machine of the cluster has a CPU to give",
            remedy="Start Ray there with --num-cpus.",
        )
    resources = (
        {"num_gpus": 1.0, "num_cpus": float(cpus)} if with_gpu else {"num_cpus": float(cpus)}
    )
    return min(count, most), cpus, resources


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        ray.init(
            "local",
            num_cpus=usable_cpus(),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE,
            **quiet,
        )
        return
    try:
        host, colon, port = address.rpartition(":")
        if colon and port.isdecimal():
            # Ray itself waits for minutes where nobody answers.
            socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
        ray.init(address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
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
