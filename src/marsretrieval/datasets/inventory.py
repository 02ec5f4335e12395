"""What verification finds: counts, a set hash, and problems that are named and counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Literal

_EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """`error`: figures on this data would be wrong, or the data is damaged. `note`: worth
    knowing, and part of the real datasets too (near-duplicates, tiles that lie nowhere)."""

    kind: str
    severity: Literal["error", "note"]
    count: int
    examples: tuple[str, ...]


@dataclass(slots=True)
class DatasetInventory:
    """`set_hash` is the one that a result carries when all of the set is scored."""

    dataset: str  # paired, landform, geolocalization, tiles or images
    folder: str
    origin: Mapping[str, Any] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    set_hash: str | None = None
    problems: list[Problem] = field(default_factory=list)

    def error(self, kind: str, found: Iterable[str]) -> None:
        """Add an error of this kind, if `found` holds any case."""
        self._add(kind, "error", found, None)

    def note(self, kind: str, found: Iterable[str], *, count: int | None = None) -> None:
        """Add a note of this kind, if `found` holds any case; `count` replaces their number."""
        self._add(kind, "note", found, count)

    def _add(
        self, kind: str, severity: Literal["error", "note"], found: Iterable[str], count: int | None
    ) -> None:
        cases = iter(found)
        examples = tuple(islice(cases, _EXAMPLES))
        if examples:
            told = len(examples) + sum(1 for _ in cases) if count is None else count
            self.problems.append(Problem(kind, severity, told, examples))


@dataclass(frozen=True, slots=True)
class Inventory:
    folder: str
    datasets: list[DatasetInventory]
    schema_version: int = 1

    def ok(self, *, strict: bool = False) -> bool:
        """No errors; with `strict`, no notes either."""
        return not any(
            strict or problem.severity == "error"
            for dataset in self.datasets
            for problem in dataset.problems
        )

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok(), **asdict(self)}
