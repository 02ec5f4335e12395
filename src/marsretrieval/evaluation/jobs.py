"""Plan a benchmark: one job per model and task, with the status of earlier results."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from marsretrieval.embeddings.store import EmbeddingStore, open_store
from marsretrieval.encoders.base import LoadOptions, Modality, ModelSpec
from marsretrieval.encoders.doctor import find_load_error
from marsretrieval.encoders.identity import model_identity, source_sha256, variant
from marsretrieval.errors import (
    DataError,
    MarsRetrievalError,
    ModalityError,
    StoreError,
    UsageError,
)
from marsretrieval.io import check_output, read_json, sha256_json
from marsretrieval.results import SCHEMA_VERSION, ResultKey, RunResult, choose_path, results_of_task
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.tasks import Settings, Task, TaskData

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_RESERVED = {"superseded", "embeddings"}


@dataclass(frozen=True, slots=True)
class Job:
    """One model on one task, before the model is loaded.

    Attributes:
        spec: Spec of the model.
        options: Options for loading the model.
        task: The task.
        data: Data of the task.
        settings: Settings of the evaluation.
        folder: Folder of the model's results.
        store: Path of the store of image embeddings.
        own_store: Whether `run` builds the store; False: the user's, which is read only.
        status: "done" if an earlier result is valid, "refused" if the model cannot be loaded.
        result_path: Path of the result.
        identity: Identity of the model, as far as it is known before loading.
        reason: Reason why an earlier result is outdated.
        force: Whether to embed and evaluate again.
        refusal: Error that prevents the job.
    """

    spec: ModelSpec
    options: LoadOptions
    task: Task
    data: TaskData
    settings: Settings
    folder: Path
    store: Path
    own_store: bool
    status: Literal["done", "to do", "refused"]
    result_path: Path
    identity: Mapping[str, Any]
    reason: str | None = None
    force: bool = False
    refusal: MarsRetrievalError | None = None

    @property
    def name(self) -> str:
        """Name of the model in tables: that of its folder."""
        return self.folder.name

    @property
    def request(self) -> str:
        """Hash of model, options, task, data and settings."""
        return _request_hash(
            self.spec, self.options, self.task, self.data, self.settings, self.identity
        )

    @property
    def cache(self) -> Path:
        """Folder of the stores that `run` builds for this model and these data."""
        # By path, not by content, so that a growing dataset keeps its embeddings.
        path_hash = sha256_json(str(self.data.folder.resolve()))[:8]
        limit = "" if self.settings.limit is None else f"-limit-{self.settings.limit}"
        return self.folder / "embeddings" / f"{self.data.folder.name}-{path_hash}{limit}"

    @property
    def key(self) -> ResultKey:
        """Data and settings of the result."""
        return ResultKey(self.task.name, self.data.fingerprint, asdict(self.settings))


def plan(
    specs: Sequence[ModelSpec],
    tasks: Sequence[Task],
    *,
    data: str | Path,
    results: str | Path,
    options: LoadOptions,
    settings: Settings,
    seeds: Sequence[int] = (),
    dim: int | None = None,
    confirm_dim: bool = False,
    tiles_store: str | Path | None = None,
    force: bool = False,
    name: str | None = None,
    skip: Callable[[ModelSpec, Task, str], bool] = lambda spec, task, reason: False,
) -> list[Job]:
    """Check data and models for every pair, and find earlier results.

    Args:
        specs: Specs of the models.
        tasks: Tasks.
        data: Folder of datasets, or one dataset.
        results: Folder that results are written to.
        options: Options for loading the models.
        settings: Settings of the evaluation.
        seeds: Seeds, with a job for each; empty: the seed of `settings`.
        dim: Number of leading dimensions of the vectors to evaluate; None: all.
        confirm_dim: Accept `dim` for models that are not known to support it.
        tiles_store: A complete store for geo-localization, instead of the tiles.
        force: Embed and evaluate again, even if a job is done.
        name: Name of the model in tables and folders, instead of its id; for one model.
        skip: Called for a model that lacks a modality which the task needs; returns True to skip
            the pair.

    Returns:
        A job per pair, model by model. A job that cannot run has `refusal`.

    Raises:
        ModalityError: If a model lacks a modality and the pair is not skipped.
        UsageError: If two models would share a folder of results, a task cannot be limited, or an
            option does not apply to a model or its data.
        OutputError: If results cannot be written.
        DataError: If the data of a task are missing or invalid.
    """
    data = Path(data)
    results = Path(results)
    tiles_store = None if tiles_store is None else Path(tiles_store)
    _check_names(specs, tasks, options, name)
    opened = {
        task.name: task.open(data, with_images=not _uses_given_store(task, tiles_store))
        for task in tasks
    }
    if tiles_store is not None:
        if not any(_uses_given_store(task, tiles_store) for task in tasks):
            raise UsageError(
                f"--store {tiles_store}: none of the tasks reads a store of tiles",
                remedy="Add -t geolocalization, or leave it out.",
            )
        tiles = _open_complete_store(tiles_store)
        for task in tasks:
            if _uses_given_store(task, tiles_store):
                task_data = opened[task.name]
                combined = sha256_json([task_data.fingerprint, tiles.set_hash])
                opened[task.name] = replace(task_data, fingerprint=combined)
    if settings.limit is not None:
        from marsretrieval.tasks.limit import limit_task

        for task in tasks:
            opened[task.name] = limit_task(task, opened[task.name], settings.limit)
    from marsretrieval.tasks.ablation import task_options

    jobs: list[Job] = []
    for spec in specs:
        identity = model_identity(spec, options)
        refusal = find_load_error(spec, options)
        for task in tasks:
            missing = task.missing_modality(opened[task.name], spec.modalities)
            if missing is not None:
                reason = f"{spec.id} has no {missing} encoder, which task {task.name} needs"
                if skip(spec, task, reason):
                    continue
                remedy = "Leave this pair out, or choose another model: marsretrieval models"
                if getattr(task, "queries", None) == "text":  # images could be the queries, too
                    remedy = (
                        "Use every image as a query with --queries images (in Python "
                        "queries='images'), or choose another model"
                    )
                raise ModalityError(reason, remedy=remedy)
            require_used_options(task, opened[task.name], spec.modalities, spec.id)
            options_given = task_options(task)
            if dim is not None:
                _require_dim(spec, dim, confirmed=confirm_dim)
                options_given["dim"] = dim
            uses_store = _uses_given_store(task, tiles_store)
            folder = results / (name or variant(spec, options))
            job = Job(
                spec, options, task, opened[task.name],
                replace(settings, options=options_given), folder,
                store=tiles_store if uses_store and tiles_store else Path(),
                own_store=not uses_store,
                status="to do", result_path=folder / f"{task.name}.json", identity=identity,
                force=force, refusal=refusal,
            )  # fmt: skip
            if job.own_store:
                job = replace(job, store=_image_store_path(job))
            for seed in seeds or (settings.seed,):
                seeded = _with_status(replace(job, settings=replace(job.settings, seed=seed)))
                if any(seeded.result_path == other.result_path for other in jobs):
                    path = seeded.result_path
                    seeded = replace(seeded, result_path=path.with_name(
                        f"{path.name.removesuffix('.json')}.seed-{seed}.json"))  # fmt: skip
                jobs.append(seeded)
    return jobs


def require_used_options(
    task: Task, data: TaskData, modalities: frozenset[Modality], model: str
) -> None:
    """Check that every option of a task has an effect for a model.

    Args:
        task: The task.
        data: Its data.
        modalities: Modalities of the model.
        model: Name of the model, for the message.

    Raises:
        UsageError: If an option has none.
    """
    from marsretrieval.tasks.ablation import ChecksOptions

    if not isinstance(task, ChecksOptions):
        return
    for option, reason in task.unused_options(data, modalities).items():
        raise UsageError(
            f"--{option.replace('_', '-')} does not apply to {model} on {task.name}: {reason}",
            remedy="Leave out the option, or run the other models and tasks on their own.",
        )


def _require_dim(spec: ModelSpec, dim: int, *, confirmed: bool) -> None:
    """Raise UsageError if the vectors of a model cannot be truncated."""
    if dim < 2 or (spec.dimension and dim >= spec.dimension):
        largest = f"to {spec.dimension - 1:,}" if spec.dimension else "or more"
        raise UsageError(f"--dim must be 2 {largest} for {spec.id}, not {dim:,}")
    trained = spec.settings.get("matryoshka")
    if not confirmed and isinstance(trained, list) and dim not in trained:
        raise UsageError(
            f"{spec.id} is trained for vectors of {', '.join(map(str, trained))} dimensions, not "
            f"of {dim:,}",
            remedy="Use one of these, or add --confirm-dim to truncate its vectors anyway.",
        )
    if not confirmed and not trained:
        raise UsageError(
            f"{spec.id} is not known to be trained for truncated vectors (Matryoshka)",
            remedy="Add --confirm-dim to truncate its vectors anyway, or leave out --dim.",
        )


def check_name(name: str) -> None:
    """Check that a name of a model can be the name of a folder.

    Args:
        name: The name.

    Raises:
        UsageError: If it cannot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _RESERVED:
        raise UsageError(
            f"--name {name!r} cannot be the name of a folder",
            remedy="Use letters, digits, '.', '_', '+' and '-', with a letter or digit first.",
        )


def _check_names(
    specs: Sequence[ModelSpec], tasks: Sequence[Task], options: LoadOptions, name: str | None
) -> None:
    if name is not None and len(specs) > 1:
        raise UsageError("--name applies to one model only", remedy="Run the models one by one.")
    if name is not None:
        check_name(name)
    folders: dict[str, str] = {}
    for spec in specs:
        folder = variant(spec, options)
        if folders.setdefault(folder, spec.id) != spec.id:
            raise UsageError(
                f"{spec.id} and {folders[folder]} would share the folder {folder}",
                remedy="Run them one by one, with --name.",
            )
    for task in tasks:
        if not _TASK_NAME.fullmatch(task.name):
            raise UsageError(
                f"task name {task.name!r} cannot be part of a file name",
                remedy="Use letters, digits, '_' and '-'.",
            )


def _with_status(job: Job) -> Job:
    """Return the job with its status and the path of its result."""
    earlier = list(results_of_task(job.folder, job.task.name))
    for _, result in earlier:
        owner = result.model.get("id") if isinstance(result.model, Mapping) else None
        if owner not in (None, job.spec.id):
            raise UsageError(
                f"{job.folder} holds results of {owner}, not of {job.spec.id}",
                remedy="Choose another name with --name, or another folder with --results.",
            )
    existing = next((path for path, result in earlier if result.request == job.request), None)
    path = existing or choose_path(job.folder, job.key)
    job = replace(job, result_path=path)
    if existing is not None and not job.force and not unfinished_marker(path).exists():
        return replace(job, status="done", refusal=None)
    if job.refusal is not None:
        return replace(job, status="refused")
    check_output(path)
    if job.force:
        return job
    if existing is not None:
        return replace(job, reason="computing it again was interrupted")
    replaced = dict(earlier).get(path)
    return job if replaced is None else replace(job, reason=_explain_outdated(job, replaced))


def _explain_outdated(job: Job, earlier: RunResult) -> str:
    """Explain why an earlier result on the same data with the same settings is outdated."""
    before = earlier.model.get("identity")
    if not isinstance(before, Mapping):
        return (
            "the earlier result does not record which version of the model it is of"
            if (job.identity)
            else "the earlier result is of another version of the model or the data"
        )
    messages = {
        "source_sha256": "the file of its class has changed",
        "loader_sha256": "the file of its loader has changed",
        "fingerprint": "its fingerprint has changed",
        "folder": "the files of its folder have changed",
        "checkpoint": "the files of its checkpoint have changed",
    }
    now = json.loads(json.dumps(job.identity))
    for name, text in messages.items():
        if before.get(name) != now.get(name):
            return text
    if earlier.model.get("revision") != job.spec.revision:
        return "its revision has changed"
    return "the data, the task or the model's options have changed"


def unfinished_marker(path: Path) -> Path:
    """Return the path of the marker file of a forced run.

    The file exists while a result is computed again, so that an interrupted job is not done.

    Args:
        path: Path of the result.

    Returns:
        Path of the marker.
    """
    return path.with_name(f".{path.name}.unfinished")


def _image_store_path(job: Job) -> Path:
    """Path of the store of a job's images; a store per vector type."""
    store = job.cache / "images"
    try:
        manifest = read_json(store / "manifest.json")
    except DataError:
        return store
    dtype = manifest.get("dtype") if isinstance(manifest, dict) else None
    return (
        store if dtype == job.task.vector_dtype else job.cache / f"images-{job.task.vector_dtype}"
    )


def _uses_given_store(task: Task, tiles_store: Path | None) -> bool:
    return tiles_store is not None and task.name == "geolocalization"


def _open_complete_store(path: Path) -> EmbeddingStore:
    store = open_store(path)
    if not store.complete:
        raise StoreError(
            f"{path}: incomplete: {pluralize(len(store.missing), 'shard')} missing",
            remedy="Run the embed command that started it again.",
        )
    return store


def _request_hash(
    spec: ModelSpec,
    options: LoadOptions,
    task: Task,
    data: TaskData,
    settings: Settings,
    identity: Mapping[str, Any],
) -> str:
    more = {name: value for name, value in identity.items() if name != "checkpoint"}
    if not type(task).__module__.startswith("marsretrieval."):
        more["task_sha256"] = source_sha256(task)
    return sha256_json(
        {
            "schema": SCHEMA_VERSION,
            "model": [spec.id, spec.loader, spec.repository, spec.revision],
            "options": [options.dtype, options.prompts],
            "checkpoint": identity.get("checkpoint"),
            "task": task.name,
            "data": data.fingerprint,
            "settings": settings.to_dict(),
            **more,
        }
    )
