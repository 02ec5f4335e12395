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
from typing import TYPE_CHECKING, Any

from marsretrieval.embeddings.builder import (
    BuildReport,
    Target,
    build_stores,
    open_shard_writer,
    plan_targets,
    require_none_skipped,
    require_readable,
    require_rows,
)
from marsretrieval.embeddings.shard_writer import ShardWriter, embed_shards, open_decoders_for
from marsretrieval.errors import MarsRetrievalError, MissingDependencyError, UsageError
from marsretrieval.progress import NO_PROGRESS, Progress, time_left
from marsretrieval.system import usable_cpus
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.datasets import ImageSource
    from marsretrieval.embeddings.pipeline import DecodeIn, Decoders
    from marsretrieval.embeddings.plan import BuildPlan

_MIN_TASKS_PER_WORKER = 4  # so that all workers finish at about the same time
_MAX_SHARDS_PER_TASK = 8  # lost if a worker dies
_MAX_DEATHS = 5  # of workers on the same shards, which then count as the cause
_NO_TASK = -1
_CPUS_PER_ACTOR = 4  # without a GPU
_CONNECT_TIMEOUT_S = 10.0
_OBJECT_STORE_BYTES = 128 * 2**20  # the actors exchange small objects only


@dataclass(frozen=True, slots=True)
class RayOptions:
    """Where Ray runs.

    Attributes:
        address: Address of a cluster. None starts Ray on this machine.
        workers: CPUs per actor, which decode, and without `gpus` also embed. None divides the CPUs
            of a machine by its GPUs.
        gpus: Use the GPUs of the machines, if there are any.
        decode_in: "threads", "processes" or "auto", as for `build_stores`.
    """

    address: str | None = None
    workers: int | None = None
    gpus: bool = True
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
    """Build stores on all devices of a Ray cluster, with the results of `build_stores`.

    The source and the functions that load the encoders must be picklable. Every machine must
    reach the source and the stores under the same paths.

    Args:
        targets: Models and their stores. Each encoder must be a function that loads it.
        source: Images to embed.
        dtype: Vector dtype, float16 or float32.
        batch_size: Fixed batch size. None chooses it by throughput.
        force: Replace existing stores.
        strict: Raise on the first image that cannot be embedded.
        options: Cluster and resources. None uses this machine.
        progress: Progress display.

    Returns:
        One report per target, in their order.

    Raises:
        MissingDependencyError: If Ray is not installed.
        UsageError: If an encoder is already loaded, or the cluster cannot be reached.
        StoreMismatchError: If a store holds vectors of another encoder or of other data.
        DataError: If a shard or an image cannot be read, as for `build_stores`.
        MarsRetrievalError: If Ray or a worker fails. Finished shards are kept.
    """
    options = options or RayOptions()
    ray = _import_ray()
    if not all(target.to_load for target in targets):
        raise UsageError("with Ray every process loads an encoder: pass a function")
    targets = [replace(target, path=target.path.resolve()) for target in targets]
    plans = plan_targets(targets, source, dtype=dtype, force=force)
    if strict:
        require_none_skipped(plans)
    if not any(plan.todo for plan in plans):
        return build_stores(targets, source, dtype=dtype, progress=progress)
    start = time.perf_counter()
    owns_session = not ray.is_initialized()
    if owns_session:
        _connect(ray, options.address)
    try:
        outcomes, devices = _run_tasks(
            ray,
            RayJob(source, tuple(targets), dtype, batch_size, options.decode_in, strict),
            plans,
            options,
            force,
            progress,
        )
    except ray.exceptions.RayTaskError as error:
        # The message of a RayTaskError contains the traceback of the other process.
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
            f"Ray failed: {type(error).__name__}: {error}",
            remedy="Finished shards are saved: run the same command again to resume.",
        ) from error
    finally:
        if owns_session:
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
        done_before = {entry.shard for entry in plans[number].done}
        seconds = {
            name: sum(outcome.seconds[number][name] for outcome in outcomes)
            for name in ("decode", "embed", "write")
        }
        reports.append(
            BuildReport.from_entries(
                [entry for entry in now.done if entry.shard in done_before],
                [entry for entry in now.done if entry.shard not in done_before],
                min(filter(None, (o.batch_sizes[number] for o in outcomes)), default=None),
                {
                    **seconds,
                    "wait": max(0.0, elapsed - _busy_seconds(outcomes) / devices),
                    "total": elapsed,
                },
            )
        )
    require_rows(source, reports)
    return reports


def _run_tasks(
    ray: Any,
    job: RayJob,
    plans: Sequence[BuildPlan],
    options: RayOptions,
    force: bool,
    progress: Progress,
) -> tuple[list[RayOutcome], int]:
    """Keep one task per actor running until all are done.

    Returns the outcomes and the number of actors that worked.
    """
    pending = {shard.name for plan in plans for shard in plan.todo}
    names = [shard.name for shard in plans[0].shards if shard.name in pending]
    count, resources = _actors(ray, options, len(names))
    cpus = int(resources["num_cpus"])
    size = max(1, min(_MAX_SHARDS_PER_TASK, len(names) // (count * _MIN_TASKS_PER_WORKER)))
    tasks = [tuple(names[at : at + size]) for at in range(0, len(names), size)]
    counts = [plan.todo_rows for plan in plans]
    total = None if None in counts else sum(rows or 0 for rows in counts)
    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(AttemptCounter).remote()
    actor = ray.remote(max_restarts=-1, max_task_retries=-1, **resources)(Worker)
    first_worker = actor.remote(job, cpus)
    with progress.start(f"embed on {count}", total, "vectors") as bar:
        bar.note("waiting for the cluster")
        # The first actor creates the manifests before the others look for them.
        ray.get(first_worker.begin.remote(force, attempts))
        # An actor gets no task before it has started: the cluster may lack resources for it.
        running = {
            worker.ready.remote(): worker
            for worker in (actor.remote(job, cpus) for _ in range(1, count))
        }
        running[first_worker.ready.remote()] = first_worker
        del first_worker
        outcomes: list[RayOutcome] = []
        started = submitted = 0
        clock = time.perf_counter()
        while len(outcomes) < len(tasks):
            finished, _ = ray.wait(list(running), num_returns=1)
            worker = running.pop(finished[0])
            outcome: RayOutcome | None = ray.get(finished[0])
            if outcome is None:
                started += 1
            else:
                outcomes.append(outcome)
                bar.advance(outcome.items)
                elapsed = time.perf_counter() - clock
                remaining = (
                    "" if total is not None else time_left(elapsed, len(outcomes) / len(tasks))
                )
                bar.note(_status_text(outcomes, started, elapsed, remaining))
            if submitted < len(tasks):
                running[worker.embed.remote(tasks[submitted], submitted, attempts)] = worker
                submitted += 1
            # An actor without a task ends, and another one can use its device.
            del worker
    return outcomes, max(1, started)


def _busy_seconds(outcomes: Sequence[RayOutcome]) -> float:
    """Busy time summed over all devices."""
    return sum(outcome.seconds[0]["total"] - outcome.seconds[0]["wait"] for outcome in outcomes)


def _status_text(
    outcomes: Sequence[RayOutcome], actors: int, elapsed: float, remaining: str
) -> str:
    idle = min(1.0, max(0.0, 1 - _busy_seconds(outcomes) / max(1e-9, elapsed * actors)))
    failed = sum(len(shards) for outcome in outcomes for shards in outcome.failed)
    unread = f"{pluralize(failed, 'shard')} not read" if failed else ""
    return ", ".join(
        filter(None, [remaining, f"device idle {idle:.0%}", unread, f"{actors} actors"])
    )


def _actors(ray: Any, options: RayOptions, most: int) -> tuple[int, dict[str, float]]:
    """Return the number of actors and the resources of each, which one machine must have."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    machines = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]
    with_gpu = [machine for machine in machines if options.gpus and machine[1]]
    share = min((cpus // gpus for cpus, gpus in with_gpu), default=_CPUS_PER_ACTOR)
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
            "no machine of the cluster offers a CPU",
            remedy="Start Ray with --num-cpus on a machine.",
        )
    return min(count, most), resources


def _connect(ray: Any, address: str | None) -> None:
    local = {
        "num_cpus": usable_cpus(),
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
    }
    try:
        host, colon, port = (address or "").rpartition(":")
        if colon and port.isdecimal():
            # Ray itself waits for minutes if the address does not respond.
            socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        ray.init(address or "local", **quiet, **({} if address else local))
    except Exception as error:  # Ray raises OSError, ValueError, RuntimeError and plain Exception
        if address is None:
            raise MarsRetrievalError(
                f"Ray did not start on this machine ({error})",
                remedy="Run the command again, or use --engine local.",
            ) from error
        raise UsageError(
            f"cannot connect to a Ray cluster at {address} ({error})",
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
class RayJob:
    """Task description that every actor receives. The actors load the encoders themselves.

    Attributes:
        source: Images to embed.
        targets: Models and their stores.
        dtype: Vector dtype.
        batch_size: Fixed batch size. None chooses it by throughput.
        decode_in: "threads", "processes" or "auto".
        strict: Raise on the first image that cannot be embedded.
    """

    source: ImageSource
    targets: tuple[Target, ...]
    dtype: str
    batch_size: int | None
    decode_in: DecodeIn
    strict: bool = False


@dataclass(frozen=True, slots=True)
class RayOutcome:
    """Result of one task.

    Attributes:
        items: Number of embedded and skipped items, summed over the targets.
        failed: For each target, name and error of each shard that could not be read.
        seconds: For each target, seconds by stage.
        batch_sizes: For each target, the final batch size.
    """

    items: int
    failed: list[list[tuple[str, MarsRetrievalError]]]
    seconds: list[dict[str, float]]
    batch_sizes: list[int]


class AttemptCounter:
    """Count the attempts at each task. A second attempt means that the first killed its process."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def begin(self, task: int) -> int:
        """Count an attempt.

        Args:
            task: Number of the task.

        Returns:
            Number of earlier attempts.
        """
        self._counts[task] += 1
        return self._counts[task] - 1


class Worker:
    """Ray actor that loads the models and embeds shards."""

    def __init__(self, job: RayJob, workers: int) -> None:
        """Create an actor; the models are loaded later.

        Args:
            job: Description of the task.
            workers: Number of decoding workers.
        """
        self._job = job
        self._workers = workers
        self._writers: list[tuple[ShardWriter, BuildPlan]] = []
        self._decoders: Decoders | None = None  # shared by all tasks: slow to start

    def begin(self, force: bool, attempts: Any) -> None:
        """Create the manifests, before the other actors start.

        Args:
            force: Replace existing stores.
            attempts: Handle of the AttemptCounter actor.

        Raises:
            MarsRetrievalError: If the process died too often while it loaded the models.
        """
        import ray

        if ray.get(attempts.begin.remote(_NO_TASK)) >= _MAX_DEATHS:
            raise MarsRetrievalError(
                f"the process that loads the models died {_MAX_DEATHS} times",
                remedy="Check the free memory; use fewer models at once, or float16.",
            )
        self._open_stores(force)

    def ready(self) -> None:
        """Return when the actor runs."""

    def _open_stores(self, force: bool) -> None:
        """Load the models and create or validate the manifests of their stores."""
        job = self._job
        self._writers.clear()
        plans = plan_targets(job.targets, job.source, dtype=job.dtype, force=force)
        for target, plan in zip(job.targets, plans, strict=True):
            # Entries of other actors' shards must be kept, except with force.
            writer_plan = plan if force else replace(plan, todo=())
            self._writers.append(
                (open_shard_writer(target, writer_plan, job.batch_size, strict=job.strict), plan)
            )

    def embed(self, names: tuple[str, ...], task: int, attempts: Any) -> RayOutcome:
        """Embed shards.

        Args:
            names: Names of the shards.
            task: Number of the task.
            attempts: Handle of the AttemptCounter actor.

        Returns:
            Outcome of the task. All its shards count as failed after too many attempts.
        """
        import ray

        deaths = ray.get(attempts.begin.remote(task))
        if deaths >= _MAX_DEATHS:
            error = MarsRetrievalError(f"the process that embeds it died {deaths} times")
            zeros = dict.fromkeys(("decode", "embed", "write", "wait", "total"), 0.0)
            count = len(self._job.targets)
            return RayOutcome(
                0, [[(name, error) for name in names]] * count, [zeros] * count, [0] * count
            )
        if not self._writers:
            self._open_stores(force=False)
        writers = [writer.for_shards(plan, names) for writer, plan in self._writers]
        if self._decoders is None:
            all_writers = [writer for writer, _ in self._writers]
            self._decoders = open_decoders_for(all_writers, self._workers, self._job.decode_in)
        seconds = embed_shards(writers, self._job.source, self._decoders)
        return RayOutcome(
            sum(
                writer.skipped_count + sum(entry.rows for entry in writer.written)
                for writer in writers
            ),
            [writer.failed for writer in writers],
            [{**writer.seconds, **seconds} for writer in writers],
            [writer.runner.size for writer in writers],
        )
