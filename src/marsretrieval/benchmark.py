"""Models x tasks: plan what is to do, skip what is done, write one result for each pair."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from marsretrieval._environment import hardware, package_versions
from marsretrieval._words import counted
from marsretrieval.embeddings import (
    BuildReport,
    DecodeIn,
    EmbeddingStore,
    ModelRequest,
    build_store,
    open_store,
)
from marsretrieval.encoders import Encoder, LoadOptions, ModelRecord, load
from marsretrieval.errors import DataError, MarsRetrievalError, ModalityError, StoreError
from marsretrieval.files import atomic_path, check_output, make_folder, read_json, sha256_json
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.results import SCHEMA_VERSION, RunResult, read_result
from marsretrieval.tasks import Outcome, Settings, Task, TaskData

__all__ = ["Finished", "Job", "plan", "run"]


@dataclass(frozen=True, slots=True)
class Job:
    """One model on one task, before anything heavy is loaded."""

    record: ModelRecord
    options: LoadOptions
    task: Task
    data: TaskData
    settings: Settings
    folder: Path  # of this model's results
    store: Path  # of the image embeddings
    own_store: bool  # False: the user's, read only
    status: Literal["done", "to do"]

    @property
    def result_path(self) -> Path:
        return self.folder / f"{self.task.name}.json"

    @property
    def request(self) -> str:
        return _request(self.record, self.options, self.task, self.data, self.settings)


@dataclass(frozen=True, slots=True)
class Finished:
    """How a job ended: a result, freshly computed or kept from before, or an error."""

    job: Job
    result: RunResult | None = None
    computed: bool = False
    error: MarsRetrievalError | None = None


def plan(
    records: Sequence[ModelRecord],
    tasks: Sequence[Task],
    *,
    data: Path,
    results: Path,
    options: LoadOptions,
    settings: Settings,
    tiles_store: Path | None = None,
    force: bool = False,
) -> list[Job]:
    """Check data and models for every pair, and find out what was computed before.

    `tiles_store` is a finished store for geo-localization, in place of the tiles themselves.
    Raises ModalityError for a vision-only model on a task of texts, OutputError where results
    plainly cannot be written, and the tasks' data errors:
    all before a model is loaded.
    """
    opened = {
        task.name: task.open(data, with_images=not _brings_store(task, tiles_store))
        for task in tasks
    }
    if tiles_store is not None:
        tiles = _finished_store(tiles_store)
        for task in filter(lambda each: _brings_store(each, tiles_store), tasks):
            found = opened[task.name]
            both = sha256_json([found.fingerprint, tiles.set_hash])
            opened[task.name] = replace(found, fingerprint=both)
    jobs = []
    for record in records:
        for task in tasks:
            found = opened[task.name]
            lacking = task.missing_modality(found, record.modalities)
            if lacking is not None:
                raise ModalityError(
                    f"{record.id} has no {lacking} side, which task {task.name} needs",
                    remedy="Leave this pair out, or choose another model: marsretrieval models",
                )
            folder = results / variant(record, options)
            own = not _brings_store(task, tiles_store)
            store = folder / "embeddings" / _dataset_key(found.folder) if own else tiles_store
            assert store is not None
            request = _request(record, options, task, found, settings)
            path = folder / f"{task.name}.json"
            done = not force and _is_done(path, request)
            if not done:
                check_output(path)
            jobs.append(
                Job(record, options, task, found, settings, folder, store, own,
                    "done" if done else "to do")
            )  # fmt: skip
    return jobs


def run(
    jobs: Sequence[Job],
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    decode_in: DecodeIn = "threads",
    progress: Progress = NO_PROGRESS,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Finished]:
    """Do the jobs, a model at a time; yields each as it ends.

    A job that fails is yielded with its error and the others go on. Results, per-query figures
    and hits are written before a job is yielded; embeddings already stored are used again.
    """
    for _, group in groupby(jobs, key=lambda job: job.folder):
        encoder: Encoder | None = None
        for job in group:
            if job.status == "done":
                yield Finished(job, read_result(job.result_path))
                continue
            try:
                make_folder(job.folder)
                if encoder is None:
                    say(f"loading {job.record.id}")
                    encoder = load(job.record, job.options)
                built = None
                if job.data.source is not None:
                    built = build_store(
                        encoder,
                        job.data.source,
                        job.store,
                        dtype=job.task.vector_dtype,
                        batch_size=batch_size,
                        workers=workers,
                        decode_in=decode_in,
                        request=ModelRequest.of(job.record, job.options),
                        progress=progress,
                    )
                store = open_store(job.store)
                if not job.own_store:
                    store.require_encoder(encoder.fingerprint)
                outcome = job.task.evaluate(
                    job.data, encoder, store, job.store.parent, job.settings, progress
                )
                for note in outcome.notes:
                    say(note)
                result = _result(job, encoder, store, outcome, built)
                _keep_superseded(job, say)
                _write(job, result, outcome)
            except MarsRetrievalError as error:
                yield Finished(job, error=error)
            else:
                yield Finished(job, result, computed=True)


def variant(record: ModelRecord, options: LoadOptions) -> str:
    """Folder name of a model's results: its id, and whatever differs from the default."""
    parts = [record.id.replace(":", "-").replace("/", "-")]
    if options.prompts != "paper":
        parts.append(options.prompts)
    if options.dtype != "auto":
        parts.append(options.dtype)
    if options.checkpoint is not None:
        parts.append(f"{options.checkpoint.stem}-{sha256_json(_stat(options.checkpoint))[:8]}")
    return "+".join(parts)


def _brings_store(task: Task, tiles_store: Path | None) -> bool:
    return tiles_store is not None and task.name == "geolocalization"


def _finished_store(path: Path) -> EmbeddingStore:
    store = open_store(path)
    if not store.complete:
        raise StoreError(
            f"{path}: not finished: without {counted(len(store.missing), 'shard')}",
            remedy="Run the embed command that began it once more.",
        )
    return store


def _dataset_key(folder: Path) -> str:
    # By place, not by content: a dataset that grows keeps the embeddings that it has.
    return f"{folder.name}-{sha256_json(str(folder.resolve()))[:8]}/images"


def _request(
    record: ModelRecord, options: LoadOptions, task: Task, data: TaskData, settings: Settings
) -> str:
    return sha256_json(
        {
            "schema": SCHEMA_VERSION,
            "model": [record.id, record.loader, record.repository, record.revision],
            "options": [options.dtype, options.prompts],
            "checkpoint": _stat(options.checkpoint) if options.checkpoint else None,
            "task": task.name,
            "data": data.fingerprint,
            "settings": asdict(settings),
        }
    )


def _stat(checkpoint: Path) -> list[Any]:
    files = sorted(checkpoint.rglob("*")) if checkpoint.is_dir() else [checkpoint]
    stats = [(str(file.resolve()), file.stat()) for file in files if file.is_file()]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def _is_done(path: Path, request: str) -> bool:
    if not path.exists():
        return False
    try:
        return read_result(path).request == request
    except DataError:
        return False


def _keep_superseded(job: Job, say: Callable[[str], None]) -> None:
    """Another result under the same name (other data, other settings) is moved, never lost."""
    if not job.result_path.exists():
        return
    try:
        earlier = read_result(job.result_path)
        if earlier.request == job.request:
            return
        stamp = earlier.created.replace(":", "")
    except DataError:
        stamp = f"unreadable-{job.result_path.stat().st_mtime_ns}"
    kept = make_folder(job.folder / "superseded")
    for file in job.folder.glob(f"{job.task.name}.*"):
        file.replace(kept / f"{stamp}.{file.name}")
    say(f"{job.result_path}: another result was there; it is now in {kept}")


def _result(
    job: Job, encoder: Encoder, store: EmbeddingStore, outcome: Outcome, built: BuildReport | None
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
            **encoder.fingerprint,
            "name": record.name,
            "family": record.family,
            "dimension": encoder.dimension,
            "parameters": record.parameters,
            "licence": record.licence,
            "checkpoint": str(job.options.checkpoint) if job.options.checkpoint else None,
        },
        data={
            "name": job.data.folder.name,
            **_provenance(job.data.folder),
            "n": dict(outcome.n),
            "set_hash": outcome.set_hash,
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
    )


def _provenance(folder: Path) -> dict[str, Any]:
    """Revision of a download, or seed of a synthetic planet, as the folder itself tells it."""
    if (folder / "download.json").exists():
        told = _facts(folder / "download.json")
        return {key: told.get(key) for key in ("repository", "revision", "variant")}
    for place in (folder, folder.parent):
        if (place / "planet.json").exists():
            told = _facts(place / "planet.json")
            return {"synthetic": True, **{key: told.get(key) for key in ("seed", "version")}}
    return {}


def _facts(path: Path) -> dict[str, Any]:
    told = read_json(path)
    if not isinstance(told, dict):
        raise DataError(f"{path}: not a JSON object")
    return told


def _write(job: Job, result: RunResult, outcome: Outcome) -> None:
    """The result last: while it is missing, the job counts as not done."""
    tables = {
        "queries": _per_query(outcome),
        "hits": pa.table(asdict(outcome.hits)),
    }
    for name, table in tables.items():
        with atomic_path(job.folder / f"{job.task.name}.{name}.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")
    result.write(job.result_path)


def _per_query(outcome: Outcome) -> pa.Table:
    tables = []
    for name, evaluation in outcome.groups.items():
        columns = {key: pa.array(column) for key, column in evaluation.per_query.items()}
        if columns:
            rows = len(next(iter(columns.values())))
            tables.append(pa.table({"group": pa.array([name] * rows), **columns}))
    return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})
