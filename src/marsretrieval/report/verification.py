"""Verify result files: their schema, their hashes, and their metrics by the tables beside them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from marsretrieval.errors import DataError
from marsretrieval.io import sha256_json
from marsretrieval.metrics import geolocalization, landform, paired
from marsretrieval.metrics.bootstrap import over_queries, seed_of
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.report.columns import look_up
from marsretrieval.report.matching import points_of, read_rankings, require_columns
from marsretrieval.report.result_files import ResultFile, read_whole
from marsretrieval.results import MEAN, Evaluation
from marsretrieval.tasks.geolocalization import RADIUS_DEG
from marsretrieval.tasks.landform_means import mean_over_landforms
from marsretrieval.tasks.tile_rankings import MAX_K
from marsretrieval.text import pluralize

_TOLERANCE = 1e-9  # between a stored and a recomputed value
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GEO_KEYS = {
    "published": ("auprc", "best.k", "best.f1", "best.precision", "best.recall"),
    "strict": ("average_precision", "best.k", "best.f1", "best.precision", "best.recall"),
}


@dataclass(slots=True)
class ResultVerification:
    """Outcome of the checks of one result file.

    Attributes:
        path: The file.
        checked: What was checked, with counts.
        unchecked: What could not be checked, with the reason.
        differences: One line per difference; empty if the file is verified.
    """

    path: Path
    checked: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    @property
    def verified(self) -> bool:
        """Whether no check failed."""
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "path": str(self.path), "verified": self.verified}


class _Checker:
    """Compare stored values with recomputed ones, and count them."""

    def __init__(self, file: ResultFile, outcome: ResultVerification) -> None:
        self.file = file
        self.outcome = outcome
        self.metrics = 0
        self.intervals = 0

    def metric(self, group: str, protocol: str, key: str, value: float) -> None:
        stored = look_up(self.file.result.metrics[group][protocol], key)  # type: ignore[literal-required]
        if stored is None:
            return  # a metric that the version of the result did not compute
        self.metrics += 1
        if not abs(float(stored) - value) <= _TOLERANCE:
            self.outcome.differences.append(
                f"{group}: {protocol} {key} is {stored!r}, but {value!r} by its tables"
            )

    def interval(self, group: str, protocol: str, key: str, ends: tuple[float, float]) -> None:
        stored = self.file.result.metrics[group]["intervals"].get(protocol, {}).get(key)
        if stored is None:
            return
        self.intervals += 1
        same = np.allclose(
            np.array(stored, dtype=np.float64), ends, rtol=0, atol=_TOLERANCE, equal_nan=True
        )
        if not same:
            self.outcome.differences.append(
                f"{group}: interval of {protocol} {key} is {list(stored)}, but {list(ends)} by its "
                "tables"
            )

    def count(self, what: str, stored: object, value: object) -> None:
        if stored != value:
            self.outcome.differences.append(f"{what}: {stored!r}, but {value!r} by its tables")

    def finish(self) -> None:
        self.outcome.checked += [f"{self.metrics} metrics", f"{self.intervals} intervals"]


def verify_result(path: str | Path, *, progress: Progress = NO_PROGRESS) -> ResultVerification:
    """Check a result file against its schema and the tables beside it.

    The schema, the range of every value, the format of the hashes and `items_hash` are checked
    without tables. The metrics and their intervals are recomputed from the ranks and scores in the
    tables: for pairs from the rank of every query, for landforms from the metrics of every class,
    for geo-localization from the ranking of tiles and the points.

    Args:
        path: The file.
        progress: Receives the progress.

    Returns:
        The outcome; a file that is not a valid result has its error as the only difference.
    """
    path = Path(path)
    outcome = ResultVerification(path)
    try:
        file = read_whole(path)
    except DataError as error:
        outcome.differences.append(error.message.removeprefix(f"{path}: "))
        return outcome
    outcome.checked.append("schema and ranges")
    try:
        _check_hashes(file, outcome)
        verify = _TASKS.get(file.result.task)
        if verify is None:
            outcome.unchecked.append("metrics: not a built-in task")
        elif file.queries is None:
            outcome.unchecked.append(
                f"metrics: {Path(file.beside('queries') or '').name} is missing or empty"
            )
        else:
            checker = _Checker(file, outcome)
            verify(checker, progress)
            checker.finish()
    except DataError as error:
        outcome.differences.append(error.message.removeprefix(f"{path}: "))
    return outcome


def _check_hashes(file: ResultFile, outcome: ResultVerification) -> None:
    """Check the format of the hashes, and recompute the hash of the items."""
    result = file.result
    data: Mapping[str, Any] = result.data
    hashes = {
        "set_hash": data.get("set_hash"),
        "items_hash": data.get("items_hash"),
        "fingerprint": data.get("fingerprint"),
        "weights_sha256": result.model.get("weights_sha256"),
        "request": result.request,
    }
    present = {name: value for name, value in hashes.items() if value is not None}
    for name, value in present.items():
        if not _SHA256.fullmatch(str(value)):
            outcome.differences.append(f"{name} is not a SHA-256 hash: {str(value)[:80]!r}")
    outcome.checked.append(f"format of {len(present)} hashes")
    if data.get("items_hash") is None:
        outcome.unchecked.append("items_hash: not in the result")
        return
    points: dict[str, Any] = {}
    if result.task == "geolocalization":
        if file.queries is None:
            outcome.unchecked.append("items_hash: the table of queries is missing")
            return
        for group, positions in points_of(file).items():
            points[group.rpartition("/")[0]] = [column.tolist() for column in positions.T]
    elif file.queries is not None and {"lon", "lat"} <= set(file.queries.column_names):
        outcome.unchecked.append("items_hash: of a task with positions")
        return
    expected = sha256_json([data["set_hash"], dict(data["n"]), points])
    if expected != data["items_hash"]:
        outcome.differences.append(
            f"items_hash is {data['items_hash']}, but {expected} by set_hash, n and points"
        )
    outcome.checked.append("items_hash")


def _resampling(checker: _Checker) -> tuple[int, int]:
    """Seed and number of resamples; 0 resamples if the result does not state them."""
    result = checker.file.result
    resamples = (result.settings or {}).get("resamples")
    if resamples is None:
        checker.outcome.unchecked.append("intervals: the result does not state its resamples")
        return result.seed, 0
    return result.seed, int(resamples)


def _protocols(checker: _Checker, group: str) -> tuple[str, ...]:
    """Protocols that the tables determine: both without ties, else strict only."""
    if checker.file.result.metrics[group].get("ties"):
        checker.outcome.unchecked.append(
            "published metrics: scores tie, and the tables have ranks under strict only"
        )
        return ("strict",)
    return ("published", "strict")


def _verify_paired(checker: _Checker, progress: Progress) -> None:
    file = checker.file
    require_columns(file, "queries", ("id", "i2t_rank", "t2i_rank"))
    table = _group_rows(file, "all")
    ranks = {way: table.column(f"{way}_rank").to_numpy() for way in ("i2t", "t2i")}
    pairs = table.num_rows
    checker.count("pairs", file.result.data["n"].get("pairs"), pairs)
    for way, column in ranks.items():
        if pairs and (column.min() < 1 or column.max() > pairs):
            raise DataError(
                f"{file.beside('queries')}: {way}_rank is not within 1 to {pairs}",
                remedy="Run the task again with --force.",
            )
    seed, resamples = _resampling(checker)
    metrics, intervals = paired.score_ranks(ranks, seed=seed, resamples=resamples)
    for protocol in _protocols(checker, "all"):
        for key, value in metrics.items():
            checker.metric("all", protocol, key, value)
        for key, ends in intervals.items():
            checker.interval("all", protocol, key, ends)
    chance = paired.expect_random(pairs)
    for protocol, expected in file.result.metrics["all"].get("chance", {}).items():
        for key, value in chance.items():
            stored = expected.get(key)
            if isinstance(stored, int | float) and abs(stored - value) > _TOLERANCE:
                checker.outcome.differences.append(
                    f"all: chance of {protocol} {key} is {stored!r}, but {value!r} for {pairs:,} "
                    "pairs"
                )
    checker.outcome.checked.append("chance")


def _verify_landform(checker: _Checker, progress: Progress) -> None:
    file = checker.file
    table = _group_rows(file, "all")
    keys = [key for key in landform.KEYS if key in table.column_names]
    require_columns(file, "queries", ("class", *landform.PUBLISHED_KEYS))
    names = [str(name) for name in table.column("class").to_pylist()]
    checker.count("classes", file.result.data["n"].get("classes"), len(names))
    columns = {key: table.column(key).to_numpy().astype(np.float64) for key in keys}
    seed, resamples = _resampling(checker)
    intervals = over_queries(columns, seed=seed, resamples=resamples)
    for protocol in _protocols(checker, "all"):
        per_class = file.result.metrics["all"][protocol].get("per_class") or {}  # type: ignore[literal-required]
        checker.count(f"classes of {protocol} per_class", sorted(per_class), sorted(names))
        for key, column in columns.items():
            checker.metric("all", protocol, key, float(np.mean(column)))
            for name, value in zip(names, column, strict=True):
                stored = per_class.get(name, {}).get(key)
                if stored is not None and abs(stored - value) > _TOLERANCE:
                    checker.outcome.differences.append(
                        f"all: {protocol} {key} of {name} is {stored!r}, but {float(value)!r} by "
                        "its tables"
                    )
        for key, ends in intervals.items():
            checker.interval("all", protocol, key, ends)
    checker.outcome.unchecked.append(
        "the metrics of a class and chance: the tables do not hold the rankings"
    )


def _verify_geolocalization(checker: _Checker, progress: Progress) -> None:
    file = checker.file
    points = points_of(file)
    groups = [group for group in file.result.metrics if not group.startswith(MEAN)]
    checker.count("query groups", sorted(groups), sorted(points))
    shared = [group for group in groups if group in points]
    if file.hits is None:
        name = Path(file.beside("hits") or "").name
        checker.outcome.unchecked.append(f"metrics: {name} is missing or empty")
        return
    corners = read_rankings(file, set(shared), "published")
    centres = read_rankings(file, set(shared), "strict")
    seed, resamples = _resampling(checker)
    options = file.result.options
    recomputed: dict[str, Evaluation] = {}
    with progress.start("verify", len(shared), "queries") as bar:
        for group in shared:
            ranking = centres[group]
            evaluation = geolocalization.evaluate(
                ranking.scores,
                ids=ranking.ids,
                published_lonlat=corners[group].lonlat,
                centre_lonlat=ranking.lonlat,
                truth_lonlat=points[group],
                radius_deg=float(options.get("radius", RADIUS_DEG)),
                max_k=int(options.get("depth", MAX_K)),
                seed=seed_of(seed, group.rpartition("/")[0]),
                resamples=resamples,
                chance={},
            )
            recomputed[group] = evaluation
            _check_points(checker, group, evaluation)
            bar.advance()
    for group, evaluation in (recomputed | mean_over_landforms(recomputed)).items():
        if group not in file.result.metrics:
            continue
        for protocol, keys in _GEO_KEYS.items():
            for key in keys:
                value = look_up(getattr(evaluation, protocol), key)
                if value is not None:
                    checker.metric(group, protocol, key, float(value))
            for key, ends in evaluation.intervals.get(protocol, {}).items():
                checker.interval(group, protocol, key, ends)
    checker.outcome.unchecked.append(
        "ceiling, normalised and chance: the tables do not hold all tiles"
    )


def _check_points(checker: _Checker, group: str, evaluation: Evaluation) -> None:
    """Compare the rank that covers each point."""
    stored: npt.NDArray[Any] = _group_rows(checker.file, group).column("found_at").to_numpy()
    different = int(np.count_nonzero(stored != evaluation.per_query["found_at"]))
    if different:
        checker.outcome.differences.append(
            f"{group}: found_at of {different} of {pluralize(len(stored), 'point')} differs from "
            "its ranking"
        )


def _group_rows(file: ResultFile, group: str) -> pa.Table:
    table = file.queries
    assert table is not None
    return table.filter(pc.equal(table.column("group"), group))


_TASKS: Mapping[str, Callable[[_Checker, Progress], None]] = {
    "paired-image-text": _verify_paired,
    "landform": _verify_landform,
    "geolocalization": _verify_geolocalization,
}
