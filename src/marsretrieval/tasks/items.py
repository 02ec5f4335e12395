"""List what a model embeds for a task, so that it can be embedded elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from marsretrieval.datasets.base import ImageSource, Record
from marsretrieval.errors import UsageError
from marsretrieval.search.query import geolocalization_prompts, landform_prompts
from marsretrieval.tasks.base import Task, TaskData
from marsretrieval.tasks.geolocalization import Geolocalization
from marsretrieval.tasks.landform import LandformRetrieval
from marsretrieval.tasks.paired_image_text import PairedImageText

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class EmbeddingItem:
    """An image or text to embed.

    Attributes:
        kind: "image"; "text" for captions; "prompt" for the texts of queries; "example" for the
            example images of queries.
        id: Id, unique within the kind.
        source: File or archive member of an image; empty for texts.
        text: Caption or prompt; empty for images of other tasks than paired image-text retrieval.
        label: Class or landform; empty if there is none.
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
    assert data.source is not None
    if isinstance(task, PairedImageText):
        captions: dict[str, str] = data.annotations
        return [
            *_images(data.source, texts=captions),
            *(EmbeddingItem("text", key, text=text) for key, text in captions.items()),
        ]
    if isinstance(task, LandformRetrieval):
        return [*_images(data.source, labels=data.annotations), *_landform_prompts(task, data)]
    if isinstance(task, Geolocalization):
        return [
            *_images(data.source),
            *(
                EmbeddingItem("prompt", f"{name}#{number}", text=text, label=name)
                for name in data.annotations.points
                for number, text in enumerate(geolocalization_prompts(name, task.templates), 1)
            ),
            *(
                EmbeddingItem("example", f"{name}/{item.id}", item.source, label=name)
                for name, source in data.annotations.examples.items()
                if name in data.annotations.points
                for item in _images(source)
            ),
        ]
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
    seen: set[str] = set()
    for shard in source.shards():
        for item in source.read(shard, images=False):
            if not isinstance(item, Record) or item.id in seen:
                continue
            if any(column is not None and item.id not in column for column in (texts, labels)):
                continue
            seen.add(item.id)
            yield EmbeddingItem(
                "image", item.id, item.source, text=(texts or {}).get(item.id, ""),
                label=(labels or {}).get(item.id, ""), lon=item.lon, lat=item.lat,
            )  # fmt: skip


def items_table(items: list[EmbeddingItem]) -> pa.Table:
    """Build the table of items.

    Args:
        items: Items of `list_items`.

    Returns:
        A column per attribute of the items, in their order.
    """
    import pyarrow as pa

    kinds = {"lon": pa.float64(), "lat": pa.float64()}
    return pa.table(
        {
            column.name: pa.array(
                [getattr(item, column.name) for item in items], kinds.get(column.name, pa.string())
            )
            for column in fields(EmbeddingItem)
        }
    )
