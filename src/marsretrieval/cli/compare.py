"""``marsretrieval compare``: paired comparison of two models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from marsretrieval.cli.console import JsonFlag, print_json, say, show_progress
from marsretrieval.cli.options import Resamples, Seed
from marsretrieval.errors import DataError, UnknownNameError, UsageError


def compare(
    a: Annotated[
        str,
        typer.Argument(metavar="A", help="Result file, results folder or name of the first model."),
    ],
    b: Annotated[
        str,
        typer.Argument(
            metavar="B", help="Result file, results folder or name of the second model."
        ),
    ],
    results: Annotated[
        Path | None,
        typer.Option(help="Folder in which model names are looked up (default: results)."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("-t", "--task", metavar="TASK", help="Task to compare (default: all)."),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            metavar="strict|published",
            help="Evaluation protocol; strict is recommended for comparisons.",
        ),
    ] = "strict",
    top: Annotated[
        int | None,
        typer.Option(min=0, help="Number of largest gains and losses to list (default: 3)."),
    ] = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    as_json: JsonFlag = False,
) -> None:
    """Compare two models, paired query by query on the same items.

    Shows metric differences with confidence intervals, and the queries that changed most.

    Results on different items are rejected with a list of the differences, and invalid files
    are skipped; both give exit code 1.

    Raises:
        DataError: If the results of the only pair are on different items.
        UnknownNameError: If no task has this name.
        UsageError: If --top and --json are both given, or --results has no effect.
        typer.Exit: With code 1 if a pair is refused or a file is left out.
    """
    from marsretrieval.report.compare import compare_results
    from marsretrieval.report.matching import match_results
    from marsretrieval.report.render import print_comparison
    from marsretrieval.tasks import find_task

    if as_json and top is not None:
        raise UsageError(
            "--top does not apply to --json, which lists all", remedy="Leave one of them out."
        )
    for side in (a, b):
        if not side.strip():
            raise UsageError("an empty name", remedy="Name a model, a result file or a folder.")
    if results is not None and Path(a).exists() and Path(b).exists():
        raise UsageError(
            f"--results {results}: no effect, because {a} and {b} are paths",
            remedy="Leave --results out, or name models in place of the paths.",
        )
    results = results or Path("results")
    try:
        name = None if task is None else find_task(task).name
    except UnknownNameError:
        from marsretrieval.results import find_results

        if not (results.is_dir() and any(
            path.name.partition(".")[0] == task for path in find_results([results])
        )):  # fmt: skip
            raise
        name = task
    match = match_results(a, b, results=results, task=name)
    for line in (*(f"left out: {reason}" for reason in match.left_out), *match.notes):
        say(line)
    comparisons: list[dict[str, Any]] = []
    refused: list[DataError] = []
    for first, second in match.pairs:
        if first.path is not None and first.path == second.path:
            say(f"note: A and B are the same result, {first.path}")
        try:
            with show_progress() as progress:
                comparison = compare_results(
                    first, second, protocol=protocol, seed=seed, resamples=resamples,
                    progress=progress,
                )  # fmt: skip
        except DataError as error:
            if len(match.pairs) == 1:
                raise
            refused.append(error)
            say(f"refused: {error}")
            continue
        comparisons.append(comparison.to_dict())
        if not as_json:
            print_comparison(comparison, top=3 if top is None else top)
    if as_json:
        print_json({"comparisons": comparisons, "refused": [str(error) for error in refused]})
    if refused or match.left_out:
        raise typer.Exit(1)
