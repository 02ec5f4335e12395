"""Result files: the result of one model on one task, its key and its path."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Required

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError
from marsretrieval.io import (
    Int64,
    JsonObject,
    from_json,
    make_folder,
    read_json,
    sha256_json,
    write_json,
)
from marsretrieval.text import suggest_path

SCHEMA_VERSION = 1
PROTOCOLS = ("published", "strict")
_MAX_VALUE = 40  # characters of an option's value in tables
# First number: changed values; second number: additional metrics. docs/PROTOCOL.md lists them.
PROTOCOL_VERSIONS = {"published": "1.0", "strict": "1.1"}
MEAN = "mean over landforms/"  # prefix of query groups that average other groups

# Options of the evaluated system, whose results share a table. Results with other options, such as
# another radius, are measured differently and have tables of their own.
SYSTEM_OPTIONS = frozenset({"templates", "image_weight", "examples", "dim", "class_names"})

_REMEDY = "Leave it out, or run it again with this version of marsretrieval."


class Truncated(JsonObject, total=False):
    """Numbers of texts, and of those that exceed the context length of the model."""

    captions: Int64
    queries: Int64
    cut: Int64


class SkippedItem(JsonObject):
    """An item that was left out, and the reason."""

    id: str
    source: str
    reason: str


class IntervalBasis(JsonObject):
    """Resampling unit and count of the intervals of a protocol."""

    unit: str
    count: Int64


class ModelPart(JsonObject, total=False):
    """Description of the model in a result."""

    id: Required[str]
    name: str | None
    repository: str | None
    revision: str | None
    checkpoint: str | None
    weights_sha256: str | None
    licence: str | None
    trained_on: str | None
    verified_by: str | None
    dtype: str | None
    loader: str | None
    prompts: dict[str, Any] | None
    parameters: Int64 | None
    dimension: Int64 | None
    computed_elsewhere: bool


class LimitPart(JsonObject, total=False):
    """Limit of a result that is not on all items."""

    count: Int64
    items: str
    kept: Int64
    of: Int64 | None
    dropped_queries: Int64


class DataPart(JsonObject, total=False):
    """Description of the data in a result."""

    n: Required[dict[str, Int64]]
    set_hash: Required[str]
    name: str
    store_dtype: str
    repository: str | None
    revision: str | None
    variant: str | None
    truncated: Truncated
    skipped: list[SkippedItem]
    limit: LimitPart


class SettingsPart(JsonObject, total=False):
    """Settings in a result, of which `options` may be of any kind."""

    resamples: Int64 | None
    limit: Int64 | None


class MetricsPart(JsonObject, total=False):
    """Metrics of a protocol by name; `per_class` holds those of each class."""

    per_class: dict[str, dict[str, Any]] | None


class EvaluationPart(JsonObject, total=False):
    """JSON form of an `Evaluation`."""

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
    """Metrics of one evaluation under both protocols.

    All values are fractions in 0..1, except median ranks and K.

    Attributes:
        task: Name of the metric module: paired, landform or geolocalization.
        n: Numbers of items by kind.
        published: Metric name to value (a float, or a nested mapping such as per_class).
        strict: The same under the strict protocol.
        intervals: Protocol to metric name to (low, high), the 95 % bootstrap interval.
        ties: Metric name to (worst, best) over all orders of tied scores; empty without ties.
        per_query: Columns of equal length, one row per query.
        chance: Protocol to the expected metrics of a random ranking, with the keys of
            `published` and `strict`; empty if unknown.
        interval_basis: Protocol to the resampled `unit` ("pairs", "classes", "spatial blocks")
            and its `count`; for a mean over landforms, the smallest count of a landform.
        samples: Protocol to metric name to its value in each resample, NaN if undefined; used for
            the intervals of means of evaluations, never written.
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
    samples: Mapping[str, Mapping[str, npt.NDArray[np.float64]]] = field(default_factory=dict)

    def to_dict(self) -> EvaluationPart:
        """Convert to plain JSON data, without the per-query columns and resamples."""
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
    """Contents of one result file.

    Results with different set hashes are not comparable. Results with the same request hash
    are the same and need not be computed again.

    Attributes:
        task: Name of the task.
        request: Hash of the model, options, data and settings.
        model: Description of the model.
        data: Description of the data, always with the number of items and the set hash.
        metrics: Evaluation by query group: "all", "alluvial_fans/text", ...
        seed: Seed of the bootstrap.
        versions: Version by library.
        hardware: Platform, CPUs, memory and accelerator.
        timings: Seconds by stage.
        created: Time in UTC, ISO 8601.
        schema_version: Version of the file format.
        settings: Seed, resamples, and limit and options if set; empty in files of older versions.
        task_info: Description of a task that is not built in.
        protocol_versions: Version by protocol; empty in files of older versions.
    """

    task: str
    request: str
    model: ModelPart
    data: DataPart
    metrics: Mapping[str, EvaluationPart]
    seed: Int64
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    timings: Mapping[str, float]
    created: str
    schema_version: int = SCHEMA_VERSION
    settings: Mapping[str, Any] = field(default_factory=dict)
    task_info: Mapping[str, Any] = field(default_factory=dict)
    protocol_versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def limit(self) -> int | None:
        """Number of items that the data were limited to; None for all."""
        return (self.settings or {}).get("limit")

    @property
    def limit_note(self) -> str:
        """Mark of a limited result in tables, such as "limited to 100 pairs"; empty for others."""
        if self.limit is None:
            return ""
        limit: Mapping[str, Any] = self.data.get("limit") or {}
        return f"limited to {self.limit:,} {limit.get('items', 'items')}"

    @property
    def options(self) -> dict[str, Any]:
        """Options that differ from the published protocol."""
        options = (self.settings or {}).get("options")
        return dict(options) if isinstance(options, Mapping) else {}

    @property
    def measure_options(self) -> dict[str, Any]:
        """Options that change what is measured, such as the radius."""
        return {name: v for name, v in self.options.items() if name not in SYSTEM_OPTIONS}

    @property
    def system_note(self) -> str:
        """Options of the evaluated system, such as "5 templates"; empty for the published ones."""
        return describe_options({n: v for n, v in self.options.items() if n in SYSTEM_OPTIONS})

    @property
    def settings_note(self) -> str:
        """Limit and options in words; empty for the published protocol on all items."""
        return ", ".join(filter(None, (self.limit_note, describe_options(self.options))))

    @property
    def computed_elsewhere(self) -> bool:
        """Whether `score` made the result from embeddings or rankings computed elsewhere."""
        return bool(self.model.get("computed_elsewhere"))

    @property
    def from_ranking(self) -> bool:
        """Whether `score` made the result from a ranking computed elsewhere."""
        source = self.model.get("source")
        return isinstance(source, dict) and source.get("kind") == "run"

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON data."""
        plain: dict[str, Any] = _plain(self)
        return plain

    def write(self, path: str | Path) -> None:
        """Write the result file atomically.

        Args:
            path: The file.

        Raises:
            OutputError: If it cannot be written.
        """
        path = Path(path)
        write_json(path, self.to_dict())


def describe_options(options: Mapping[str, Any]) -> str:
    """Describe options for tables.

    Args:
        options: Options that differ from the published protocol.

    Returns:
        Descriptions joined by commas, such as "5 templates, radius 1 deg"; empty without options.
    """
    return ", ".join(_describe_option(name, value) for name, value in sorted(options.items()))


def _describe_option(name: str, value: Any) -> str:
    match name:
        case "caption":
            return f"{value} captions"
        case "queries":
            return "image queries (leave-one-out)" if value == "images" else f"{value} queries"
        case "radius":
            return f"radius {value:g} deg"
        case "depth":
            return f"depth {value:,}"
        case "image_weight":
            return f"image weight {value:g}"
        case "examples":
            return f"{value} example{'' if value == 1 else 's'}"
        case "dim":
            return f"{value} dimensions"
        case "templates":
            count = value if isinstance(value, int) else len(value)
            own = "" if isinstance(value, int) else f" {sha256_json(value)[:8]}"
            return f"{count} template{'' if count == 1 else 's'}{own}"
    label = name.replace("_", " ")
    short = isinstance(value, str | int | float) and len(str(value)) <= _MAX_VALUE
    return f"{label} {value if short else sha256_json(value)[:8]}"


def option_tags(options: Mapping[str, Any]) -> list[str]:
    """Build the parts of a file name that stand for options.

    Args:
        options: Options that differ from the published protocol.

    Returns:
        Parts such as "radius-1" and "templates-5".
    """
    tags = []
    for name, value in sorted(options.items()):
        label = name.replace("_", "-")
        if name == "templates" and not isinstance(value, int):
            tags.append(f"{label}-{len(value)}-{sha256_json(value)[:8]}")
        elif isinstance(value, int | float):
            tags.append(f"{label}-{value:.12g}")
        elif isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,24}", value):
            tags.append(f"{label}-{value}")
        else:
            tags.append(f"{label}-{sha256_json(value)[:8]}")
    return tags


def find_results(paths: Iterable[str | Path]) -> list[Path]:
    """Find result files: those named, and ``MODEL/TASK.json`` at any depth below the folders named.

    Superseded results and files below embedding stores are skipped.

    Args:
        paths: Result files and folders.

    Returns:
        Paths without duplicates.

    Raises:
        DataError: If a path does not exist.
    """
    files: list[Path] = []
    for source in map(Path, paths):
        if source.is_dir():
            files += sorted(
                path
                for path in source.rglob("*.json")
                if not {"superseded", "embeddings"} & set(path.relative_to(source).parts)
            )
        elif source.exists():
            files.append(source)
        else:
            raise DataError(f"{source}: no such file or folder", remedy=suggest_path(source))
    return list({path.resolve(): path for path in files}.values())


def read_result(path: str | Path) -> RunResult:
    """Read a result file.

    Args:
        path: The file.

    Returns:
        The result.

    Raises:
        DataError: If the file is missing, damaged or of another schema version.
    """
    path = Path(path)
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
    from_json(SettingsPart, dict(result.settings), source=f"{path}: 'settings'", remedy=_REMEDY)
    try:
        datetime.datetime.fromisoformat(result.created)
    except ValueError as error:
        raise DataError(
            f"{path}: 'created' must be a time, not {result.created[:60]!r}", remedy=_REMEDY
        ) from error
    return result


@dataclass(frozen=True, slots=True)
class ResultKey:
    """Data and settings that distinguish two results of one model on one task.

    Attributes:
        task: Name of the task.
        fingerprint: Hash of the names, sizes and times of the data files.
        settings: Seed, resamples and settings of the task.
        set_hash: Hash of the scored items; None before the evaluation.
        n: Numbers of items by kind; None before the evaluation.
        items_hash: Hash of the contents of the items; None before the evaluation.
    """

    task: str
    fingerprint: str
    settings: Mapping[str, Any]
    set_hash: str | None = None
    n: Mapping[str, int] | None = None
    items_hash: str | None = None

    @classmethod
    def from_result(cls, result: RunResult) -> ResultKey:
        """Make the key of a result.

        Args:
            result: A result that was computed or read.

        Returns:
            Its key.
        """
        data: Mapping[str, Any] = result.data if isinstance(result.data, Mapping) else {}
        return cls(
            task=result.task,
            fingerprint=data.get("fingerprint") or "",
            settings={
                "seed": result.seed,
                **(result.settings or {}),
                "limit": result.limit,
                "options": result.options,
            },
            set_hash=data.get("set_hash"),
            n=data.get("n"),
            items_hash=data.get("items_hash"),
        )

    def same_data(self, other: ResultKey) -> bool:
        """Compare the data files, or the contents of the items if both are known.

        Args:
            other: Another key.

        Returns:
            Whether both results are on the same data.
        """
        if self.fingerprint and self.fingerprint == other.fingerprint:
            return True
        if self.set_hash is None or (self.set_hash, self.n) != (other.set_hash, other.n):
            return False
        return None in (self.items_hash, other.items_hash) or self.items_hash == other.items_hash

    def same_settings(self, other: ResultKey) -> bool:
        """Compare the settings that both keys have; files of older versions have the seed only.

        Args:
            other: Another key.

        Returns:
            Whether these settings are equal.
        """
        shared = self.settings.keys() & other.settings.keys()
        return all(self.settings[name] == other.settings[name] for name in shared)

    def same(self, other: ResultKey) -> bool:
        """Compare task, data and settings.

        Args:
            other: Another key.

        Returns:
            Whether one of the two results replaces the other.
        """
        return self.task == other.task and self.same_data(other) and self.same_settings(other)


def results_of_task(folder: str | Path, task: str) -> Iterator[tuple[Path, RunResult]]:
    """Read the results of a task in the folder of a model: TASK.json first, then TASK.*.json.

    Args:
        folder: Folder of one model's results.
        task: Name of the task.

    Yields:
        Path and result; files that are not results are skipped.
    """
    folder = Path(folder)
    for path in [folder / f"{task}.json", *sorted(folder.glob(f"{task}.*.json"))]:
        try:
            result = read_result(path)
        except DataError:
            continue
        if result.task == task:
            yield path, result


def choose_path(folder: str | Path, key: ResultKey) -> Path:
    """Choose the file for a result: that of the result that it replaces, otherwise a new one.

    The first result of a task is TASK.json, the first limited one TASK.limit-100.json, the first
    with a radius TASK.radius-1.json. Results on other data or with other settings get names such as
    ``TASK.set-1a2b3c4d.seed-1.json``.

    Args:
        folder: Folder of one model's results.
        key: Data and settings of the result.

    Returns:
        The path, which need not exist.
    """
    folder = Path(folder)
    limit = key.settings.get("limit")
    marks = [] if limit is None else [f"limit-{limit}"]
    marks += option_tags(key.settings.get("options") or {})
    base = folder / ".".join([key.task, *marks, "json"])
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
        if name != "options" and value != first.settings.get(name, value)
    ]
    stem = ".".join([base.stem, *tags])
    path, number = folder / f"{stem}.json", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}.{number}.json"
    return path


def move_superseded(path: str | Path) -> Path:
    """Move a result and its tables to the subfolder ``superseded``.

    Args:
        path: The result file; it need not be readable.

    Returns:
        The subfolder.

    Raises:
        OutputError: If the subfolder cannot be written.
    """
    path = Path(path)
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
    """Convert dataclasses, mappings, tuples and numpy values to JSON types; NaN becomes None."""
    if value is None or type(value) in (str, int, bool):  # most values, without the checks below
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
