"""Fill the templates of the page and write the HTML file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval.errors import UsageError
from marsretrieval.html import join_scripts, load_environment, load_styles
from marsretrieval.io import atomic_path
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.report.grouping import ResultSet, result_sets
from marsretrieval.report.html import metadata
from marsretrieval.report.html.charts import (
    DASHES,
    ChartGroup,
    Maps,
    SvgChart,
    curve_groups,
    maps_of,
    rank_charts,
)
from marsretrieval.report.html.gallery import Gallery, Thumbnails, gallery_of
from marsretrieval.report.latitude import latitude_tables
from marsretrieval.report.overview import overview_table
from marsretrieval.report.result_files import ResultFile, require_whole
from marsretrieval.report.table import Reference, ResultTable
from marsretrieval.report.tables import leaderboards, per_class_tables
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    import jinja2


@dataclass(frozen=True, slots=True)
class HtmlReport:
    """Summary of a written HTML report.

    Attributes:
        path: The file.
        size: Its size, bytes.
        images: Number of thumbnails in it.
        notes: One line per item that the page does not show.
        damaged: One line per table that could not be read.
    """

    path: Path
    size: int
    images: int
    notes: Sequence[str] = ()
    damaged: Sequence[str] = ()


def write_html(
    results: Sequence[ResultFile],
    path: str | Path,
    *,
    title: str | None = None,
    thumbnails: bool = True,
    references: Sequence[Reference] = (),
    left_out: Sequence[str] = (),
    price: float | None = None,
    progress: Progress = NO_PROGRESS,
) -> HtmlReport:
    """Write results as one self-contained HTML file.

    The same results give the same bytes. No dataset is read; thumbnails are those that `run` wrote
    beside the results. Charts, maps and examples that need a damaged table are omitted, with a
    notice on the page; leaderboards need no table.

    Args:
        results: The results.
        path: The file.
        title: Title of the page.
        thumbnails: Show images; False: ids only.
        references: Metric values published elsewhere, shown below the leaderboards.
        left_out: Lines about result files that could not be read, to be shown on the page.
        price: Price of an hour of the device, for the cost of 1.4 million tiles.
        progress: Receives the progress.

    Returns:
        A summary of the file.

    Raises:
        UsageError: If there are no results.
        DataError: If a result is incomplete.
        OutputError: If `path` cannot be written.
    """
    path = Path(path)
    if not results:
        raise UsageError("no results to report", remedy="Run marsretrieval run first.")
    for result in results:
        require_whole(result)
    damaged: list[str] = []
    sets = result_sets([replace(result, damaged=damaged) for result in results])
    images = Thumbnails()
    views = [
        _make_view(
            result_set, gallery_of(result_set, images if thumbnails else None), references, progress
        )
        for result_set in sets
    ]
    for entry in (entry for result_set in sets for entry in result_set.entries):
        entry.file.check_tables()
    text = page(
        views,
        title=title or "MarsRetrieval results",
        thumbnails=images.uris,
        refused=left_out,
        damaged=damaged,
        version=version("marsretrieval"),
        price=price,
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


@dataclass(frozen=True, slots=True)
class SetView:
    """Everything that the page shows of one result set.

    Attributes:
        set: The results.
        leaderboards: Leaderboards.
        per_class: Tables per class or landform.
        by_latitude: Tables of geo-localization by latitude.
        ranks: Rank histograms of paired retrieval.
        curves: Precision-recall curves of geo-localization.
        maps: Maps of geo-localization.
        gallery: Retrieved examples.
    """

    set: ResultSet
    leaderboards: Sequence[ResultTable]
    per_class: Sequence[ResultTable] = ()
    by_latitude: Sequence[ResultTable] = ()
    ranks: Sequence[SvgChart] = ()
    curves: Sequence[ChartGroup] = ()
    maps: Maps = field(default_factory=Maps)
    gallery: Gallery = field(default_factory=Gallery)

    @property
    def parts(self) -> list[tuple[str, str]]:
        """Anchor and name of each part, for the table of contents."""
        parts = [("leaderboard", "Leaderboard")]
        if self.set.task == "paired-image-text":
            parts.append(("ranks", "Ranks"))
        if self.per_class:
            what = "class" if self.set.task == "landform" else "landform"
            parts.append(("per-class", f"Results per {what}"))
        if self.curves:
            parts.append(("curves", "Precision and recall"))
        if self.set.task == "geolocalization":
            parts.append(("map", "Where on Mars"))
        return [*parts, ("examples", "Examples")]

    def more_per_class(self) -> dict[str, list[ResultTable]]:
        """Return the collapsed tables per class, by protocol."""
        tables: dict[str, list[ResultTable]] = defaultdict(list)
        for table in self.per_class:
            if not table.first:
                tables[table.protocol].append(table)
        return tables


@dataclass(frozen=True, slots=True)
class _Task:
    anchor: str
    title: str
    sets: Sequence[SetView]


def page(
    views: Sequence[SetView],
    *,
    title: str,
    thumbnails: Mapping[str, str],
    refused: Sequence[str],
    damaged: Sequence[str],
    version: str,
    price: float | None = None,
) -> str:
    """Render the page. All text from results and data is escaped.

    Args:
        views: Result sets.
        title: Title of the page.
        thumbnails: Key to data URI.
        refused: Lines about files that could not be read.
        damaged: Lines about damaged tables.
        version: Version of marsretrieval.
        price: Price of an hour of the device; None: no costs.

    Returns:
        HTML.
    """
    templates = load_templates()
    script = join_scripts("marsretrieval.report.html", "script.js")
    shown_sets = [view.set for view in views]
    timings = metadata.timings(shown_sets)
    rates = [timing.images_per_s for timing in timings if timing.images_per_s]
    style = load_styles(templates, "style.css")
    return templates.get_template("page.html.j2").render(
        title=title,
        lede=_summary_line(shown_sets),
        version=version,
        script=script.source,
        script_hash=script.hash,
        style=style,
        dashes=DASHES,
        thumbnails=thumbnails,
        tasks=_group_by_task(views),
        synthetic=_synthetic_label(shown_sets),
        summary=metadata.summary(shown_sets),
        overview_table=overview_table(
            [entry.file for result_set in shown_sets for entry in result_set.entries]
        ),
        timings=timings,
        fastest=max(rates, default=1.0),
        price=price,
        left_out=metadata.left_out(shown_sets),
        refused=refused,
        damaged=damaged,
        ties=metadata.ties(shown_sets),
        commands=metadata.commands(shown_sets),
        versions=metadata.versions(shown_sets),
        models=metadata.models(shown_sets),
    )


@cache
def load_templates() -> jinja2.Environment:
    """Load the templates and their filters."""
    return load_environment(
        "marsretrieval.report.html",
        {
            "unit": _format_unit,
            "points": _format_points,
            "seconds": format_seconds,
            "rate": format_rate,
            "number": format_number,
            "gibibytes": format_gibibytes,
        },
    )


def _group_by_task(views: Sequence[SetView]) -> list[_Task]:
    return [
        _Task(task, of_task[0].set.title, of_task)
        for task in dict.fromkeys(view.set.task for view in views)
        if (of_task := [view for view in views if view.set.task == task])
    ]


def _synthetic_label(result_sets: Sequence[ResultSet]) -> str:
    flags = [bool(result_set.data.get("synthetic")) for result_set in result_sets]
    return "all" if all(flags) else "some" if any(flags) else ""


def _summary_line(result_sets: Sequence[ResultSet]) -> str:
    entries = [entry for result_set in result_sets for entry in result_set.entries]
    models, tasks = (
        {entry.label for entry in entries},
        {result_set.task for result_set in result_sets},
    )
    days = sorted({entry.file.result.created[:10] for entry in entries})
    versions = sorted({str(e.file.result.versions.get("marsretrieval", "?")) for e in entries})
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    counts = [
        pluralize(len(models), "model"),
        pluralize(len(tasks), "task"),
        pluralize(len(entries), "result"),
    ]
    return f"{', '.join(counts)}; computed {span} with marsretrieval {', '.join(versions)}."


def _format_unit(value: float) -> str:
    """Format a chart coordinate."""
    return f"{value:.1f}".removesuffix(".0")


def _format_points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_format_unit(x)},{_format_unit(y)}" for x, y in points)


def format_seconds(value: float | None) -> str:
    """Format a duration.

    Args:
        value: Seconds; None if unknown.

    Returns:
        Seconds, minutes or hours; a dash if unknown.
    """
    if value is None:
        return "–"
    if value >= 3600:
        return f"{value / 3600:.1f} h"
    if value >= 600:
        return f"{value / 60:.0f} min"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def format_rate(value: Any) -> str:
    """Format a rate.

    Args:
        value: Images per second.

    Returns:
        The rate, with one decimal below 20.
    """
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}"


def format_number(value: float | None) -> str:
    """Format a number with two significant digits, or all of its integer part.

    Args:
        value: A number; None if unknown.

    Returns:
        The number; a dash if unknown.
    """
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def format_gibibytes(value: int | None) -> str:
    """Format a number of bytes.

    Args:
        value: Bytes; None if unknown.

    Returns:
        GiB with two decimals; a dash if unknown.
    """
    return "–" if value is None else f"{value / 2**30:.2f} GiB"


def _make_view(
    result_set: ResultSet, gallery: Gallery, references: Sequence[Reference], progress: Progress
) -> SetView:
    is_paired, is_geo = result_set.task == "paired-image-text", result_set.task == "geolocalization"
    return SetView(
        result_set,
        leaderboards(result_set, references=references),
        per_class_tables(result_set),
        latitude_tables(result_set),
        ranks=rank_charts(result_set) if is_paired else (),
        curves=curve_groups(result_set) if is_geo else (),
        maps=maps_of(result_set, progress=progress) if is_geo else Maps(),
        gallery=gallery,
    )
