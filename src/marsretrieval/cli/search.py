"""``marsretrieval search``: search a store by text, images or tiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, fields, replace
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
    CatalogueOptions,
    PositionOptions,
    StoreModelOptions,
    expand_options,
)
from marsretrieval.cli.search_options import OutputOptions, QueryOptions, SelectionOptions
from marsretrieval.text import pluralize, verb

if TYPE_CHECKING:
    from marsretrieval.api import PreparedSearch, SearchResult, Store
    from marsretrieval.cli.options import Catalogue
    from marsretrieval.embeddings import EmbeddingStore
    from marsretrieval.plotting import Style
    from marsretrieval.progress import Progress
    from marsretrieval.search.provenance import SearchRequest


_MAX_PRINTED = 20
_HEADER = f"{'rank':>5}  {'score':>6}  {'z':>5}  {'percentile':>10}  {'lon':>9} {'lat':>8}  id"
_EXTRA_FILES = {".qml": "style for QGIS"}

_REPEAT_KEY = "marsretrieval.repeat"  # of click's Context.meta

# Option of each field of SearchRequest.
_FIELD_OPTIONS = {
    "stores": "--store",
    "text": "--text",
    "use_templates": "--no-templates",
    "images": "--image",
    "vector": "--vector",
    "similar_to": "--similar-to",
    "image_weight": "--image-weight",
    "negative_text": "--negative-text",
    "negative_images": "--negative-image",
    "negative_tiles": "--negative",
    "negative_weight": "--negative-weight",
    "bbox": "--bbox",
    "region": "--region",
    "region_layer": "--region-layer",
    "k": "--count",
    "min_score": "--min-score",
    "min_valid": "--min-valid",
    "keep_examples": "--keep-examples",
    "merge_deg": "--merge-deg",
    "lon": "--lon",
}
_POSITIVE_OPTIONS = ("--text", "--image", "--similar-to", "--similar-to-location")
_QUERY_OPTIONS = (*_POSITIVE_OPTIONS, "--negative-text", "--negative-image", "--negative")
# Recorded options that an option of the command line replaces, beside its own.
_EXCLUDES = {
    "--bbox": ("--region", "--region-layer"),
    "--region": ("--bbox", "--region-layer"),
    "--vector": _QUERY_OPTIONS,
    **dict.fromkeys(_POSITIVE_OPTIONS, ("--vector",)),
}


@dataclass(slots=True)
class Repetition:
    """A search that is repeated from a file.

    Attributes:
        file: The exported file.
        record: Its provenance.
        options: Values that it sets, by parameter name.
        overridden: Options given on the command line instead.
        removed: Parameters of recorded options that an option of the command line excludes.
        differences: Differences of the store, see `compare_store`.
    """

    file: Path
    record: Mapping[str, Any]
    options: dict[str, Any]
    overridden: list[str] = field(default_factory=list)
    removed: set[str] = field(default_factory=set)
    differences: list[dict[str, Any]] = field(default_factory=list)

    def compare(self, store: EmbeddingStore) -> None:
        """Compare the store with that of the file; print the differences on stderr.

        Args:
            store: The store to search.
        """
        from marsretrieval.search.provenance import compare_store, describe_differences

        self.differences = compare_store(self.record, store)
        for line in describe_differences(self.differences):
            say(f"warning: {store.path} is not as it was for {self.file}: {line}")

    def to_dict(self) -> dict[str, Any]:
        """Return file, date, overridden options and differences as a JSON object."""
        return {
            "file": str(self.file),
            "date": self.record.get("date"),
            "overridden": self.overridden,
            "differences": self.differences,
        }


def read_options(
    context: typer.Context, param: typer.CallbackParam, path: Path | None
) -> Path | None:
    """Set the defaults of a search to the options recorded in a file.

    Example images and region files are checked against their hashes, unless their options are given
    on the command line.

    Args:
        context: Context of the command.
        param: The option --repeat.
        path: The exported file.

    Returns:
        `path`.

    Raises:
        DataError: If the file has no record, or a file of the request is missing or changed.
    """
    if path is None or context.resilient_parsing:
        return path
    from marsretrieval.search.provenance import read_provenance, read_request

    record = read_provenance(path)
    names = {flag: option.name for option in context.command.params for flag in option.opts}
    values = _field_values(read_request(record, path))
    options = {
        names[flag] or flag: values[field_name]
        for field_name, flag in _FIELD_OPTIONS.items()
        if values[field_name] is not None
    }
    context.default_map = {**(context.default_map or {}), **options}
    context.meta[_REPEAT_KEY] = Repetition(path, record, options)
    return path


def command_line_flags(context: typer.Context) -> set[str]:
    """Return the options given on the command line, under all their names.

    Args:
        context: Context of the command, with all options parsed.
    """
    flags = set()
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        # By name: typer may bring its own copy of click.
        if source is not None and source.name == "COMMANDLINE":
            flags |= {*option.opts}
    return flags


def finish_repeat(context: typer.Context) -> Repetition | None:
    """Check the files of a repeated request, and report overridden options on stderr.

    Args:
        context: Context of the command, with all options parsed.

    Returns:
        The repetition; None without --repeat. Its `removed` names the parameters that an option
        of the command line excludes: a box excludes a region, a vector all other queries.

    Raises:
        DataError: If a file of the request is missing or changed.
    """
    repetition: Repetition | None = context.meta.get(_REPEAT_KEY)
    if repetition is None:
        return None
    from marsretrieval.search.provenance import read_request

    names = {flag: option.name or "" for option in context.command.params for flag in option.opts}
    flags = command_line_flags(context)
    excluded = {other for flag in flags for other in _EXCLUDES.get(flag, ())} - flags
    for flag in _FIELD_OPTIONS.values():
        if names[flag] in repetition.options and flag in flags | excluded:
            repetition.overridden.append(flag)
        if names[flag] in repetition.options and flag in excluded:
            del repetition.options[names[flag]]
            repetition.removed.add(names[flag])
    request = read_request(repetition.record, repetition.file)
    files = (
        ("images", "example image", request.images),
        ("negative_images", "negative example image", request.negative_images),
        ("region", "region", () if request.region is None else (request.region,)),
        ("vector", "vector", () if request.vector is None else (request.vector,)),
    )
    for field_name, kind, references in files:
        if _FIELD_OPTIONS[field_name] not in repetition.overridden:
            for reference in references:
                reference.check(repetition.file, kind)
    for flag in repetition.overridden:
        say(
            f"note: {flag} of the command line replaces that of {repetition.file}"
            if flag in flags
            else f"note: {flag} of {repetition.file} is left out, replaced by the command line"
        )
    against = repetition.record.get("against")
    if against and "--against" not in flags:
        say(
            f"note: the catalogue of {repetition.file} is not part of the search; add "
            f"--against {against.get('file') or 'CATALOGUE'} to compare the hits again"
        )
    return repetition


def _field_values(request: SearchRequest) -> dict[str, Any]:
    """Return the request as values of options; None where the option is not set."""
    values: dict[str, Any] = request.to_dict()
    for name in ("images", "negative_images"):
        values[name] = [reference.path for reference in getattr(request, name)]
    values["region"] = None if request.region is None else request.region.path
    values["vector"] = None if request.vector is None else request.vector.path
    values["use_templates"] = not request.use_templates
    for name, value in values.items():
        if isinstance(value, (list, tuple)):
            values[name] = list(value) or None
    return values


@expand_options
def search(
    *,
    context: typer.Context,
    store: Annotated[
        list[Path],
        typer.Option(help="Folder of the store, made by embed or run; repeat to search several."),
    ],
    query: QueryOptions,
    selection: SelectionOptions,
    repeat: Annotated[
        Path | None,
        typer.Option(
            is_eager=True,
            callback=read_options,
            metavar="FILE",
            help="Repeat the search that made a file; other options override it.",
        ),
    ] = None,
    catalogue: CatalogueOptions,
    columns: PositionOptions,
    output: OutputOptions,
    loading: StoreModelOptions,
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
    flags = command_line_flags(context)
    style = output.check(flags)
    repetition = finish_repeat(context)
    if repetition is not None:
        query = _remove(query, repetition.removed)
        selection = _remove(selection, repetition.removed)
    query.check(flags)
    selection.check()
    catalogue_points = catalogue.read(columns)
    tile_store = loading.open_store(store)
    if repetition is not None:
        repetition.compare(tile_store.embeddings)
    prepared = tile_store.prepare_search(
        **query.arguments(), **selection.arguments(), lon=output.lon
    )
    if output.heatmap:
        from marsretrieval.search.heatmap import check_heatmap

        check_heatmap(
            tile_store.embeddings,
            region=prepared.region,
            cell=output.heatmap_cell,
            domain=output.lon,
        )
    report: dict[str, Any] = {"rows": len(tile_store)}
    if repetition is not None:
        report["repeat"] = repetition.to_dict()
    if prepared.needs_encoder:
        tile_store.require_model(needs_text=prepared.needs_text)
    elif ignored := loading.report_unused():
        report["ignored_options"] = ignored
    if tile_store.missing:
        shards = pluralize(len(tile_store.missing), "shard")
        say(f"warning: {tile_store.path} is incomplete: {shards} missing")
    if prepared.exclude is not None:
        min_valid = selection.min_valid
        share = "without data" if min_valid is None else f"with less data than {min_valid:g}"
        tiles = pluralize(int(prepared.exclude.sum()), "tile")
        remedy = "; --min-valid 0 keeps them" if min_valid is None else ""
        say(f"note: {tiles} {share} left out{remedy}")
    if dry_run:
        _print_plan(tile_store, prepared, output.files, catalogue_points, as_json, report)
        return
    command = command_line(context) if output.pages else None
    with show_progress(quiet=as_json) as progress:
        result = tile_store.run_search(prepared, progress=progress)
        if selection.merge_deg is not None:
            report["merged_hits"] = len(result)
            result = result.merge(selection.merge_deg)
        if catalogue_points is not None:
            result = result.against(catalogue_points.points, km=catalogue_points.km)
        written = _write(result, output, style, command, progress)
    _print_report(result, output, written, report, as_json=as_json)


def _remove(options: Any, names: Set[str]) -> Any:
    """Return a group of options without those of some names."""
    removed = [field.name for field in fields(options) if field.name in names]
    return replace(options, **dict.fromkeys(removed))


@dataclass(frozen=True, slots=True)
class _Written:
    """Files that a search has written, by kind."""

    hits: list[Path]
    sheets: list[Path]
    heatmaps: list[Path]

    def __iter__(self) -> Iterator[Path]:
        return chain(self.hits, self.sheets, self.heatmaps)


def _write(
    result: SearchResult,
    output: OutputOptions,
    style: str | Style,
    command: str | None,
    progress: Progress,
) -> _Written:
    pages = output.pages
    if pages:  # checked before the first file is written
        from marsretrieval.search.page.page import check_page

        for path in pages:
            check_page(result.hits, path, output.images_per_page)
    if output.sheet:
        from marsretrieval.search.sheet import check_sheet

        for path in output.sheet:
            check_sheet(result.hits, path)
    files_of = (
        result.write(
            path,
            style=style,
            page_images=output.images_per_page,
            command=command if path in pages else None,
            progress=progress,
        )
        for path in output.out or []
    )
    hits = list(dict.fromkeys(chain.from_iterable(files_of)))  # layers may share a style
    sheets = [
        file
        for path in output.sheet or []
        for file in result.sheet(path, style=output.style, progress=progress)
    ]
    heatmaps: list[Path] = []
    if output.heatmap:
        heatmap = result.heatmap(cell=output.heatmap_cell, progress=progress)
        for path in output.heatmap:
            heatmaps += heatmap.write(path, hits=result.hits, style=style)
        for note in heatmap.notes():
            say(f"note: {note}")
        blank = int(heatmap.about.get("without_data", 0))
        if blank and (result.prepared is None or result.prepared.exclude is None):
            say(f"note: {pluralize(blank, 'tile')} without data have no score in the heat map")
    return _Written(hits, sheets, heatmaps)


def _print_report(
    result: SearchResult,
    output: OutputOptions,
    written: _Written,
    report: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """Print the hits and files, and what the files lack."""
    unplaced = sum(shape is None for shape in result.hits.shapes)
    if as_json:
        record = {
            **report,
            "without_position": unplaced,
            "files": [str(path) for path in written],
        }
        if output.pages or output.sheet:
            count = len(result) if output.sheet else min(output.images_per_page, len(result))
            images = result.images.load_hits(result.hits, count)
            unreadable = sum(thumbnail.image is None for thumbnail in images)
            record |= {"images": count - unreadable, "images_unreadable": unreadable}
        print_json({**result.about, **record, "hits": list(result.hits.records())})
    else:
        _print_result(result, written)
    if result.hits.tiles is not None and sum(result.hits.tiles) > len(result):
        hits, places = pluralize(sum(result.hits.tiles), "hit"), pluralize(len(result), "place")
        say(f"note: {hits} merged into {places}")
    without_image = len(result) - output.images_per_page
    if output.pages and without_image > 0:
        say(
            f"note: {without_image:,} of {pluralize(len(result), 'hit')} "
            f"{verb(without_image, 'has', 'have')} no image in the page; --page-images N sets the "
            "number"
        )
    if written.hits and unplaced:
        say(
            f"note: {unplaced:,} of {pluralize(len(result), 'hit')} "
            f"{verb(unplaced, 'has', 'have')} no position, and no geometry in the files"
        )


def _print_plan(
    store: Store,
    prepared: PreparedSearch,
    files: list[Path],
    catalogue: Catalogue | None,
    as_json: bool,
    more: dict[str, Any],
) -> None:
    plan: dict[str, Any] = {
        **prepared.about,
        **more,
        "complete": not store.missing,
        "loads_model": prepared.needs_encoder,
        "files": [str(path) for path in files],
    }
    if catalogue is not None:
        plan["against"] = catalogue.plan()
    if as_json:
        print_json(plan)
        return
    model = "loaded" if prepared.needs_encoder else "not needed"
    echo(f"{store.path}: {pluralize(len(store), 'image')} by {store.model} ({model})")
    for name, value in prepared.describe():
        echo(f"{name:>10}  {value}")
    if catalogue is not None:
        echo(f"{'against':>10}  {catalogue}")
    for path in files:
        echo(f"{'writes':>10}  {path}")


def _print_result(result: SearchResult, written: _Written) -> None:
    from marsretrieval.search.hits import describe_known, describe_nearest

    files = [*written.hits, *written.sheets]
    if not len(result):
        echo(f"no hits: {_explain_no_hits(result)}")
    else:
        echo(_HEADER)
    for hit in result:
        if hit.rank > _MAX_PRINTED:
            more = len(result) - _MAX_PRINTED
            echo(f"... and {more:,} more" + ("" if files else ": -o FILE or --json give all"))
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
    for path in files:
        is_record = path.suffix == ".json" and path.with_suffix("") in files
        contents = "record of the search" if is_record else _EXTRA_FILES.get(path.suffix, what)
        contents = "contact sheet" if path in written.sheets else contents
        echo(f"{path}: {contents}")
    scores = "scores of all tiles" + ("" if result.region is None else " of the region")
    for path in written.heatmaps:
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
