"""What a task is: data it can check without a model, and an evaluation over stored vectors."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Protocol

from marsretrieval.datasets import ImageSource, Record, Skipped, read_annotations
from marsretrieval.embeddings import EmbeddingStore
from marsretrieval.encoders import Encoder, Modality
from marsretrieval.errors import DataError, DatasetNotFoundError, TruncatedTextWarning
from marsretrieval.io import parse_json, sha256_json
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.results import Evaluation

if TYPE_CHECKING:
    import pyarrow as pa

    from marsretrieval.encoders import TextRole


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


def dataset_folder(data: Path, name: str, *, task: str) -> Path:
    """`data`/`name` where there is such a folder, else `data` itself.

    So ``--data data`` serves all tasks, and ``--data patches`` a dataset of one's own.
    Raises DatasetNotFoundError when there is no folder, or one that holds other datasets only.
    """
    remedy = (
        f"Fetch it (marsretrieval data download), make a synthetic one (marsretrieval data synth "
        f"--out {data}), or name the folder with --data."
    )
    if not data.is_dir():
        raise DatasetNotFoundError(f"{data}: no such folder (data of task {task})", remedy=remedy)
    if (data / name).is_dir():
        return data / name
    others = sorted(path.name for path in data.iterdir() if path.name.startswith("Mars-"))
    if others:
        raise DatasetNotFoundError(
            f"{data}: no {name} here for task {task} (there is {', '.join(others)})", remedy=remedy
        )
    if not any(data.iterdir()):
        raise DatasetNotFoundError(f"{data}: an empty folder (data of task {task})", remedy=remedy)
    return data


def collect(
    source: ImageSource, select: Callable[[Record], str | None], *, missing: str
) -> tuple[dict[str, str], list[Skipped]]:
    """Item id to what `pick` finds in its record; items without any are skipped as `missing`."""
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
            skipped.append(Skipped(record.id, record.source, "; ".join([missing, *reasons])))
    return values, skipped


def first_reason(skipped: Sequence[Skipped]) -> str:
    """Name the first item that is left out for another reason than a missing annotation.

    Args:
        skipped: Items that are left out.

    Returns:
        The words in parentheses, after a space; nothing where there is no such item.
    """
    for item in skipped:
        if item.reason not in ("no caption", "no label"):
            return f" (first: {item.source}: {item.reason})"
    return ""


def first_rows(ids: Iterable[str]) -> dict[str, int]:
    """Id to its row in a store; of an id that stands there twice the first, as in `collect`."""
    rows: dict[str, int] = {}
    for row, key in enumerate(ids):
        rows.setdefault(key, row)
    return rows


def fingerprint(source: ImageSource, annotations: Mapping[str, str] | None = None) -> str:
    """Compute what changes whenever an image or annotation may have changed.

    Args:
        source: The images of a task.
        annotations: Item id to caption or label, for tasks that read these.

    Returns:
        SHA-256 in hex.
    """
    shards = [[shard.name, shard.fingerprint] for shard in source.shards()]
    if annotations is None or source.kind not in ("folder", "classes"):
        return sha256_json(shards)  # files of other kinds hold the annotations, too
    return sha256_json([shards, sorted(annotations.items())])


def count_cut(encoder: Encoder, texts: Sequence[str], *, role: TextRole) -> dict[str, int]:
    """Count the texts that are cut at the context length, and warn of cut queries.

    Args:
        encoder: The model that embeds the texts.
        texts: Captions, or the prompts of queries.
        role: What the texts are.

    Returns:
        `captions` or `queries`, their number, and `cut`, how many of them; nothing where the
        encoder does not count them.
    """
    cut = encoder.count_truncated(texts, role=role)
    if cut is None:
        return {}
    if role == "query" and cut:
        context = getattr(encoder, "context_length", None)
        limit = "" if context is None else f" of {context} tokens"
        first = next(text for text in texts if encoder.count_truncated([text], role=role))
        warnings.warn(
            f"{encoder.id}: {cut} of {len(texts)} prompts are cut at the context length{limit} "
            f"(first: '{shorten(first, 72, placeholder=' ...')}')",
            TruncatedTextWarning,
            stacklevel=3,
        )
    return {"captions" if role == "caption" else "queries": len(texts), "cut": cut}


_MAX_CLASS_NAMES_BYTES = 2**24
_CLASS_NAMES_REMEDY = (
    "Write one name per line in the order of the labels from 0 (.txt), lines LABEL,NAME (.csv), "
    "or an object or list (.json)."
)


def read_class_names(path: Path) -> dict[str, str]:
    """Read the names of classes.

    Args:
        path: A .json (an object of label to name, or a list), a .csv of lines LABEL,NAME, or a text
            with one name per line; lists and lines count from 0.

    Returns:
        Label to name.

    Raises:
        DataError: If the file cannot be read, or holds no names.
    """
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


def _parse_class_names(suffix: str, text: str) -> dict[str, str]:
    if suffix == ".csv":
        rows = [row for row in csv.reader(text.splitlines()) if any(row)]
        if any(len(row) != 2 for row in rows):
            raise ValueError("a line that is not LABEL,NAME")
        pairs = [(row[0], row[1]) for row in rows]
    elif suffix == ".json":
        value = parse_json(text, source="it")
        if isinstance(value, list):
            value = dict(enumerate(value))
        if not isinstance(value, dict) or not all(isinstance(n, str) for n in value.values()):
            raise ValueError("not an object or list of texts")
        pairs = [(str(label), name) for label, name in value.items()]
    else:
        lines = text.splitlines()
        pairs = [(str(number), line) for number, line in enumerate(lines) if line.strip()]
    names = {label.strip(): name.strip() for label, name in pairs}
    if len(names) != len(pairs):
        raise ValueError("a label that comes twice")
    if not all(names.values()):
        raise ValueError("a label without a name")
    return names
