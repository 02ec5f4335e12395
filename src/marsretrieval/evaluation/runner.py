"""Run the jobs of a benchmark: load, embed, evaluate and write results."""

from __future__ import annotations

import datetime
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from marsretrieval.datasets.base import UnusedFile
from marsretrieval.datasets.records import find_planet, read_record
from marsretrieval.embeddings.builder import BuildReport, build_store
from marsretrieval.embeddings.manifest import ModelRequest
from marsretrieval.embeddings.pipeline import DecodeIn
from marsretrieval.embeddings.plan import drop_stores, invalidate_cache, prepare_cache
from marsretrieval.embeddings.store import EmbeddingStore, TruncatedStore, open_store
from marsretrieval.encoders.base import Encoder, TruncatedEncoder
from marsretrieval.encoders.doctor import check_batches
from marsretrieval.encoders.registry import load
from marsretrieval.errors import DataError, MarsRetrievalError, StoreError
from marsretrieval.evaluation.jobs import Job, unfinished_marker
from marsretrieval.io import atomic_path, locked, make_folder, sha256_json
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.results import (
    PROTOCOL_VERSIONS,
    ResultKey,
    RunResult,
    choose_path,
    move_superseded,
    read_result,
)
from marsretrieval.system import hardware, package_versions, peak_memory, reset_peak_memory
from marsretrieval.tasks import Outcome, task_info
from marsretrieval.tasks.thumbnails import make_thumbnails
from marsretrieval.text import pluralize

_DEVICE_KEYS = {"dtype", "device"}  # "auto" selects the precision by device
_BACKUP_NOTE = "the earlier ones are kept beside them (*.earlier)"


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished job, with its result or error.

    Attributes:
        job: The job.
        result: The result, new or from an earlier run.
        computed: Whether the result is new.
        error: Error that ended the job.
        path: Path of the result.
    """

    job: Job
    result: RunResult | None = None
    computed: bool = False
    error: MarsRetrievalError | None = None
    path: Path | None = None


def run(
    jobs: Sequence[Job],
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    decode_in: DecodeIn = "threads",
    strict: bool = False,
    progress: Progress = NO_PROGRESS,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Finished]:
    """Run the jobs, one model after the other, and yield each job when it ends.

    A failed job is yielded with its error, and the other jobs continue. Results, per-query metrics
    and hits are written before a job is yielded. Embeddings in the folder of results are reused if
    the same version of the model made them; those of another version are moved away and computed
    again. Before a model computes anything, a batch of two images and two texts is compared with
    single items; `say` receives a warning if they differ.

    Args:
        jobs: Jobs of `plan`.
        batch_size: Images per batch; default: chosen for the device.
        workers: Workers that decode images; default: one per CPU.
        decode_in: Threads or processes.
        strict: Fail if an image cannot be read or embedded.
        progress: Receives the progress.
        say: Receives a status line, such as the reason why an earlier result is outdated.

    Yields:
        One `Finished` per job.
    """
    build = {
        "batch_size": batch_size,
        "workers": workers,
        "decode_in": decode_in,
        "strict": strict,
    }
    for _, group in groupby(jobs, key=lambda job: job.folder):
        of_model = list(group)
        encoder: Encoder | None = None
        warnings: list[str] | None = None
        failure: MarsRetrievalError | None = None
        if any(_needs_model(job) for job in of_model):
            try:
                _mark_outdated([job for job in of_model if job.force and job.refusal is None])
                encoder = _load(of_model[0], progress, say)
            except MarsRetrievalError as error:
                failure = error
        for job in of_model:
            refusal = failure if _needs_model(job) else job.refusal
            if refusal is not None:
                yield Finished(job, error=refusal)
                continue
            try:
                if job.status == "done":
                    earlier = read_result(job.result_path)
                    reason = None if encoder is None else _explain_model_change(earlier, encoder)
                    if reason is None:
                        yield Finished(job, earlier, path=job.result_path)
                        continue
                    job = replace(job, status="to do", reason=reason)
                assert encoder is not None
                if warnings is None:
                    warnings = check_batches(encoder)
                    for warning in warnings:
                        say(f"warning: {job.name}: {warning}")
                reset_peak_memory()
                finished = _compute(job, encoder, build, warnings, progress, say)
            except MarsRetrievalError as error:
                _remove_empty_folders(job)
                yield Finished(job, error=error)
            else:
                yield finished


def move_earlier(path: Path, request: str, say: Callable[[str], None]) -> None:
    """Move away an outdated or unreadable result.

    Args:
        path: Path of the result.
        request: Hash of the request; a result of the same request stays.
        say: Receives a line if a result is moved.
    """
    if not path.exists():
        return
    with suppress(DataError):
        if read_result(path).request == request:
            return
    say(f"{path}: the earlier result was moved to {move_superseded(path)}")


def make_result(
    job: Job,
    encoder: Encoder,
    store: EmbeddingStore,
    outcome: Outcome,
    built: BuildReport | None,
    warnings: Sequence[str] = (),
    *,
    dimension: int | None = None,
    memory: Mapping[str, int] | None = None,
) -> RunResult:
    """Assemble the result of a job.

    Args:
        job: The job.
        encoder: The model.
        store: Store of the image embeddings.
        outcome: Outcome of the evaluation.
        built: Report on the store if it was built; adds its timings.
        warnings: Warnings about the model.
        dimension: Dimension of the evaluated vectors; None: that of the encoder.
        memory: Peak memory by kind, as returned by `peak_memory`.

    Returns:
        The result.
    """
    skipped = {(item.id, item.source): item for item in job.data.skipped}
    for item in (*store.skipped, *outcome.skipped):
        skipped.setdefault((item.id, item.source), item)
    timings = dict(outcome.timings)
    if built is not None:
        timings |= built.timings
    spec = job.spec
    return RunResult(
        task=job.task.name,
        request=job.request,
        model={
            **encoder.fingerprint,  # type: ignore[typeddict-item]
            "label": job.name,
            "identity": dict(job.identity),
            "name": spec.name,
            "family": spec.family,
            "dimension": dimension or encoder.dimension,
            "parameters": spec.parameters,
            "licence": spec.licence,
            "trained_on": spec.trained_on,
            "verified_by": spec.verified_by,
            "checkpoint": str(job.options.checkpoint) if job.options.checkpoint else None,
            "warnings": list(warnings),
        },
        data={
            "name": job.data.folder.name,
            **provenance_of(job.data.folder),  # type: ignore[typeddict-item]
            "n": dict(outcome.n),
            "set_hash": outcome.set_hash,
            "items_hash": hash_items(outcome),
            "fingerprint": job.data.fingerprint,
            "store_dtype": store.dtype,
            "truncated": dict(outcome.truncated),
            "skipped": [asdict(item) for item in skipped.values()],
            "notes": [*job.data.notes, *outcome.notes],
            **({} if job.data.limit is None else {"limit": dict(job.data.limit)}),
            **outcome.details,
        },
        metrics={name: evaluation.to_dict() for name, evaluation in outcome.groups.items()},
        seed=job.settings.seed,
        versions=package_versions(),
        hardware={**hardware(str(getattr(encoder, "device", "cpu"))), **(memory or {})},
        timings=timings,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        settings=job.settings.to_dict(),
        task_info=task_info(job.task),
        protocol_versions=PROTOCOL_VERSIONS,
    )


def hash_items(outcome: Outcome) -> str:
    """Compute the identity of images and queries: set hash, counts and ground-truth points.

    Points count once per landform (the part of a group's name before the kind of query), so that
    models with different kinds of query have the same hash.

    Args:
        outcome: Outcome of an evaluation.

    Returns:
        SHA-256 in hex.
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
    """Read the provenance of a dataset from its folder.

    Args:
        folder: Folder of the dataset.

    Returns:
        Repository, revision and variant of a download, or seed and version of a synthetic planet;
        empty if unknown.
    """
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
    """Write a result and its tables. The result is written last: without it the job is not done.

    Args:
        path: Path of the result.
        result: The result.
        outcome: Outcome with per-query metrics and hits.
        thumbnails: Table of thumbnails.

    Raises:
        OutputError: If a file cannot be written.
    """
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
    """Build the table of queries of all groups.

    Args:
        outcome: Outcome of an evaluation.

    Returns:
        Table with the column `group` and the per-query columns of the evaluations.
    """
    tables = []
    for name, evaluation in outcome.groups.items():
        columns = {key: pa.array(column) for key, column in evaluation.per_query.items()}
        if columns:
            rows = len(next(iter(columns.values())))
            tables.append(pa.table({"group": pa.array([name] * rows), **columns}))
    return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})


def _mark_outdated(jobs: Sequence[Job]) -> None:
    """Mark results and embeddings as outdated, so that a forced run may be interrupted."""
    for folder in {job.cache for job in jobs}:
        invalidate_cache(folder)
    for job in jobs:
        if job.result_path.exists():
            with suppress(OSError):  # writing the result reports the problem
                unfinished_marker(job.result_path).touch()


def _load(job: Job, progress: Progress, say: Callable[[str], None]) -> Encoder:
    """Load the model of a job, with a progress bar: importing torch alone takes seconds."""
    say(f"loading {job.spec.id}")
    with progress.start(f"load {job.spec.id}", None, ""):
        return load(job.spec, job.options)


def _compute(
    job: Job,
    encoder: Encoder,
    build: Mapping[str, Any],
    warnings: Sequence[str],
    progress: Progress,
    say: Callable[[str], None],
) -> Finished:
    """Embed what is missing, evaluate, and write the result."""
    if job.reason is not None:
        say(f"{job.name} on {job.task.name}: {job.reason}; computing again")
    report = _update_stores(job, encoder, build, progress, say)
    store = open_store(job.store)
    if not job.own_store:
        store.require_encoder(encoder.fingerprint)
    if build["strict"]:
        _require_none_skipped(job, store)
    outcome, dimension = _evaluate(job, encoder, store, progress)
    thumbnails, notes = make_thumbnails(outcome, job.data, store, progress)
    outcome = replace(outcome, notes=[*outcome.notes, *notes])
    for note in outcome.notes:
        say(note)
    result = make_result(
        job, encoder, store, outcome, report, warnings, dimension=dimension, memory=peak_memory()
    )
    make_folder(job.folder)
    with locked(job.folder):
        path = choose_path(job.folder, ResultKey.from_result(result))
        move_earlier(path, job.request, say)
        write_result(path, result, outcome, thumbnails)
    unfinished_marker(job.result_path).unlink(missing_ok=True)
    return Finished(job, result, computed=True, path=path)


def _evaluate(
    job: Job, encoder: Encoder, store: EmbeddingStore, progress: Progress
) -> tuple[Outcome, int]:
    """Evaluate a job, on truncated vectors if its settings say so; return the dimension as well."""
    dim = job.settings.options.get("dim")
    if dim is None:
        outcome = job.task.evaluate(job.data, encoder, store, job.cache, job.settings, progress)
        return outcome, encoder.dimension
    make_folder(job.cache)
    # Captions are embedded again: the store of the full ones stays as it is.
    with tempfile.TemporaryDirectory(prefix=".truncated-", dir=job.cache) as scratch:
        outcome = job.task.evaluate(
            job.data, TruncatedEncoder(encoder, dim), TruncatedStore(store, dim), Path(scratch),
            job.settings, progress,
        )  # fmt: skip
    return outcome, dim


def _require_none_skipped(job: Job, store: EmbeddingStore) -> None:
    """Raise DataError if the dataset or the store skipped an image."""
    images = [item for item in job.data.skipped if not isinstance(item, UnusedFile)]
    items = [*images, *store.skipped]
    if items:
        raise DataError(
            f"{pluralize(len(items), 'image')} left out (first: {items[0].source}: "
            f"{items[0].reason})",
            remedy="Repair or remove them, or leave out --strict to skip such images.",
        )


def _update_stores(
    job: Job,
    encoder: Encoder,
    build: Mapping[str, Any],
    progress: Progress,
    say: Callable[[str], None],
) -> BuildReport | None:
    """Build or complete the stores of a job for this version of the model."""
    reason = prepare_cache(job.cache, job.identity, encoder.fingerprint)
    if reason is not None:
        say(f"{job.cache}: embeddings are computed again: {reason}; {_BACKUP_NOTE}")
    if job.data.source is None:
        return None
    for last in (False, True):
        try:
            return build_store(
                encoder,
                job.data.source,
                job.store,
                dtype=job.task.vector_dtype,
                request=ModelRequest.from_spec(job.spec, job.options),
                progress=progress,
                **build,
            )
        except StoreError as error:
            if last or not drop_stores(job.cache):
                raise
            say(f"{job.cache}: embeddings are computed again: {error.message}; {_BACKUP_NOTE}")
    raise AssertionError


def _needs_model(job: Job) -> bool:
    """Return whether the model must be loaded: to compute, or for its fingerprint."""
    if job.status == "to do":
        return True
    if job.status == "refused" or job.spec.family != "plugin":
        return False
    # The result of a class without a fingerprint is identified by the hash of its source.
    model = read_result(job.result_path).model
    return "source_sha256" not in model and "fingerprint" not in job.identity


def _explain_model_change(earlier: RunResult, encoder: Encoder) -> str | None:
    """Explain why a result is not of this encoder; None if it is."""
    now = json.loads(json.dumps(encoder.fingerprint))
    changed = [
        name
        for name, value in now.items()
        if name not in _DEVICE_KEYS and earlier.model.get(name) != value
    ]
    return f"the model has changed ({', '.join(changed)})" if changed else None


def _remove_empty_folders(job: Job) -> None:
    """Remove the empty folders of a failed job."""
    for folder in (job.store / "shards", job.store, job.cache, job.cache.parent, job.folder,
                   job.folder.parent):  # fmt: skip
        if folder == job.store and not job.own_store:
            continue
        with suppress(OSError):
            folder.rmdir()  # fails unless it is empty
