"""``marsretrieval store``: look at a store, check it, make it ready to search, copy it out."""

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
    from marsretrieval.embeddings import EmbeddingStore, Problem

_NAMED = 3

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Look at a store of embeddings, check it, prepare it, export it.",
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the store.")]


@app.command(cls=Command)
def info(folder: Folder, as_json: JsonFlag = False) -> None:
    """What a store holds, who made it, and what was left out."""
    from marsretrieval.embeddings import open_store
    from marsretrieval.search import existing_index

    store = open_store(folder)
    view = existing_index(store)
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
        "search_view": None if view is None else str(view.path),
        **_speed(store),
    }
    skipped = [
        {"id": item.id, "source": item.source, "reason": item.reason} for item in store.skipped
    ]
    if as_json:
        print_json({**told, "skipped": skipped})
        return
    state = "complete" if store.complete else f"{pluralize(len(store.missing), 'shard')} missing"
    rows, shards = pluralize(store.rows, store.kind), pluralize(len(store.manifest.shards), "shard")
    echo(f"{folder}: {rows} in {shards}, {state}")
    echo(f"  model    {store.encoder.get('id')}, {store.dimension} x {store.dtype}")
    echo(f"  data     {store.dataset['name']} ({store.dataset['kind']})")
    echo(f"  set hash {told['set_hash']}")
    echo(f"  size     {told['bytes']:,} bytes, made {store.manifest.created}")
    if told["images_per_s"] and told["device_idle"] is not None:
        echo(f"  made at  {told['images_per_s']:,.0f} {store.kind}s/s, "
              f"device idle {told['device_idle']:.0%}")  # fmt: skip
    if view is not None:
        echo(f"  search   view of {view.bytes:,} bytes in {view.path}")
    echo(f"  left out {len(skipped)}")
    for item in skipped[:10]:
        echo(f"    {item['source']}: {item['reason']}")
    if len(skipped) > 10:
        echo(f"    and {len(skipped) - 10} more: --json lists all")


def _speed(store: EmbeddingStore) -> dict[str, float | None]:
    """Of one process: where several worked at once, each of them had this speed."""
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
        typer.Option("--repair", help="Have damaged shards made again by the next embed."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Read all of a store and compare it with its checksums.

    Exit code 1 if anything is wrong; with --repair, 0 if embedding again will set all of it right.
    """
    from marsretrieval.embeddings import verify_store
    from marsretrieval.search import verify_index

    with show_progress(quiet=as_json) as progress:
        found = verify_store(folder, repair=repair, progress=progress)
        views = verify_index(folder)
    if as_json:
        print_json(
            {
                "store": str(folder),
                "rows": found.rows,
                "problems": [str(problem) for problem in found.problems],
                "dropped": list(found.dropped),
                "to_embed": list(found.to_embed),
                "search_view": views,
            }
        )
    elif not found.problems:
        rows, shards = pluralize(found.rows, "row"), pluralize(found.shards, "shard")
        echo(f"{folder}: {rows} in {shards}, all as written")
    else:
        for problem in found.problems:
            echo(problem)
        if found.dropped:
            echo(f"dropped: {', '.join(found.dropped)}")
        if found.to_embed:
            shards = pluralize(len(found.to_embed), "shard")
            echo(f"The command that made the store embeds {shards} anew.")
        elif not repair and any(problem.cured for problem in found.problems):
            echo("To have damaged shards made again: --repair, then the command that made it.")
    if views and not as_json:
        for line in views:
            echo(line)
        echo("The search view was removed; the next search, or store index, makes it anew.")
    left = [problem for problem in found.problems if not (repair and problem.cured)]
    if left:
        say(f"error: {folder}: {_summary(left)}")
        raise typer.Exit(1)


def _summary(problems: Sequence[Problem]) -> str:
    """What is wrong with a store, naming shards, and the remedy."""
    shards = list(dict.fromkeys(problem.shard for problem in problems))
    more = f" and {len(shards) - _NAMED} more" if len(shards) > _NAMED else ""
    remedy = (
        "Run the command that made the store again."
        if all(problem.text == "not embedded yet" for problem in problems)
        else "Run it again with --repair, then the command that made the store."
        if any(problem.cured for problem in problems)
        else "Rename the images that share an id, then embed them into a new store."
    )
    return (
        f"{pluralize(len(problems), 'problem')} in {pluralize(len(shards), 'shard')} "
        f"({', '.join(shards[:_NAMED])}{more}): {problems[0].text}\n  {remedy}"
    )


@app.command(cls=Command)
def index(
    folder: Folder,
    drop: Annotated[bool, typer.Option("--drop", help="Remove it instead.")] = False,
    anew: Annotated[bool, typer.Option("--anew", help="Make it even if it is there.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make the search view ahead of the first search.

    A view holds the vectors once more, sorted by place. It makes searches of a large store several
    times faster and changes no answer. It takes one and a half times the space of a float16 store,
    and may be removed at any time.
    """
    from marsretrieval.embeddings import open_store
    from marsretrieval.search import drop_index, make_index

    if drop:
        freed = drop_index(folder)
        if as_json:
            print_json({"store": str(folder), "freed": freed})
        else:
            echo(f"{folder}: {freed:,} bytes freed" if freed else f"{folder}: no search view")
        return
    store = open_store(folder)
    with show_progress(quiet=as_json) as progress:
        view = make_index(store, anew=anew, progress=progress)
    if as_json:
        about = {"store": str(folder), "search_view": str(view.path)}
        print_json({**about, "rows": view.rows, "bytes": view.bytes})
    else:
        echo(f"{view.path}: {view.rows:,} rows, {view.bytes:,} bytes")


@app.command(cls=Command)
def export(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="File to write.")],
    to: Annotated[str, typer.Option(help="Format: parquet (GeoParquet 1.1).")] = "parquet",
    as_json: JsonFlag = False,
) -> None:
    """Write ids, positions and vectors to one file for other programs."""
    if to != "parquet":
        raise UsageError(f"no export to '{to}'", remedy="Use --to parquet.")
    from marsretrieval.embeddings import export_parquet, open_store

    store = open_store(folder)
    with show_progress(quiet=as_json) as progress:
        export_parquet(store, out, progress=progress)
    if as_json:
        print_json({"store": str(folder), "out": str(out), "rows": store.rows})
    else:
        echo(f"{out}: {store.rows:,} rows, {out.stat().st_size:,} bytes")
