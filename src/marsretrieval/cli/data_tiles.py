"""``marsretrieval data tiles``: cut own rasters and quads of the CTX mosaic into tiles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from marsretrieval.cli.console import JsonFlag, echo, print_json, say, show_progress
from marsretrieval.cli.options import check_output_folder
from marsretrieval.errors import UsageError
from marsretrieval.text import format_metres, missing_file, pluralize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from marsretrieval.datasets.ctx import (
        Input,
        JobSettings,
        Plan,
        Problem,
        Quad,
        Report,
        TileSpec,
    )
    from marsretrieval.datasets.rasters import RasterProblem, RastersPlan, RastersReport
    from marsretrieval.progress import Progress

_MAX_SHOWN = 10
_MAX_RASTERS_SHOWN = 20


def tiles(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Rasters (GeoTIFF, VRT, JPEG 2000), zips of the mosaic, or folders of them.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            callback=check_output_folder, help="Output folder: a tar and a manifest per raster."
        ),
    ] = (Path("data/Mars-Global-Geolocalization/tiles")),
    bbox: Annotated[
        str | None,
        typer.Option(
            metavar="W,S,E,N", help="Select the quads that overlap this box (degrees east)."
        ),
    ] = None,
    quads: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Select quads by name: E-004_N-04,E136_N00."),
    ] = None,
    clip: Annotated[
        bool, typer.Option("--clip", help="Cut only the tiles that overlap --bbox.")
    ] = False,
    delta: Annotated[
        str | None,
        typer.Option(
            metavar="DEG", help="Tile size in degrees; for quads a divisor of 4 (default: 0.2)."
        ),
    ] = None,
    tile_px: Annotated[
        int | None,
        typer.Option(
            "--tile-px", metavar="N", help="Tile size in pixels of an own raster (default: --size)."
        ),
    ] = None,
    tile_m: Annotated[
        float | None,
        typer.Option("--tile-m", metavar="M", help="Tile size in metres; own rasters only."),
    ] = None,
    size: Annotated[int, typer.Option(help="Height and width of the images in pixels.")] = 512,
    overlap: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Overlap of neighbouring tiles of own rasters, 0..0.9 (default: 0).",
        ),
    ] = None,
    stretch: Annotated[
        str | None,
        typer.Option(
            metavar="percentile|std|minmax|none",
            help="Contrast stretch of own rasters (8 bits: none, else percentile).",
        ),
    ] = None,
    min_valid: Annotated[
        float | None,
        typer.Option(
            "--min-valid",
            metavar="SHARE",
            help="Minimum valid share of tiles of own rasters, 0..1 (default: 0).",
        ),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Bands of own rasters: 1 is grey, 3,2,1 is RGB."),
    ] = None,
    nodata: Annotated[
        float | None,
        typer.Option(metavar="VALUE", help="No-data value of own rasters that do not state it."),
    ] = None,
    format: Annotated[
        str, typer.Option(metavar="png|jpeg", help="Image format; jpeg is lossy and half the size.")
    ] = "png",
    equal_aspect: Annotated[
        bool,
        typer.Option("--equal-aspect", help="Make tiles square on the ground at every latitude."),
    ] = False,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Reproduce the published pixels exactly: no-data is 1, not 0."
        ),
    ] = False,
    drop_empty: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Minimum valid share of tiles of quads, 0..1 (default: 0)."
        ),
    ] = None,
    scratch: Annotated[
        Path | None,
        typer.Option(
            callback=check_output_folder,
            help="Folder for downloaded zips (default: a hidden folder in --out).",
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(help="URL of the zips (default: the Murray Lab's server).", metavar="URL"),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(help="Additional trusted certificates (PEM file)."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="Number of cutting threads (default: number of CPUs)."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace tiles that were cut with other options.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show rasters, tiles, download and disk space; write nothing."
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Cut rasters or the CTX mosaic into tiles; resume if run again.

    Own rasters may be in any projection of Mars. Choose --tile-px, --tile-m or --delta.

    A TIFF or zip named as a quad (E-004_N-04) belongs to the mosaic: 400 tiles of 0.2 degrees.
    Without a source, --bbox or --quads selects quads to download (1.7 GB each); each zip is
    deleted after cutting. -180,-80,180,80 is the benchmark's planet: 3,600 quads.

    Finished rasters are kept. Exit code 1 if any raster, quad or tile failed.

    Raises:
        UsageError: If neither sources nor a region are given, or an option is invalid or does not
            apply to the sources.
        typer.Exit: With code 1 if a raster, a quad or a tile failed.
    """
    from marsretrieval.datasets import rasters

    if clip and bbox is None:
        raise UsageError("--clip requires --bbox", remedy="Add --bbox, or omit --clip.")
    quad_files, raster_files = rasters.split_sources(sources) if sources else ([], [])
    quad_options = {
        "--bbox": bbox, "--quads": quads, "--clip": clip or None,
        "--equal-aspect": equal_aspect or None, "--exact": exact or None,
        "--drop-empty": drop_empty, "--scratch": scratch, "--server": server,
        "--ca-file": ca_file,
    }  # fmt: skip
    raster_options = {
        "--tile-px": tile_px, "--tile-m": tile_m, "--overlap": overlap, "--stretch": stretch,
        "--min-valid": min_valid, "--bands": bands, "--nodata": nodata,
    }  # fmt: skip
    if raster_files:
        _refuse_options(quad_options, "own rasters", raster_files)
    if quad_files or not sources:
        _refuse_options(raster_options, "the CTX mosaic", quad_files)
    raster_spec = rasters.RasterSpec(
        tile_px=tile_px,
        tile_m=tile_m,
        delta=None if delta is None or not raster_files else _parse_delta(delta),
        size=size,
        format=format,
        overlap=overlap or 0.0,
        stretch=stretch,
        min_valid=min_valid or 0.0,
        bands=None if bands is None else rasters.parse_bands(bands),
        nodata=nodata,
    )
    if ca_file is not None and not ca_file.is_file():
        problem = missing_file(ca_file)
        raise UsageError(f"--ca-file {ca_file}: {problem}", remedy="Name a PEM file.")
    downloads = {"--server": server, "--scratch": scratch, "--ca-file": ca_file}
    if quad_files:
        _refuse_options(downloads, "local files", quad_files)
    quad_run = None
    if quad_files or not raster_files:
        quad_run = _QuadRun.from_options(
            quad_files if sources else None, out, bbox=bbox, quads=quads, clip=clip,
            spec={"delta": delta or "0.2", "size": size, "format": format,
                  "equal_aspect": equal_aspect, "exact": exact, "drop_below": drop_empty or 0.0},
            settings={"threads": threads, "scratch": scratch, "force": force},
            server=server, ca_file=ca_file,
        )  # fmt: skip
    if quad_run is not None and raster_files:
        own = pluralize(len(raster_files), "own raster")
        say(f"note: {pluralize(len(quad_files), 'file')} of the CTX mosaic by name, and {own}")
    record: dict[str, Any] = {"out": str(out)}
    is_complete = True
    if dry_run:
        raster_plan = None
        if raster_files:
            raster_plan = rasters.plan_rasters(raster_files, raster_spec, out, force=force)
            is_complete = not raster_plan.failed
        if quad_run is not None:
            record |= quad_run.dry_run(as_json=as_json)
        if raster_plan is not None:
            values = raster_plan.to_dict()
            record |= {"own_rasters": values} if quad_run is not None else values
            print_raster_plan(raster_plan, out, as_json=as_json)
    else:
        with show_progress(quiet=as_json) as progress:
            quad_report = quad_run.run(progress) if quad_run is not None else None
            raster_report = None
            if raster_files:
                raster_report = rasters.cut_rasters(
                    raster_files, raster_spec, out, threads=threads, force=force, progress=progress
                )
        if quad_run is not None and quad_report is not None:
            record |= {"outside": quad_run.outside, **quad_report.to_dict()}
            is_complete = quad_report.complete
            if not as_json:
                _print_report(quad_report, out)
        if raster_report is not None:
            is_complete = is_complete and raster_report.complete
            values = raster_report.to_dict()
            record |= {"own_rasters": values} if quad_run is not None else values
            record["complete"] = is_complete
            print_raster_report(raster_report, out, as_json=as_json)
    if as_json:
        print_json(record)
    if not is_complete:
        raise typer.Exit(1)


def _refuse_options(options: dict[str, Any], what: str, files: list[Path]) -> None:
    """Refuse options that do not apply to a kind of source."""
    names = [name for name, value in options.items() if value is not None]
    if not names:
        return
    example = f" ({files[0]})" if files else ""
    other = {"own rasters": "quads of the CTX mosaic", "local files": "downloads"}.get(
        what, "own rasters"
    )
    raise UsageError(
        f"{', '.join(names)}: only for {other}, not for {what}{example}",
        remedy="Leave it out, or cut own rasters and quads of the mosaic in separate runs.",
    )


def _parse_delta(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(
            f"--delta {text}: not a number", remedy="Give degrees, such as 0.2."
        ) from error


@dataclass(frozen=True)
class _QuadRun:
    """Cut quads of the CTX mosaic."""

    inputs: list[Input]
    problems: list[Problem]
    spec: TileSpec
    out: Path
    settings: JobSettings
    outside: str | None

    @classmethod
    def from_options(
        cls,
        files: list[Path] | None,
        out: Path,
        *,
        bbox: str | None,
        quads: str | None,
        clip: bool,
        spec: dict[str, Any],
        settings: dict[str, Any],
        server: str | None,
        ca_file: Path | None,
    ) -> Self:
        from marsretrieval import geo
        from marsretrieval.datasets import ctx

        box = geo.Box.parse(bbox) if bbox is not None else None
        tile_spec = ctx.TileSpec.of(**spec, clip=box if clip else None)
        named_quads = ctx.parse_quads(quads) if quads is not None else []
        selected = ctx.select_quads(box, named_quads) if box is not None or named_quads else None
        outside = None if box is None else ctx.part_outside(box)
        if outside is not None:
            say(f"warning: --bbox {bbox}: {outside}")
        inputs, problems = _find_inputs(files or [], selected)
        job = ctx.JobSettings(
            **settings,
            server=server or ctx.SERVER,
            fetch=ctx.FetchSettings(ca_file=ca_file),
        )
        return cls(inputs, problems, tile_spec, out, job, outside)

    def dry_run(self, *, as_json: bool) -> dict[str, Any]:
        """Plan the run and print the plan; return it as plain data."""
        from marsretrieval.datasets import ctx

        plan = ctx.plan(self.inputs, self.spec, self.out, force=self.settings.force)
        if not as_json:
            _print_plan(plan, self.out, self.problems)
        problems = [
            {"source": problem.source, "reason": problem.reason} for problem in self.problems
        ]
        return {"outside": self.outside, **plan.to_dict(), "problems": problems}

    def run(self, progress: Progress) -> Report:
        """Cut the quads."""
        from marsretrieval.datasets import ctx

        return ctx.cut_quads(
            self.inputs,
            self.spec,
            self.out,
            problems=self.problems,
            settings=self.settings,
            progress=progress,
        )


def _find_inputs(
    sources: list[Path], selected_quads: list[Quad] | None
) -> tuple[list[Input], list[Problem]]:
    from marsretrieval.datasets import ctx

    if sources:
        return ctx.find_files(sources, selected_quads)
    if selected_quads is None:
        raise UsageError(
            "no input files or region given",
            remedy="Name rasters, zips or folders of them, or a region with --bbox or --quads.",
        )
    return [ctx.Input(quad) for quad in selected_quads], []


def _print_report(report: Report, out: Path) -> None:
    totals = report.to_dict()
    cut_count, kept_count = len(report.cut), len(report.kept)
    if cut_count or kept_count:
        tiles = pluralize(totals["tiles"], "tile")
        quads = pluralize(cut_count + kept_count, "quad")
        seconds, empty = f"{report.seconds:,.1f} s", pluralize(totals["empty"], "tile")
        echo(f"{out}: {tiles} in {quads} ({totals['bytes'] / 1e6:,.1f} MB)")
        echo(f"  quads    {cut_count:,} cut in {seconds}, {kept_count:,} already present")
        echo(f"  no data  {empty} without any, {totals['dropped']:,} left out")
    if report.otherwise:
        say(
            "note: quads in this folder were cut with other options: "
            f"{_abbreviate(report.otherwise)}"
        )
    if report.complete:
        return
    failed = [f"{failure.source}: {failure.reason}" for failure in report.failed]
    failed += [f"tile {name}: {why}" for name, why in report.failed_tiles.items()]
    for line in failed[:_MAX_SHOWN]:
        say(f"failed: {line}")
    if len(failed) > _MAX_SHOWN:
        say(f"and {len(failed) - _MAX_SHOWN} more failures: --json lists all")
    if report.untried:
        say(f"not attempted after these failures: {_abbreviate(report.untried)}")
    say("error: some quads or tiles could not be cut; run the same command again to retry them")


def _print_plan(plan: Plan, out: Path, problems: list[Problem]) -> None:
    from marsretrieval.datasets.ctx import readable_bytes

    names = [entry.quad.name for entry in plan.todo]
    echo(
        f"{out}: {pluralize(len(names), 'quad')} to cut, {len(plan.kept):,} present; nothing is "
        "done"
    )
    echo(f"  quads    {_abbreviate(names) or 'none'}")
    echo(f"  tiles    {plan.tiles:,}")
    echo(f"  fetch    about {readable_bytes(plan.download_bytes)}")
    needed, scratch = readable_bytes(plan.output_bytes), readable_bytes(plan.scratch_bytes)
    echo(f"  disk     about {needed} for tiles and {scratch} for temporary zips;", end=" ")
    echo(f"{readable_bytes(plan.free_bytes)} free")
    if plan.output_bytes + plan.scratch_bytes > plan.free_bytes:
        say("note: not enough free disk space: choose another --out, or a smaller region")
    for problem in problems:
        say(f"problem: {problem.source}: {problem.reason}")


def _abbreviate(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_SHOWN:,} more" if len(names) > _MAX_SHOWN else ""
    return ", ".join(names[:_MAX_SHOWN]) + more


def print_raster_plan(plan: RastersPlan, out: Path, *, as_json: bool) -> None:
    """Print what would be cut: a line per raster on stdout, notes and failures on stderr.

    Args:
        plan: The plan.
        out: Output folder.
        as_json: Print only notes and failures; the plan goes to stdout as JSON.
    """
    from marsretrieval.datasets.listing import readable_bytes

    if not as_json and (plan.todo or plan.kept):
        count = pluralize(len(plan.todo), "raster")
        echo(f"{out}: {count} to cut, {len(plan.kept):,} already present; dry run")
        for entry in plan.todo[:_MAX_RASTERS_SHOWN]:
            product = f", {entry.instrument} {entry.product_id}" if entry.instrument else ""
            bands = ",".join(map(str, entry.bands))
            x, y = entry.pixel_m
            stretch = entry.stretch["method"]
            echo(f"  {entry.name}{product}")
            echo(f"    raster  {entry.width:,} x {entry.height:,} {entry.dtype}, bands {bands}")
            echo(f"    crs     {entry.crs}; pixels of {format_metres(x)} x {format_metres(y)}")
            echo(
                f"    tiles   {entry.tiles:,}, about {readable_bytes(entry.output_bytes)}; "
                f"stretch {stretch}"
            )
        if len(plan.todo) > _MAX_RASTERS_SHOWN:
            echo(f"  and {len(plan.todo) - _MAX_RASTERS_SHOWN:,} more rasters: --json lists all")
        needed = sum(entry.output_bytes for entry in plan.todo)
        tiles = sum(entry.tiles for entry in plan.todo)
        echo(f"  tiles    {tiles:,}")
        echo(f"  disk     about {readable_bytes(needed)}; {readable_bytes(plan.free_bytes)} free")
        if needed > plan.free_bytes:
            say("note: there is not that much space: choose another --out or larger tiles")
    _say_notes([note for entry in plan.todo for note in entry.notes], plan.skipped)
    _say_failures(plan.failed)


def print_raster_report(report: RastersReport, out: Path, *, as_json: bool) -> None:
    """Print what was cut on stdout, and notes and failures on stderr.

    Args:
        report: The report.
        out: Output folder.
        as_json: Print only notes and failures; the report goes to stdout as JSON.
    """
    if not as_json and (report.cut or report.kept):
        totals = report.to_dict()
        tiles = pluralize(totals["tiles"], "tile")
        rasters = pluralize(len(report.cut) + len(report.kept), "raster")
        echo(f"{out}: {tiles} of {rasters} ({totals['bytes'] / 1e6:,.1f} MB)")
        echo(
            f"  rasters  {len(report.cut):,} cut in {report.seconds:,.1f} s, "
            f"{len(report.kept):,} already present"
        )
        echo(
            f"  skipped  {totals['empty']:,} without valid pixels, {totals['dropped']:,} below "
            "--min-valid"
            + (f", {totals['off_planet']:,} beyond the planet" if totals["off_planet"] else "")
        )
    _say_notes(report.notes, report.skipped)
    if report.otherwise:
        names = ", ".join(report.otherwise[:_MAX_RASTERS_SHOWN])
        say(
            f"note: {pluralize(len(report.otherwise), 'raster')} in this folder were cut with "
            f"other options: {names}"
        )
    _say_failures(report.failed)
    if report.failed:
        say(
            f"error: {pluralize(len(report.failed), 'raster')} could not be cut; finished ones "
            "are kept when the command is run again"
        )


def _say_notes(notes: Sequence[str], skipped: Mapping[str, str]) -> None:
    for note in notes[:_MAX_RASTERS_SHOWN]:
        say(f"note: {note}")
    if len(notes) > _MAX_RASTERS_SHOWN:
        say(f"note: and {len(notes) - _MAX_RASTERS_SHOWN:,} more notes: --json lists all")
    if skipped:
        path, reason = next(iter(skipped.items()))
        say(f"note: {pluralize(len(skipped), 'file')} not cut on its own: {path} is {reason}")


def _say_failures(failures: Sequence[RasterProblem]) -> None:
    for problem in failures[:_MAX_RASTERS_SHOWN]:
        say(f"failed: {problem.source}: {problem.reason}")
    if len(failures) > _MAX_RASTERS_SHOWN:
        say(f"and {len(failures) - _MAX_RASTERS_SHOWN:,} more failures: --json lists all")
