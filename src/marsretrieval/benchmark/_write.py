"""Make the result of a job and write it, with the tables beside it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from marsretrieval._environment import hardware, package_versions
from marsretrieval.benchmark._plan import Job
from marsretrieval.datasets.download import read_record
from marsretrieval.datasets.synthetic import find_planet
from marsretrieval.embeddings import BuildReport, EmbeddingStore
from marsretrieval.encoders import Encoder
from marsretrieval.errors import DataError
from marsretrieval.files import atomic_path, sha256_json
from marsretrieval.results import RunResult, move_superseded, read_result
from marsretrieval.tasks import Outcome, task_info


def move_earlier(path: Path, request: str, say: Callable[[str], None]) -> None:
    """Move a result that another version of the model gave, or that is unreadable."""
    if not path.exists():
        return
    with suppress(DataError):
        if read_result(path).request == request:
            return
    say(f"{path}: an earlier result was here; it is now in {move_superseded(path)}")


def make_result(
    job: Job,
    encoder: Encoder,
    store: EmbeddingStore,
    outcome: Outcome,
    built: BuildReport | None,
    warnings: Sequence[str] = (),
) -> RunResult:
    skipped = {(item.id, item.source): item for item in job.data.skipped}
    for item in (*store.skipped, *outcome.skipped):
        skipped.setdefault((item.id, item.source), item)
    timings = dict(outcome.timings)
    if built is not None:
        timings |= built.timings
    record = job.record
    return RunResult(
        task=job.task.name,
        request=job.request,
        model={
            **encoder.fingerprint,  # type: ignore[typeddict-item]
            "label": job.name,
            "identity": dict(job.identity),
            "name": record.name,
            "family": record.family,
            "dimension": encoder.dimension,
            "parameters": record.parameters,
            "licence": record.licence,
            "checkpoint": str(job.options.checkpoint) if job.options.checkpoint else None,
            "warnings": list(warnings),
        },
        data={
            "name": job.data.folder.name,
            **provenance_of(job.data.folder),  # type: ignore[typeddict-item]
            "n": dict(outcome.n),
            "set_hash": outcome.set_hash,
            "items_hash": _items_hash(outcome),
            "fingerprint": job.data.fingerprint,
            "store_dtype": store.dtype,
            "truncated": dict(outcome.truncated),
            "skipped": [asdict(item) for item in skipped.values()],
            "notes": [*job.data.notes, *outcome.notes],
            **outcome.details,
        },
        metrics={name: each.to_dict() for name, each in outcome.groups.items()},
        seed=job.settings.seed,
        versions=package_versions(),
        hardware=hardware(str(getattr(encoder, "device", "cpu"))),
        timings=timings,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        settings=asdict(job.settings),
        task_info=task_info(job.task),
    )


def _items_hash(outcome: Outcome) -> str:
    """Identity of images and queries: set hash, counts, and points, which the first leaves out.

    Points count once per landform (the part of a group's name before the kind of query), so that
    models with different kinds of query have the same hash.
    """
    points = {
        group.rpartition("/")[0]: [
            np.asarray(evaluation.per_query[name], dtype=np.float64).tolist()
            for name in ("lon", "lat")
        ]
        for group, evaluation in outcome.groups.items()
        if {"lon", "lat"} <= evaluation.per_query.keys()
    }
    return sha256_json([outcome.set_hash, dict(outcome.n), points])


def provenance_of(folder: Path) -> dict[str, Any]:
    """Revision of a download, or seed of a synthetic planet, as the folder itself tells it."""
    record = read_record(folder)
    if record is not None:
        return {
            "repository": record.repository,
            "revision": record.revision,
            "variant": record.variant,
        }
    planet = find_planet(folder)
    if planet is not None:
        return {"synthetic": True, "seed": planet[1]["seed"], "version": planet[1]["version"]}
    return {}


def write_result(path: Path, result: RunResult, outcome: Outcome, thumbnails: pa.Table) -> None:
    """The result last: while it is missing, the job counts as not done."""
    tables = {
        "queries": per_query_table(outcome),
        "hits": outcome.hits.to_table(),
        "thumbnails": thumbnails,
    }
    for name, table in tables.items():
        with atomic_path(path.with_suffix(f".{name}.parquet")) as temporary:
            pq.write_table(table, temporary, compression="zstd")
    result.write(path)


def per_query_table(outcome: Outcome) -> pa.Table:
    tables = []
    for name, evaluation in outcome.groups.items():
        columns = {key: pa.array(column) for key, column in evaluation.per_query.items()}
        if columns:
            rows = len(next(iter(columns.values())))
            tables.append(pa.table({"group": pa.array([name] * rows), **columns}))
    return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})
