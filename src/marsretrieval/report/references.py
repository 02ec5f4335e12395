"""Values that others published: always with their source, never ranked with results."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from marsretrieval.results import RunResult

__all__ = ["Reference", "published_elsewhere", "references_for"]


@dataclass(frozen=True, slots=True)
class Reference:
    """A model's values from elsewhere; the keys are those of `Evaluation.published`.

    Another's code ranked and scored (`evaluated_by`), so the values are of neither protocol; the
    two differ under ties only, and `published` names the column for them.
    """

    task: str
    dataset: str
    model: str
    pairs: int
    captions: str
    evaluated_by: str
    title: str
    url: str
    date: datetime.date
    data: str
    notes: str
    metrics: Mapping[str, float]
    protocol: str = "published"
    group: str = ""

    @property
    def n(self) -> str:
        """Count of the items as text."""
        return f"{self.pairs:,} pairs"

    @property
    def source(self) -> str:
        """Title, date and address of the publication."""
        return f"{self.title}, {self.date}, {self.url}"

    @property
    def description(self) -> str:
        """Source of the values and the items that they are over, on one line."""
        return (
            f"{self.model}: {self.source}; evaluated by {self.evaluated_by} on {self.n} "
            f"({self.captions}, {self.data}). {self.notes}"
        )


@cache
def published_elsewhere() -> tuple[Reference, ...]:
    """All that are known, in the order of references.toml."""
    text = files("marsretrieval.report").joinpath("references.toml").read_text(encoding="utf-8")
    return tuple(Reference(**entry) for entry in tomllib.loads(text)["reference"])


def references_for(results: Iterable[RunResult], *, show: bool | None) -> list[Reference]:
    """Those to show with `results`. wanted: True all of the tasks, False none, None those on the
    datasets that the results are on; synthetic data under the same name are not."""
    if show is False:
        return []
    datasets = [
        (result.task, result.data.get("name"), bool(result.data.get("synthetic")))
        for result in results
    ]
    return [
        reference
        for reference in published_elsewhere()
        if any(
            reference.task == task and (show or (reference.dataset == name and not synthetic))
            for task, name, synthetic in datasets
        )
    ]
