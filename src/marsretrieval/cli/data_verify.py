"""``marsretrieval data verify``: is the data what it should be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marsretrieval.cli._shared import echo, print_json, say, show_progress

if TYPE_CHECKING:
    from marsretrieval.datasets.inventory import DatasetInventory

_SHOWN = 5


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
        int | None, typer.Option(min=1, max=4096, help="Processes (default: the CPUs there are).")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Notes make exit code 1 too, not only errors.")
    ] = False,
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="OUT", help="Write the inventory as JSON; - for stdout."),
    ] = None,
) -> None:
    """Hash every file, decode every image, count every problem.

    The set hash is the one that results carry when all of the set was scored. Exit code 1 if
    anything is wrong. Notes say what the real datasets have too: near-duplicates, missing quads.
    """
    from marsretrieval.datasets.verify import verify as check
    from marsretrieval.files import check_output, make_folder

    to_stdout = str(json) == "-"
    if json is not None and not to_stdout:
        # Known now, not after hours of checking.
        check_output(json)
        make_folder(json.parent)
    with show_progress(quiet=to_stdout) as progress:
        inventory = check(folder, tasks=task or (), workers=workers, progress=progress)
    if json is not None:
        print_json(inventory.to_dict(), None if to_stdout else json)
    if not to_stdout:
        for dataset in inventory.datasets:
            _show(dataset)
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


def _show(told: DatasetInventory) -> None:
    echo(f"{told.dataset}: {told.folder}")
    for name, value in told.origin.items():
        echo(f"  {name:<10} {_counted(value) if isinstance(value, dict) else value}")
    for name, value in told.counts.items():
        echo(f"  {name:<10} {_counted(value)}")
    if told.set_hash:
        echo(f"  set hash   {told.set_hash}")
    for problem in told.problems:
        echo(f"  {problem.severity}: {problem.kind}: {problem.count:,}")
        for example in problem.examples[:_SHOWN]:
            echo(f"    {example}")
        if problem.count > _SHOWN and len(problem.examples) > _SHOWN:
            echo("    ...")
    if all(problem.severity == "note" for problem in told.problems):
        echo("  nothing is wrong")


def _counted(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_counted(each)}" for name, each in value.items())
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"{value:,}" if number else str(value)
