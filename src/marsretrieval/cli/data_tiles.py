"""``marsretrieval data tiles``: cut local or downloaded quads of the CTX mosaic into tiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marsretrieval.cli.console import JsonFlag, echo, print_json, say, show_progress
from marsretrieval.errors import UsageError
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.datasets.ctx import Input, Plan, Problem, Quad, Report

_MAX_SHOWN = 10


def tiles(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SOURCE",
            help="GeoTIFFs or zips of the mosaic, or folders (default: download by region).",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder: one tar and one manifest per quad.")] = (
        Path("data/Mars-Global-Geolocalization/tiles")
    ),
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
        str, typer.Option(metavar="DEG", help="Tile height and width in degrees; must divide 4.")
    ] = "0.2",
    size: Annotated[int, typer.Option(help="Tile height and width in pixels.")] = 512,
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
        float,
        typer.Option(metavar="SHARE", help="Skip tiles with a smaller share of valid pixels."),
    ] = 0.0,
    scratch: Annotated[
        Path | None,
        typer.Option(help="Folder for downloaded zips (default: a hidden folder in --out)."),
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
        bool, typer.Option("--force", help="Replace quads that were cut with other options.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show quads, tiles, download and disk space; write nothing."
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Cut the CTX mosaic into tiles; run again to resume.

    A quad is 4 x 4 degrees: 400 tiles of 0.2 degrees, 1.7 GB to download, 50 MB of tiles.
    Finished quads are kept, each zip is deleted after cutting. -180,-80,180,80 is the benchmark's
    planet: 3,600 quads. Exit code 1 if any quad or tile failed.

    Raises:
        UsageError: If neither sources nor a region are given, or an option is invalid.
        typer.Exit: With code 1 if a quad or a tile failed.
    """
    from marsretrieval import geo
    from marsretrieval.datasets import ctx

    box = geo.Box.parse(bbox) if bbox is not None else None
    if clip and box is None:
        raise UsageError("--clip requires --bbox")
    spec = ctx.TileSpec.of(
        delta,
        size=size,
        format=format,
        equal_aspect=equal_aspect,
        exact=exact,
        drop_below=drop_empty,
        clip=box if clip else None,
    )
    named_quads = ctx.parse_quads(quads) if quads is not None else []
    selected_quads = ctx.select_quads(box, named_quads) if box is not None or named_quads else None
    outside = None if box is None else ctx.part_outside(box)
    if outside is not None:
        say(f"warning: --bbox {bbox}: {outside}")
    inputs, problems = _find_inputs(sources or [], selected_quads)
    if dry_run:
        plan = ctx.plan(inputs, spec, out, force=force)
        _print_plan(plan, out, problems, outside, as_json=as_json)
        return
    settings = ctx.JobSettings(
        threads=threads,
        scratch=scratch,
        server=server or ctx.SERVER,
        fetch=ctx.FetchSettings(ca_file=ca_file),
        force=force,
    )
    with show_progress(quiet=as_json) as progress:
        report = ctx.cut_quads(
            inputs, spec, out, problems=problems, settings=settings, progress=progress
        )
    if as_json:
        print_json({"out": str(out), "outside": outside, **report.to_dict()})
    else:
        _print_report(report, out)
    if not report.complete:
        raise typer.Exit(1)


def _find_inputs(
    sources: list[Path], selected_quads: list[Quad] | None
) -> tuple[list[Input], list[Problem]]:
    from marsretrieval.datasets import ctx

    if sources:
        return ctx.find_files(sources, selected_quads)
    if selected_quads is None:
        raise UsageError(
            "no input files or region given",
            remedy="Name GeoTIFFs, zips or folders of them, or a region with --bbox or --quads.",
        )
    return [ctx.Input(quad) for quad in selected_quads], []


def _print_report(report: Report, out: Path) -> None:
    totals = report.to_dict()
    cut_count, kept_count = len(report.cut), len(report.kept)
    tiles, quads = (
        pluralize(totals["tiles"], "tile"),
        pluralize(cut_count + kept_count, "quad"),
    )
    echo(f"{out}: {tiles} in {quads} ({totals['bytes'] / 1e6:,.1f} MB)")
    echo(f"  quads    {cut_count:,} cut in {report.seconds:,.1f} s, {kept_count:,} already present")
    empty = pluralize(totals["empty"], "tile")
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


def _print_plan(
    plan: Plan, out: Path, problems: list[Problem], outside: str | None, *, as_json: bool
) -> None:
    from marsretrieval.datasets.ctx import readable_bytes

    if as_json:
        problem_records = [
            {"source": problem.source, "reason": problem.reason} for problem in problems
        ]
        print_json(
            {"out": str(out), "outside": outside, **plan.to_dict(), "problems": problem_records}
        )
        return
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
