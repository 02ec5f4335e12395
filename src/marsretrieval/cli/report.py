"""``marsretrieval report``: show existing results as tables, or write them to a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marsretrieval.cli.console import JsonFlag, echo, print_json, say, show_progress
from marsretrieval.cli.options import check_output_files, check_output_folder
from marsretrieval.errors import DataError, DatasetNotFoundError, UsageError
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.report.result_files import ResultFile

# Options that have an effect on some outputs only.
_ONLY_HTML = ("--title", "--gpu-price", "--thumbnails/--no-thumbnails")
_ONLY_TABLES = ("--details", "--by", "--protocol", "--no-intervals")
_NOT_JSON = ("--references/--no-references", "--per-seed")


def report(
    results: Annotated[list[Path], typer.Argument(help="Result files or folders.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            callback=check_output_files,
            help="Output file: .html (complete report), .md, .tex, .csv or .json.",
        ),
    ] = None,
    md: Annotated[bool, typer.Option("--md", help="Print Markdown tables.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print LaTeX tables (booktabs).")] = False,
    csv: Annotated[
        bool, typer.Option("--csv", help="Print long-format CSV, one metric per row.")
    ] = False,
    details: Annotated[
        bool, typer.Option("--details", help="Show every landform and class, not only the mean.")
    ] = False,
    references: Annotated[
        bool | None,
        typer.Option(
            "--references/--no-references",
            help="Show published reference results, not ranked. Default: "
            "if the results are on the same real dataset.",
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("-t", "--task", metavar="TASK", help="Task to show; repeatable."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="latitude", help="Add tables of geolocalization by latitude."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="published|strict",
            help="Show one protocol only (tables). Default: both.",
        ),
    ] = None,
    intervals: Annotated[
        bool, typer.Option("--intervals/--no-intervals", help="Show 95 % intervals (tables).")
    ] = True,
    per_seed: Annotated[
        bool,
        typer.Option("--per-seed", help="Show a row per seed instead of their mean and spread."),
    ] = False,
    leaderboard: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            callback=check_output_folder,
            help="Write a leaderboard: a static site, one page per submission.",
        ),
    ] = None,
    gpu_price: Annotated[
        float | None,
        typer.Option(
            metavar="PRICE",
            help="Price of a GPU hour, to show costs (.html, --leaderboard).",
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Title of the report (.html, --leaderboard).")
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(hidden=True, help="Ignored: run writes the thumbnails of a page."),
    ] = None,
    thumbnails: Annotated[
        bool | None,
        typer.Option(
            "--thumbnails/--no-thumbnails", help="Show thumbnails (.html). Default: show."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show results as tables, or write them to a file.

    Prints one table over all tasks, then one per task and set of items.

    Invalid result files and damaged tables are listed and skipped, with exit code 1. With
    --leaderboard, so are submissions that fail `results verify`; they are listed, not ranked.

    Raises:
        UsageError: If options exclude each other, or the file name has no known suffix.
        UnknownNameError: If no result is of a task of `--task`.
        DatasetNotFoundError: If there are no results.
        typer.Exit: With code 1 if a file is left out.
    """
    given = {
        "-o": output is not None, "--md": md, "--latex": latex, "--csv": csv,
        "--details": details, "--references/--no-references": references is not None,
        "-t": bool(task), "--by": by is not None, "--protocol": protocol is not None,
        "--no-intervals": not intervals, "--per-seed": per_seed,
        "--thumbnails/--no-thumbnails": thumbnails is not None,
        "--title": title is not None, "--gpu-price": gpu_price is not None,
    }  # fmt: skip
    if gpu_price is not None and gpu_price < 0:
        raise UsageError(
            f"--gpu-price {gpu_price:g}: negative", remedy="Give a price of 0 or more."
        )
    if images:
        say(
            f"--images: {pluralize(len(images), 'path')} ignored: an HTML report shows the "
            "thumbnails written by `marsretrieval run`"
        )
    if leaderboard is not None:
        _refuse_options(given, {*given} - {"--title", "--gpu-price"}, "--leaderboard")
        _write_leaderboard(results, leaderboard, title=title, price=gpu_price, as_json=as_json)
        return
    output_format = _choose_format(output, {"md": md, "latex": latex, "csv": csv, "json": as_json})
    if output_format != "html":
        _refuse_options(given, _ONLY_HTML, output_format, "apply only to HTML reports (-o x.html)")
    if output_format in ("html", "json"):
        _refuse_options(
            given, _ONLY_TABLES, output_format, f"apply only to tables, not to {output_format}"
        )
    if output_format == "json":
        _refuse_options(given, _NOT_JSON, output_format, "no effect on JSON, which has all results")
    from marsretrieval.report.grouping import average_seeds, seeds_of
    from marsretrieval.results import PROTOCOLS

    if protocol is not None and protocol not in PROTOCOLS:
        raise UsageError(
            f"--protocol {protocol}: unknown protocol", remedy="Use published or strict."
        )
    if by not in (None, "latitude"):
        raise UsageError(f"--by {by}: unknown grouping", remedy="Use latitude.")
    if by and protocol == "published":
        raise UsageError("--by latitude has values of the strict protocol only")
    result_files, refused = _read_results(results)
    if task:
        result_files = _select_tasks(result_files, task)
    if by and all(file.result.task != "geolocalization" for file in result_files):
        raise UsageError("--by latitude requires results of geolocalization")
    averaged = average_seeds(result_files)
    shown_files = result_files if per_seed else averaged
    if output_format == "json":  # every result, then the means over seeds
        shown_files = [*result_files, *(file for file in averaged if seeds_of(file.result))]
    if output_format == "html":
        assert output is not None
        refused += _write_page(
            shown_files, output, title=title, thumbnails=thumbnails is not False,
            references=references, left_out=refused, price=gpu_price,
        )  # fmt: skip
    else:
        _write_tables(
            shown_files, output_format, output, details=details, references=references,
            protocol=protocol, intervals=intervals, by_latitude=by is not None,
        )  # fmt: skip
    if refused:
        raise typer.Exit(1)


def _refuse_options(
    given: Mapping[str, bool], names: Collection[str], output: str, reason: str | None = None
) -> None:
    """Raise UsageError if an option is given that has no effect on an output."""
    unused = [name for name, is_given in given.items() if is_given and name in names]
    if unused:
        raise UsageError(
            f"{', '.join(unused)}: {reason or f'no effect with {output}'}",
            remedy="Leave it out, or choose another output.",
        )


def _choose_format(output: Path | None, format_flags: dict[str, bool]) -> str:
    """Return html, md, latex, csv, json or table; raise UsageError on conflicting options."""
    from marsretrieval.report.render import SUFFIXES

    flags = [name for name, is_set in format_flags.items() if is_set]
    if len(flags) > 1:
        raise UsageError(f"--{' and --'.join(flags)}: choose one")
    if output is None:
        return flags[0] if flags else "table"
    format_by_suffix = {".html": "html", ".htm": "html", ".json": "json", **SUFFIXES}
    suffix_format = format_by_suffix.get(output.suffix.lower())
    if suffix_format is None and not flags:
        raise UsageError(
            f"-o {output}: unknown output format",
            remedy=f"Use {', '.join(format_by_suffix)}, or add --md, --latex, --csv or --json.",
        )
    if suffix_format is not None and flags and flags[0] != suffix_format:
        raise UsageError(f"-o {output} and --{flags[0]} are two formats: choose one")
    return suffix_format or flags[0]


def _read_results(paths: list[Path]) -> tuple[list[ResultFile], list[str]]:
    """Read the results; return them and one line for each invalid file."""
    from marsretrieval.report.result_files import read_whole
    from marsretrieval.results import find_results

    result_files, refused = [], []
    for path in find_results(paths):
        try:
            result_files.append(read_whole(path))
        except DataError as error:
            refused.append(str(error))
    for line in refused:
        say(f"left out: {line}")
    if not result_files:
        raise DatasetNotFoundError(
            f"no results in {', '.join(map(str, paths))}",
            remedy="marsretrieval run writes them to --results.",
        )
    return result_files, refused


def _select_tasks(result_files: Sequence[ResultFile], names: Sequence[str]) -> list[ResultFile]:
    """Select the results of tasks, given by name, alias or ``module:Class``."""
    from marsretrieval.errors import UnknownNameError
    from marsretrieval.tasks import find_task

    available = list(dict.fromkeys(file.result.task for file in result_files))
    selected: set[str] = set()
    for name in names:
        task = name if name in available else find_task(name).name
        if task not in available:
            raise UnknownNameError("result of task", task, available)
        selected.add(task)
    return [file for file in result_files if file.result.task in selected]


def _write_tables(
    result_files: Sequence[ResultFile],
    output_format: str,
    output: Path | None,
    *,
    details: bool,
    references: bool | None,
    protocol: str | None,
    intervals: bool,
    by_latitude: bool,
) -> None:
    from marsretrieval.io import atomic_path
    from marsretrieval.report.grouping import result_sets
    from marsretrieval.report.latitude import latitude_tables
    from marsretrieval.report.overview import overview_table
    from marsretrieval.report.render import FORMATS, print_tables
    from marsretrieval.report.tables import model_tables

    results = [file.result for file in result_files]
    if output_format == "json":
        print_json([result.to_dict() for result in results], output)
    else:
        tables = model_tables(
            results, details=details, more=output_format == "csv", references=references,
            protocol=protocol,
        )  # fmt: skip
        # The CSV has one row per metric value: the overview would repeat some of them.
        overview = None if output_format == "csv" else overview_table(
            results, protocol=protocol or "strict"
        )  # fmt: skip
        if overview is not None:
            tables.insert(0, overview)
        if by_latitude:
            latitude = [
                t for result_set in result_sets(results) for t in latitude_tables(result_set)
            ]
            if not latitude:
                say("--by latitude: no values in these results; run them again with --force")
            tables += latitude
        if not intervals:
            tables = [table.without_intervals() for table in tables]
        if output_format == "table":
            print_tables(tables)
            return
        text = FORMATS[output_format](tables)
        if output is None:
            echo(text, end="")
        else:
            with atomic_path(output) as temporary:
                temporary.write_text(text, encoding="utf-8")
    if output is not None:
        say(f"wrote {output}")


def _write_page(
    result_files: Sequence[ResultFile],
    output: Path,
    *,
    title: str | None,
    thumbnails: bool,
    references: bool | None,
    left_out: Sequence[str],
    price: float | None,
) -> Sequence[str]:
    """Write the HTML report; return one line for each damaged table."""
    from marsretrieval.report.html.page import write_html
    from marsretrieval.report.table import references_for

    reference_rows = references_for([file.result for file in result_files], show=references)
    with show_progress() as progress:
        page = write_html(
            result_files, output, title=title, thumbnails=thumbnails, references=reference_rows,
            left_out=left_out, price=price, progress=progress,
        )  # fmt: skip
    for line in page.damaged:
        say(f"left out: {line}")
    for note in page.notes:
        say(note)
    say(f"wrote {page.path}: {page.size / 1e6:.1f} MB, {pluralize(page.images, 'thumbnail')}")
    return page.damaged


def _write_leaderboard(
    paths: list[Path], folder: Path, *, title: str | None, price: float | None, as_json: bool
) -> None:
    """Write the leaderboard; exit with code 1 if a submission is not verified."""
    from marsretrieval.report.html.leaderboard import write_leaderboard

    with show_progress() as progress:
        board = write_leaderboard(paths, folder, title=title, price=price, progress=progress)
    for submission in board.failed:
        for file, line in submission.first_reasons:
            say(f"not verified: {submission.name}: {file}: {line}")
    for name in board.removed:
        say(f"removed from the leaderboard, because it is not among the results: {name}")
    reused = f", checks of {pluralize(board.reused, 'unchanged file')} reused"
    say(
        f"wrote {folder / 'index.html'}: {pluralize(len(board.submissions), 'submission')}, "
        f"{len(board.failed)} not verified{reused if board.reused else ''}"
    )
    if as_json:
        print_json(board.to_dict())
    if board.failed:
        raise typer.Exit(1)
