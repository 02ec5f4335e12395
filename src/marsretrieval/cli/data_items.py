"""``marsretrieval data items``: list what to embed for a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marsretrieval.cli.console import JsonFlag, echo, print_json, say
from marsretrieval.cli.options import Caption, ClassNames, Queries, Templates
from marsretrieval.errors import DataError, UsageError

if TYPE_CHECKING:
    from marsretrieval.tasks.items import EmbeddingItem


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
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Output .parquet or .csv.")
    ] = None,
    data: Annotated[
        Path, typer.Option(help="Folder that holds the datasets, or one dataset.")
    ] = Path("data"),
    caption: Caption = None,
    templates: Templates = None,
    class_names: ClassNames = None,
    queries: Queries = None,
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
    from marsretrieval.io import atomic_path, check_output
    from marsretrieval.tasks import find_task
    from marsretrieval.tasks.ablation import Ablation
    from marsretrieval.tasks.items import iter_items, write_items

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

    def count_items() -> Iterator[EmbeddingItem]:
        for item in iter_items(chosen, opened):
            counts[item.kind] += 1
            yield item
        if not counts:
            raise DataError(f"{opened.folder}: no items")

    if output is None or dry_run:
        for _ in count_items():
            pass
    else:
        check_output(output)
        with atomic_path(output) as temporary:
            write_items(count_items(), temporary, csv=output.suffix.lower() == ".csv")
    if opened.skipped:
        first = opened.skipped[0]
        say(f"{len(opened.skipped)} items left out (first: {first.source}: {first.reason})")
    if as_json:
        print_json(
            {
                "task": chosen.name,
                "data": str(opened.folder),
                "output": None if output is None or dry_run else str(output),
                "items": dict(counts),
                "left_out": len(opened.skipped),
            }
        )
        return
    parts = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    written = "nothing is written (--dry-run)" if dry_run else f"wrote {output}"
    echo(f"{opened.folder}: {parts}; {written}")
