"""Tasks for vectors and rankings that are computed elsewhere: what to embed, and how it is scored.

Items that a ranking does not list follow the listed ones, as equals: in the order of ties of the
protocol. The metrics thus need no cut, and the effect of the unlisted items is in `ties`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets.base import (
    ImageSource,
    Record,
    Skipped,
    UnannotatedImage,
    annotated_hash,
    set_hash,
)
from marsretrieval.datasets.submissions import RunFile
from marsretrieval.embeddings.store import EmbeddingStore
from marsretrieval.errors import DataError, UsageError
from marsretrieval.metrics import landform, paired
from marsretrieval.metrics.ranking import id_order, own_ranks_of_scores, ranked
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search.query import geolocalization_prompts, landform_prompts
from marsretrieval.tasks.base import Hits, Outcome, Settings, Task, TaskData, first_rows
from marsretrieval.tasks.geolocalization import Geolocalization
from marsretrieval.tasks.landform import LandformRetrieval
from marsretrieval.tasks.landform_means import mean_over_landforms
from marsretrieval.tasks.paired_image_text import PairedImageText
from marsretrieval.tasks.tile_rankings import score_rankings
from marsretrieval.text import list_some, pluralize

DIRECTIONS = ("i2t", "t2i")
MODES = ("text", "image", "hybrid")
_SHOWN = 20  # hits per query
_SHOWN_PAIRS = 10
_NAMED = 3  # items named in a note

Scores = npt.NDArray[np.float64]

_BATCH = 65_536  # rows written at a time, to bound memory


@dataclass(frozen=True, slots=True)
class EmbeddingItem:
    """An image or text to embed.

    Attributes:
        kind: "image"; "text" for captions; "prompt" for the texts of queries; "example" for the
            example images of queries.
        id: Id, unique within the kind.
        source: File or archive member of an image; empty for texts.
        text: Caption or prompt; empty for images of other tasks than paired image-text retrieval.
        label: Class or landform; empty if none exists.
        lon: Longitude of a tile's centre, degrees.
        lat: Latitude of a tile's centre, degrees.
    """

    kind: Literal["image", "text", "prompt", "example"]
    id: str
    source: str = ""
    text: str = ""
    label: str = ""
    lon: float | None = None
    lat: float | None = None


def list_items(task: Task, data: TaskData) -> list[EmbeddingItem]:
    """List the images and texts of a task in the order of the data.

    Args:
        task: A built-in task.
        data: Its data, with images.

    Returns:
        Images first, then texts, prompts and examples. Images that cannot be decoded are listed.

    Raises:
        UsageError: If the task is not built in.
    """
    return list(iter_items(task, data))


def iter_items(
    task: Task, data: TaskData, left_out: list[Skipped] | None = None
) -> Iterator[EmbeddingItem]:
    """Iterate over the items of `list_items` without holding all of them in memory.

    Args:
        task: A built-in task.
        data: Its data, with images.
        left_out: Receives the images that are left out, other than those of `data.skipped`.

    Yields:
        The items.

    Raises:
        UsageError: If the task is not built in.
    """
    assert data.source is not None
    left_out = [] if left_out is None else left_out
    earlier = {item.source for item in data.skipped}

    def images(
        source: ImageSource,
        texts: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
    ) -> Iterator[EmbeddingItem]:
        for item in _images(source, texts=texts, labels=labels):
            if isinstance(item, EmbeddingItem):
                yield item
            elif item.source not in earlier:
                left_out.append(item)

    if isinstance(task, PairedImageText):
        captions: dict[str, str] = data.annotations
        yield from images(data.source, texts=captions)
        for key, text in captions.items():
            yield EmbeddingItem("text", key, text=text)
    elif isinstance(task, LandformRetrieval):
        yield from images(data.source, labels=data.annotations)
        yield from _landform_prompts(task, data)
    elif isinstance(task, Geolocalization):
        yield from images(data.source)
        for name in data.annotations.points:
            for number, text in enumerate(geolocalization_prompts(name, task.templates), 1):
                yield EmbeddingItem("prompt", f"{name}#{number}", text=text, label=name)
        for name, source in data.annotations.examples.items():
            if name in data.annotations.points:
                for item in images(source):
                    yield EmbeddingItem("example", f"{name}/{item.id}", item.source, label=name)
    else:
        raise UsageError(f"task {task.name} is not built in", remedy="Embed its data with run.")


def _landform_prompts(task: LandformRetrieval, data: TaskData) -> Iterator[EmbeddingItem]:
    if task.queries == "images":
        return
    for name in task.query_names(data):
        for number, text in enumerate(landform_prompts(name, task.templates), 1):
            yield EmbeddingItem("prompt", f"{name}#{number}", text=text, label=name)


def _images(
    source: ImageSource,
    *,
    texts: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
) -> Iterator[EmbeddingItem | Skipped]:
    """Images of a source, each id once; only those with an annotation if there are any."""
    ids: set[str] = set()
    for shard in source.shards():
        for item in source.read(shard, images=False):
            if isinstance(item, Skipped):
                yield item
            if not isinstance(item, Record):
                continue
            if any(column is not None and item.id not in column for column in (texts, labels)):
                yield UnannotatedImage(item.id, item.source, "no caption or label")
                continue
            if item.id in ids:
                yield Skipped(item.id, item.source, f"the id {item.id} is repeated")
                continue
            ids.add(item.id)
            yield EmbeddingItem(
                "image", item.id, item.source, text=(texts or {}).get(item.id, ""),
                label=(labels or {}).get(item.id, ""), lon=item.lon, lat=item.lat,
            )  # fmt: skip


def write_items(items: Iterable[EmbeddingItem], path: Path, *, csv: bool) -> None:
    """Write a table of items in batches, a column per attribute.

    Args:
        items: Items of `iter_items`.
        path: File to write.
        csv: Write CSV; else Parquet.
    """
    import pyarrow as pa
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    names = [column.name for column in fields(EmbeddingItem)]
    kinds = {"lon": pa.float64(), "lat": pa.float64()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    rows = iter(items)
    writer = (
        pc.CSVWriter(path, schema) if csv else pq.ParquetWriter(path, schema, compression="zstd")
    )
    with writer:
        while batch := list(islice(rows, _BATCH)):
            columns = [[getattr(item, name) for item in batch] for name in names]
            writer.write_table(pa.table(columns, schema=schema))


def query_ids(task: Task, data: TaskData) -> list[str]:
    """List the ids of the queries that a run file may rank items for.

    Args:
        task: A built-in task.
        data: Its data.

    Returns:
        "i2t/ID" and "t2i/ID" of all pairs; the names of the classes, or the ids of all images of
        the classes for image queries; or "LANDFORM/text", "LANDFORM/image" and "LANDFORM/hybrid".

    Raises:
        UsageError: If the task is not built in.
    """
    if isinstance(task, PairedImageText):
        return [f"{way}/{key}" for way in DIRECTIONS for key in data.annotations]
    if isinstance(task, LandformRetrieval):
        names = task.query_names(data)
        if task.queries == "text":
            return names
        return [key for key, label in data.annotations.items() if label in set(names)]
    if isinstance(task, Geolocalization):
        return [
            f"{name}/{mode}"
            for mode in MODES
            for name in data.annotations.points
            if mode == "text" or name in data.annotations.examples
        ]
    raise UsageError(f"task {task.name} is not built in", remedy="Score it with run.")


def evaluate_run(
    task: Task,
    data: TaskData,
    run: RunFile,
    images: EmbeddingStore,
    settings: Settings,
    progress: Progress = NO_PROGRESS,
) -> Outcome:
    """Score the rankings of a run file.

    Args:
        task: A built-in task.
        data: Its data.
        run: The rankings.
        images: Store of the readable images; its vectors are not used.
        settings: Settings of the evaluation.
        progress: Receives the progress.

    Returns:
        The outcome, as that of `Task.evaluate`.

    Raises:
        DataError: If ids of queries or items are missing or unknown, or the data cannot be scored.
        UsageError: If the task is not built in.
    """
    start = time.perf_counter()
    query_ids(task, data)
    if isinstance(task, PairedImageText):
        outcome, matched = _evaluate_paired(data, run, images, settings)
    elif isinstance(task, LandformRetrieval):
        outcome, matched = _evaluate_landform(task, data, run, images, settings)
    else:
        assert isinstance(task, Geolocalization)
        outcome, matched = _evaluate_tiles(task, data, run, images, settings, progress)
    notes, details = matched.describe()
    return Outcome(
        groups=outcome.groups,
        n=outcome.n,
        set_hash=outcome.set_hash,
        hits=outcome.hits,
        notes=[*outcome.notes, *notes],
        timings={"score": time.perf_counter() - start},
        details={**outcome.details, "ranking": details},
        examples=outcome.examples,
    )


@dataclass(slots=True)
class _Matched:
    """Rankings of a run over the scored items, with counts of what they lack.

    Attributes:
        path: The run file.
        ids: Ids of the scored items.
        unlisted: Query to the number of scored items that it does not list.
        first_unlisted: Query and the first such items.
        dropped: Ranked items that are not scored.
    """

    path: Path
    run: RunFile
    ids: Sequence[str]
    rows: Mapping[str, int]
    unlisted: dict[str, int] = field(default_factory=dict)
    first_unlisted: tuple[str, list[str]] | None = None
    dropped: dict[str, None] = field(default_factory=dict)

    @classmethod
    def from_run(cls, run: RunFile, ids: Sequence[str]) -> _Matched:
        return cls(run.path, run, ids, first_rows(ids))

    def listed(self, query: str, *, own: str | None = None) -> tuple[npt.NDArray[np.int64], Scores]:
        """Rows and scores of the scored items that a query lists, without its own image."""
        ranking = self.run.queries[query]
        pairs = [
            (row, score)
            for key, score in zip(ranking.ids, ranking.scores, strict=True)
            if key != own and (row := self._row(key)) is not None
        ]
        rows = np.array([row for row, _ in pairs], dtype=np.int64)
        missing = len(self.ids) - len(rows) - (own in self.rows)
        if missing and query not in self.unlisted:
            if self.first_unlisted is None:
                listed = set(rows.tolist())
                names = (
                    key for row, key in enumerate(self.ids) if row not in listed and key != own
                )
                self.first_unlisted = query, list(islice(names, _NAMED))
            self.unlisted[query] = missing
        return rows, np.array([score for _, score in pairs], dtype=np.float64)

    def scores(self, query: str, *, own: str | None = None) -> Scores:
        """Scores of all scored items; those that are not listed have one below all others."""
        rows, listed = self.listed(query, own=own)
        least = float(np.nextafter(listed.min(), -np.inf)) if len(listed) else 0.0
        scores = np.full(len(self.ids), least)
        scores[rows] = listed
        return scores

    def best(
        self, query: str, tie_order: npt.NDArray[np.int64], *, own: str | None = None
    ) -> Iterator[tuple[int, float]]:
        """Rows and scores of the listed items in the order of the protocol."""
        rows, scores = self.listed(query, own=own)
        for position in ranked(scores, tie_order[rows]):
            yield int(rows[position]), float(scores[position])

    def _row(self, key: str) -> int | None:
        row = self.rows.get(key)
        if row is None:
            self.dropped[key] = None
        return row

    def describe(self) -> tuple[list[str], dict[str, Any]]:
        """Notes, and counts for the result."""
        notes = []
        if self.first_unlisted is not None:
            query, names = self.first_unlisted
            notes.append(
                f"{self.path}: {len(self.unlisted):,} of {len(self.run.queries):,} queries do not "
                f"list all items: {sum(self.unlisted.values()):,} unlisted items are ranked last, "
                f"in the order of ties (first: {query}: {', '.join(names)})"
            )
        if self.dropped:
            notes.append(
                f"{self.path}: {len(self.dropped):,} ranked ids left out, which are not scored: "
                f"{list_some(list(self.dropped), _NAMED)}"
            )
        return notes, {
            "queries": len(self.run.queries),
            "queries_with_unlisted_items": len(self.unlisted),
            "unlisted_items": sum(self.unlisted.values()),
            "ids_left_out": len(self.dropped),
        }


def _evaluate_paired(
    data: TaskData, run: RunFile, images: EmbeddingStore, settings: Settings
) -> tuple[Outcome, _Matched]:
    captions: dict[str, str] = data.annotations
    rows = first_rows(_store_ids(images))
    ids = [key for key in captions if key in rows]
    if len(ids) < 2:
        raise DataError(
            f"{data.folder}: {pluralize(len(ids), 'pair')} with a readable image, at least 2 are "
            "needed",
            remedy=f"marsretrieval data verify {data.folder} lists the problems of the others.",
        )
    run.require_queries(
        [f"{way}/{key}" for way in DIRECTIONS for key in ids],
        optional=[f"{way}/{key}" for way in DIRECTIONS for key in captions],
    )
    run.require_items({*captions, *rows, *_left_out(data, images)})
    matched = _Matched.from_run(run, ids)
    tie_order = id_order(ids)
    i2t, t2i = (
        own_ranks_of_scores((matched.scores(f"{way}/{key}") for key in ids), tie_order)
        for way in DIRECTIONS
    )
    hits = Hits()
    for way in DIRECTIONS:
        for key in ids:
            _append_hits(
                hits, way, key, matched.best(f"{way}/{key}", tie_order), ids,
                {key}, _SHOWN_PAIRS,
            )  # fmt: skip
    content = images.content_hashes()
    return Outcome(
        groups={
            "all": paired.evaluate_ranks(
                i2t, t2i, ids=ids, seed=settings.seed, resamples=settings.resamples
            )
        },
        n={"pairs": len(ids)},
        set_hash=set_hash((key, annotated_hash(content[rows[key]], captions[key])) for key in ids),
        hits=hits,
    ), matched


def _evaluate_landform(
    task: LandformRetrieval,
    data: TaskData,
    run: RunFile,
    images: EmbeddingStore,
    settings: Settings,
) -> tuple[Outcome, _Matched]:
    labels: dict[str, str] = data.annotations
    rows = first_rows(_store_ids(images))
    ids = [key for key in rows if key in labels]
    classes = task.query_names(data)
    by_image = task.queries == "images"
    members = {name: [key for key in ids if labels[key] == name] for name in classes}
    if sum(bool(keys) for keys in members.values()) < 2:
        raise DataError(f"{data.folder}: at least two classes with readable images are needed")
    single = sum(len(keys) == 1 for keys in members.values())
    required = (
        [key for name in classes if len(members[name]) > 1 for key in members[name]]
        if by_image
        else [name for name in classes if members[name]]
    )
    run.require_queries(required, optional=query_ids(task, data))
    run.require_items({*labels, *rows, *_left_out(data, images)})
    matched = _Matched.from_run(run, ids)
    tie_order = id_order(ids)
    items: dict[str, Any] = {
        "labels": [labels[key] for key in ids],
        "image_ids": ids,
        "seed": settings.seed,
        "resamples": settings.resamples,
    }
    notes: list[str] = []
    hits = Hits()
    if by_image:
        evaluation = landform.evaluate_example_scores(
            lambda queries: np.stack([matched.scores(ids[row], own=ids[row]) for row in queries]),
            query_names=classes,
            **items,
        )
        if single:
            notes.append(
                f"image queries: classes with one image have no value: {single:,} of "
                f"{len(classes):,}"
            )
        names = {name: keys[0] for name, keys in members.items() if len(keys) > 1}
    else:
        evaluation = landform.evaluate_scores(
            (matched.scores(name) for name in required), query_names=required, **items
        )
        names = {name: name for name in required}
    for name, query in names.items():
        _append_hits(
            hits, "all", f"{name}: {query}" if by_image else name,
            matched.best(query, tie_order, own=query if by_image else None), ids,
            members[name], _SHOWN,
        )  # fmt: skip
    content = images.content_hashes()
    return Outcome(
        groups={"all": evaluation},
        n={"images": len(ids), "classes": evaluation.n["classes"]},
        set_hash=set_hash((key, annotated_hash(content[rows[key]], labels[key])) for key in ids),
        hits=hits,
        notes=notes,
    ), matched


def _evaluate_tiles(
    task: Geolocalization,
    data: TaskData,
    run: RunFile,
    images: EmbeddingStore,
    settings: Settings,
    progress: Progress,
) -> tuple[Outcome, _Matched]:
    tiles = images.positions()
    catalogues, notes, details = task.select_points(
        data.annotations.points, tiles, task.covered_only
    )
    modes = {query.rpartition("/")[2] for query in run.queries}
    possible = query_ids(task, data)
    required = [query for query in possible if query.rpartition("/")[2] in modes]
    run.require_queries(required or possible)
    ids = _store_ids(images)
    repeated = {key for key, count in Counter(ids).items() if count > 1}
    run.require_items({*ids, *_left_out(data, images)}, repeated=repeated)
    matched = _Matched.from_run(run, ids)
    tie_order = id_order(ids)

    def rank(query: str) -> tuple[Scores, npt.NDArray[np.int64]]:
        """Scores and rows of the best tiles and of all that tie with the last of them."""
        rows, scores = matched.listed(query)
        if len(rows) < task.depth:
            scores, rows = matched.scores(query), np.arange(len(ids))
        order = ranked(scores, tie_order[rows])
        scores, rows = scores[order], rows[order]
        end = np.searchsorted(-scores, -scores[min(task.depth, len(scores)) - 1], side="right")
        return scores[:end], rows[:end]

    keys = [(query.rpartition("/")[0], query.rpartition("/")[2]) for query in required]
    rankings = ((key, *rank(query)) for key, query in zip(keys, required, strict=True))
    with progress.start("score", len(keys), "queries") as bar:
        groups, hits = score_rankings(
            images, tiles, keys, rankings, catalogues, settings,
            radius=task.radius, depth=task.depth, on_query=bar.advance,
        )  # fmt: skip
    return Outcome(
        groups=groups | mean_over_landforms(groups),
        n={"tiles": images.rows, **{f"points/{k}": len(v.lon) for k, v in catalogues.items()}},
        set_hash=images.set_hash,
        hits=hits,
        notes=notes,
        details={"catalogues": details, "covered_only": task.covered_only},
        examples=data.annotations.examples if modes & {"image", "hybrid"} else {},
    ), matched


def _append_hits(
    hits: Hits,
    group: str,
    query: str,
    best: Iterable[tuple[int, float]],
    ids: Sequence[str],
    relevant: Collection[str],
    count: int,
) -> None:
    for rank, (row, score) in enumerate(islice(best, count), 1):
        hits.append(group, query, rank, ids[row], score, relevant=ids[row] in relevant)


def _store_ids(images: EmbeddingStore) -> list[str]:
    return [key for block in images.blocks() for key in block.ids]


def _left_out(data: TaskData, images: EmbeddingStore) -> set[str]:
    """Ids of items that are in the data but not scored, such as unreadable images."""
    return {item.id for item in (*data.skipped, *images.skipped)}
