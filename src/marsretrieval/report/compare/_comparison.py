"""What a comparison says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marsretrieval.metrics.difference import Difference


@dataclass(frozen=True, slots=True)
class Moved:
    """A query on which the two models differ.

    a, b: the query's part in the group's `per_query` figure, whose mean over the queries is the
    figure itself. rank_a, rank_b: where its answer stands (0: not found); None where a query has
    many answers.
    """

    name: str
    a: float
    b: float
    rank_a: int | None = None
    rank_b: int | None = None

    @property
    def difference(self) -> float:
        return self.b - self.a


@dataclass(frozen=True, slots=True)
class Group:
    """A group of queries. moved: every query that differs, the greatest gain of B first and its
    greatest loss last. unit: what a query is ("image", "text", "class", "point"). blocks: how many
    blocks of the planet the points lie in."""

    name: str
    n: Mapping[str, int]
    differences: Mapping[str, Difference]
    per_query: str = ""
    unit: str = ""
    queries: int = 0
    moved: Sequence[Moved] = ()
    blocks: int | None = None

    @property
    def better(self) -> int:
        return sum(each.difference > 0 for each in self.moved)

    @property
    def worse(self) -> int:
        return sum(each.difference < 0 for each in self.moved)

    def gains(self, count: int) -> list[Moved]:
        return [each for each in self.moved[:count] if each.difference > 0]

    def losses(self, count: int) -> list[Moved]:
        return [each for each in self.moved[::-1][:count] if each.difference < 0]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One task. drawn: what was resampled. Differences are B - A."""

    task: str
    protocol: str
    a: str
    b: str
    data: Mapping[str, Any]
    groups: Sequence[Group]
    drawn: str
    seed: int
    resamples: int
    plain: frozenset[str] = frozenset()  # metrics that are not shares

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; every query that moved."""
        return {
            "task": self.task,
            "protocol": self.protocol,
            "a": self.a,
            "b": self.b,
            "data": {key: self.data.get(key) for key in ("name", "n", "set_hash")},
            "drawn": self.drawn,
            "seed": self.seed,
            "resamples": self.resamples,
            "groups": {each.name: _group(each) for each in self.groups},
        }


def _group(group: Group) -> dict[str, Any]:
    value: dict[str, Any] = {
        "n": dict(group.n),
        "differences": {
            name: {"a": each.a, "b": each.b, "difference": each.difference,
                   "interval": None if each.low is None else [each.low, each.high], "p": each.p}
            for name, each in group.differences.items()
        },
    }  # fmt: skip
    if group.blocks is not None:
        value["blocks"] = group.blocks
    if group.per_query:
        value |= {
            "per_query": group.per_query,
            "unit": group.unit,
            "queries": group.queries,
            "better": group.better,
            "worse": group.worse,
            "moved": [
                {"name": each.name, "a": each.a, "b": each.b, "difference": each.difference,
                 "rank_a": each.rank_a, "rank_b": each.rank_b}
                for each in group.moved
            ],
        }  # fmt: skip
    return value
