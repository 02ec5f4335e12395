"""What runs in the processes that Ray starts: an actor for each device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from marsretrieval.datasets import ImageSource
from marsretrieval.embeddings._build import Target, open_lane, plan_targets
from marsretrieval.embeddings._device import decoders_of, embed_shards
from marsretrieval.embeddings._lane import Lane
from marsretrieval.embeddings._plan import BuildPlan
from marsretrieval.embeddings._workers import DecodeIn, Decoders
from marsretrieval.errors import MarsRetrievalError

_DEATHS = 5  # of workers, on the same shards: then the shards are at fault
_NO_TASK = -1


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
    seconds: list[Mapping[str, float]]
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
        self._lanes: list[tuple[Lane, BuildPlan]] = []
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
            self._lanes.append((open_lane(target, mine, job.batch_size, strict=job.strict), plan))

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
