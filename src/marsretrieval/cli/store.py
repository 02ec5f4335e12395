"""``marsretrieval store``: inspect, verify, index, export, merge and divide stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marsretrieval.cli.console import JsonFlag, echo, print_json, say, show_progress
from marsretrieval.cli.help import Command, Group
from marsretrieval.cli.options import check_output_files, check_output_folder
from marsretrieval.errors import DataError, UsageError
from marsretrieval.text import pluralize, suggest_path

if TYPE_CHECKING:
    from marsretrieval.embeddings.combine import DerivedStore
    from marsretrieval.embeddings.verify import Problem

_MAX_NAMED = 3

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Inspect, verify, index, export, merge and divide stores.",
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the store.")]


@app.command(cls=Command)
def info(folder: Folder, as_json: JsonFlag = False) -> None:
    """Show the contents, the model and the skipped images of a store.

    Raises:
        StoreError: If the store is missing or damaged.
    """
    from marsretrieval.api.store import store_info
    from marsretrieval.datasets.listing import readable_bytes
    from marsretrieval.embeddings.store import open_store

    store = open_store(folder)
    store_record = store_info(store)
    skipped = store_record["skipped"]
    if as_json:
        print_json(store_record)
        return
    state = "complete" if store.complete else f"{pluralize(len(store.missing), 'shard')} missing"
    rows, shards = pluralize(store.rows, store.kind), pluralize(len(store.manifest.shards), "shard")
    echo(f"{folder}: {rows} in {shards}, {state}")
    dimensions = pluralize(store.dimension, "dimension")
    echo(f"  model    {store.encoder.get('id')}, {dimensions} of {store.dtype}")
    echo(f"  data     {store.dataset['name']} ({store.dataset['kind']})")
    echo(f"  set hash {store_record['set_hash']}")
    echo(f"  size     {readable_bytes(store_record['bytes'])}, made {store.manifest.created}")
    if store_record["images_per_s"] and store_record["device_idle"] is not None:
        echo(f"  made at  {store_record['images_per_s']:,.0f} {store.kind}s/s, "
              f"device idle {store_record['device_idle']:.0%}")  # fmt: skip
    if store_record["search_view"] is not None:
        size, path = store_record["search_view_bytes"], store_record["search_view"]
        echo(f"  search   index of {readable_bytes(size)} in {path}")
    for source in store_record["dataset"].get("derived", {}).get("sources", ()):
        rows = pluralize(source["rows"], "row")
        echo(f"  made of  {source['path']}: {rows}, set hash {source['set_hash'][:12]}")
    echo(f"  left out {len(skipped)}")
    for item in skipped[:10]:
        echo(f"    {item['source']}: {item['reason']}")
    if len(skipped) > 10:
        echo(f"    and {len(skipped) - 10} more: --json lists all")


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
        if all(problem.pending for problem in problems)
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
        UsageError: If --drop and --anew are both given.
        StoreError: If the store is missing or damaged.
        OutputError: If the index cannot be written.
    """
    from marsretrieval.datasets.listing import readable_bytes
    from marsretrieval.embeddings.store import open_store
    from marsretrieval.search.index.find import drop_index, make_index

    if drop and anew:
        raise UsageError("--drop and --anew exclude each other", remedy="Give one of the two.")
    if drop:
        freed = drop_index(folder)
        if as_json:
            print_json({"store": str(folder), "freed": freed})
        else:
            freed_size = f"{readable_bytes(freed)} freed" if freed else "no search index"
            echo(f"{folder}: {freed_size}")
        return
    store = open_store(folder)
    with show_progress(quiet=as_json) as progress:
        search_index = make_index(store, anew=anew, progress=progress)
    if as_json:
        index_record = {"store": str(folder), "search_view": str(search_index.path)}
        print_json({**index_record, "rows": search_index.rows, "bytes": search_index.bytes})
    else:
        echo(
            f"{search_index.path}: {pluralize(search_index.rows, 'row')}, "
            f"{readable_bytes(search_index.bytes)}"
        )


@app.command(cls=Command)
def export(
    folder: Folder,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", callback=check_output_files, help="Output file."
        ),
    ],
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
    from marsretrieval.datasets.listing import readable_bytes
    from marsretrieval.embeddings.export import export_parquet
    from marsretrieval.embeddings.store import open_store

    store = open_store(folder)
    with show_progress(quiet=as_json) as progress:
        export_parquet(store, out, progress=progress)
    if as_json:
        print_json({"store": str(folder), "out": str(out), "rows": store.rows})
    else:
        size = readable_bytes(out.stat().st_size)
        echo(f"{out}: {pluralize(store.rows, 'row')}, {size}")


OutFolder = Annotated[
    Path,
    typer.Option(
        "--out", "-o", metavar="DIR", callback=check_output_folder, help="Folder of the new store."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the stores and show the plan.")]


@app.command(cls=Command)
def merge(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of two or more stores.")
    ],
    out: OutFolder,
    prefer: Annotated[
        str | None,
        typer.Option(metavar="first", help="Keep the row of the first store if vectors differ."),
    ] = None,
    dry_run: DryRun = False,
    as_json: JsonFlag = False,
) -> None:
    """Merge stores of one model into a new store.

    The files of the shards are hard-linked, or copied to another file system. A row that is in
    several stores with the same vector is kept once; with different vectors it is an error, unless
    --prefer first is given. The new store is written completely or not at all.

    Raises:
        UsageError: If an option is invalid.
        StoreMismatchError: If the stores are of several models.
        StoreError: If a store is missing, damaged or unfinished.
        DataError: If an id has different vectors.
        OutputError: If the new store exists already or cannot be written.
    """
    from marsretrieval.embeddings import merge_stores

    if prefer not in (None, "first"):
        raise UsageError(f"--prefer {prefer}: invalid", remedy="Use --prefer first.")
    with show_progress(quiet=as_json) as progress:
        derived = merge_stores(
            folders,
            out,
            prefer=None if prefer is None else "first",
            dry_run=dry_run,
            progress=progress,
        )
    _print_derived(derived, folders, as_json=as_json)


@app.command(cls=Command)
def subset(
    folder: Folder,
    out: OutFolder,
    bbox: Annotated[
        str | None,
        typer.Option(metavar="W,S,E,N", help="Keep tiles centred in this box (degrees east)."),
    ] = None,
    region: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep tiles centred in the polygons of a file."),
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep tiles of a list, one id per line.")
    ] = None,
    dry_run: DryRun = False,
    as_json: JsonFlag = False,
) -> None:
    """Copy the tiles of a region or a list into a new store.

    The manifest of the new store names the store it was copied from. The new store is written
    completely or not at all.

    Raises:
        UsageError: If not exactly one selection is given.
        StoreError: If the store is missing, damaged or unfinished.
        DataError: If no tile is selected, an id is missing, or a file cannot be read.
        OutputError: If the new store exists already or cannot be written.
    """
    from marsretrieval.embeddings import subset_store
    from marsretrieval.geo import Area, Box, Region
    from marsretrieval.io import sha256_file

    if sum(option is not None for option in (bbox, region, ids)) != 1:
        raise UsageError("subset needs one of --bbox, --region and --ids", remedy="Give one.")
    area: Region | None = None
    names: list[str] | None = None
    options: dict[str, str] = {}
    if bbox is not None:
        area, options = Box.parse(bbox), {"bbox": bbox}
    elif region is not None:
        if not region.exists():
            raise DataError(f"{region}: no such file", remedy="Give a vector file of polygons.")
        area = Area.read(region)
        options = {"region": region.name, "region_sha256": sha256_file(region)}
    elif ids is not None:
        names = _read_ids(ids)
    with show_progress(quiet=as_json) as progress:
        derived = subset_store(
            folder,
            out,
            region=area,
            ids=names,
            options=options,
            dry_run=dry_run,
            progress=progress,
        )
    _print_derived(derived, [folder], as_json=as_json)


def _read_ids(path: Path) -> list[str]:
    remedy = "Give a text file, one id per line."
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file", remedy=suggest_path(path)) from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder, not a list of ids", remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8", remedy=remedy) from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error})", remedy=remedy
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise DataError(f"{path}: no ids", remedy="Give a text file, one id per line.")
    return names


def _print_derived(derived: DerivedStore, folders: Sequence[Path], *, as_json: bool) -> None:
    if as_json:
        record = {**asdict(derived), "store": str(derived.path), "sources": list(map(str, folders))}
        del record["path"]
        print_json(record)
        return
    planned = "written" if derived.written else "would be written"
    state = "made before, kept" if derived.exists else planned
    rows, shards = pluralize(derived.rows, "row"), pluralize(derived.shards, "shard")
    echo(f"{derived.path}: {rows} in {shards} ({derived.linked} without a change), {state}")
    if derived.duplicates:
        echo(f"  {pluralize(derived.duplicates, 'row')} left out: the id is in an earlier store")
