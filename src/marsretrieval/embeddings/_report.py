"""What a build did, and how fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from marsretrieval.datasets import ItemWarning, Skipped
from marsretrieval.embeddings._manifest import Entry


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did. Rows and skipped items are those of this part of the store."""

    rows: int
    embedded: int  # of the rows: computed now
    reused: int  # of the rows: there before, or finished meanwhile by another process
    skipped: list[Skipped]
    batch_size: int | None  # in the end; None when nothing was computed
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[ItemWarning] = ()  # parts of annotations that were ignored

    @property
    def images_per_s(self) -> float | None:
        """Embedded images by wall time; None when nothing was computed."""
        total = self.seconds.get("total", 0.0)
        return self.embedded / total if self.embedded and total else None

    @property
    def device_idle(self) -> float | None:
        """Share of the wall time in which the device had nothing to do, 0 to 1."""
        wait, total = self.seconds.get("wait"), self.seconds.get("total")
        return None if wait is None or not total else min(1.0, wait / total)

    @property
    def timings(self) -> dict[str, float]:
        """Seconds by stage, images a second and the device's idle share, as results record them.

        decode: summed over workers. embed: in this model. wait: the device without work.
        """
        figures = {"images_per_s": self.images_per_s, "device_idle": self.device_idle}
        return {**self.seconds, **{name: value for name, value in figures.items() if value}}

    @classmethod
    def of(
        cls,
        done: Sequence[Entry],
        written: Sequence[Entry],
        batch_size: int | None,
        seconds: Mapping[str, float],
    ) -> BuildReport:
        """From the entries that were there and those written now."""
        embedded = sum(entry.rows for entry in written)
        reused = sum(entry.rows for entry in done)
        return cls(
            rows=embedded + reused,
            embedded=embedded,
            reused=reused,
            skipped=[item for entry in (*done, *written) for item in entry.skipped],
            batch_size=batch_size,
            seconds=seconds,
            warnings=[item for entry in (*done, *written) for item in entry.warnings],
        )
