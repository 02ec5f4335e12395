"""Thumbnails and captions of the hits that reports show.

`run` writes them beside a result, so that a report needs no dataset. The hits are the top of the
ranking of a few queries, at even steps in the order of their names: the same queries for every
model on the same data.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from marsretrieval.datasets.base import ImageSource, Record, content_hash
from marsretrieval.datasets.images import make_thumbnail
from marsretrieval.datasets.open import open_images
from marsretrieval.errors import ImageError, MarsRetrievalError
from marsretrieval.progress import NO_PROGRESS, Progress, ProgressTask
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    import pyarrow as pa

    from marsretrieval.embeddings.store import EmbeddingStore
    from marsretrieval.tasks.base import Outcome, TaskData

__all__ = ["PAIRED", "make_thumbnails", "queries_by_kind", "shown_hits"]

PAIRED = ("t2i", "i2t")  # groups whose queries are items
_QUERIES_BY_KIND = {"t2i": 6, "i2t": 4, "all": 12}  # queries shown per kind
_OTHER_QUERIES = 8
_HITS_BY_KIND = {"i2t": 3}  # hits shown per query
_OTHER_HITS = 6
_MAX_EXAMPLES = 5  # example images per query
_SIDE, _QUALITY = 128, 50  # longer side in pixels; WebP quality


def queries_by_kind(hits: pa.Table) -> dict[str, list[str]]:
    """Group the query names of a table of hits by kind.

    Args:
        hits: Table with the columns `group` and `query`.

    Returns:
        Kind (a group, or of ``landform/text`` the part after the slash) to sorted names.
    """
    kinds: dict[str, set[str]] = defaultdict(set)
    for row in hits.group_by(["group", "query"]).aggregate([]).to_pylist():
        kinds[_kind(row["group"])].add(row["query"])
    return {kind: sorted(names) for kind, names in kinds.items()}


def shown_hits(hits: pa.Table) -> list[dict[str, Any]]:
    """Select the hits that a report shows.

    Args:
        hits: Table of hits of a result.

    Returns:
        Rows of the table, in order of rank.
    """
    import pyarrow.compute as pc

    selected = {
        (kind, names[index])
        for kind, names in queries_by_kind(hits).items()
        for index in np.linspace(
            0, len(names) - 1, min(len(names), _QUERIES_BY_KIND.get(kind, _OTHER_QUERIES))
        ).astype(int)
    }
    head = hits.filter(pc.less_equal(hits.column("rank"), _OTHER_HITS)).sort_by("rank")
    return [
        row
        for row in head.to_pylist()
        if (_kind(row["group"]), row["query"]) in selected
        and row["rank"] <= _HITS_BY_KIND.get(row["group"], _OTHER_HITS)
    ]


def make_thumbnails(
    outcome: Outcome, data: TaskData, images: EmbeddingStore, progress: Progress = NO_PROGRESS
) -> tuple[pa.Table, list[str]]:
    """Make thumbnails of the hits and example images that a report shows.

    An image that cannot be read, or whose content is not what was embedded, has no thumbnail.

    Args:
        outcome: Hits and example images.
        data: Data of the task; without a source, the images are read from the dataset that the
            store records.
        images: Store of the images.
        progress: Receives the progress.

    Returns:
        Table with the columns `query` (empty, or the query that the image is an example of), `id`,
        `caption` and `image` (WebP); and a warning with a count if images are missing.
    """
    import pyarrow as pa

    report_hits = shown_hits(outcome.hits.to_table())
    ids = {row["query"]: None for row in report_hits if row["group"] in PAIRED}
    ids |= {row["id"]: None for row in report_hits}
    examples = {row["query"]: None for row in report_hits if row["query"] in outcome.examples}
    rows: list[tuple[str, str, str | None, bytes]] = []
    with progress.start("make thumbnails", len(ids), "images") as bar:
        for record in _read_records(data.source, images, ids, bar):
            image = _make_thumbnail(record)
            rows += [("", record.id, record.caption, image)] if image else []
    missing = len(ids) - len(rows)
    for query in examples:
        rows += [
            (query, key, None, image) for key, image in _make_examples(outcome.examples[query])
        ]
    schema = {"query": pa.string(), "id": pa.string(), "caption": pa.string(), "image": pa.binary()}
    columns = zip(*rows, strict=True) if rows else ([],) * len(schema)
    table = pa.table(
        {name: pa.array(column, kind) for (name, kind), column in zip(schema.items(), columns,
                                                                      strict=True)}
    )  # fmt: skip
    if not missing:
        return table, []
    return table, [
        f"warning: {missing:,} of {pluralize(len(ids), 'thumbnail')} for the report cannot be made"
    ]


def _kind(group: str) -> str:
    return group.rpartition("/")[2]


def _read_records(
    source: ImageSource | None, images: EmbeddingStore, ids: Iterable[str], bar: ProgressTask
) -> Iterator[Record]:
    """Read the items with these ids from the shards that the store records."""
    contents = _find_contents(images, ids)
    try:
        source = source or open_images(Path(images.dataset["name"]))
        shards = [shard for shard in source.shards() if shard.name in contents]
    except (MarsRetrievalError, OSError):
        return
    for shard in shards:
        missing = contents[shard.name]
        try:
            for item in source.read(shard):
                if isinstance(item, Record) and item.id in missing:
                    bar.advance()
                    if content_hash(item.data) == missing.pop(item.id):
                        yield item
                    if not missing:
                        break
        except (MarsRetrievalError, OSError):
            continue


def _find_contents(images: EmbeddingStore, ids: Iterable[str]) -> dict[str, dict[str, bytes]]:
    """Shard to id to content hash, of the first row of each id."""
    import pyarrow as pa
    import pyarrow.compute as pc

    missing = set(ids)
    contents: dict[str, dict[str, bytes]] = defaultdict(dict)
    for entry, block in zip(images.entries, images.blocks(), strict=True):
        column = block.column("id")
        rows = pc.indices_nonzero(pc.is_in(column, pa.array(sorted(missing), column.type)))
        for row in rows.to_pylist():
            key = column[row].as_py()
            if key in missing:
                missing.discard(key)
                contents[entry.shard][key] = block.contents[row]
    return contents


def _make_examples(source: ImageSource) -> list[tuple[str, bytes]]:
    """Id and thumbnail of the first readable images of a source."""
    thumbnails: list[tuple[str, bytes]] = []
    try:
        for shard in source.shards():
            for item in source.read(shard):
                image = _make_thumbnail(item) if isinstance(item, Record) else None
                thumbnails += [(item.id, image)] if image else []
                if len(thumbnails) == _MAX_EXAMPLES:
                    return thumbnails
    except (MarsRetrievalError, OSError):
        pass
    return thumbnails


def _make_thumbnail(record: Record) -> bytes | None:
    try:
        return make_thumbnail(record.data, record.source, side=_SIDE, quality=_QUALITY)
    except ImageError:
        return None
