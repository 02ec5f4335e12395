"""``marsretrieval store``: look at a store, check it, copy it out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marsretrieval.cli._shared import JsonFlag, print_json, show_progress
from marsretrieval.errors import UsageError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Look at a store of embeddings, check it, export it.")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the store.")]


@app.command()
def info(folder: Folder, as_json: JsonFlag = False) -> None:
    """What a store holds, who made it, and what was left out."""
    from marsretrieval.embeddings import open_store

    store = open_store(folder)
    told = {
        "store": str(folder),
        "kind": store.kind,
        "complete": store.complete,
        "rows": store.rows,
        "shards": len(store.manifest.shards),
        "shards_missing": len(store.missing),
        "dimension": store.dimension,
        "dtype": store.dtype,
        "bytes": sum(entry.bytes for entry in store.entries),
        "set_hash": store.set_hash,
        "dataset": dict(store.dataset),
        "encoder": dict(store.encoder),
        "created": store.manifest.created,
    }
    skipped = [
        {"id": item.id, "source": item.source, "reason": item.reason} for item in store.skipped
    ]
    if as_json:
        print_json({**told, "skipped": skipped})
        return
    state = "complete" if store.complete else f"{len(store.missing)} shards missing"
    print(f"{folder}: {store.rows:,} {store.kind}s in {len(store.manifest.shards)} shards, {state}")
    print(f"  model    {store.encoder.get('id')}, {store.dimension} x {store.dtype}")
    print(f"  data     {store.dataset['name']} ({store.dataset['kind']})")
    print(f"  set hash {told['set_hash']}")
    print(f"  size     {told['bytes']:,} bytes, made {store.manifest.created}")
    print(f"  left out {len(skipped)}")
    for item in skipped[:10]:
        print(f"    {item['source']}: {item['reason']}")
    if len(skipped) > 10:
        print(f"    and {len(skipped) - 10} more: --json lists all")


@app.command()
def verify(folder: Folder, as_json: JsonFlag = False) -> None:
    """Read all of a store and compare it with its checksums; exit code 1 if anything is wrong."""
    from marsretrieval.embeddings import open_store

    store = open_store(folder)
    with show_progress(quiet=as_json) as progress:
        problems = store.verify(progress=progress)
    if as_json:
        print_json({"store": str(folder), "rows": store.rows, "problems": problems})
    elif not problems:
        print(f"{folder}: {store.rows:,} rows in {len(store.entries)} shards, all as written")
    else:
        for problem in problems:
            print(problem)
        print(
            "The command that made the store embeds what is missing. To have a damaged shard made "
            "again, first delete its entry, shards/NAME.json."
        )
    if problems:
        raise typer.Exit(1)


@app.command()
def export(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="File to write.")],
    to: Annotated[str, typer.Option(help="Format: parquet (GeoParquet 1.1).")] = "parquet",
    as_json: JsonFlag = False,
) -> None:
    """Write ids, positions, footprints and vectors to one file for other programs."""
    if to != "parquet":
        raise UsageError(f"no export to '{to}'", remedy="Use --to parquet.")
    from marsretrieval.embeddings import export_parquet, open_store

    store = open_store(folder)
    with show_progress(quiet=as_json) as progress:
        export_parquet(store, out, progress=progress)
    if as_json:
        print_json({"store": str(folder), "out": str(out), "rows": store.rows})
    else:
        print(f"{out}: {store.rows:,} rows, {out.stat().st_size:,} bytes")
