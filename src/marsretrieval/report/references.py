"""Metric values published elsewhere: shown with their source, never ranked with results."""

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
    """Metric values of a model from another publication.

    Other code ranked and scored (`evaluated_by`), so the values belong to neither protocol. The two
    differ under ties only; `protocol` names the columns that show them.

    Attributes:
        task: Name of the task.
        dataset: Name of the dataset.
        model: Name of the model, as published.
        pairs: Number of image-text pairs.
        captions: Which captions were used.
        evaluated_by: The code that ranked and scored.
        title: Title of the publication.
        url: Its address.
        date: Its date.
        data: Repository and revision of the data.
        notes: Remarks.
        metrics: Values, keyed as `Evaluation.published`.
        protocol: Protocol whose columns show the values.
        group: Query group; empty for all.
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
        """Source of the values and their items, on one line."""
        return (
            f"{self.model}: {self.source}; evaluated by {self.evaluated_by} on {self.n} "
            f"({self.captions}, {self.data}). {self.notes}"
        )


@cache
def published_elsewhere() -> tuple[Reference, ...]:
    """Return all references, in the order of references.toml."""
    text = files("marsretrieval.report").joinpath("references.toml").read_text(encoding="utf-8")
    return tuple(Reference(**entry) for entry in tomllib.loads(text)["reference"])


def references_for(results: Iterable[RunResult], *, show: bool | None) -> list[Reference]:
    """Select the references to show with results.

    Args:
        results: Results in any order.
        show: True: all references of their tasks. False: none. None: those on the datasets of the
            results; synthetic data of the same name and limited results do not count.

    Returns:
        The references.
    """
    if show is False:
        return []
    datasets = [
        (result.task, result.data.get("name"), bool(result.data.get("synthetic")))
        for result in results
        if result.limit is None
    ]
    return [
        reference
        for reference in published_elsewhere()
        if any(
            reference.task == task and (show or (reference.dataset == name and not synthetic))
            for task, name, synthetic in datasets
        )
    ]
