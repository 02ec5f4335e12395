"""``marsretrieval data``: create, download, cut and verify datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marsretrieval.cli.console import JsonFlag, echo, print_json, say, show_progress
from marsretrieval.cli.data_tiles import tiles
from marsretrieval.cli.help import Command, Group
from marsretrieval.cli.options import (
    Caption,
    ClassNames,
    PositionOptions,
    QueryKind,
    Templates,
    check_output_files,
    check_output_folder,
    expand_options,
)
from marsretrieval.errors import DataError, UsageError
from marsretrieval.text import list_some, pluralize

if TYPE_CHECKING:
    from marsretrieval.datasets.base import Skipped
    from marsretrieval.datasets.download.report import Plan, Report
    from marsretrieval.datasets.inventory import DatasetInventory
    from marsretrieval.tasks.external import EmbeddingItem

_MAX_EXAMPLES = 5


def synth(
    out: Annotated[Path, typer.Option(callback=check_output_folder, help="Output folder.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the planet.")] = 0,
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
    from marsretrieval.datasets.synthetic.writer import (
        describe_planet,
        list_foreign,
        write_planet,
    )

    foreign = list_foreign(out)
    if foreign:
        say(f"note: {out}: not part of the planet, unchanged: {list_some(foreign)}")
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
    echo(
        f"  tiles            {planet['tiles']} from {pluralize(len(quads), 'quad')}: "
        f"{', '.join(quads)}"
    )


@expand_options
def verify(
    *,
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder of datasets, or one dataset (folder or file)."),
    ] = Path("data"),
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", "-t", metavar="TASK", help="Check only this task's data; repeatable."
        ),
    ] = None,
    positions: PositionOptions,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="Number of processes (default: number of CPUs)."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 1 on notes as well as errors.")
    ] = False,
    json: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="OUT",
            callback=check_output_files,
            help="Write the inventory as JSON; - for stdout.",
        ),
    ] = None,
) -> None:
    """Verify datasets by hashing files and decoding images.

    The set hash equals that of results computed on the complete dataset. Exit code 1 on errors.
    Notes are properties of the real datasets as well: near-duplicates, missing quads.

    Raises:
        OutputError: If the JSON file cannot be written.
        UsageError: If columns or a layer are given and no dataset has point catalogues.
        typer.Exit: With code 1 if there is an error or, with --strict, a note.
    """
    from marsretrieval.datasets.verify import verify as check

    to_stdout = str(json) == "-"
    columns = positions.columns() if positions.flags() else None
    with show_progress(quiet=to_stdout) as progress:
        inventory = check(
            folder, tasks=task or (), columns=columns, workers=workers, progress=progress
        )
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


def download(
    dataset: Annotated[
        list[str], typer.Argument(help="paired, landform, geolocalization or all; repeatable.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            callback=check_output_folder,
            help="Folder that holds the datasets, each in its own folder.",
        ),
    ] = Path("data"),
    variant: Annotated[
        str | None,
        typer.Option(
            metavar="frozen|whole|published",
            help="Variant of paired: frozen (default: the hub's copy, 2,247 images), whole (images "
            "from the published links), published (512 px crops of these).",
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(help="Commit, branch or tag (default: the local one, else the pinned one)."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            callback=check_output_folder,
            help="Cache of linked images (default: a hidden folder beside the data).",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Parallel downloads of linked images (default: 16)."),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use only local files and the Hugging Face cache.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 1 if any linked image is missing.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be downloaded and write nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Download datasets; run again to download missing files.

    For paired, the default is the hub's frozen copy. --variant whole and published download the
    images from the published links; dead links are listed in missing.csv. The exit code is 0 if
    at most 5 % are missing (1.7 % are known to be gone). These variants need about 3 GB and half
    an hour; landform needs 1 GB. A token is read from HF_TOKEN.

    Raises:
        UsageError: If options exclude each other.
        typer.Exit: With code 1 if too many images are missing.
    """
    from marsretrieval.datasets.download.dataset import download as fetch
    from marsretrieval.datasets.download.dataset import plan_download
    from marsretrieval.datasets.download.links import LinkSettings
    from marsretrieval.datasets.download.sources import DATASETS, find_source

    names = list(DATASETS) if "all" in dataset else list(dict.fromkeys(dataset))
    variants = _resolve_variants(names, variant)
    if revision is not None and len(names) > 1:
        raise UsageError(
            "--revision applies to one dataset only", remedy="Download the datasets one at a time."
        )
    link_options = {"--cache": cache, "--workers": workers, "--strict": strict or None}
    unused = [option for option, value in link_options.items() if value is not None]
    if unused and not any(find_source(name, variants[name]).links for name in names):
        raise UsageError(
            f"{', '.join(unused)}: only for images from links",
            remedy="Add --variant whole or published to paired, or leave it out.",
        )
    if dry_run and offline:
        raise UsageError("--dry-run queries the hub and cannot be combined with --offline")
    if dry_run:
        plans = [
            plan_download(name, out, variant=variants[name], revision=revision, cache=cache)
            for name in names
        ]
        _print_plans(plans, as_json=as_json)
        return
    link_settings = LinkSettings(workers=16 if workers is None else workers)
    reports: list[Report] = []
    for name in names:
        say(f"{name}: looking up the files to download")
        with show_progress(quiet=as_json) as progress:
            report = fetch(
                name, out, variant=variants[name], revision=revision, offline=offline, cache=cache,
                settings=link_settings, progress=progress,
            )  # fmt: skip
        reports.append(report)
        if not as_json:
            _print_report(report)
    if as_json:
        print_json([report.to_dict() for report in reports])
    failed = [report for report in reports if report.failed(strict=strict)]
    for report in failed:
        say(
            f"error: {report.dataset}: {len(report.missing):,} images are missing\n"
            "  Run the same command again: only these are tried. Or use --variant frozen."
        )
    if failed:
        raise typer.Exit(1)


def _resolve_variants(names: list[str], variant: str | None) -> dict[str, str | None]:
    """Map each dataset to its variant; with several datasets, the option applies to paired."""
    from marsretrieval.datasets.download.sources import find_source

    if len(names) == 1:
        return {names[0]: find_source(names[0], variant).variant}
    varied = {name for name in names if find_source(name).variant}
    if variant is not None and not varied:
        raise UsageError(f"--variant {variant} applies to paired only")
    return {name: variant if name in varied else None for name in names}


def _print_report(report: Report) -> None:
    from marsretrieval.datasets.download.report import KNOWN_GONE
    from marsretrieval.datasets.listing import readable_bytes

    counts = dict(report.counts)
    fetched = readable_bytes(report.fetched_bytes) if report.fetched_bytes else "nothing new"
    variant = f", variant {report.variant}" if report.variant else ""
    echo(f"{report.dataset}: {report.folder}{variant}; fetched {fetched}")
    echo(f"  from     {report.repository} @ {report.revision}")
    echo(f"  licence  {report.licence}")
    if "pairs" in counts:
        rows, pairs, missing = (counts.pop(name) for name in ("rows", "pairs", "missing"))
        ways = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        echo(f"  pairs    {pairs:,} of {rows:,}: {ways}")
        if missing:
            echo(f"  missing  {missing:,}, see {Path(report.folder) / 'missing.csv'}")
            for image in report.missing[:_MAX_EXAMPLES]:
                echo(f"    {image.key}: {image.reason}")
            echo(f"    ({KNOWN_GONE} of 2,287 were permanently unavailable in August 2026)")
    elif "points" in counts:
        for name, count in counts["points"].items():
            examples = counts["examples"].get(name, 0)
            echo(f"  {name}: {pluralize(count, 'point')}, {examples} example images")
        echo("  The tiles are not hosted: make them with  marsretrieval data tiles")
    else:
        echo(f"  images   {counts['rows']:,}")


def _print_plans(plans: list[Plan], *, as_json: bool) -> None:
    from marsretrieval.datasets.listing import readable_bytes

    if as_json:
        print_json([plan.to_dict() for plan in plans])
        return
    for plan in plans:
        variant = f", variant {plan.variant}" if plan.variant else ""
        echo(f"{plan.dataset}: {plan.folder}{variant}")
        echo(f"  from     {plan.repository} @ {plan.revision}")
        echo(f"  licence  {plan.licence}")
        present = sum(bool(file["present"]) for file in plan.files)
        remaining = readable_bytes(plan.bytes_to_fetch)
        echo(f"  files    {len(plan.files):,}, {present:,} present; {remaining} to download")
        if plan.links:
            echo(f"  images   {plan.links:,} from links, {plan.links_present:,} present")
        needed, free = readable_bytes(plan.needed_bytes), readable_bytes(plan.free_bytes)
        echo(f"  disk     about {needed} needed, {free} free")
        if plan.needed_bytes > plan.free_bytes:
            say("note: not enough free disk space: choose another --out")


def items(
    task: Annotated[
        str,
        typer.Option(
            "--task",
            "-t",
            metavar="TASK",
            help="paired-image-text, landform or geolocalization.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            callback=check_output_files,
            help="Output .parquet or .csv.",
        ),
    ] = None,
    data: Annotated[
        Path, typer.Option(help="Folder of datasets, or one dataset (folder or file).")
    ] = Path("data"),
    caption: Caption = None,
    templates: Templates = None,
    class_names: ClassNames = None,
    queries: QueryKind = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the items and write nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the images and texts that a model embeds for a task.

    Each row has kind (image, text, prompt or example), id, source, text, label, lon and lat.
    `score TASK --embeddings` reads the vectors of these items.

    Raises:
        UsageError: If the output has no known suffix, or an option does not apply to the task.
        DataError: If the data are missing or invalid.
        OutputError: If the output cannot be written.
    """
    from marsretrieval.io import atomic_path
    from marsretrieval.tasks import find_task
    from marsretrieval.tasks.ablation import Ablation
    from marsretrieval.tasks.external import iter_items, write_items

    if output is None and not dry_run:
        raise UsageError("missing option -o", remedy="Add -o FILE.parquet, or --dry-run.")
    if output is not None and output.suffix.lower() not in (".parquet", ".csv"):
        raise UsageError(f"-o {output}: unknown format", remedy="Use .parquet or .csv.")
    ablation = Ablation(
        caption=caption, templates=templates, class_names=class_names, queries=queries
    )
    (chosen,) = ablation.apply([find_task(task)])
    opened = chosen.open(data)
    counts: Counter[str] = Counter()
    skipped: list[Skipped] = []

    def count_items() -> Iterator[EmbeddingItem]:
        for item in iter_items(chosen, opened, skipped):
            counts[item.kind] += 1
            yield item
        if not counts:
            raise DataError(f"{opened.folder}: no items")

    if output is None or dry_run:
        for _ in count_items():
            pass
    else:
        with atomic_path(output) as temporary:
            write_items(count_items(), temporary, csv=output.suffix.lower() == ".csv")
    skipped = [*opened.skipped, *skipped]
    if skipped:
        first = skipped[0]
        say(f"{pluralize(len(skipped), 'item')} left out (first: {first.source}: {first.reason})")
    if as_json:
        print_json(
            {
                "task": chosen.name,
                "data": str(opened.folder),
                "output": None if output is None or dry_run else str(output),
                "items": dict(counts),
                "left_out": len(skipped),
            }
        )
        return
    parts = ", ".join(pluralize(count, kind) for kind, count in counts.items())
    written = "nothing is written (--dry-run)" if dry_run else f"wrote {output}"
    echo(f"{opened.folder}: {parts}; {written}")


app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Create, download, cut and verify datasets."
)
app.command(cls=Command)(synth)
app.command(cls=Command)(download)
app.command(cls=Command)(tiles)
app.command(cls=Command)(verify)
app.command(cls=Command)(items)
