"""What a task is: data it can check without a model, and an evaluation over stored vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from marsretrieval.datasets import ImageSource, Skipped
from marsretrieval.embeddings import EmbeddingStore
from marsretrieval.encoders import Encoder, Modality
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.results import Evaluation

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Settings:
    """What may differ between two runs of a task; part of the identity of a result."""

    seed: int = 0
    resamples: int = 1000  # of the bootstrap behind the 95 % intervals


@dataclass(frozen=True, slots=True)
class TaskData:
    """A task's data, found, read as far as its annotations and checked; no image decoded yet.

    `source` is None where the caller brings a finished store of the images.
    `fingerprint` changes with anything that could change a figure.
    """

    folder: Path
    source: ImageSource | None
    counts: Mapping[str, int]  # for people: {"images": 600, "classes": 16}
    fingerprint: str
    annotations: Any  # the task's own: captions, labels or ground-truth points
    skipped: Sequence[Skipped] = ()
    notes: Sequence[str] = ()  # about what was assumed while reading; shown, and in the result


@dataclass(frozen=True, slots=True)
class Hits:
    """The head of each ranking, one entry a hit, for galleries and maps."""

    group: list[str] = field(default_factory=list)
    query: list[str] = field(default_factory=list)
    rank: list[int] = field(default_factory=list)  # from 1
    id: list[str] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    relevant: list[bool] = field(default_factory=list)
    lon: list[float | None] = field(default_factory=list)  # degrees, of the tile's centre
    lat: list[float | None] = field(default_factory=list)

    def append(
        self,
        group: str,
        query: str,
        rank: int,
        id: str,
        score: float,
        *,
        relevant: bool,
        lon: float | None = None,
        lat: float | None = None,
    ) -> None:
        row = (group, query, rank, id, score, relevant, lon, lat)
        columns = (self.group, self.query, self.rank, self.id, self.score, self.relevant)
        for column, value in zip((*columns, self.lon, self.lat), row, strict=True):
            column.append(value)  # type: ignore[attr-defined]

    def to_table(self) -> pa.Table:
        """Return an Arrow table with a column for each field."""
        import pyarrow as pa

        return pa.table({column.name: getattr(self, column.name) for column in fields(self)})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an evaluation gives; `groups` maps a query group ("all", "landslides/text") to it."""

    groups: Mapping[str, Evaluation]
    n: Mapping[str, int]
    set_hash: str
    hits: Hits
    skipped: Sequence[Skipped] = ()
    truncated: Mapping[str, int] = field(default_factory=dict)  # texts cut, of how many
    timings: Mapping[str, float] = field(default_factory=dict)  # seconds
    notes: Sequence[str] = ()  # about the evaluation; shown, and in the result
    details: Mapping[str, Any] = field(default_factory=dict)  # more keys of the result's data
    examples: Mapping[str, ImageSource] = field(default_factory=dict)  # query to example images


class Task(Protocol):
    """One module a task. Stateless."""

    name: str
    aliases: tuple[str, ...]
    title: str
    folder_name: str  # of its dataset, inside the data folder
    vector_dtype: str  # of the store that `run` builds
    main_metric: str  # key that leaderboards sort by

    def open(self, data: Path, *, with_images: bool = True) -> TaskData:
        """Find and check the data. Raises DatasetNotFoundError, DataError or TableError."""

    def missing_modality(self, data: TaskData, modalities: frozenset[Modality]) -> Modality | None:
        """What a model with these modalities lacks for this task on these data, if anything."""

    def evaluate(
        self,
        data: TaskData,
        encoder: Encoder,
        images: EmbeddingStore,
        scratch: Path,
        settings: Settings,
        progress: Progress = NO_PROGRESS,
    ) -> Outcome:
        """Rank the stored images by the task's queries, and score. `scratch` keeps other
        embeddings of this model, such as those of captions."""
