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
from marsretrieval.cli.options import (
    Against,
    AgainstKm,
    Checkpoint,
    Device,
    LatColumn,
    Layer,
    LonColumn,
    LonWest,
    NameColumn,
    Offline,
    TrustRemoteCode,
    choose_style,
    read_known,
)
from marsretrieval.cli.repeat import finish_repeat, read_options
from marsretrieval.errors import UsageError
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.api import Question, SearchResult, Store
    from marsretrieval.cli.options import Known

_MAX_SHOWN = 20
_HEADER = f"{'rank':>5}  {'score':>6}  {'z':>5}  {'percentile':>10}  {'lon':>9} {'lat':>8}  id"
_QUERY_PANEL, _SELECTION_PANEL, _OUTPUT_PANEL = "What to look for", "Which tiles, how many", "Files"
_EXTRA_FILES = {".qml": "style for QGIS"}

Paths = list[Path] | None
Words = list[str] | None


def search(
    context: typer.Context,
    store: Annotated[
        list[Path],
        typer.Option(help="Folder of the store, made by embed or run; repeat to search several."),
    ],
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
            "--no-templates",
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
            "--similar-to",
            "--like",
            rich_help_panel=_QUERY_PANEL,
            metavar="TILE",
            help="Id of an example tile, or STORE:ID; repeatable.",
        ),
    ] = None,
    like_at: Annotated[
        Words,
        typer.Option(
            "--similar-to-location",
            "--like-at",
            rich_help_panel=_QUERY_PANEL,
            metavar="LON,LAT",
            help="Position of an example tile of the store; repeatable.",
        ),
    ] = None,
    mix: Annotated[
        float,
        typer.Option(
            "--image-weight",
            "--mix",
            rich_help_panel=_QUERY_PANEL,
            min=0,
            max=1,
            help="Weight of the example images in a text+image query.",
        ),
    ] = 0.3,
    not_text: Annotated[
        Words,
        typer.Option(
            "--negative-text",
            "--not-text",
            rich_help_panel=_QUERY_PANEL,
            metavar="TEXT",
            help="Negative text; repeatable.",
        ),
    ] = None,
    not_image: Annotated[
        Paths,
        typer.Option(
            "--negative-image",
            "--not-image",
            rich_help_panel=_QUERY_PANEL,
            metavar="FILE",
            help="Negative example image; repeatable.",
        ),
    ] = None,
    not_like: Annotated[
        Words,
        typer.Option(
            "--negative",
            "--not-like",
            rich_help_panel=_QUERY_PANEL,
            metavar="TILE",
            help="Id of a negative example tile; repeatable.",
        ),
    ] = None,
    not_weight: Annotated[
        float,
        typer.Option(
            "--negative-weight",
            "--not-weight",
            rich_help_panel=_QUERY_PANEL,
            min=0,
            max=1,
            help="Weight of the negative examples relative to the query.",
        ),
    ] = 0.25,
    vector: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=_QUERY_PANEL,
            metavar="FILE",
            help="Query vector (.npy) instead of a text or examples.",
        ),
    ] = None,
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
    region_layer: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_SELECTION_PANEL,
            metavar="NAME",
            help="Layer of a --region file that has several.",
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
    repeat: Annotated[
        Path | None,
        typer.Option(
            is_eager=True,
            callback=read_options,
            metavar="FILE",
            help="Repeat the search that made a file; other options override it.",
        ),
    ] = None,
    against: Against = None,
    against_km: AgainstKm = None,
    lon_column: LonColumn = None,
    lat_column: LatColumn = None,
    lon_west: LonWest = None,
    name_column: NameColumn = None,
    layer: Layer = None,
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
    basemap: Annotated[
        str,
        typer.Option(
            rich_help_panel=_OUTPUT_PANEL,
            metavar="viking|none|FILE",
            help="Image below wide maps: -180..180, 90..-90 degrees.",
        ),
    ] = "viking",
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
            help="Model of the store if not in the registry: hf:NAME, oc:NAME, module:Class.",
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
    that made the store is loaded for texts and images; --similar-to needs none. Scores are cosines;
    positions are in IAU_2015:49900. Several stores (of one model) are searched as one; each hit
    names its store.

    Raises:
        UsageError: If the query is incomplete or options exclude each other.
        DataError: If a file of the query cannot be read.
        ModalityError: If the query has a text and the model is vision-only.
        StoreError: If the store is missing or damaged.
        OutputError: If a file cannot be written.
    """
    from marsretrieval.api import open_store
    from marsretrieval.search.hits import PAGE_IMAGES, check_distance
    from marsretrieval.search.tiles import parse_lonlat

    if out:
        from marsretrieval.search.export import check_hits_path

        for path in out:
            check_hits_path(path)
    if heatmap:
        from marsretrieval.search.heatmap import check_heatmap, check_heatmap_path

        for path in heatmap:
            check_heatmap_path(path)
    if sheet:
        from marsretrieval.search.sheet import check_sheet_path

        for path in sheet:
            check_sheet_path(path)
    pages = [path for path in out or [] if path.suffix.lower() == ".html"]
    if page_images is not None and not pages:
        raise UsageError("--page-images requires -o FILE.html")
    page_images = PAGE_IMAGES if page_images is None else page_images
    files = [*(out or []), *(heatmap or []), *(sheet or [])]
    for path in files:
        if files.count(path) > 1:
            raise UsageError(f"{path}: named twice", remedy="Give the files different names.")
    chosen_style = choose_style(style, basemap, files)
    repetition = finish_repeat(context)
    parts: dict[str, Any] = {
        "text": text, "image": image, "like": like, "not_text": not_text, "not_image": not_image,
        "not_like": not_like, "vector": vector, "bbox": bbox, "region": region,
        "region_layer": region_layer,
    }  # fmt: skip
    if repetition is not None:
        parts |= dict.fromkeys(repetition.removed)
    if heatmap_cell is not None and not heatmap:
        raise UsageError("--heatmap-cell requires --heatmap")
    if checkpoint is not None and not checkpoint.exists():
        raise UsageError(f"--checkpoint {checkpoint}: no such file or folder")
    known = read_known(
        against, against_km, lon_column, lat_column, lon_west, name=name_column, layer=layer
    )
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
    if repetition is not None:
        repetition.compare(tile_store.embeddings)
    question = tile_store.question(
        parts["text"],
        images=parts["image"] or [],
        like=parts["like"] or [],
        like_at=[parse_lonlat(position) for position in like_at or []],
        not_text=parts["not_text"] or [],
        not_images=parts["not_image"] or [],
        not_like=parts["not_like"] or [],
        raw=raw,
        mix=mix,
        not_weight=not_weight,
        bbox=parts["bbox"],
        region=parts["region"],
        region_layer=parts["region_layer"],
        k=count,
        min_score=min_score,
        min_valid=min_valid,
        lon=lon,
        keep_examples=keep_examples,
        vector=parts["vector"],
    )
    if merge_deg is not None:
        check_distance(merge_deg)
    if heatmap:
        check_heatmap(tile_store.embeddings, region=question.region, cell=heatmap_cell, domain=lon)
    if question.needs_encoder:
        tile_store.require_model(needs_text=question.needs_text)
    if tile_store.missing:
        shards = pluralize(len(tile_store.missing), "shard")
        say(f"warning: {tile_store.path} is incomplete: {shards} missing")
    if question.exclude is not None:
        share = "without data" if min_valid is None else f"with less data than {min_valid:g}"
        tiles = pluralize(int(question.exclude.sum()), "tile")
        remedy = "; --min-valid 0 keeps them" if min_valid is None else ""
        say(f"note: {tiles} {share} left out{remedy}")
    if dry_run:
        plan = {} if repetition is None else {"repeat": repetition.to_dict()}
        _print_plan(tile_store, question, files, known, as_json, plan)
        return
    with show_progress(quiet=as_json) as progress:
        result = tile_store.answer(question, progress=progress)
        if merge_deg is not None:
            result = result.merge(merge_deg)
        if known is not None:
            result = result.against(known.points, km=known.km)
        files_of = (
            result.write(
                path,
                style=chosen_style,
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
        heat_files: list[Path] = []
        if heatmap:
            heat = result.heatmap(cell=heatmap_cell, progress=progress)
            for path in heatmap:
                heat_files += heat.write(path, hits=result.hits, style=chosen_style)
            for note in heat.notes():
                say(f"note: {note}")
            blank = int(heat.about.get("without_data", 0))
            if blank and question.exclude is None:
                say(f"note: {pluralize(blank, 'tile')} without data have no score in the heat map")
    unplaced = sum(shape is None for shape in result.hits.shapes)
    if as_json:
        report = {
            "rows": len(tile_store),
            "without_position": unplaced,
            "files": [str(path) for path in [*written, *sheets, *heat_files]],
            **({} if repetition is None else {"repeat": repetition.to_dict()}),
        }
        if pages or sheet:
            shown = len(result) if sheet else min(page_images, len(result))
            images = result.images.load_hits(result.hits, shown)
            unreadable = sum(thumbnail.image is None for thumbnail in images)
            report |= {"images": shown - unreadable, "images_unreadable": unreadable}
        print_json({**result.about, **report, "hits": list(result.hits.records())})
    else:
        _print_result(result, [*written, *sheets], sheets, heat_files)
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


def _print_plan(
    store: Store,
    question: Question,
    files: list[Path],
    known: Known | None,
    as_json: bool,
    more: dict[str, Any],
) -> None:
    plan: dict[str, Any] = {
        **question.about,
        **more,
        "rows": len(store),
        "complete": not store.missing,
        "loads_model": question.needs_encoder,
        "files": [str(path) for path in files],
    }
    if known is not None:
        plan["against"] = known.plan()
    if as_json:
        print_json(plan)
        return
    model = "loaded" if question.needs_encoder else "not needed"
    echo(f"{store.path}: {len(store):,} images by {store.model} ({model})")
    for name, value in question.describe():
        echo(f"{name:>10}  {value}")
    if known is not None:
        echo(f"{'against':>10}  {known}")
    for path in files:
        echo(f"{'writes':>10}  {path}")


def _print_result(
    result: SearchResult, written: list[Path], sheets: list[Path], heatmaps: list[Path]
) -> None:
    from marsretrieval.search.known import describe_known, describe_nearest

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
            f"{hit.rank:>5}  {hit.score:6.4f}  {z:>5}  {percentile:>10}  {lonlat}  "
            f"{hit.name}{tiles}{describe_nearest(hit)}"
        )
    _print_stands_out(result)
    if result.hits.known is not None:
        echo(describe_known(result.hits))
    what = pluralize(len(result), "hit" if result.hits.tiles is None else "place")
    for path in written:
        is_record = path.suffix == ".json" and path.with_suffix("") in written
        contents = "record of the search" if is_record else _EXTRA_FILES.get(path.suffix, what)
        contents = "contact sheet" if path in sheets else contents
        echo(f"{path}: {contents}")
    scores = "scores of all tiles" + ("" if result.region is None else " of the region")
    for path in heatmaps:
        echo(f"{path}: {_EXTRA_FILES.get(path.suffix, scores)}")


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
