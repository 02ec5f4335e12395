"""Results of a verification: counts, set hashes and problems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Literal

_MAX_EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """A kind of problem with its number of cases.

    Attributes:
        kind: Name of the kind, such as `double-id`.
        severity: `error` if the data is damaged or metrics computed on it would be wrong; `note`
            for information that also applies to the published datasets (near-duplicates).
        count: Number of cases.
        examples: Descriptions of the first cases.
    """

    kind: str
    severity: Literal["error", "note"]
    count: int
    examples: tuple[str, ...]


@dataclass(slots=True)
class DatasetInventory:
    """Counts and problems of one dataset.

    Attributes:
        dataset: paired, landform, geolocalization, tiles or images.
        folder: Folder of the dataset.
        origin: Provenance: repository and revision, synthetic planet, or tile specification.
        counts: Counts by name.
        set_hash: The set hash of a result that scores the whole dataset.
        problems: Problems, one entry per kind.
    """

    dataset: str
    folder: str
    origin: Mapping[str, Any] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    set_hash: str | None = None
    problems: list[Problem] = field(default_factory=list)

    def error(self, kind: str, cases: Iterable[str]) -> None:
        """Add an error unless there are no cases.

        Args:
            kind: Name of the kind of problem.
            cases: Description of each case.
        """
        self._add(kind, "error", cases, None)

    def note(self, kind: str, cases: Iterable[str], *, count: int | None = None) -> None:
        """Add a note unless there are no cases.

        Args:
            kind: Name of the kind of problem.
            cases: Description of each case.
            count: Number to report; None: the number of `cases`.
        """
        self._add(kind, "note", cases, count)

    def _add(
        self, kind: str, severity: Literal["error", "note"], cases: Iterable[str], count: int | None
    ) -> None:
        remaining = iter(cases)
        examples = tuple(islice(remaining, _MAX_EXAMPLES))
        if examples:
            total = len(examples) + sum(1 for _ in remaining) if count is None else count
            self.problems.append(Problem(kind, severity, total, examples))


@dataclass(frozen=True, slots=True)
class Inventory:
    """Result of a verification.

    Attributes:
        folder: The verified folder.
        datasets: Inventory of each dataset in it.
        schema_version: Version of the JSON layout.
    """

    folder: str
    datasets: list[DatasetInventory]
    schema_version: int = 1

    def ok(self, *, strict: bool = False) -> bool:
        """Check that there are no errors.

        Args:
            strict: Count notes as errors.

        Returns:
            True if there are none.
        """
        return not any(
            strict or problem.severity == "error"
            for dataset in self.datasets
            for problem in dataset.problems
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the inventory as JSON-compatible data."""
        return {"ok": self.ok(), **asdict(self)}
