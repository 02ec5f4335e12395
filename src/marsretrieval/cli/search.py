"""``marsretrieval search``: search a store by text, images or tiles."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marsretrieval.cli.console import (
    JsonFlag,
    command_line,
    echo,
    print_json,
    say,
    show_progress,
)
from marsretrieval.cli.options import Checkpoint, Device, Offline, TrustRemoteCode
from marsretrieval.errors import UsageError
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.api import Question, SearchResult, Store

_MAX_SHOWN = 20
_HEADER = f"{'rank':>5}  {'score':>6}  {'z':>5}  {'percentile':>10}  {'lon':>9} {'lat':>8}  id"
_QUERY_PANEL, _SELECTION_PANEL, _OUTPUT_PANEL = "What to look for", "Which tiles, how many", "Files"

Paths = list[Path] | None
Words = list[str] | None


def search(
    context: typer.Context,
    store: Annotated[Path, typer.Option(help="Folder of the store, made by embed or run.")],
    text: Annotated[
        Words,
        typer.Option(
            rich_help_panel=_QUERY_PANEL,
            metavar="TEXT",
            help="Text query; repeat to average several texts.",
        ),
    ] = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            rich_help_panel=_QUERY_PANEL,
            help="Encode texts without the three prompt templates.",
        ),
    ] = False,
    image: Annotated[
        Paths,
        typer.Option(
            rich_help_panel=_QUERY_PANEL, metavar="FILE", help="Example image; repeatable."
        ),
    ] = None,
    like: Annotated[
        Words,
        typer.Option(
            rich_help_panel=_QUERY_PANEL,
            metavar="TILE",
            help="Id of an example tile of the store; repeatable.",
        ),
    ] = None,
    like_at: Annotated[
        Words,
        typer.Option(
            rich_help_panel=_QUERY_PANEL,
            metavar="LON,LAT",
            help="Position of an example tile of the store; repeatable.",
        ),
    ] = None,
    mix: Annotated[
        float,
        typer.Option(
            rich_help_panel=_QUERY_PANEL,
            min=0,
            max=1,
            help="Weight of the example images in a text+image query.",
        ),
    ] = 0.3,
    not_text: Annotated[
        Words,
        typer.Option(
            rich_help_panel=_QUERY_PANEL, metavar="TEXT", help="Negative text; repeatable."
        ),
    ] = None,
    not_image: Annotated[
        Paths,
        typer.Option(
            rich_help_panel=_QUERY_PANEL,
            metavar="FILE",
            help="Negative example image; repeatable.",
        ),
    ] = None,
    not_like: Annotated[
        Words,
        typer.Option(
            rich_help_panel=_QUERY_PANEL,
            metavar="TILE",
            help="Id of a negative example tile; repeatable.",
        ),
    ] = None,
    not_weight: Annotated[
        float,
        typer.Option(
            rich_help_panel=_QUERY_PANEL,
            min=0,
            max=1,
            help="Weight of the negative examples relative to the query.",
        ),
    ] = 0.25,
    bbox: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_SELECTION_PANEL,
            metavar="W,S,E,N",
            help="Search only tiles centred in this box (degrees east).",
        ),
    ] = None,
    region: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=_SELECTION_PANEL,
            metavar="FILE",
            help="Search only tiles centred in the polygons of a file.",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            "-k",
            rich_help_panel=_SELECTION_PANEL,
            min=1,
            help="Number of hits (default: 500, or all with --min-score).",
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_SELECTION_PANEL,
            help="Minimum cosine similarity of a hit.",
        ),
    ] = None,
    min_valid: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_SELECTION_PANEL,
            metavar="SHARE",
            min=0,
            max=1,
            help="Minimum share of valid pixels; 0 keeps empty tiles.",
        ),
    ] = None,
    keep_examples: Annotated[
        bool,
        typer.Option(
            "--keep-examples",
            rich_help_panel=_SELECTION_PANEL,
            help="Include the example tiles in the hits.",
        ),
    ] = False,
    merge_deg: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_SELECTION_PANEL,
            metavar="DEG",
            help="Merge hits closer than DEG degrees.",
        ),
    ] = None,
    out: Annotated[
        Paths,
        typer.Option(
            "--out",
            "-o",
            rich_help_panel=_OUTPUT_PANEL,
            metavar="FILE",
            help="Output file: .csv, .geojson, .parquet, .gpkg, .fgb, .shp, .shp.zip, a page with "
            "images: .html, or a map: .png, .svg, .pdf; repeatable.",
        ),
    ] = None,
    page_images: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=_OUTPUT_PANEL,
            metavar="N",
            min=0,
            help="Number of hits with an image in .html (default: 500).",
        ),
    ] = None,
    sheet: Annotated[
        Paths,
        typer.Option(
            rich_help_panel=_OUTPUT_PANEL,
            metavar="FILE",
            help="Contact sheets of the images: .png, .jpg or .pdf; repeatable.",
        ),
    ] = None,
    heatmap: Annotated[
        Paths,
        typer.Option(
            rich_help_panel=_OUTPUT_PANEL,
            metavar="FILE",
            help="Scores of all tiles as GeoTIFF (.tif) or map (.png); repeatable.",
        ),
    ] = None,
    heatmap_cell: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_OUTPUT_PANEL,
            metavar="DEG",
            help="Pixel size of the heat map, for irregular tilings.",
        ),
    ] = None,
    style: Annotated[
        str, typer.Option(rich_help_panel=_OUTPUT_PANEL, metavar="light|dark", help="Map style.")
    ] = "light",
    lon: Annotated[
        int,
        typer.Option(
            rich_help_panel=_OUTPUT_PANEL,
            metavar="180|360",
            help="Longitude range: 180 for -180..180, 360 for 0..360.",
        ),
    ] = 180,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            rich_help_panel="The model",
            metavar="MODEL",
            help="Model of the store if not in the registry: st:NAME, module:Class.",
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            rich_help_panel="The model",
            help="Load any class and checkpoint that the store names (unsafe).",
        ),
    ] = False,
    device: Device = "auto",
    offline: Offline = False,
    trust_remote_code: TrustRemoteCode = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the request and show the plan.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Find the tiles that best match a text, images or tiles.

    The ranking is exact: every tile (of --bbox or --region) is compared with the query. The model
    that made the store is loaded for texts and images; --like needs none. Scores are cosines;
    positions are in IAU_2015:49900.

    Raises:
        UsageError: If the query is incomplete or options exclude each other.
        DataError: If a file of the query cannot be read.
        ModalityError: If the query has a text and the model is vision-only.
        StoreError: If the store is missing or damaged.
        OutputError: If a file cannot be written.
    """
    from marsretrieval.api import open_store
    from marsretrieval.plotting import style_of
    from marsretrieval.search import (
        check_distance,
        check_heatmap,
        check_heatmap_path,
        check_hits_path,
        check_sheet_path,
        parse_lonlat,
    )
    from marsretrieval.search.page import DEFAULT_IMAGES

    for path in out or []:
        check_hits_path(path)
    for path in heatmap or []:
        check_heatmap_path(path)
    for path in sheet or []:
        check_sheet_path(path)
    pages = [path for path in out or [] if path.suffix.lower() == ".html"]
    if page_images is not None and not pages:
        raise UsageError("--page-images goes with -o FILE.html")
    page_images = DEFAULT_IMAGES if page_images is None else page_images
    files = [*(out or []), *(heatmap or []), *(sheet or [])]
    for path in files:
        if files.count(path) > 1:
            raise UsageError(f"{path}: named twice", remedy="Give each file a name of its own.")
    style_of(style)
    if heatmap_cell is not None and not heatmap:
        raise UsageError("--heatmap-cell goes with --heatmap")
    if checkpoint is not None and not checkpoint.exists():
        raise UsageError(f"--checkpoint {checkpoint}: no such file or folder")
    tile_store = open_store(
        store,
        model=model,
        checkpoint=checkpoint,
        trust=trust,
        device=device,
        offline=offline,
        trust_remote_code=trust_remote_code,
        tell=say,
    )
    question = tile_store.question(
        text,
        images=image or [],
        like=like or [],
        like_at=[parse_lonlat(position) for position in like_at or []],
        not_text=not_text or [],
        not_images=not_image or [],
        not_like=not_like or [],
        raw=raw,
        mix=mix,
        not_weight=not_weight,
        bbox=bbox,
        region=region,
        k=count,
        min_score=min_score,
        min_valid=min_valid,
        lon=lon,
        keep_examples=keep_examples,
    )
    if merge_deg is not None:
        check_distance(merge_deg)
    if heatmap:
        check_heatmap(tile_store.embeddings, region=question.region, cell=heatmap_cell, domain=lon)
    if question.needs_encoder:
        tile_store.require_model(needs_text=question.needs_text)
    if tile_store.missing:
        shards = pluralize(len(tile_store.missing), "shard")
        say(f"warning: {store} is not finished: without {shards}")
    if question.exclude is not None:
        share = "without data" if min_valid is None else f"with less data than {min_valid:g}"
        tiles = pluralize(int(question.exclude.sum()), "tile")
        remedy = "; --min-valid 0 keeps them" if min_valid is None else ""
        say(f"note: {tiles} {share} left out{remedy}")
    if dry_run:
        _print_plan(tile_store, question, files, as_json)
        return
    with show_progress(quiet=as_json) as progress:
        result = tile_store.answer(question, progress=progress)
        if merge_deg is not None:
            result = result.merge(merge_deg)
        files_of = (
            result.write(
                path,
                style=style,
                page_images=page_images,
                command=command_line(context) if path in pages else None,
                progress=progress,
            )
            for path in out or []
        )
        written = list(dict.fromkeys(chain.from_iterable(files_of)))  # layers may share a style
        sheets = [
            file
            for path in sheet or []
            for file in result.sheet(path, style=style, progress=progress)
        ]
        if heatmap:
            heat = result.heatmap(cell=heatmap_cell, progress=progress)
            for path in heatmap:
                heat.write(path, hits=result.hits, style=style)
            blank = int(heat.about.get("without_data", 0))
            if blank and question.exclude is None:
                say(f"note: {pluralize(blank, 'tile')} without data have no score in the heat map")
    unplaced = sum(shape is None for shape in result.hits.shapes)
    if as_json:
        report = {
            "rows": len(tile_store),
            "without_position": unplaced,
            "files": [str(path) for path in [*written, *sheets, *(heatmap or [])]],
        }
        if pages or sheet:
            shown = len(result) if sheet else min(page_images, len(result))
            report |= {"images": shown, "images_unreadable": len(result.images.unreadable)}
        print_json({**result.about, **report, "hits": list(result.hits.records())})
    else:
        _print_result(result, [*written, *sheets], heatmap or [])
    if pages and len(result) > page_images:
        say(
            f"note: {len(result) - page_images:,} of {pluralize(len(result), 'hit')} have no image "
            "in the page; --page-images N sets the number"
        )
    if written and unplaced:
        say(
            f"note: {unplaced:,} of {pluralize(len(result), 'hit')} have no position, and no "
            "geometry in the files"
        )


def _print_plan(store: Store, question: Question, files: list[Path], as_json: bool) -> None:
    plan: dict[str, Any] = {
        **question.about,
        "rows": len(store),
        "complete": not store.missing,
        "loads_model": question.needs_encoder,
        "files": [str(path) for path in files],
    }
    if as_json:
        print_json(plan)
        return
    model = "loaded" if question.needs_encoder else "not needed"
    echo(f"{store.path}: {len(store):,} images by {store.model} ({model})")
    for name, value in question.describe():
        echo(f"{name:>10}  {value}")
    for path in files:
        echo(f"{'writes':>10}  {path}")


def _print_result(result: SearchResult, written: list[Path], heatmaps: list[Path]) -> None:
    if not len(result):
        echo(f"no hits: {_explain_no_hits(result)}")
    else:
        echo(_HEADER)
    for hit in result:
        if hit.rank > _MAX_SHOWN:
            more = len(result) - _MAX_SHOWN
            echo(f"... and {more:,} more" + ("" if written else ": -o FILE or --json give all"))
            break
        lonlat = f"{'position unknown':>20}"
        if hit.lon is not None and hit.lat is not None:
            east, north = "W" if hit.lon < 0 else "E", "S" if hit.lat < 0 else "N"
            lonlat = f"{abs(hit.lon):7.3f} {east} {abs(hit.lat):6.3f} {north}"
        z = "" if hit.z is None else f"{hit.z:5.1f}"
        percentile = "" if hit.percentile is None else f"{hit.percentile:10.2f}"
        tiles = "" if hit.tiles is None else f"  {pluralize(hit.tiles, 'tile'):>10}"
        echo(
            f"{hit.rank:>5}  {hit.score:6.4f}  {z:>5}  {percentile:>10}  {lonlat}  {hit.id}{tiles}"
        )
    _print_stands_out(result)
    what = pluralize(len(result), "hit" if result.hits.tiles is None else "place")
    for path in written:
        contents = "style for QGIS" if path.suffix == ".qml" else what
        echo(f"{path}: {contents}")
    for path in heatmaps:
        echo(f"{path}: scores of all tiles" + ("" if result.region is None else " of the region"))


def _print_stands_out(result: SearchResult) -> None:
    if result.stands_out is not False:
        return
    scores = result.about["scores"]
    if scores["meaningless_best"] is None:
        reason = f"the best score is {scores['best_z']:.1f} standard deviations above the mean"
    else:
        reason = (
            f"the best score is {result[0].score:.4f}, and meaningless texts reach "
            f"{scores['meaningless_best']:.4f}"
        )
    echo(f"nothing stands out: {reason}")


def _explain_no_hits(result: SearchResult) -> str:
    """Describe the filters that no tile passed."""
    about = result.about
    area_text = "" if about["bbox"] is None else f" centred in the box {about['bbox']}"
    if about["region"] is not None:
        area_text = f" centred in {about['region']}"
    min_score = about["min_score"]
    score_text = "" if min_score is None else f" with a cosine of {min_score:g} or more"
    min_valid = about["min_valid"]
    data_text = f" with {min_valid:g} or more of its area with data" if min_valid else ""
    other = "other " if about["like"] else ""
    return f"{about['store']} has no {other}tile{area_text}{data_text}{score_text}"
