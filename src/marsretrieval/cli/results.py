"""``marsretrieval results``: check result files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marsretrieval.cli.console import JsonFlag, echo, print_json, say, show_progress
from marsretrieval.cli.help import Command, Group
from marsretrieval.errors import DatasetNotFoundError
from marsretrieval.text import pluralize

app = typer.Typer(cls=Group, no_args_is_help=True, help="Check result files.")


@app.callback()
def _results() -> None:
    pass


@app.command(cls=Command)
def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Result files or folders.")],
    as_json: JsonFlag = False,
) -> None:
    """Check schema and hashes of results, and recompute their metrics.

    The metrics are recomputed from the .parquet files beside a result. Lists each difference, and
    what could not be checked; exit code 1 if there is a difference.

    Raises:
        DatasetNotFoundError: If there are no results.
        typer.Exit: With code 1 if a result differs.
    """
    from marsretrieval.report.verification import verify_result
    from marsretrieval.results import find_results

    paths = find_results(files)
    if not paths:
        raise DatasetNotFoundError(
            f"no results in {', '.join(map(str, files))}",
            remedy="marsretrieval run writes them to --results.",
        )
    with show_progress() as progress:
        outcomes = [verify_result(path, progress=progress) for path in paths]
    if as_json:
        print_json([outcome.to_dict() for outcome in outcomes])
    else:
        for outcome in outcomes:
            failure = "DIFFERENT" if outcome.checked else "NOT VERIFIED"
            state = "verified" if outcome.verified else failure
            echo(f"{outcome.path}: {state}: {', '.join(outcome.checked) or 'nothing checked'}")
            for line in outcome.differences:
                echo(f"  difference: {line}")
            for line in outcome.unchecked:
                echo(f"  not checked: {line}")
    different = sum(not outcome.verified for outcome in outcomes)
    if different:
        say(f"{pluralize(different, 'file')} of {len(outcomes)} not verified")
        raise typer.Exit(1)
