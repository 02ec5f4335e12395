"""Task protocol: data that can be checked without a model, and an evaluation of stored vectors."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Protocol

from marsretrieval.datasets.base import ImageSource, Record, Skipped, UnannotatedImage
from marsretrieval.datasets.open import is_dataset_file, read_annotations
from marsretrieval.errors import DataError, DatasetNotFoundError, TruncatedTextWarning, UsageError
from marsretrieval.io import parse_json, sha256_json
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.text import has_control_characters, pluralize, printable, suggest_path, verb

if TYPE_CHECKING:
    import pyarrow as pa

    from marsretrieval.embeddings.store import EmbeddingStore
    from marsretrieval.encoders.base import Encoder, Modality, TextRole
    from marsretrieval.results import Evaluation


DISTRACTOR = "-"  # name of classes that are no query

_MAX_CLASS_NAMES_BYTES = 2**24
_CLASS_NAMES_REMEDY = (
    "Write one name per line in the order of the labels from 0 (.txt), lines LABEL,NAME (.csv), "
    "or an object or list (.json)."
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of an evaluation; part of the identity of a result.

    Attributes:
        seed: Seed of the bootstrap.
        resamples: Number of resamples for the 95 % intervals.
        limit: Number of items that the data are limited to; None: all.
        options: Options that differ from the published protocol, such as ``{"radius": 1.0}``.
    """

    seed: int = 0
    resamples: int = 1000
    limit: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("seed", self.seed), ("resamples", self.resamples)):
            if value < 0:
                raise UsageError(f"{name} must be at least 0, not {value}")
        if self.limit is not None and self.limit < 2:
            raise UsageError(f"limit must be at least 2, not {self.limit}")

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data; without unset `limit` and `options`, as in older results."""
        values = asdict(self)
        for name, unset in (("limit", self.limit is None), ("options", not self.options)):
            if unset:
                del values[name]
        return values


@dataclass(frozen=True, slots=True)
class TaskData:
    """Data of a task, with checked annotations; no image is decoded yet.

    Attributes:
        folder: Folder of the dataset.
        source: The images; None if the caller supplies a store of their embeddings.
        counts: Counts for display, such as ``{"images": 600, "classes": 16}``.
        fingerprint: Hash that changes with anything that could change a metric.
        annotations: Captions, labels or ground-truth points, in the task's own format.
        skipped: Items that are left out, with reasons.
        notes: Assumptions made while reading; printed, and stored in the result.
        limit: Description of the limit for the result; None without a limit.
    """

    folder: Path
    source: ImageSource | None
    counts: Mapping[str, int]
    fingerprint: str
    annotations: Any
    skipped: Sequence[Skipped] = ()
    notes: Sequence[str] = ()
    limit: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Hits:
    """Top hits of each ranking in columns, one element per hit; for galleries and maps.

    Attributes:
        group: Query group.
        query: Name of the query.
        rank: Rank, from 1.
        id: Id of the item.
        score: Score.
        relevant: Whether the item is relevant.
        lon: Longitude of the tile's centre, degrees; None without a position.
        lat: Latitude of the tile's centre, degrees; None without a position.
    """

    group: list[str] = field(default_factory=list)
    query: list[str] = field(default_factory=list)
    rank: list[int] = field(default_factory=list)
    id: list[str] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    relevant: list[bool] = field(default_factory=list)
    lon: list[float | None] = field(default_factory=list)
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
        """Append a hit.

        Args:
            group: Query group.
            query: Name of the query.
            rank: Rank, from 1.
            id: Id of the item.
            score: Score.
            relevant: Whether the item is relevant.
            lon: Longitude of the tile's centre, degrees.
            lat: Latitude of the tile's centre, degrees.
        """
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
    """Outcome of an evaluation.

    Attributes:
        groups: Query group ("all", "landslides/text") to its evaluation.
        n: Counts of the scored items.
        set_hash: Hash of the scored items.
        hits: Top hits of each ranking.
        skipped: Items that the evaluation left out.
        truncated: Numbers of texts, and of those cut at the context length.
        timings: Step to seconds.
        notes: Remarks; printed, and stored in the result.
        details: Additional keys of the result's `data`.
        examples: Query to its example images.
    """

    groups: Mapping[str, Evaluation]
    n: Mapping[str, int]
    set_hash: str
    hits: Hits
    skipped: Sequence[Skipped] = ()
    truncated: Mapping[str, int] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    examples: Mapping[str, ImageSource] = field(default_factory=dict)


class Task(Protocol):
    """Interface of a task. Implementations are stateless.

    Attributes:
        name: Name on the command line and in results.
        aliases: Other names.
        title: Title for tables and pages.
        folder_name: Name of its dataset inside the data folder.
        vector_dtype: Type of the vectors in the store that `run` builds.
        main_metric: Key of the metric that leaderboards sort by.
    """

    name: str
    aliases: tuple[str, ...]
    title: str
    folder_name: str
    vector_dtype: str  # of the store that `run` builds
    main_metric: str

    def open(self, data: Path, *, with_images: bool = True) -> TaskData:
        """Find and check the data of the task.

        Args:
            data: Folder of datasets, or one dataset.
            with_images: Open the images; False if the caller supplies a store of their embeddings.

        Returns:
            The data.

        Raises:
            DatasetNotFoundError: If the dataset is missing.
            DataError: If the data are invalid.
            TableError: If a table of the dataset cannot be read.
        """

    def missing_modality(self, data: TaskData, modalities: frozenset[Modality]) -> Modality | None:
        """Return the modality that a model lacks for this task.

        Args:
            data: Data of the task.
            modalities: Modalities of the model.

        Returns:
            The missing modality; None if the model can be evaluated.
        """

    def evaluate(
        self,
        data: TaskData,
        encoder: Encoder,
        images: EmbeddingStore,
        scratch: Path,
        settings: Settings,
        progress: Progress = NO_PROGRESS,
    ) -> Outcome:
        """Rank the stored images by the queries of the task, and score the rankings.

        Args:
            data: Data of the task.
            encoder: The model, which embeds the queries.
            images: Store of the image embeddings.
            scratch: Folder for other embeddings of this model, such as those of captions.
            settings: Settings of the evaluation.
            progress: Receives the progress.

        Returns:
            Evaluations per query group, and the top hits.

        Raises:
            DataError: If the data cannot be scored.
        """


def dataset_folder(data: str | Path, name: str, *, task: str, file_allowed: bool = False) -> Path:
    """Locate the folder of a dataset, or the file that holds it.

    ``--data data`` thus works for all tasks, and ``--data patches`` for a custom dataset.

    Args:
        data: Folder of datasets, or one dataset.
        name: Folder name of the dataset.
        task: Name of the task, for messages.
        file_allowed: The dataset may be one file, such as a table of pairs or a tar.

    Returns:
        `data`/`name` if it exists, else `data`.

    Raises:
        DatasetNotFoundError: If there is no folder, or one that is empty or holds other datasets.
    """
    data = Path(data)
    remedy = (
        f"Fetch it (marsretrieval data download), make a synthetic one (marsretrieval data synth "
        f"--out {data}), or name the folder with --data."
    )
    if file_allowed and is_dataset_file(data):
        return data
    if data.is_file():
        kinds = (
            "a folder, or a .tar, .parquet, .csv or .tsv file," if file_allowed else "the folder"
        )
        raise DatasetNotFoundError(
            f"{data}: a file, not a folder (data of task {task})",
            remedy=f"Name {kinds} with --data.",
        )
    if not data.is_dir():
        kind = "folder"
        if data.suffix:
            kind, remedy = "file or folder", suggest_path(data)
        raise DatasetNotFoundError(f"{data}: no such {kind} (data of task {task})", remedy=remedy)
    if (data / name).is_dir():
        return data / name
    others = sorted(path.name for path in data.iterdir() if path.name.startswith("Mars-"))
    if others:
        raise DatasetNotFoundError(
            f"{data}: no {name} for task {task} (contents: {', '.join(others)})", remedy=remedy
        )
    if not any(data.iterdir()):
        raise DatasetNotFoundError(f"{data}: an empty folder (data of task {task})", remedy=remedy)
    return data


def collect(
    source: ImageSource, select: Callable[[Record], str | None], *, missing: str
) -> tuple[dict[str, str], list[Skipped]]:
    """Read an annotation of every item.

    Args:
        source: The images.
        select: Returns the annotation of a record; None or blank if it has none.
        missing: Reason for skipping items without an annotation.

    Returns:
        Item id to annotation, and the skipped items.
    """
    values: dict[str, str] = {}
    records, skipped = read_annotations(source)
    for record in records:
        value = select(record)
        if value and value.strip():
            values[record.id] = value
        else:
            reasons = [
                warning.reason for warning in record.warnings if warning.kind == "annotation"
            ]
            kind = Skipped if reasons else UnannotatedImage
            skipped.append(kind(record.id, record.source, "; ".join([missing, *reasons])))
    return values, skipped


def first_reason(skipped: Sequence[Skipped]) -> str:
    """Describe the first item that is skipped for another reason than a missing annotation.

    Args:
        skipped: Skipped items.

    Returns:
        Text in parentheses after a space; empty if there is no such item.
    """
    for item in skipped:
        if not isinstance(item, UnannotatedImage):
            return f" (first: {item.source}: {item.reason})"
    return ""


def first_rows(ids: Iterable[str]) -> dict[str, int]:
    """Map each id to its first row.

    Args:
        ids: Ids of the rows of a store; duplicates are allowed.

    Returns:
        Id to row; the first row of a duplicate id, as in `collect`.
    """
    rows: dict[str, int] = {}
    for row, key in enumerate(ids):
        rows.setdefault(key, row)
    return rows


def fingerprint(source: ImageSource, annotations: Mapping[str, str] | None = None) -> str:
    """Compute a hash that changes if an image or annotation may have changed.

    Args:
        source: The images of a task.
        annotations: Item id to caption or label, for tasks that read these.

    Returns:
        SHA-256 in hex.
    """
    shards = [[shard.name, shard.fingerprint] for shard in source.shards()]
    if annotations is None or source.kind not in ("folder", "classes", "csv"):
        return sha256_json(shards)  # files of other kinds include the annotations
    return sha256_json([shards, sorted(annotations.items())])


def count_cut(encoder: Encoder, texts: Sequence[str], *, role: TextRole) -> dict[str, int]:
    """Count the texts that are cut at the context length, and warn about cut queries.

    Args:
        encoder: The model that embeds the texts.
        texts: Captions, or the prompts of queries.
        role: Role of the texts.

    Returns:
        `captions` or `queries`: their number; `cut`: the number of cut texts. Empty if the encoder
        cannot count them.
    """
    cut = encoder.count_truncated(texts, role=role)
    if cut is None:
        return {}
    if role == "query" and cut:
        context = getattr(encoder, "context_length", None)
        limit = "" if context is None else f" of {context} tokens"
        first = next(text for text in texts if encoder.count_truncated([text], role=role))
        warnings.warn(
            f"{encoder.id}: {cut} of {pluralize(len(texts), 'prompt')} "
            f"{verb(cut, 'is', 'are')} cut at the context length{limit} "
            f"(first: '{shorten(first, 72, placeholder=' ...')}')",
            TruncatedTextWarning,
            stacklevel=3,
        )
    return {"captions" if role == "caption" else "queries": len(texts), "cut": cut}


def read_class_names(path: str | Path) -> dict[str, str | None]:
    """Read class names from a file.

    Args:
        path: A .json file (an object of label to name, or a list), a .csv file of rows LABEL,NAME,
            or a text file with one name per line; lists and lines count from 0. The name ``-``, or
            null in a .json, marks a distractor: its images are ranked, but it is no query.

    Returns:
        Label to name, None for distractors.

    Raises:
        DataError: If the file cannot be read or holds no names.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise DataError(f"{path}: no such file", remedy=_CLASS_NAMES_REMEDY)
        if not path.is_file() or path.stat().st_size > _MAX_CLASS_NAMES_BYTES:
            raise DataError(f"{path}: not a file of class names", remedy=_CLASS_NAMES_REMEDY)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})", remedy=_CLASS_NAMES_REMEDY) from error
    try:
        names = _parse_class_names(path.suffix.lower(), text)
    except DataError as error:
        message = error.message.removeprefix("it: ")
        raise DataError(f"{path}: {message}", remedy=_CLASS_NAMES_REMEDY) from error
    except (ValueError, csv.Error) as error:
        raise DataError(
            f"{path}: not readable as class names ({error})", remedy=_CLASS_NAMES_REMEDY
        ) from error
    if not names:
        raise DataError(f"{path}: holds no class names", remedy=_CLASS_NAMES_REMEDY)
    return names


def _parse_class_names(suffix: str, text: str) -> dict[str, str | None]:
    if suffix == ".csv":
        rows = [row for row in csv.reader(text.splitlines()) if any(row)]
        if any(len(row) != 2 for row in rows):
            raise ValueError("a line that is not LABEL,NAME")
        pairs = [(row[0], row[1]) for row in rows]
    elif suffix == ".json":
        value = parse_json(text, source="it")
        if isinstance(value, list):
            value = dict(enumerate(value))
        if not isinstance(value, dict) or not all(
            isinstance(name, str | None) for name in value.values()
        ):
            raise ValueError("not an object or list of texts")
        pairs = [
            (str(label), DISTRACTOR if name is None else name) for label, name in value.items()
        ]
    else:
        lines = text.splitlines()
        pairs = [(str(number), line) for number, line in enumerate(lines) if line.strip()]
    names = {label.strip(): name.strip() for label, name in pairs}
    if len(names) != len(pairs):
        raise ValueError("a duplicate label")
    if not all(names.values()):
        raise ValueError("a label without a name")
    for name in (*names, *names.values()):
        if has_control_characters(name):
            raise ValueError(f"control characters in '{printable(name, one_line=True)}'")
    return {label: None if name == DISTRACTOR else name for label, name in names.items()}
