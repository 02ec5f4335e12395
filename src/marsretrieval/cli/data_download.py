"""``marsretrieval data download``: download the benchmark's datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marsretrieval.cli.console import JsonFlag, echo, print_json, say, show_progress
from marsretrieval.errors import UsageError

if TYPE_CHECKING:
    from marsretrieval.datasets.download import Plan, Report

_MAX_EXAMPLES = 5


def download(
    dataset: Annotated[
        list[str], typer.Argument(help="paired, landform, geolocalization or all; repeatable.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder that holds the datasets, each in its own folder.")
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
        typer.Option(help="Cache of linked images (default: a hidden folder beside the data)."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=1024, help="Parallel downloads of linked images.")
    ] = 16,
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
    from marsretrieval.datasets.download import DATASETS, LinkSettings, plan_download
    from marsretrieval.datasets.download import download as fetch

    names = list(DATASETS) if "all" in dataset else list(dict.fromkeys(dataset))
    variants = _resolve_variants(names, variant)
    if revision is not None and len(names) > 1:
        raise UsageError(
            "--revision applies to one dataset only", remedy="Download the datasets one at a time."
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
    reports: list[Report] = []
    for name in names:
        say(f"{name}: looking up the files to download")
        with show_progress(quiet=as_json) as progress:
            report = fetch(
                name, out, variant=variants[name], revision=revision, offline=offline, cache=cache,
                settings=LinkSettings(workers=workers), progress=progress,
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
    from marsretrieval.datasets.download import find_source

    if len(names) == 1:
        return {names[0]: find_source(names[0], variant).variant}
    varied = {name for name in names if find_source(name).variant}
    if variant is not None and not varied:
        raise UsageError(f"--variant {variant} applies to paired only")
    return {name: variant if name in varied else None for name in names}


def _print_report(report: Report) -> None:
    from marsretrieval.datasets.download import KNOWN_GONE, readable_bytes

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
            echo(f"  {name}: {count:,} points, {examples} example images")
        echo("  The tiles are not hosted: make them with  marsretrieval data tiles")
    else:
        echo(f"  images   {counts['rows']:,}")


def _print_plans(plans: list[Plan], *, as_json: bool) -> None:
    from marsretrieval.datasets.download import readable_bytes

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
