"""The result of one model on one task: what is written, and what everything downstream reads."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError
from marsretrieval.files import check_fields, from_json, read_json, write_json

__all__ = [
    "MEAN",
    "PROTOCOLS",
    "SCHEMA_VERSION",
    "Evaluation",
    "RunResult",
    "find_results",
    "read_result",
]

SCHEMA_VERSION = 1
PROTOCOLS = ("published", "strict")
MEAN = "mean over landforms/"  # prefix of a query group that is a mean of others

_AGAIN = "Leave it out, or run it again with this version of marsretrieval."
# Kinds of what tables and pages read; all else may be anything.
_MODEL = {
    **dict.fromkeys(
        ("name", "repository", "revision", "checkpoint", "weights_sha256", "licence", "dtype",
         "loader"), str | None,
    ),
    "id": str,
    "prompts": dict[str, Any] | None,
    **dict.fromkeys(("parameters", "dimension"), int | None),
}  # fmt: skip
_DATA = {
    **dict.fromkeys(("repository", "revision", "variant"), str | None),
    **dict.fromkeys(("name", "set_hash", "store_dtype"), str),
    "n": dict[str, int],
    "truncated": dict.fromkeys(("captions", "queries", "cut"), int),
    "skipped": list[dict[str, Any]],
}
_SKIPPED = dict.fromkeys(("id", "source", "reason"), str)
_EVALUATION = {
    **dict.fromkeys(("published", "strict", "intervals"), dict[str, Any]),
    "n": dict[str, int],
    "ties": dict[str, tuple[float, float]],
    "chance": dict[str, dict[str, Any]],
    "interval_basis": dict[str, dict[str, Any]],
}


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

    def to_dict(self) -> dict[str, Any]:
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
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    metrics: Mapping[str, Any]  # query group ("all", "alluvial_fans/text", ...) to Evaluation dict
    seed: int
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    timings: Mapping[str, float]
    created: str  # ISO 8601, UTC
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def write(self, path: Path) -> None:
        write_json(path, self.to_dict())


def find_results(places: Iterable[Path]) -> list[Path]:
    """Result files: those named, and MODEL/TASK.json at any depth below the folders named.

    Each comes once, however often it was named. Superseded results and what lies among embeddings
    are passed over. Raises DataError when a place does not exist.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += sorted(
                path
                for path in place.rglob("*.json")
                if not {"superseded", "embeddings"} & set(path.relative_to(place).parts)
            )
        elif place.exists():
            found.append(place)
        else:
            raise DataError(f"{place}: no such file or folder")
    return list({path.resolve(): path for path in found}.values())


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
    names = {field.name for field in fields(RunResult)}
    for what, wrong in (("lacks", names - value.keys()), ("unknown:", value.keys() - names)):
        if wrong:
            raise DataError(
                f"{path}: not a complete result ({what} {', '.join(sorted(wrong))})", remedy=_AGAIN
            )
    try:
        result = from_json(RunResult, value, source=path)
        check_fields(result.model, _MODEL, source=path, at="model", optional=True)
        check_fields(result.data, _DATA, source=path, at="data", optional=True)
        for number, item in enumerate(result.data.get("skipped", ())):
            check_fields(item, _SKIPPED, source=path, at=f"data.skipped[{number}]")
        for group, evaluation in result.metrics.items():
            at = f"metrics.{group}"
            check_fields(evaluation, _EVALUATION, source=path, at=at, optional=True)
            for protocol, basis in evaluation.get("interval_basis", {}).items():
                at_basis = f"{at}.interval_basis.{protocol}"
                check_fields(basis, {"unit": str, "count": int}, source=path, at=at_basis)
        datetime.datetime.fromisoformat(result.created)
    except DataError as error:
        raise DataError(error.message, remedy=_AGAIN) from error
    except ValueError as error:
        raise DataError(
            f"{path}: 'created' must be a time, not {result.created[:60]!r}", remedy=_AGAIN
        ) from error
    return result


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
