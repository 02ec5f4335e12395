"""``marsretrieval data``: create, download, cut and verify datasets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marsretrieval.cli.console import JsonFlag, echo, print_json, say, show_progress
from marsretrieval.cli.data_download import download
from marsretrieval.cli.data_tiles import tiles
from marsretrieval.cli.help import Command, Group

if TYPE_CHECKING:
    from marsretrieval.datasets.inventory import DatasetInventory

_MAX_EXAMPLES = 5


def synth(
    out: Annotated[Path, typer.Option(help="Output folder.")],
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    size: Annotated[
        str, typer.Option(metavar="default|small|tiny", help="Size of the planet.")
    ] = "default",
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing synthetic planet.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and write nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a small synthetic Mars from a seed.

    Contains data for the three tasks and GeoTIFF quads.

    All files are marked as synthetic. An existing planet is kept.

    Raises:
        UnknownNameError: If no planet size has this name.
        OutputError: If the folder holds other files or cannot be written.
        DataError: If files of an existing planet are missing or changed.
    """
    from marsretrieval.datasets.synthetic import describe_planet, write_planet

    if dry_run:
        plan = describe_planet(out, seed=seed, size=size, force=force)
        if as_json:
            print_json(plan)
            return
        echo(f"{out}: {plan['status']}; nothing is written (--dry-run)")
        _print_planet(plan)
        return
    with show_progress(quiet=as_json) as progress:
        summary = write_planet(out, seed=seed, size=size, force=force, progress=progress)
    summary_record = summary.to_dict()
    if as_json:
        print_json(summary_record)
        return
    made = "made" if summary.made else "already exists: nothing to do"
    echo(f"{out}: a synthetic planet, {made} ({summary.bytes / 1e6:.1f} MB)")
    _print_planet(summary_record)
    points = ", ".join(f"{name} {count}" for name, count in summary.points.items())
    echo(f"  ground truth     {points}")


def _print_planet(planet: dict[str, object]) -> None:
    quads = planet["quads"]
    assert isinstance(quads, list)
    echo(
        f"  seed             {planet['seed']}, size {planet['size']}, generator {planet['version']}"
    )
    echo(f"  caption pairs    {planet['pairs']}")
    echo(f"  landform images  {planet['landform_images']} in {planet['classes']} classes")
    echo(f"  tiles            {planet['tiles']} from {len(quads)} quads: {', '.join(quads)}")


def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder that holds the datasets, or one dataset.")
    ] = Path("data"),
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", "-t", metavar="TASK", help="Check only this task's data; repeatable."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="Number of processes (default: number of CPUs)."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 1 on notes as well as errors.")
    ] = False,
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="OUT", help="Write the inventory as JSON; - for stdout."),
    ] = None,
) -> None:
    """Verify datasets by hashing files and decoding images.

    The set hash equals that of results computed on the complete dataset. Exit code 1 on errors.
    Notes are properties of the real datasets as well: near-duplicates, missing quads.

    Raises:
        OutputError: If the JSON file cannot be written.
        typer.Exit: With code 1 if there is an error or, with --strict, a note.
    """
    from marsretrieval.datasets.verify import verify as check
    from marsretrieval.io import check_output, make_folder

    to_stdout = str(json) == "-"
    if json is not None and not to_stdout:
        # Fail before hours of checking, not after.
        check_output(json)
        make_folder(json.parent)
    with show_progress(quiet=to_stdout) as progress:
        inventory = check(folder, tasks=task or (), workers=workers, progress=progress)
    if json is not None:
        print_json(inventory.to_dict(), None if to_stdout else json)
    if not to_stdout:
        for dataset in inventory.datasets:
            _print_verification(dataset)
    if not inventory.ok(strict=strict):
        counts = Counter[str]()
        for dataset in inventory.datasets:
            for problem in dataset.problems:
                if strict or problem.severity != "note":
                    counts[problem.kind] += problem.count
        listing = ", ".join(f"{kind} {count:,}" for kind, count in counts.items())
        say(
            f"error: {folder}: {listing}\n"
            "  Correct or remove the files listed on stdout or in the JSON, then verify again."
        )
        raise typer.Exit(1)


def _print_verification(dataset: DatasetInventory) -> None:
    echo(f"{dataset.dataset}: {dataset.folder}")
    for name, value in dataset.origin.items():
        echo(f"  {name:<10} {_format_counts(value) if isinstance(value, dict) else value}")
    for name, value in dataset.counts.items():
        echo(f"  {name:<10} {_format_counts(value)}")
    if dataset.set_hash:
        echo(f"  set hash   {dataset.set_hash}")
    for problem in dataset.problems:
        echo(f"  {problem.severity}: {problem.kind}: {problem.count:,}")
        for example in problem.examples[:_MAX_EXAMPLES]:
            echo(f"    {example}")
        if problem.count > _MAX_EXAMPLES and len(problem.examples) > _MAX_EXAMPLES:
            echo("    ...")
    if all(problem.severity == "note" for problem in dataset.problems):
        echo("  no problems found")


def _format_counts(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_format_counts(count)}" for name, count in value.items())
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"{value:,}" if number else str(value)


app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Create, download, cut and verify datasets."
)
app.command(cls=Command)(synth)
app.command(cls=Command)(download)
app.command(cls=Command)(tiles)
app.command(cls=Command)(verify)
