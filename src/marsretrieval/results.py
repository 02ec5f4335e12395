"""The result of one model on one task: what is written, and what everything downstream reads."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Required

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError
from marsretrieval.io import Int64, JsonObject, from_json, make_folder, read_json, write_json

SCHEMA_VERSION = 1
PROTOCOLS = ("published", "strict")
MEAN = "mean over landforms/"  # prefix of a query group that is a mean of others

_REMEDY = "Leave it out, or run it again with this version of marsretrieval."


class Truncated(JsonObject, total=False):
    """Texts that are longer than the model reads."""

    captions: Int64
    queries: Int64
    cut: Int64


class SkippedItem(JsonObject):
    """An item that was left out, and why."""

    id: str
    source: str
    reason: str


class IntervalBasis(JsonObject):
    """What was resampled for the intervals of a protocol."""

    unit: str
    count: Int64


class ModelPart(JsonObject, total=False):
    """The model of a result."""

    id: Required[str]
    name: str | None
    repository: str | None
    revision: str | None
    checkpoint: str | None
    weights_sha256: str | None
    licence: str | None
    dtype: str | None
    loader: str | None
    prompts: dict[str, Any] | None
    parameters: Int64 | None
    dimension: Int64 | None


class DataPart(JsonObject, total=False):
    """The data of a result."""

    n: Required[dict[str, Int64]]
    set_hash: Required[str]
    name: str
    store_dtype: str
    repository: str | None
    revision: str | None
    variant: str | None
    truncated: Truncated
    skipped: list[SkippedItem]


class MetricsPart(JsonObject, total=False):
    """Metrics of a protocol by name; those of classes by the name of the class."""

    per_class: dict[str, dict[str, Any]] | None


class EvaluationPart(JsonObject, total=False):
    """`Evaluation.to_dict()` in a result."""

    n: Required[dict[str, Int64]]
    task: Required[str]
    published: Required[MetricsPart]
    strict: Required[MetricsPart]
    intervals: Required[dict[str, dict[str, Any]]]
    ties: dict[str, tuple[float, float]]
    chance: dict[str, MetricsPart]
    interval_basis: dict[str, IntervalBasis]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one evaluation under both protocols. All figures are fractions in 0..1,
    except median ranks and K.

    published, strict: metric name to figure (a float, or a nested mapping such as per_class).
    intervals: protocol to metric name to (low, high), 95 % bootstrap.
    ties: what ties could change: metric name to (worst, best); empty when there are none.
    per_query: equally long columns, one row a query.
    chance: protocol to the metrics expected of a random ranking, under the keys of `published` and
    `strict`; empty where they are unknown.
    interval_basis: protocol to what was resampled for its intervals: `unit` ("pairs", "classes",
    "spatial blocks") and `count`; of a mean over landforms the smallest count of a landform.
    drawn: protocol to metric name to its value in each resample, NaN where a resample has none;
    for intervals of means of evaluations, never written.
    """

    task: str
    n: Mapping[str, int]
    published: Mapping[str, Any]
    strict: Mapping[str, Any]
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    ties: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    per_query: Mapping[str, npt.NDArray[Any] | list[Any]] = field(default_factory=dict)
    chance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    interval_basis: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    drawn: Mapping[str, Mapping[str, npt.NDArray[np.float64]]] = field(default_factory=dict)

    def to_dict(self) -> EvaluationPart:
        """Plain data for JSON, without the per-query columns and resamples."""
        return {
            "task": self.task,
            "n": dict(self.n),
            "published": _plain(self.published),
            "strict": _plain(self.strict),
            "intervals": _plain(self.intervals),
            "ties": _plain(self.ties),
            "chance": _plain(self.chance),
            "interval_basis": _plain(self.interval_basis),
        }


@dataclass(frozen=True, slots=True)
class RunResult:
    """One JSON file. `data` always holds the number of items and the set hash: figures over
    different sets are not comparable. `request` is the hash of all that was asked for: model,
    options, data and settings; the same request need not be computed again."""

    task: str
    request: str
    model: ModelPart
    data: DataPart
    metrics: Mapping[str, EvaluationPart]  # by query group: "all", "alluvial_fans/text", ...
    seed: Int64
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    timings: Mapping[str, float]
    created: str  # ISO 8601, UTC
    schema_version: int = SCHEMA_VERSION
    settings: Mapping[str, Any] = field(default_factory=dict)  # seed, resamples; older: {}
    task_info: Mapping[str, Any] = field(default_factory=dict)  # of a task that is not built in

    def to_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def write(self, path: Path) -> None:
        write_json(path, self.to_dict())


def find_results(paths: Iterable[Path]) -> list[Path]:
    """Result files: those named, and MODEL/TASK.json at any depth below the folders named.

    Each comes once, however often it was named. Superseded results and what lies among embeddings
    are passed over. Raises DataError when a place does not exist.
    """
    files: list[Path] = []
    for source in paths:
        if source.is_dir():
            files += sorted(
                path
                for path in source.rglob("*.json")
                if not {"superseded", "embeddings"} & set(path.relative_to(source).parts)
            )
        elif source.exists():
            files.append(source)
        else:
            raise DataError(f"{source}: no such file or folder")
    return list({path.resolve(): path for path in files}.values())


def read_result(path: Path) -> RunResult:
    """Read a result file. Raises DataError naming it when it is damaged or of another schema."""
    value = read_json(path)
    if not isinstance(value, dict) or value.get("schema_version") != SCHEMA_VERSION:
        if not isinstance(value, dict) or "schema_version" not in value:
            raise DataError(f"{path}: not a result that marsretrieval run wrote")
        raise DataError(
            f"{path}: not a result of this version "
            f"(schema {value['schema_version']}, expected {SCHEMA_VERSION})",
            remedy="Run it again with this version of marsretrieval.",
        )
    result = from_json(RunResult, value, source=path, remedy=_REMEDY)
    try:
        datetime.datetime.fromisoformat(result.created)
    except ValueError as error:
        raise DataError(
            f"{path}: 'created' must be a time, not {result.created[:60]!r}", remedy=_REMEDY
        ) from error
    return result


@dataclass(frozen=True, slots=True)
class ResultKey:
    """What tells two results of one model on one task apart: the data and the settings.

    `set_hash`, `n` and `items_hash` are known after the evaluation only.
    """

    task: str
    fingerprint: str  # of the data, from the files' names, sizes and times
    settings: Mapping[str, Any]
    set_hash: str | None = None
    n: Mapping[str, int] | None = None
    items_hash: str | None = None

    @classmethod
    def from_result(cls, result: RunResult) -> ResultKey:
        """The key of a result that was computed or read."""
        data: Mapping[str, Any] = result.data if isinstance(result.data, Mapping) else {}
        return cls(
            task=result.task,
            fingerprint=data.get("fingerprint") or "",
            settings={"seed": result.seed, **(result.settings or {})},
            set_hash=data.get("set_hash"),
            n=data.get("n"),
            items_hash=data.get("items_hash"),
        )

    def same_data(self, other: ResultKey) -> bool:
        """Compare the data: their files, or the contents of the items where both are known."""
        if self.fingerprint and self.fingerprint == other.fingerprint:
            return True
        if self.set_hash is None or (self.set_hash, self.n) != (other.set_hash, other.n):
            return False
        return None in (self.items_hash, other.items_hash) or self.items_hash == other.items_hash

    def same_settings(self, other: ResultKey) -> bool:
        """Compare the settings that both have; results of older versions have the seed only."""
        shared = self.settings.keys() & other.settings.keys()
        return all(self.settings[name] == other.settings[name] for name in shared)

    def same(self, other: ResultKey) -> bool:
        """Return whether one of the two results replaces the other."""
        return self.task == other.task and self.same_data(other) and self.same_settings(other)


def results_of_task(folder: Path, task: str) -> Iterator[tuple[Path, RunResult]]:
    """Read the results of a task in the folder of a model: TASK.json first, then TASK.*.json.

    Args:
        folder: Folder of one model's results.
        task: Name of the task.

    Yields:
        Path and result; files that are no results are passed over.
    """
    for path in [folder / f"{task}.json", *sorted(folder.glob(f"{task}.*.json"))]:
        try:
            result = read_result(path)
        except DataError:
            continue
        if result.task == task:
            yield path, result


def choose_path(folder: Path, key: ResultKey) -> Path:
    """Choose the file for a result: that of the result that it replaces, else a new one.

    The first result of a task is TASK.json. Results on other data or with other settings stand
    beside it, as ``TASK.set-1a2b3c4d.seed-1.json``.

    Args:
        folder: Folder of one model's results.
        key: Data and settings of the result.

    Returns:
        The path, whether there is a file or not.
    """
    base = folder / f"{key.task}.json"
    first: ResultKey | None = None
    for path, result in results_of_task(folder, key.task):
        other = ResultKey.from_result(result)
        if path == base:
            first = other
        if key.same(other):
            return path
    if first is None:
        return base
    tags = [] if key.same_data(first) else [f"set-{key.fingerprint[:8]}"]
    tags += [
        f"{name}-{value}"
        for name, value in key.settings.items()
        if value != first.settings.get(name, value)
    ]
    stem = ".".join([key.task, *tags])
    path, number = folder / f"{stem}.json", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}.{number}.json"
    return path


def move_superseded(path: Path) -> Path:
    """Move a result and the tables beside it to ``superseded/`` of their folder.

    Args:
        path: The result file; it need not be readable.

    Returns:
        The folder that they are in now.
    """
    try:
        stamp = re.sub(r"[^0-9A-Za-z+-]", "", str(read_result(path).created))[:32]
    except DataError:
        stamp = ""
    stamp = stamp or f"unreadable-{path.stat().st_mtime_ns}"
    folder = make_folder(path.parent / "superseded")
    name, number = stamp, 1
    while (folder / f"{name}.{path.name}").exists():
        number += 1
        name = f"{stamp}-{number}"
    for suffix in (".json", ".queries.parquet", ".hits.parquet", ".thumbnails.parquet"):
        file = path.with_suffix(suffix)
        if file.exists():
            file.replace(folder / f"{name}.{file.name}")
    return folder


def _plain(value: Any) -> Any:
    """Numpy scalars and arrays, tuples and mappings to what json writes; NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
