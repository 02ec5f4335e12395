"""``marsretrieval embed``: embed images into a store."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marsretrieval.cli.console import JsonFlag, echo, print_json, say, show_progress
from marsretrieval.cli.options import (
    MODEL_NAMES,
    DecodingOptions,
    EncoderOptions,
    Strict,
    check_output_folder,
    expand_options,
)
from marsretrieval.errors import UsageError
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.embeddings.builder import BuildReport, Target
    from marsretrieval.embeddings.plan import BuildPlan
    from marsretrieval.embeddings.store import EmbeddingStore
    from marsretrieval.encoders.base import Encoder, LoadOptions, ModelSpec

_IGNORED_TEXTS = {
    "annotation": "annotation is partly ignored",
    "position": "position is contradictory or cannot be read, and is ignored",
}


@expand_options
def embed(
    *,
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help=f"{MODEL_NAMES}; repeatable: each image is decoded once.",
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Option(
            metavar="PATH",
            help="Tar, Parquet or CSV file, or a folder of tars, Parquet files or images; "
            "repeatable: all go into one store.",
        ),
    ],
    store: Annotated[
        Path,
        typer.Option(
            callback=check_output_folder,
            help="Folder of the store; with several models, the parent of their stores.",
        ),
    ],
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            rich_help_panel="Several machines or devices",
            help="Embed part I of N only, from 1/N to N/N (job arrays).",
        ),
    ] = None,
    vectors: Annotated[
        str, typer.Option(metavar="float16|float32", help="Precision of the stored vectors.")
    ] = "float16",
    loading: EncoderOptions,
    batches: DecodingOptions,
    engine: Annotated[
        str,
        typer.Option(
            metavar="local|ray",
            rich_help_panel="Several machines or devices",
            help="Run on one device, or with Ray on all devices.",
        ),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            rich_help_panel="Several machines or devices",
            help="Address of the Ray cluster, or auto; with --engine ray.",
        ),
    ] = None,
    strict: Strict = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing store.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and load no model.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Embed images into a store for benchmarks and searches.

    Run the same command again to resume after an interruption; a complete store is not changed.
    Images that cannot be read or embedded are skipped and listed in the store; with --strict they
    are an error.

    Raises:
        UsageError: If options exclude each other or a value is invalid.
        StoreMismatchError: If the store holds embeddings of another model or dataset.
        ModelLoadError: If a model cannot be loaded.
    """
    from marsretrieval.datasets.open import open_sources
    from marsretrieval.embeddings.builder import build_stores, plan_targets
    from marsretrieval.embeddings.store import open_store

    _check_options(engine, shard, ray_address, loading.device)
    decoding = batches.parse_decode_in()
    if engine == "ray":  # workers may have another working directory
        images = [path.resolve() for path in images]
        checkpoint = loading.checkpoint and loading.checkpoint.resolve()
        loading = replace(loading, checkpoint=checkpoint)
    options = loading.load_options(check_device=engine == "local", dry_run=dry_run)
    specs, targets = _make_targets(model, store, options)
    part = _parse_shard(shard)
    source = open_sources(images)
    if dry_run:
        plans = plan_targets(targets, source, dtype=vectors, part=part, force=force)
        _print_plans(plans, specs, as_json=as_json)
        return
    with show_progress(quiet=as_json) as progress:
        if engine == "ray":
            from marsretrieval.embeddings.ray import RayOptions, build_stores_with_ray

            reports = build_stores_with_ray(
                targets,
                source,
                dtype=vectors,
                batch_size=batches.batch_size,
                force=force,
                strict=strict,
                options=RayOptions(ray_address, batches.workers, loading.device != "cpu", decoding),
                progress=progress,
            )
        else:
            reports = build_stores(
                targets,
                source,
                dtype=vectors,
                batch_size=batches.batch_size,
                workers=batches.workers,
                decode_in=decoding,
                part=part,
                force=force,
                strict=strict,
                progress=progress,
            )
    summaries = []
    for spec, target, report in zip(specs, targets, reports, strict=True):
        finished = open_store(target.path)
        position_count = _count_positions(finished)
        summary = _report_record(spec, finished, report, position_count)
        if len(images) > 1:
            summary["repeated_ids"] = _count_repeated_ids(target.path)
        summaries.append(summary)
        if not as_json:
            _print_report(report, finished, position_count)
    if as_json:
        print_json(summaries[0] if len(summaries) == 1 else {"stores": summaries})


def _count_repeated_ids(store: Path) -> int:
    """Count ids that several images share, and warn about them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from marsretrieval.embeddings.store import open_store

    columns = [block.column("id") for block in open_store(store).blocks()]
    counts = pc.value_counts(pa.chunked_array(columns, type=pa.string())) if columns else []
    repeated = [row["values"].as_py() for row in counts if row["counts"].as_py() > 1]
    if repeated:
        say(
            f"warning: {store}: {pluralize(len(repeated), 'id')} from several sources "
            f"(first: {repeated[0]}); --similar-to uses the first image of an id"
        )
    return len(repeated)


def _check_options(engine: str, shard: str | None, ray_address: str | None, device: str) -> None:
    if engine not in ("local", "ray"):
        raise UsageError(f"unknown engine '{engine}'", remedy="Use local or ray.")
    if engine == "local" and ray_address is not None:
        raise UsageError("--ray-address requires --engine ray")
    if engine == "ray" and shard is not None:
        raise UsageError("--shard and --engine ray cannot be combined: Ray distributes the shards")
    if engine == "ray" and device not in ("auto", "cuda", "cpu"):
        raise UsageError(
            f"--device {device} cannot be combined with --engine ray, which assigns the devices "
            "itself",
            remedy="Use auto, cuda or cpu.",
        )


def _make_targets(
    models: list[str], store: Path, options: LoadOptions
) -> tuple[list[ModelSpec], list[Target]]:
    """Return the models and their stores: `store` for one model, its subfolders for several."""
    from marsretrieval.embeddings.builder import Target
    from marsretrieval.embeddings.manifest import ModelRequest
    from marsretrieval.encoders.identity import variant
    from marsretrieval.encoders.registry import find

    specs = [find(name) for name in models]
    if len(specs) > 1 and options.checkpoint is not None:
        raise UsageError(
            "--checkpoint applies to one model only", remedy="Embed with one model at a time."
        )
    if len({spec.id for spec in specs}) != len(specs):
        raise UsageError("the same model is named twice")
    paths = [store] if len(specs) == 1 else [store / variant(spec, options) for spec in specs]
    return specs, [
        Target(partial(_load, spec, options), path, ModelRequest.from_spec(spec, options))
        for spec, path in zip(specs, paths, strict=True)
    ]


def _load(spec: ModelSpec, options: LoadOptions) -> Encoder:
    from marsretrieval.encoders.registry import load

    say(f"loading {spec.id}")
    return load(spec, options)


def _parse_shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, slash, last = text.partition("/")
    if not (slash and first.isdecimal() and last.isdecimal()):
        raise UsageError(f"--shard {text}: not I/N", remedy="For example --shard 1/4.")
    return int(first), int(last)


def _print_plans(plans: list[BuildPlan], specs: list[ModelSpec], *, as_json: bool) -> None:
    plan_records = [
        {
            "store": str(plan.store),
            "model": spec.id,
            "images": plan.dataset["name"],
            "kind": plan.dataset["kind"],
            "shards": len(plan.shards),
            "shards_done": len(plan.done),
            "shards_to_do": len(plan.todo),
            "images_to_do": plan.todo_rows,
        }
        for plan, spec in zip(plans, specs, strict=True)
    ]
    if as_json:
        print_json(plan_records[0] if len(plan_records) == 1 else {"stores": plan_records})
        return
    for plan, spec in zip(plans, specs, strict=True):
        count = "an unknown number of" if plan.todo_rows is None else f"{plan.todo_rows:,}"
        echo(f"{plan.dataset['name']} ({plan.dataset['kind']}) -> {plan.store}, with {spec.id}")
        shards = pluralize(len(plan.todo), "shard")
        echo(f"  to do: {count} images in {shards}; done: {pluralize(len(plan.done), 'shard')}")


def _count_positions(store: EmbeddingStore) -> int:
    """Count the images of a store that have a position."""
    import numpy as np

    return int(sum(np.isfinite(block.lon + block.lat).sum() for block in store.blocks()))


def _report_record(
    spec: ModelSpec, store: EmbeddingStore, report: BuildReport, position_count: int
) -> dict[str, Any]:
    return {
        "store": str(store.path),
        "model": spec.id,
        "complete": not store.missing,
        "rows": report.rows,
        "images": store.rows,
        "with_position": position_count,
        "embedded": report.embedded,
        "reused": report.reused,
        "skipped": [
            {"id": item.id, "source": item.source, "reason": item.reason} for item in report.skipped
        ],
        "warnings": [asdict(warning) for warning in report.warnings],
        "batch_size": report.batch_size,
        "timings": report.timings,
    }


def _print_report(report: BuildReport, store: EmbeddingStore, position_count: int) -> None:
    rate = ""
    if report.images_per_s and report.device_idle is not None:
        rate = f" at {report.images_per_s:,.0f} images/s (device idle {report.device_idle:.0%})"
    reused = f", {report.reused:,} already done" if report.reused else ""
    images = pluralize(report.rows, "image")
    echo(f"{store.path}: {images}, {report.embedded:,} embedded now{rate}{reused}")
    if report.skipped:
        first = report.skipped[0]
        echo(f"  {len(report.skipped):,} left out (first: {first.source}: {first.reason})")
    echo(f"  {pluralize(store.rows, 'image')}, {position_count:,} with a position")
    for kind, description in _IGNORED_TEXTS.items():
        ignored = [warning for warning in report.warnings if warning.kind == kind]
        if ignored:
            count = pluralize(len({(warning.source, warning.id) for warning in ignored}), "image")
            reason = " ".join(ignored[0].reason.split())
            example = f"first: {ignored[0].source}: {reason}"
            say(f"  {count} whose {description} ({example})")
    if store.missing:
        echo(f"  not finished: {pluralize(len(store.missing), 'shard')} still to be embedded")
