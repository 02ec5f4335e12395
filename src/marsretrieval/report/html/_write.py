"""From results to a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from marsretrieval.errors import DataError, UsageError
from marsretrieval.files import atomic_path
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.report.grouping import ResultSet, result_sets
from marsretrieval.report.html._charts import curve_groups, rank_charts
from marsretrieval.report.html._gallery import Gallery, choose, wanted
from marsretrieval.report.html._map import Maps, maps_of
from marsretrieval.report.html._page import SetView, page
from marsretrieval.report.html._pictures import Pictures, Wanted
from marsretrieval.report.html._places import Place, example_images, places
from marsretrieval.report.reading import require_whole
from marsretrieval.report.references import Reference
from marsretrieval.report.result_file import ResultFile
from marsretrieval.report.tables import leaderboards, per_class_tables

_EXAMPLES = 5  # example images of a landform that are shown


@dataclass(frozen=True, slots=True)
class HtmlReport:
    """What was written. `notes`: a line for everything that the page could not show, for people.
    `damaged`: a line for each table beside a result that could not be read."""

    path: Path
    size: int  # bytes
    pictures: int  # thumbnails in it
    notes: Sequence[str] = ()
    damaged: Sequence[str] = ()


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
    datasets, as `run --data` takes them, sources (a tar, a Parquet file, a folder), or embedding
    stores; without them the place that a store beside a result recorded. thumbnails False: ids
    only. references: figures from elsewhere, to stand below the leaderboards. left_out: lines
    about result files that could not be read, to be shown on the page.

    A damaged table beside a result costs the page what is drawn from it; the page says so, and
    the leaderboards, which need no table, are whole. The same results and pictures give the same
    bytes. Raises UsageError without results, DataError for an incomplete result or a place of
    `images` that is not there, and OutputError when `path` cannot be written.
    """
    if not results:
        raise UsageError("no results to report", remedy="marsretrieval run writes some.")
    for each in results:
        require_whole(each)
    for place in images:
        if not place.exists():
            raise DataError(f"{place}: no such file or folder (pictures)")
    damaged: list[str] = []
    sets = result_sets([replace(each, damaged=damaged) for each in results])
    galleries = [choose(found) for found in sets]
    needs = [wanted(gallery) for gallery in galleries]
    pictures = Pictures(sum(len(each.pictures) for each in needs))
    views = []
    for found, gallery, need in zip(sets, galleries, needs, strict=True):
        if thumbnails:
            gallery = _with_pictures(found, gallery, need, pictures, images, progress)
        elif gallery.queries:
            gallery = replace(gallery, notes=["Made without pictures: ids stand in their place."])
        views.append(_view(found, gallery, references, progress))
    for entry in (entry for found in sets for entry in found.entries):
        entry.file.check_tables()
    text = page(
        views,
        title=title or "MarsRetrieval results",
        thumbnails=pictures.thumbnails,
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
        for note in (*view.gallery.notes, *(f"maps: {note}" for note in view.maps.notes))
    ]
    return HtmlReport(path, len(encoded), len(pictures.thumbnails), notes, damaged)


def _view(
    found: ResultSet, gallery: Gallery, references: Sequence[Reference], progress: Progress
) -> SetView:
    is_paired, is_geo = found.task == "paired-image-text", found.task == "geolocalization"
    return SetView(
        found,
        leaderboards(found, references=references),
        per_class_tables(found),
        ranks=rank_charts(found, progress=progress) if is_paired else (),
        curves=curve_groups(found, progress=progress) if is_geo else (),
        maps=maps_of(found, progress=progress) if is_geo else Maps(),
        gallery=gallery,
    )


def _with_pictures(
    found: ResultSet,
    gallery: Gallery,
    need: Wanted,
    pictures: Pictures,
    images: Sequence[Path],
    progress: Progress,
) -> Gallery:
    """The gallery with the pictures that could be found, and a note about the others."""
    if not gallery.queries:
        return gallery
    changed, too_many, unchecked = pictures.changed, pictures.too_many, pictures.unchecked
    # Any model of the set will do: they saw the same items.
    looked_at: list[Place] = []

    def where() -> Iterator[Place]:
        for entry in found.entries:
            for place in places(entry.file, images):
                looked_at.append(place)
                yield place

    items = pictures.read(need, where(), found.key, progress)
    examples = {}
    for landform in gallery.landforms():
        source = example_images(looked_at, landform)
        if source is not None:
            examples[landform] = pictures.first_of(source, _EXAMPLES, f"{found.key}-example")
    shown = sum(items[key].key is not None for key in need.pictures if key in items)
    changed, too_many = pictures.changed - changed, pictures.too_many - too_many
    missing = len(need.pictures) - shown - changed - too_many
    name = found.data.get("name", "the data")
    notes = []
    if missing:
        notes.append(
            f"{missing:,} of {len(need.pictures):,} pictures of {name} not found: their ids stand "
            "in their place. Name the folder with --images."
        )
    if changed:
        notes.append(
            f"{changed:,} of {len(need.pictures):,} pictures of {name} not shown: they are not "
            "what the model saw (another hash)."
        )
    if pictures.unchecked > unchecked:
        notes.append(
            f"Pictures of {name} were found by their ids alone: no embedding store was there to "
            "check that they are what the model saw."
        )
    if too_many:
        notes.append(
            f"{too_many:,} of {len(need.pictures):,} pictures of {name} left out to keep this "
            "file small."
        )
    return replace(gallery, items=items, examples=examples, notes=notes)
