"""``marsretrieval run`` and ``marsretrieval tasks``: benchmark models, list the tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marsretrieval.cli.console import JsonFlag, echo, print_json, say, show_progress, show_status
from marsretrieval.cli.options import (
    MODEL_NAMES,
    Caption,
    ClassNames,
    ConfirmDim,
    CoveredOnly,
    DecodingOptions,
    Depth,
    Dim,
    EncoderOptions,
    Examples,
    ImageWeight,
    PositionOptions,
    QueryKind,
    Radius,
    Resamples,
    Seeds,
    Strict,
    Templates,
    check_output_folder,
    expand_options,
)
from marsretrieval.errors import ModalityError, UsageError
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.embeddings.pipeline import DecodeIn
    from marsretrieval.encoders.base import ModelSpec
    from marsretrieval.evaluation.jobs import Job
    from marsretrieval.evaluation.runner import Finished
    from marsretrieval.tasks import Task


@expand_options
def run(
    *,
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help=f"{MODEL_NAMES}; repeatable.",
        ),
    ],
    task: Annotated[
        list[str],
        typer.Option(
            "--task",
            "-t",
            metavar="TASK",
            help="paired-image-text, landform, geolocalization, all or module:Class; repeatable.",
        ),
    ],
    data: Annotated[
        Path, typer.Option(help="Folder of datasets, or one dataset (folder or file).")
    ] = Path("data"),
    results: Annotated[
        Path, typer.Option(callback=check_output_folder, help="Folder for results and embeddings.")
    ] = Path("results"),
    store: Annotated[
        Path | None,
        typer.Option(help="Store of tiles for geolocalization, made by embed."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the model in tables and folder names."),
    ] = None,
    loading: EncoderOptions,
    batches: DecodingOptions,
    seed: Seeds = None,
    resamples: Resamples = 1000,
    limit: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Evaluate on N pairs, images or tiles only (quick trial).",
        ),
    ] = None,
    caption: Caption = None,
    templates: Templates = None,
    class_names: ClassNames = None,
    queries: QueryKind = None,
    radius: Radius = None,
    depth: Depth = None,
    image_weight: ImageWeight = None,
    examples: Examples = None,
    dim: Dim = None,
    confirm_dim: ConfirmDim = False,
    positions: PositionOptions,
    covered_only: CoveredOnly = False,
    strict: Strict = False,
    force: Annotated[
        bool, typer.Option("--force", help="Embed and evaluate again, even if results exist.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check data and models, and show the plan.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Benchmark models on tasks; existing results are kept.

    A result is computed again if its model has changed: the file of a class, its fingerprint or
    the files of a checkpoint. Changes in modules that the class imports need --force.

    Writes RESULTS/MODEL/TASK.json (all metrics, both protocols), .queries.parquet (one row per
    query), .hits.parquet (the top of each ranking) and .thumbnails.parquet (images for the HTML
    report). Exit code 1 if any model failed on a task.

    Raises:
        UsageError: If options exclude each other or a value is invalid.
        UnknownNameError: If there is no such model or task.
        ModalityError: If no model can do any of the tasks.
        typer.Exit: With code 1 if a pair of model and task failed; after --dry-run with the exit
            code of the first refusal.
    """
    from marsretrieval import evaluation
    from marsretrieval import tasks as benchmark
    from marsretrieval.encoders.registry import find
    from marsretrieval.tasks import Settings, find_task
    from marsretrieval.tasks.ablation import Ablation

    decoding = batches.parse_decode_in()
    options = loading.load_options(dry_run=dry_run)
    if options.checkpoint is not None and len(model) > 1:
        raise UsageError(
            "--checkpoint applies to one model only", remedy="Run the models one by one."
        )
    explicit = [find_task(key) for key in task if key != "all"]
    chosen = {item.name: item for item in (*(benchmark.TASKS if "all" in task else ()), *explicit)}
    explicit_names = {item.name for item in explicit}
    if confirm_dim and dim is None:
        raise UsageError("--confirm-dim requires --dim", remedy="Add --dim N, or leave it out.")
    ablation = Ablation(
        caption=caption, templates=templates, class_names=class_names, queries=queries,
        radius=radius, depth=depth, image_weight=image_weight, examples=examples,
    )  # fmt: skip
    chosen_tasks = list(chosen.values())
    point_flags = positions.flags() + ["--covered-only"] * covered_only
    if point_flags:
        from marsretrieval.tasks.geolocalization import Geolocalization

        if not any(isinstance(item, Geolocalization) for item in chosen_tasks):
            raise UsageError(
                f"{', '.join(point_flags)}: applies to point catalogues only",
                remedy="Add -t geolocalization, or leave it out.",
            )
        catalogues = Geolocalization(columns=positions.columns(), covered_only=covered_only)
        chosen_tasks = [
            catalogues if isinstance(item, Geolocalization) else item for item in chosen_tasks
        ]
    chosen_tasks = ablation.apply(chosen_tasks)
    seeds = tuple(dict.fromkeys(seed or (0,)))
    skipped: list[dict[str, str]] = []

    def skip(record: ModelSpec, unfit: Task, reason: str) -> bool:
        if unfit.name in explicit_names:
            return False
        skipped.append({"model": record.id, "task": unfit.name, "reason": reason})
        return True

    with show_status("reading models and data"):
        jobs = evaluation.plan(
            [find(key) for key in model],
            chosen_tasks,
            data=data,
            results=results,
            options=options,
            settings=Settings(seed=seeds[0], resamples=resamples, limit=limit),
            seeds=seeds,
            dim=dim,
            confirm_dim=confirm_dim,
            tiles_store=store,
            force=force,
            name=name,
            skip=skip,
        )
    for pair in skipped:
        say(f"{pair['model']} on {pair['task']}: skipped: {pair['reason']}")
    if not jobs:
        raise ModalityError(
            f"no task that {', '.join(model)} can do on these data",
            remedy="Choose another model: marsretrieval models",
        )
    _print_reading_notes(jobs)
    if dry_run:
        _print_plan(jobs, skipped, as_json=as_json)
        refusals = [job.refusal for job in jobs if job.refusal is not None]
        if refusals:
            raise typer.Exit(refusals[0].exit_code)
        return
    finished = run_jobs(
        jobs, batch_size=batches.batch_size, workers=batches.workers, decode_in=decoding,
        as_json=as_json, skipped=skipped, strict=strict,
    )  # fmt: skip
    if any(job_result.error is not None for job_result in finished):
        raise typer.Exit(1)


def tasks(as_json: JsonFlag = False) -> None:
    """List the benchmark's tasks, their data and main metrics.

    Args:
        as_json: Print JSON in place of lines.
    """
    from marsretrieval.tasks import TASKS

    rows = [
        {
            "task": task.name,
            "aliases": list(task.aliases),
            "title": task.title,
            "data": task.folder_name,
            "main_metric": task.main_metric,
        }
        for task in TASKS
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        data, metric = f"data: {row['data']:<27}", f"main metric: {row['main_metric']}"
        echo(f"{row['task']:<18} {row['title']:<28} {data} {metric}")


def run_jobs(
    jobs: Sequence[Job],
    *,
    batch_size: int | None,
    workers: int | None,
    decode_in: DecodeIn,
    as_json: bool,
    skipped: Sequence[Mapping[str, str]] = (),
    strict: bool = False,
) -> list[Finished]:
    """Run jobs, report each outcome, and print the tables.

    Args:
        jobs: Jobs from `evaluation.plan`.
        batch_size: Images per batch; None: chosen for the device.
        workers: Number of decoding workers; None: number of CPUs.
        decode_in: Kind of decoding worker.
        as_json: Print JSON in place of tables.
        skipped: Model, task and reason of each pair that is not run; for the JSON.
        strict: Fail if an image cannot be read or embedded.

    Returns:
        Outcome of each job.
    """
    from marsretrieval import evaluation
    from marsretrieval.report.grouping import average_seeds
    from marsretrieval.report.render import print_tables
    from marsretrieval.report.result_files import ResultFile
    from marsretrieval.report.tables import model_tables

    finished: list[Finished] = []
    with show_progress() as progress:
        for job_result in evaluation.run(
            jobs,
            batch_size=batch_size,
            workers=workers,
            decode_in=decode_in,
            strict=strict,
            progress=progress,
            say=say,
        ):
            finished.append(job_result)
            say(_format_outcome(job_result))
    results = [job_result.result for job_result in finished if job_result.result is not None]
    if as_json:
        print_json(
            {
                "results": [str(job_result.path) for job_result in finished if job_result.result],
                "failed": [
                    {
                        "model": job_result.job.spec.id,
                        "task": job_result.job.task.name,
                        "error": str(job_result.error),
                    }
                    for job_result in finished
                    if job_result.error
                ],
                "skipped": [dict(pair) for pair in skipped],
                "metrics": [result.to_dict() for result in results],
                "figures": [result.to_dict() for result in results],  # earlier name of "metrics"
            }
        )
    else:
        averaged = average_seeds([ResultFile(result) for result in results])
        print_tables(model_tables([file.result for file in averaged], references=False))
    return finished


def _print_reading_notes(jobs: Sequence[Job]) -> None:
    """Print the files that were not read and the assumptions about the others, once per dataset."""
    from marsretrieval.datasets.base import UnusedFile

    lines: dict[str, None] = {}
    for job in jobs:
        unread = [item for item in job.data.skipped if isinstance(item, UnusedFile)]
        lines |= dict.fromkeys(f"{item.source}: {item.reason}" for item in unread)
        lines |= dict.fromkeys(job.data.notes)
    for line in lines:
        say(line)


def _format_outcome(job_result: Finished) -> str:
    name = f"{job_result.job.name} on {job_result.job.task.name}"
    if job_result.error is not None:
        return f"{name}: failed: {job_result.error}"
    assert job_result.result is not None
    left_out = job_result.result.data["skipped"]
    notes = [f"-> {job_result.path}"] if job_result.computed else ["already done"]
    if left_out:
        first = left_out[0]
        notes.append(
            f"{pluralize(len(left_out), 'item')} left out (first: {first['source']}: "
            f"{first['reason']})"
        )
    return f"{name}: {'; '.join(notes)}"


def _print_plan(
    jobs: Sequence[Job], skipped: Sequence[Mapping[str, str]], *, as_json: bool
) -> None:
    from marsretrieval.results import describe_options

    rows: list[dict[str, Any]] = [
        {
            "model": job.spec.id,
            "name": job.name,
            "task": job.task.name,
            "status": job.status,
            "reason": job.reason if job.refusal is None else str(job.refusal),
            "data": str(job.data.folder),
            "counts": dict(job.data.counts),
            "limit": job.settings.limit,
            "seed": job.settings.seed,
            "options": dict(job.settings.options),
            "left_out": len(job.data.skipped),
            "store": str(job.store),
            "vectors": job.task.vector_dtype,
            "result": str(job.result_path),
        }
        for job in jobs
    ]
    if as_json:
        print_json([*rows, *({**pair, "status": "skipped"} for pair in skipped)])
        return
    for row, job in zip(rows, jobs, strict=True):
        counts = ", ".join(f"{count:,} {name}" for name, count in row["counts"].items())
        left_out = f", {row['left_out']} left out" if row["left_out"] else ""
        if job.refusal is not None:
            say(f"{row['name']} on {row['task']}: refused: {job.refusal}")
            continue
        reason = f" ({job.reason})" if job.reason else ""
        echo(f"{row['name']} on {row['task']}: {row['status']}{reason}")
        echo(f"  data {row['data']}: {counts}{left_out}")
        if job.settings.options:
            echo(f"  options {describe_options(job.settings.options)}")
        echo(f"  result {row['result']}")
