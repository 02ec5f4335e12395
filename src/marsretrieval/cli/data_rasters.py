"""Output of ``marsretrieval data tiles`` for own rasters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from marsretrieval.cli.console import echo, say
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from marsretrieval.datasets.rasters import RasterProblem, RastersPlan, RastersReport

_MAX_SHOWN = 20


def print_raster_plan(plan: RastersPlan, out: Path, *, as_json: bool) -> None:
    """Print what would be cut: a line per raster on stdout, notes and failures on stderr.

    Args:
        plan: The plan.
        out: Output folder.
        as_json: Print only notes and failures; the plan goes to stdout as JSON.
    """
    from marsretrieval.datasets.listing import readable_bytes

    if not as_json:
        count = pluralize(len(plan.todo), "raster")
        echo(f"{out}: {count} to cut, {len(plan.kept):,} there; nothing is done")
        for entry in plan.todo[:_MAX_SHOWN]:
            product = f", {entry.instrument} {entry.product_id}" if entry.instrument else ""
            bands = ",".join(map(str, entry.bands))
            x, y = entry.pixel_m
            stretch = entry.stretch["method"]
            echo(f"  {entry.name}{product}")
            echo(f"    raster  {entry.width:,} x {entry.height:,} {entry.dtype}, bands {bands}")
            echo(f"    crs     {entry.crs}; pixels of {x:.4g} x {y:.4g} m")
            echo(
                f"    tiles   {entry.tiles:,}, about {readable_bytes(entry.output_bytes)}; "
                f"stretch {stretch}"
            )
        if len(plan.todo) > _MAX_SHOWN:
            echo(f"  and {len(plan.todo) - _MAX_SHOWN:,} more rasters: --json lists all")
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
    if not as_json:
        totals = report.to_dict()
        tiles = pluralize(totals["tiles"], "tile")
        rasters = pluralize(len(report.cut) + len(report.kept), "raster")
        echo(f"{out}: {tiles} of {rasters} ({totals['bytes'] / 1e6:,.1f} MB)")
        echo(
            f"  rasters  {len(report.cut):,} cut in {report.seconds:,.1f} s, "
            f"{len(report.kept):,} there before"
        )
        echo(
            f"  skipped  {totals['empty']:,} without valid pixels, {totals['dropped']:,} below "
            "--min-valid"
            + (f", {totals['off_planet']:,} beyond the planet" if totals["off_planet"] else "")
        )
    _say_notes(report.notes, report.skipped)
    if report.otherwise:
        names = ", ".join(report.otherwise[:_MAX_SHOWN])
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
    for note in notes[:_MAX_SHOWN]:
        say(f"note: {note}")
    if len(notes) > _MAX_SHOWN:
        say(f"note: and {len(notes) - _MAX_SHOWN:,} more notes: --json lists all")
    if skipped:
        path, reason = next(iter(skipped.items()))
        say(f"note: {pluralize(len(skipped), 'file')} not cut on its own: {path} is {reason}")


def _say_failures(failures: Sequence[RasterProblem]) -> None:
    for problem in failures[:_MAX_SHOWN]:
        say(f"failed: {problem.source}: {problem.reason}")
    if len(failures) > _MAX_SHOWN:
        say(f"and {len(failures) - _MAX_SHOWN:,} more failures: --json lists all")
