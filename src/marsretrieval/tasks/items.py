"""List what a model embeds for a task, so that it can be embedded elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Literal

from marsretrieval.datasets.base import ImageSource, Record
from marsretrieval.errors import UsageError
from marsretrieval.search.query import geolocalization_prompts, landform_prompts
from marsretrieval.tasks.base import Task, TaskData
from marsretrieval.tasks.geolocalization import Geolocalization
from marsretrieval.tasks.landform import LandformRetrieval
from marsretrieval.tasks.paired_image_text import PairedImageText

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


def iter_items(task: Task, data: TaskData) -> Iterator[EmbeddingItem]:
    """Iterate over the items of `list_items` without holding all of them in memory.

    Args:
        task: A built-in task.
        data: Its data, with images.

    Yields:
        The items.

    Raises:
        UsageError: If the task is not built in.
    """
    assert data.source is not None
    if isinstance(task, PairedImageText):
        captions: dict[str, str] = data.annotations
        yield from _images(data.source, texts=captions)
        for key, text in captions.items():
            yield EmbeddingItem("text", key, text=text)
    elif isinstance(task, LandformRetrieval):
        yield from _images(data.source, labels=data.annotations)
        yield from _landform_prompts(task, data)
    elif isinstance(task, Geolocalization):
        yield from _images(data.source)
        for name in data.annotations.points:
            for number, text in enumerate(geolocalization_prompts(name, task.templates), 1):
                yield EmbeddingItem("prompt", f"{name}#{number}", text=text, label=name)
        for name, source in data.annotations.examples.items():
            if name in data.annotations.points:
                for item in _images(source):
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
) -> Iterator[EmbeddingItem]:
    """Images of a source, each id once; only those with an annotation if there are any."""
    ids: set[str] = set()
    for shard in source.shards():
        for item in source.read(shard, images=False):
            if not isinstance(item, Record) or item.id in ids:
                continue
            if any(column is not None and item.id not in column for column in (texts, labels)):
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
