"""``marsretrieval data synth``: a small synthetic Mars in the layouts of the real datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marsretrieval.cli._shared import JsonFlag, echo, print_json, show_progress


def synth(
    out: Annotated[Path, typer.Option(help="Folder of the planet.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same planet.")] = 0,
    size: Annotated[
        str, typer.Option(metavar="default|small|tiny", help="How much of everything.")
    ] = "default",
    force: Annotated[
        bool, typer.Option("--force", help="Replace a synthetic planet that is there.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be made, and make nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a small synthetic Mars from a seed.

    Holds data of the three tasks and GeoTIFF quads.

    Everything in it is synthetic, and says so. A planet that is there already is left as it is.
    """
    from marsretrieval.datasets.synthetic import describe_planet, write_planet

    if dry_run:
        plan = describe_planet(out, seed=seed, size=size, force=force)
        if as_json:
            print_json(plan)
            return
        echo(f"{out}: {plan['status']}; nothing is written (--dry-run)")
        _show(plan)
        return
    with show_progress(quiet=as_json) as progress:
        summary = write_planet(out, seed=seed, size=size, force=force, progress=progress)
    told = summary.to_dict()
    if as_json:
        print_json(told)
        return
    made = "made" if summary.made else "was there before: nothing to do"
    echo(f"{out}: a synthetic planet, {made} ({summary.bytes / 1e6:.1f} MB)")
    _show(told)
    points = ", ".join(f"{name} {count}" for name, count in summary.points.items())
    echo(f"  ground truth     {points}")


def _show(told: dict[str, object]) -> None:
    quads = told["quads"]
    assert isinstance(quads, list)
    echo(f"  seed             {told['seed']}, size {told['size']}, generator {told['version']}")
    echo(f"  caption pairs    {told['pairs']}")
    echo(f"  landform images  {told['landform_images']} in {told['classes']} classes")
    echo(f"  tiles            {told['tiles']} from {len(quads)} quads: {', '.join(quads)}")
