"""Gallery of retrieved examples: top hits of the best models for a few queries, with thumbnails."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from marsretrieval.report.columns import METRICS
from marsretrieval.report.grouping import ResultEntry, ResultSet
from marsretrieval.report.tables import metric_value
from marsretrieval.tasks.thumbnails import PAIRED, queries_by_kind, shown_hits
from marsretrieval.text import pluralize

MODELS = 3  # best models of a result set that are shown
BUDGET = 1_900_000  # bytes of all thumbnails of a page, before base64 encoding
_NOUNS = {"t2i": "captions", "i2t": "images", "all": "classes"}


@dataclass(frozen=True, slots=True)
class GalleryItem:
    """Caption and thumbnail of an image id.

    Attributes:
        caption: Caption, if a result holds one.
        key: Key of the thumbnail on the page; None without one.
    """

    caption: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Strip:
    """The top hits of one model for one query.

    Attributes:
        entry: The model.
        hits: Rows of its table of hits.
        note: Metric of the query as text.
    """

    entry: ResultEntry
    hits: Sequence[Mapping[str, Any]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class GalleryQuery:
    """A query with the hits of several models.

    Attributes:
        kind: "t2i" (the caption of item `name`), "i2t" (its image), "all" (a class), or the mode
            of a geo-localization query.
        name: Item id, class or landform.
        strips: Hits per model.
    """

    kind: str
    name: str
    strips: Sequence[Strip]


@dataclass(frozen=True)
class Gallery:
    """Queries and images of a result set.

    Attributes:
        queries: The queries.
        left_out: Descriptions of models and queries that are not shown.
        items: Image id to caption and thumbnail.
        examples: Query to keys of the thumbnails of its example images.
        notes: Counts of images without a thumbnail.
    """

    queries: Sequence[GalleryQuery] = ()
    left_out: Sequence[str] = ()
    items: Mapping[str, GalleryItem] = field(default_factory=dict)
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def of(self, *kinds: str) -> list[GalleryQuery]:
        """Return the queries of certain kinds.

        Args:
            *kinds: Kinds as in `GalleryQuery`.

        Returns:
            The queries, in order.
        """
        return [query for query in self.queries if query.kind in kinds]

    def landforms(self) -> dict[str, list[GalleryQuery]]:
        """Return the queries of geo-localization by landform."""
        queries: dict[str, list[GalleryQuery]] = defaultdict(list)
        for query in self.queries:
            queries[query.name].append(query)
        return queries


class Thumbnails:
    """All thumbnails of a page, up to `BUDGET` bytes.

    Attributes:
        uris: Key to data URI.
    """

    def __init__(self) -> None:
        self.uris: dict[str, str] = {}
        self._bytes_left = BUDGET

    def add(self, image: bytes, prefix: str) -> str | None:
        """Add an image to the page.

        Args:
            image: WebP file.
            prefix: Prefix of the key.

        Returns:
            The key; None if the budget is exhausted.
        """
        if len(image) > self._bytes_left:
            return None
        self._bytes_left -= len(image)
        key = f"{prefix}-image-{len(self.uris)}"
        self.uris[key] = f"data:image/webp;base64,{base64.b64encode(image).decode()}"
        return key


def gallery_of(results: ResultSet, thumbnails: Thumbnails | None) -> Gallery:
    """Collect the hits of the best models for the queries whose thumbnails `run` writes.

    Args:
        results: Results over the same items.
        thumbnails: Receives the images; None: show ids only.

    Returns:
        The gallery, without queries if no result has a table of hits.
    """
    ranked = [entry for entry in results.entries if entry.file.has("hits")]
    strips: dict[tuple[str, str], list[Strip]] = defaultdict(list)
    left_out = [f"the best {MODELS} of {len(ranked)} models"] if len(ranked) > MODELS else []
    totals: dict[str, list[str]] = {}
    for entry in ranked[:MODELS]:
        if entry.file.hits is None:
            continue
        totals |= queries_by_kind(entry.file.hits)
        hits: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
        for row in shown_hits(entry.file.hits):
            hits[row["group"], row["query"]].append(row)
        for (group, query), rows in hits.items():
            strips[group, query].append(Strip(entry, rows, _query_note(entry, group, query)))
    order = {kind: number for number, kind in enumerate(results.modes)}
    queries = [
        GalleryQuery(group.rpartition("/")[2], name, own) for (group, name), own in strips.items()
    ]
    queries.sort(key=lambda q: (q.kind == "i2t", q.name, order.get(q.kind, -1), q.kind))
    for kind, names in sorted(totals.items(), reverse=True):
        count = sum(query.kind == kind for query in queries)
        line = f"{count} of {len(names):,} {_NOUNS.get(kind, 'landforms')}"
        if count < len(names) and line not in left_out:
            left_out.append(line)
    return _add_images(Gallery(queries, left_out), results, thumbnails)


def _add_images(gallery: Gallery, results: ResultSet, thumbnails: Thumbnails | None) -> Gallery:
    """Add captions and thumbnails; any model's will do, because all rank the same items."""
    images: dict[str, bytes] = {}
    captions: dict[str, str | None] = {}
    examples: dict[str, dict[str, bytes]] = defaultdict(dict)
    for entry in results.entries:
        table = entry.file.thumbnails if gallery.queries else None
        for row in table.to_pylist() if table is not None else ():
            if row["query"]:
                examples[row["query"]][row["id"]] = row["image"]
            else:
                images.setdefault(row["id"], row["image"])
                captions.setdefault(row["id"], row["caption"])
    shown_ids = {query.name: None for query in gallery.of(*PAIRED)}
    for query in gallery.queries:
        if query.kind != "i2t":
            shown_ids |= {hit["id"]: None for strip in query.strips for hit in strip.hits}
    keys: dict[str, str | None] = {}
    example_keys: dict[str, list[str]] = {}
    notes = []
    if thumbnails is None:
        if gallery.queries:
            notes = ["Without thumbnails; ids are shown instead."]
    else:
        keys = {i: thumbnails.add(images[i], results.key) for i in shown_ids if i in images}
        for name in gallery.landforms():
            added = (thumbnails.add(image, results.key) for image in examples[name].values())
            example_keys[name] = [key for key in added if key is not None]
        missing, too_many = len(shown_ids) - len(keys), list(keys.values()).count(None)
        of_all = (
            f"of {pluralize(len(shown_ids), 'image')} of {results.data.get('name', 'the data')}"
        )
        if missing:
            notes.append(
                f"{missing:,} {of_all} have no thumbnail: their ids are shown. "
                "marsretrieval run --force writes thumbnails beside the results."
            )
        if too_many:
            notes.append(f"{too_many:,} {of_all} left out to keep this file small.")
    items = {i: GalleryItem(captions.get(i), keys.get(i)) for i in {**captions, **keys}}
    return Gallery(gallery.queries, gallery.left_out, items, example_keys, notes)


def _query_note(entry: ResultEntry, group: str, query: str) -> str:
    """Rank of the correct answer, or average precision of a query, as text."""
    if group in PAIRED:
        rank = _read_ranks(entry, group).get(query)
        return "" if rank is None else f"right answer at rank {rank:,}"
    evaluation = entry.metrics.get(group) or {}
    classes = evaluation.get("strict", {}).get("per_class") or {}
    if query in classes:
        cell = metric_value({"strict": classes[query]}, METRICS["mAP"], "strict")
    else:
        cell = metric_value(evaluation, METRICS["average_precision"], "strict")
    return "" if cell.value is None else f"AP {cell.text()}"


def _read_ranks(entry: ResultEntry, kind: str) -> dict[str, int]:
    table = entry.file.queries
    if table is None or not {"id", f"{kind}_rank"} <= set(table.column_names):
        return {}
    columns = (table.column(name).to_pylist() for name in ("id", f"{kind}_rank"))
    return dict(zip(*columns, strict=True))
