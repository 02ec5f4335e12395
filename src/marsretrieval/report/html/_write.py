"""From results to a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from marsretrieval.errors import UsageError
from marsretrieval.files import atomic_path
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.report.grouping import ResultSet, result_sets
from marsretrieval.report.html._charts import curve_groups, rank_charts
from marsretrieval.report.html._gallery import Gallery, Thumbnails, gallery_of
from marsretrieval.report.html._maps import Maps, maps_of
from marsretrieval.report.html._page import SetView, page
from marsretrieval.report.reading import require_whole
from marsretrieval.report.references import Reference
from marsretrieval.report.result_file import ResultFile
from marsretrieval.report.tables import leaderboards, per_class_tables


@dataclass(frozen=True, slots=True)
class HtmlReport:
    """What was written. `notes`: a line for everything that the page could not show, for people.
    `damaged`: a line for each table beside a result that could not be read."""

    path: Path
    size: int  # bytes
    images: int  # thumbnails in it
    notes: Sequence[str] = ()
    damaged: Sequence[str] = ()


def write_html(
    results: Sequence[ResultFile],
    path: Path,
    *,
    title: str | None = None,
    thumbnails: bool = True,
    references: Sequence[Reference] = (),
    left_out: Sequence[str] = (),
    progress: Progress = NO_PROGRESS,
) -> HtmlReport:
    """Write one HTML file that shows all of `results`, and holds everything it shows.

    The same results give the same bytes. No dataset is read: thumbnails are those that `run` wrote
    beside the results. A damaged table beside a result costs the page what is drawn from it; the
    page says so, and the leaderboards, which need no table, are whole.

    Args:
        results: The results.
        path: The file.
        title: Title of the page.
        thumbnails: Show images; False: ids only.
        references: Metrics from elsewhere, to stand below the leaderboards.
        left_out: Lines about result files that could not be read, to be shown on the page.
        progress: Shows how far the work is.

    Returns:
        What was written.

    Raises:
        UsageError: There are no results.
        DataError: A result is incomplete.
        OutputError: `path` cannot be written.
    """
    if not results:
        raise UsageError("no results to report", remedy="marsretrieval run writes some.")
    for each in results:
        require_whole(each)
    damaged: list[str] = []
    sets = result_sets([replace(each, damaged=damaged) for each in results])
    images = Thumbnails()
    views = [
        _view(found, gallery_of(found, images if thumbnails else None), references, progress)
        for found in sets
    ]
    for entry in (entry for found in sets for entry in found.entries):
        entry.file.check_tables()
    text = page(
        views,
        title=title or "MarsRetrieval results",
        thumbnails=images.uris,
        refused=left_out,
        damaged=damaged,
        version=version("marsretrieval"),
    )
    encoded = text.encode("utf-8", errors="replace")
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)
    notes = [
        f"{view.set.title}: {note}"
        for view in views
        for note in (
            *view.gallery.notes,
            *(f"maps: {note}" for note in (view.maps.missing, *view.maps.notes) if note),
        )
    ]
    return HtmlReport(path, len(encoded), len(images.uris), notes, damaged)


def _view(
    found: ResultSet, gallery: Gallery, references: Sequence[Reference], progress: Progress
) -> SetView:
    is_paired, is_geo = found.task == "paired-image-text", found.task == "geolocalization"
    return SetView(
        found,
        leaderboards(found, references=references),
        per_class_tables(found),
        ranks=rank_charts(found) if is_paired else (),
        curves=curve_groups(found) if is_geo else (),
        maps=maps_of(found, progress=progress) if is_geo else Maps(),
        gallery=gallery,
    )
