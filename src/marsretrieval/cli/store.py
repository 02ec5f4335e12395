"""``marsretrieval store``: inspect, verify, index and export a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marsretrieval.cli.console import JsonFlag, echo, print_json, say, show_progress
from marsretrieval.cli.help import Command, Group
from marsretrieval.errors import UsageError
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.embeddings.store import EmbeddingStore
    from marsretrieval.embeddings.verify import Problem

_MAX_NAMED = 3

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Inspect, verify, index and export embedding stores.",
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the store.")]


@app.command(cls=Command)
def info(folder: Folder, as_json: JsonFlag = False) -> None:
    """Show the contents, the model and the skipped images of a store.

    Raises:
        StoreError: If the store is missing or damaged.
    """
    from marsretrieval.embeddings.store import open_store
    from marsretrieval.search.index.find import existing_index

    store = open_store(folder)
    search_index = existing_index(store)
    store_record = {
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
        "search_view": None if search_index is None else str(search_index.path),
        **_throughput(store),
    }
    skipped = [
        {"id": item.id, "source": item.source, "reason": item.reason} for item in store.skipped
    ]
    if as_json:
        print_json({**store_record, "skipped": skipped})
        return
    state = "complete" if store.complete else f"{pluralize(len(store.missing), 'shard')} missing"
    rows, shards = pluralize(store.rows, store.kind), pluralize(len(store.manifest.shards), "shard")
    echo(f"{folder}: {rows} in {shards}, {state}")
    echo(f"  model    {store.encoder.get('id')}, {store.dimension} x {store.dtype}")
    echo(f"  data     {store.dataset['name']} ({store.dataset['kind']})")
    echo(f"  set hash {store_record['set_hash']}")
    echo(f"  size     {store_record['bytes']:,} bytes, made {store.manifest.created}")
    if store_record["images_per_s"] and store_record["device_idle"] is not None:
        echo(f"  made at  {store_record['images_per_s']:,.0f} {store.kind}s/s, "
              f"device idle {store_record['device_idle']:.0%}")  # fmt: skip
    if search_index is not None:
        echo(f"  search   index of {search_index.bytes:,} bytes in {search_index.path}")
    echo(f"  left out {len(skipped)}")
    for item in skipped[:10]:
        echo(f"    {item['source']}: {item['reason']}")
    if len(skipped) > 10:
        echo(f"    and {len(skipped) - 10} more: --json lists all")


def _throughput(store: EmbeddingStore) -> dict[str, float | None]:
    """Return images per second and idle share of the device, per process."""
    elapsed = store.seconds("elapsed")
    if not elapsed:
        return {"images_per_s": None, "device_idle": None}
    return {
        "images_per_s": store.rows / elapsed,
        "device_idle": min(1.0, store.seconds("wait") / elapsed),
    }


@app.command(cls=Command)
def verify(
    folder: Folder,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Drop damaged shards, so that embed computes them again."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Verify a store against its checksums.

    Exit code 1 on any problem; with --repair, 0 if embedding again will fix all of them.

    Raises:
        StoreError: If there is no store in the folder.
        typer.Exit: With code 1 if a problem remains.
    """
    from marsretrieval.embeddings.verify import verify_store
    from marsretrieval.search.index.find import verify_index

    with show_progress(quiet=as_json) as progress:
        check = verify_store(folder, repair=repair, progress=progress)
        index_problems = verify_index(folder)
    if as_json:
        print_json(
            {
                "store": str(folder),
                "rows": check.rows,
                "problems": [str(problem) for problem in check.problems],
                "dropped": list(check.dropped),
                "to_embed": list(check.to_embed),
                "search_view": index_problems,
            }
        )
    elif not check.problems:
        rows, shards = pluralize(check.rows, "row"), pluralize(check.shards, "shard")
        echo(f"{folder}: {rows} in {shards}, all checksums match")
    else:
        for problem in check.problems:
            echo(problem)
        if check.dropped:
            echo(f"dropped: {', '.join(check.dropped)}")
        if check.to_embed:
            shards = pluralize(len(check.to_embed), "shard")
            echo(f"Run the command that created the store to embed {shards} again.")
        elif not repair and any(problem.cured for problem in check.problems):
            echo("To rebuild damaged shards: --repair, then the command that created the store.")
    if index_problems and not as_json:
        for line in index_problems:
            echo(line)
        echo("The search index was removed; the next search or store index builds it again.")
    remaining = [problem for problem in check.problems if not (repair and problem.cured)]
    if remaining:
        say(f"error: {folder}: {_summarize_problems(remaining)}")
        raise typer.Exit(1)


def _summarize_problems(problems: Sequence[Problem]) -> str:
    """Count the problems of a store, name their shards, and add the remedy."""
    shards = list(dict.fromkeys(problem.shard for problem in problems))
    more = f" and {len(shards) - _MAX_NAMED} more" if len(shards) > _MAX_NAMED else ""
    remedy = (
        "Run the command that created the store again."
        if all(problem.text == "not embedded yet" for problem in problems)
        else "Run it again with --repair, then the command that created the store."
        if any(problem.cured for problem in problems)
        else "Rename the images that share an id, then embed them into a new store."
    )
    return (
        f"{pluralize(len(problems), 'problem')} in {pluralize(len(shards), 'shard')} "
        f"({', '.join(shards[:_MAX_NAMED])}{more}): {problems[0].text}\n  {remedy}"
    )


@app.command(cls=Command)
def index(
    folder: Folder,
    drop: Annotated[bool, typer.Option("--drop", help="Remove the index.")] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Build the index even if it exists.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Build the search index ahead of the first search.

    An index is a copy of the vectors, sorted by position. It speeds up searches of a large store
    several times without changing the results. It takes one and a half times the space of a float16
    store, and may be removed at any time.

    Raises:
        StoreError: If the store is missing or damaged.
        OutputError: If the index cannot be written.
    """
    from marsretrieval.embeddings.store import open_store
    from marsretrieval.search.index.find import drop_index, make_index

    if drop:
        freed = drop_index(folder)
        if as_json:
            print_json({"store": str(folder), "freed": freed})
        else:
            echo(f"{folder}: {freed:,} bytes freed" if freed else f"{folder}: no search index")
        return
    store = open_store(folder)
    with show_progress(quiet=as_json) as progress:
        search_index = make_index(store, anew=anew, progress=progress)
    if as_json:
        index_record = {"store": str(folder), "search_view": str(search_index.path)}
        print_json({**index_record, "rows": search_index.rows, "bytes": search_index.bytes})
    else:
        echo(f"{search_index.path}: {search_index.rows:,} rows, {search_index.bytes:,} bytes")


@app.command(cls=Command)
def export(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Output file.")],
    to: Annotated[str, typer.Option(help="Format: parquet (GeoParquet 1.1).")] = "parquet",
    as_json: JsonFlag = False,
) -> None:
    """Export ids, positions and vectors to one file.

    Raises:
        UsageError: If the format or the file name is invalid.
        StoreError: If the store is missing, damaged or unfinished.
        OutputError: If the file cannot be written.
    """
    if to != "parquet":
        raise UsageError(f"unknown export format '{to}'", remedy="Use --to parquet.")
    from marsretrieval.embeddings.export import export_parquet
    from marsretrieval.embeddings.store import open_store

    store = open_store(folder)
    with show_progress(quiet=as_json) as progress:
        export_parquet(store, out, progress=progress)
    if as_json:
        print_json({"store": str(folder), "out": str(out), "rows": store.rows})
    else:
        echo(f"{out}: {store.rows:,} rows, {out.stat().st_size:,} bytes")
