"""``marsretrieval embed``: images into a store, once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marsretrieval.cli._options import (
    BatchSize,
    Checkpoint,
    Device,
    Dtype,
    Offline,
    Prompts,
    TrustRemoteCode,
    Workers,
    load_options,
)
from marsretrieval.cli._shared import JsonFlag, print_json, say, show_progress
from marsretrieval.errors import UsageError

if TYPE_CHECKING:
    from marsretrieval.embeddings import BuildPlan, BuildReport
    from marsretrieval.encoders import Encoder

__all__ = ["embed"]


def embed(
    model: Annotated[
        str,
        typer.Option("--model", "-m", metavar="MODEL", help="A catalogue id or module:Class."),
    ],
    images: Annotated[
        Path,
        typer.Option(help="A .tar or .parquet file, or a folder of tars, Parquet files or images."),
    ],
    store: Annotated[Path, typer.Option(help="Folder of the store; what it holds is kept.")],
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Only part I of N, from 1/N on: one process each."),
    ] = None,
    vectors: Annotated[str, typer.Option(help="Numbers stored: float16 or float32.")] = "float16",
    checkpoint: Checkpoint = None,
    prompts: Prompts = "paper",
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = None,
    workers: Workers = None,
    offline: Offline = False,
    trust_remote_code: TrustRemoteCode = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what the store holds, whatever made it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, load no model.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Embed images into a store that is benchmarked and searched from then on.

    Interrupted at any moment, the same command goes on from there; on a finished store it does
    nothing. Images that cannot be read are left out and listed in the store.
    """
    from marsretrieval.datasets import open_images
    from marsretrieval.embeddings import ModelRequest, build_store, open_store, plan_build
    from marsretrieval.encoders import find, load

    options = load_options(
        device=device,
        dtype=dtype,
        checkpoint=checkpoint,
        prompts=prompts,
        offline=offline,
        trust_remote_code=trust_remote_code,
    )
    record = find(model)
    part = _part(shard)
    source = open_images(images)
    if dry_run:
        plan = plan_build(source, store, dtype=vectors, part=part, force=force)
        _show_plan(plan, record.id, as_json=as_json)
        return

    def loaded() -> Encoder:
        say(f"loading {record.id}")
        return load(record, options)

    with show_progress(quiet=as_json) as progress:
        report = build_store(
            loaded,
            source,
            store,
            dtype=vectors,
            batch_size=batch_size,
            workers=workers,
            part=part,
            force=force,
            request=ModelRequest.of(record, options),
            progress=progress,
        )
    missing = open_store(store).missing
    if as_json:
        print_json(
            {
                "store": str(store),
                "model": record.id,
                "complete": not missing,
                "rows": report.rows,
                "embedded": report.embedded,
                "reused": report.reused,
                "skipped": [
                    {"id": item.id, "source": item.source, "reason": item.reason}
                    for item in report.skipped
                ],
                "batch_size": report.batch_size,
                "timings": report.timings,
            }
        )
    else:
        _tell(report, store, missing)


def _part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, slash, last = text.partition("/")
    if not (slash and first.isdecimal() and last.isdecimal()):
        raise UsageError(f"--shard {text}: not I/N", remedy="For example --shard 1/4.")
    return int(first), int(last)


def _show_plan(plan: BuildPlan, model: str, *, as_json: bool) -> None:
    told = {
        "store": str(plan.store),
        "model": model,
        "images": plan.dataset["name"],
        "kind": plan.dataset["kind"],
        "shards": len(plan.shards),
        "shards_done": len(plan.done),
        "shards_to_do": len(plan.todo),
        "images_to_do": plan.todo_rows,
    }
    if as_json:
        print_json(told)
        return
    count = "an unknown number of" if plan.todo_rows is None else f"{plan.todo_rows:,}"
    print(f"{plan.dataset['name']} ({plan.dataset['kind']}) -> {plan.store}, with {model}")
    print(f"  to do: {count} images in {len(plan.todo)} shards; done: {len(plan.done)} shards")


def _tell(report: BuildReport, store: Path, missing: list[str]) -> None:
    rate = f" at {report.images_per_s:,.0f} images/s" if report.images_per_s else ""
    there = f", {report.reused:,} were there" if report.reused else ""
    print(f"{store}: {report.rows:,} images, {report.embedded:,} embedded now{rate}{there}")
    if report.skipped:
        first = report.skipped[0]
        print(f"  {len(report.skipped):,} left out (first: {first.source}: {first.reason})")
    if missing:
        print(f"  not finished: {len(missing):,} shards are still to be embedded")
