"""``marsretrieval report``: results that were written before, as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marsretrieval.cli._shared import JsonFlag, print_json, say
from marsretrieval.errors import DataError, DatasetNotFoundError

__all__ = ["report"]


def report(
    results: Annotated[list[Path], typer.Argument(help="Result files, or folders of them.")],
    details: Annotated[
        bool, typer.Option("--details", help="Every landform, not only their mean.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show results as tables, a table for each task and set of items.

    Files that are no results are named and left out; exit code 1 if there were any.
    """
    from marsretrieval.report.leaderboard import leaderboards
    from marsretrieval.results import find_results, read_result

    found, refused = [], []
    for path in find_results(results):
        try:
            found.append(read_result(path))
        except DataError as error:
            refused.append(error)
    for each in refused:
        say(f"left out: {each}")
    if not found:
        raise DatasetNotFoundError(
            f"no results in {', '.join(map(str, results))}",
            remedy="marsretrieval run writes them to --results.",
        )
    if as_json:
        print_json([each.to_dict() for each in found])
    else:
        leaderboards(found, details=details)
    if refused:
        raise typer.Exit(1)
