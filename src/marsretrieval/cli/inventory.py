"""``marsretrieval inventory``: from a ranked list to a catalogue of known completeness."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marsretrieval.cli.console import JsonFlag, echo, print_json, say, show_progress
from marsretrieval.cli.help import Command, Group
from marsretrieval.cli.options import (
    StoreModelOptions,
    check_output_files,
    expand_options,
)
from marsretrieval.errors import UsageError
from marsretrieval.text import list_some, pluralize

if TYPE_CHECKING:
    from marsretrieval.inventory import Inventory, InventoryFiles

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Catalogue a landform: mark tiles, learn a ranking, audit it.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Folder of the inventory.")]
StoreOption = Annotated[
    Path | None,
    typer.Option("--store", metavar="DIR", help="Folder of the store, if it has moved."),
]


@contextmanager
def _open(name: str, store: Path | None = None, *, write: bool = True) -> Iterator[Inventory]:
    from marsretrieval.api.inventory import open_inventory

    with open_inventory(name, store=store, read_only=not write) as inventory:
        _report_torn(inventory.files)
        yield inventory


def _read(name: str) -> InventoryFiles:
    from marsretrieval.inventory import InventoryFiles, inventory_path

    files = InventoryFiles(inventory_path(name))
    _report_torn(files)
    return files


def _report_torn(files: InventoryFiles) -> None:
    if files.torn:
        say(f"warning: {files.torn}")


@app.command(cls=Command)
@expand_options
def new(
    *,
    name: Name,
    store: Annotated[Path, typer.Option(help="Folder of the store, made by embed or run.")],
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Text query; repeat to average several texts."),
    ] = None,
    similar_to: Annotated[
        list[str] | None,
        typer.Option(
            "--similar-to",
            metavar="TILE",
            help="Id of an example tile of the store; repeatable.",
        ),
    ] = None,
    vector: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Query vector, a NumPy file (.npy).")
    ] = None,
    landform: Annotated[
        str | None, typer.Option(help="Name of the landform (default: the text).")
    ] = None,
    loading: StoreModelOptions,
    as_json: JsonFlag = False,
) -> None:
    """Create an inventory of a landform in a store.

    The text (or example tiles, or a vector) gives the first ranking. Its vector is saved, so that
    the other commands load no model.

    Raises:
        UsageError: If there is nothing to look for.
        StoreError: If the store is missing or damaged.
        InventoryError: If the inventory exists.
        OutputError: If it cannot be written.
    """
    from marsretrieval.api.inventory import create_inventory
    from marsretrieval.inventory import inventory_path

    path = inventory_path(name)
    query = None
    if vector is not None:
        from marsretrieval.search.query import read_vector

        query = read_vector(vector)
    opened = loading.open_store(store)
    ignored = [] if text else loading.report_unused()
    if opened.missing:
        say(f"warning: {store} is not finished: {pluralize(len(opened.missing), 'shard')} missing")
    with create_inventory(
        path, opened, text=text, similar_to=similar_to or (), vector=query, landform=landform
    ) as inventory:
        header = inventory.files.header
        record = {
            "inventory": str(path),
            "landform": header.landform,
            "store": str(store),
            "set_hash": header.store.set_hash,
            "population": inventory.population,
            "without_data": header.without_data,
            **({"ignored_options": ignored} if ignored else {}),
        }
        tiles = pluralize(inventory.population, "tile")
    if as_json:
        print_json(record)
        return
    echo(f"{path}: {header.landform}, in {tiles} of {store}")
    if header.without_data:
        say(f"note: {pluralize(header.without_data, 'tile')} without data left out")


@app.command(cls=Command, name="next")
def next_tiles(
    name: Name,
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, max=10_000, help="Number of tiles.")
    ] = 25,
    store: StoreOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the tiles to inspect and mark next.

    Two of three are the best unmarked tiles, one is drawn from further down the ranking. While an
    audit is open, it is the audit's page, without scores; no tiles when it is complete.

    Raises:
        InventoryError: If there is no inventory, or it belongs to another store.
        OutputError: If an audit's page cannot be saved.
    """
    with _open(name, store) as inventory, show_progress(quiet=as_json) as progress:
        page = inventory.next(count, progress=progress)
    if as_json:
        print_json(
            {
                "tiles": page.tiles,
                "audit": page.audit,
                "page": page.page,
                "complete": page.complete,
            }
        )
        return
    for tile in page.tiles:
        lonlat = f"{'position unknown':>20}"
        if tile["lon"] is not None and tile["lat"] is not None:
            lonlat = f"{tile['lon']:10.4f} {tile['lat']:9.4f}"
        score = f"{tile['score']:7.4f} {tile['how']:9}" if "score" in tile else ""
        echo(f"{lonlat}  {score}  {tile['id']}")
    if page.audit is not None and page.tiles:
        say(f"audit {page.audit}, page {page.page}: mark every tile, then ask for the next page")
    elif page.audit is not None:
        say(f"audit {page.audit} is complete: inventory estimate {name}, then audit {name} close")
    elif page.complete:
        say("every tile is marked")


@app.command(cls=Command)
def sheet(
    name: Name,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            callback=check_output_files,
            help="Output file: .png, .jpg or .pdf.",
        ),
    ],
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, max=1000, help="Number of tiles.")
    ] = 25,
    store: StoreOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw the tiles to inspect next as a contact sheet, without scores.

    The tiles are those of next, in the same order.

    Raises:
        UsageError: If the file name has no such format.
        InventoryError: If there is no inventory, or it is open elsewhere.
        OutputError: If the file cannot be written.
    """
    from marsretrieval.inventory.report import draw_sheet
    from marsretrieval.search.sheet import check_sheet_path

    check_sheet_path(out)
    with _open(name, store) as inventory, show_progress(quiet=as_json) as progress:
        page = inventory.next(count, progress=progress)
        tile_store = inventory.store
    problems = draw_sheet(page.tiles, out, store=tile_store) if page.tiles else []
    if problems:
        say(
            f"warning: {len(problems):,} of {pluralize(len(page.tiles), 'image')} not readable: "
            f"{problems[0]}"
        )
    if as_json:
        record = {"path": str(out) if page.tiles else None, "unreadable": problems}
        print_json({**record, "tiles": page.tiles, "audit": page.audit, "complete": page.complete})
    elif page.tiles:
        echo(f"{out}: {pluralize(len(page.tiles), 'tile')}")
    else:
        echo(
            "no tiles to look at: " + ("the audit is complete" if page.audit else "all are marked")
        )


@app.command(cls=Command)
def mark(
    name: Name,
    answers: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID=yes|no|unsure|none]...", help="Tile ids with answers."),
    ] = None,
    from_file: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Table with the columns id and mark; optional: count, tiles, note.",
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="Number of landforms in the tile (with one ID only).")
    ] = None,
    tiles: Annotated[
        int | None,
        typer.Option(min=1, help="Number of positive tiles of its place (with one ID only)."),
    ] = None,
    note: Annotated[str | None, typer.Option(help="Free text, saved with the marks.")] = None,
    store: StoreOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Record what tiles show: yes, no, unsure or none.

    `none` removes a mark. All marks of a call are saved or none. A mark is on the disk when
    the command ends.

    Raises:
        UsageError: If an id or an answer is invalid.
        TableError: If the file is no such table.
        InventoryError: If there is no inventory, or it is open elsewhere.
        OutputError: If the marks could not be saved.
    """
    from marsretrieval.inventory import Answer

    marks = [Answer(*_split(item), count=count, tiles=tiles, note=note) for item in answers or []]
    if from_file is not None:
        if marks or count is not None or tiles is not None or note is not None:
            raise UsageError("--from and marks on the command line", remedy="Give one of them.")
        from marsretrieval.inventory.answers import read_answers

        marks, unused = read_answers(from_file)
        if unused:
            say(f"note: {from_file}: columns not read: {list_some(unused)}")
    if (count is not None or tiles is not None) and len(marks) > 1:
        raise UsageError(
            "--count and --tiles describe one tile", remedy="Mark tiles one by one, or use --from."
        )
    with _open(name, store) as inventory:
        totals = inventory.mark(marks)
    if as_json:
        print_json({"saved": len(marks), "marked": totals})
    else:
        echo(f"{pluralize(len(marks), 'mark')} saved; {_totals(totals)}")


@app.command(cls=Command)
def learn(name: Name, store: StoreOption = None, as_json: JsonFlag = False) -> None:
    """Learn a better ranking from the marks.

    The query vector of the ranking is saved as learned.npy in the inventory, also for
    `search --vector`. Marks of an open audit are not used.

    Raises:
        UsageError: If all marks are yes or all are no.
        InventoryError: If there is no inventory, or it is open elsewhere.
    """
    with _open(name, store) as inventory:
        inventory.learn()
        totals, held_back = inventory.counts(), inventory.held_back
        path = inventory.path / "learned.npy"
    if as_json:
        print_json({"vector": str(path), "marked": totals, "held_back": held_back})
        return
    echo(f"{path}: learned from {_totals(totals)}")
    if held_back:
        say(f"note: {pluralize(held_back, 'mark')} of the open audit left out until it is closed")


@app.command(cls=Command)
def audit(
    name: Name,
    action: Annotated[
        str, typer.Argument(metavar="start|close", help="Start an audit, or close the open one.")
    ],
    domain: Annotated[
        int | None,
        typer.Option(min=1, help="Number of best-ranked tiles to estimate for (default: 6300)."),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(help="Relative half width of the interval to reach (default: 0.2)."),
    ] = None,
    elsewhere: Annotated[
        int | None,
        typer.Option(min=0, help="Number of tiles to inspect outside the domain (default: 100)."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the draws (default: 0).")] = None,
    store: StoreOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Start or close an audit, a random sample of the ranking.

    An audit freezes the ranking and samples the unmarked tiles of its first part, the domain. Mark
    the tiles that `next` lists until it lists none. --domain, --target, --elsewhere and --seed
    apply to start only.

    Raises:
        UsageError: If an audit is open (start) or none is (close), or an option is invalid.
        InventoryError: If there is no inventory, or it is open elsewhere.
    """
    if action not in ("start", "close"):
        raise UsageError(f"'{action}' is not start or close")
    if action == "close":
        options = {"domain": domain, "target": target, "elsewhere": elsewhere, "seed": seed}
        for option, value in options.items():
            if value is not None:
                raise UsageError(f"--{option} goes with start, not with close")
        with _open(name, store) as inventory:
            closed = inventory.close_audit()
            estimate = inventory.estimate()
        if as_json:
            print_json({"audit": closed.number, "state": "closed", **estimate})
        else:
            _print_estimate(estimate)
        return
    from marsretrieval.inventory.inventory import DOMAIN

    audit_domain = DOMAIN if domain is None else domain
    settings = {"target": target, "elsewhere": elsewhere, "seed": seed}
    with _open(name, store) as inventory, show_progress(quiet=as_json) as progress:
        started = inventory.start_audit(
            audit_domain,
            progress=progress,
            **{key: value for key, value in settings.items() if value is not None},  # type: ignore[arg-type]
        )
    if started.domain < audit_domain:
        say(
            f"note: the domain is the whole store, {pluralize(started.domain, 'tile')}, not "
            f"{audit_domain:,}"
        )
    if as_json:
        print_json(
            {
                "audit": started.number,
                "state": "open",
                "domain": started.domain,
                "strata": list(started.sizes),
                "elsewhere": started.rest,
                "target": started.target,
                "seed": started.seed,
                "ranking": started.ranking,
            }
        )
        return
    strata = ", ".join(f"{size:,}" for size in started.sizes) or "none, all are marked"
    echo(
        f"audit {started.number}: the first {pluralize(started.domain, 'tile')}; unmarked by "
        f"stratum: {strata}"
    )
    say(f"look at its tiles: marsretrieval inventory next {name}")


@app.command(cls=Command)
def estimate(name: Name, as_json: JsonFlag = False) -> None:
    """Estimate the number of tiles and places, and the completeness.

    Computed from the files of the inventory alone; the store is not read.

    Raises:
        InventoryError: If there is no inventory, or it is damaged.
    """
    from marsretrieval.inventory import estimate_files

    result = estimate_files(_read(name))
    if as_json:
        print_json(result)
    else:
        _print_estimate(result)


@app.command(cls=Command)
def export(
    name: Name,
    out: Annotated[
        list[Path],
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            callback=check_output_files,
            help="Output file; repeatable.",
        ),
    ],
    what: Annotated[
        str | None,
        typer.Option(
            metavar="places|ground-truth|negatives|marks|report",
            help="Contents (default: by the file name).",
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Export places, ground truth, negatives, all marks or a report.

    places.gpkg (.geojson, .parquet, .fgb, .csv), ground_truth.csv (for run and score),
    negatives.csv, marks.csv, report.md, report.html.

    Raises:
        UsageError: If a file name does not say what it is to hold.
        InventoryError: If there is nothing to export.
        OutputError: If a file cannot be written.
    """
    from marsretrieval.api.inventory import find_store
    from marsretrieval.inventory.export import LAYERS, content_of, write_inventory
    from marsretrieval.inventory.store_identity import check_store

    files = _read(name)
    for path in out:
        content_of(path, what)
        if out.count(path) > 1:
            raise UsageError(f"{path}: named twice", remedy="Give the files different names.")

    if store is not None and not any(path.suffix.lower() in LAYERS for path in out):
        raise UsageError(
            "--store: no file of these reads the store",
            remedy=f"Name a layer ({', '.join(LAYERS)}), or leave it out.",
        )

    def opened() -> Any:
        tile_store = find_store(files, store)
        check_store(files, tile_store)
        return tile_store

    written: list[dict[str, Any]] = []
    command = f"marsretrieval inventory export {name} -o FILE"
    for path in out:
        content, number = write_inventory(files, path, content=what, store=opened, command=command)
        written.append({"path": str(path), "content": content, "rows": number})
    if as_json:
        print_json({"files": written})
        return
    for record in written:
        rows = "" if record["content"] == "report" else f", {pluralize(record['rows'], 'row')}"
        echo(f"{record['path']}: {record['content']}{rows}")


@app.command(cls=Command)
def update(
    name: Name,
    store: Annotated[Path, typer.Option(help="Folder of the store that has grown or moved.")],
    as_json: JsonFlag = False,
) -> None:
    """Continue an inventory with a store that has grown.

    Marks are mapped by tile id. The store must be of the same encoder.

    Raises:
        UsageError: If an audit is open, or a marked tile is missing.
        InventoryError: If the store is of another encoder.
    """
    from marsretrieval.embeddings import open_store
    from marsretrieval.inventory import InventoryFiles, inventory_path
    from marsretrieval.inventory.store_identity import update_store

    files = InventoryFiles(inventory_path(name), write=True)
    try:
        _report_torn(files)
        result = update_store(files, open_store(store))
    finally:
        files.close()
    if as_json:
        print_json({"store": str(store), **result})
    else:
        echo(
            f"{files.path}: {pluralize(result['before'], 'tile')} before, {result['after']:,} now; "
            f"{pluralize(result['marked'], 'marked tile')} mapped"
        )


def _split(item: str) -> tuple[str, Any]:
    name, sign, value = item.rpartition("=")
    if not sign or not name:
        raise UsageError(f"'{item}' is not a mark", remedy="Write ID=yes, ID=no or ID=unsure.")
    return name, value.lower()


def _totals(totals: dict[str, int]) -> str:
    return f"{totals['yes']:,} yes, {totals['no']:,} no, {totals['unsure']:,} unsure"


def _print_estimate(estimate: dict[str, Any]) -> None:
    from marsretrieval.inventory.report import describe

    echo(describe(estimate))
    audit_record = estimate["audit"]
    echo(f"  marked       {_totals(estimate['marked'])}")
    places = estimate["places"]
    if places["estimate"] is not None:
        low, high = f"{places['low']:,.1f}", f"{places['high']:,.1f}"
        echo(f"  places       {places['estimate']:,.1f} ({low} to {high})")
        if places["assumed"]:
            echo(f"               {places['assumed']:,} positive tiles without a stated place size")
    if audit_record is None:
        echo(f"  next         marsretrieval inventory audit {estimate['inventory']} start")
        return
    state = "complete" if audit_record["complete"] else audit_record["state"]
    if audit_record["pending"]:
        state += f", {pluralize(audit_record['pending'], 'tile')} of its page unmarked"
    width = estimate["half_width"]
    reached = (
        "" if width is None else f", half width {width:.0%} (target {audit_record['target']:.0%})"
    )
    echo(
        f"  audit {audit_record['number']:<6} {state}; "
        f"{pluralize(estimate['audited'], 'tile')}{reached}"
    )
    for label, key in (("agreement", "agreement"), ("hit rate", "hit_rate")):
        rate = estimate[key]
        if rate:
            echo(
                f"  {label:12} {rate['estimate']:.0%} ({rate['low']:.0%} to {rate['high']:.0%}) "
                f"of {rate['of']:,}"
            )
    corrected = estimate["corrected"]
    if corrected:
        echo(
            f"  corrected    {corrected['estimate']:,.0f} tiles ({corrected['low']:,.0f} to "
            f"{corrected['high']:,.0f}) if the hit rate holds for all"
        )
    sys.stdout.flush()
