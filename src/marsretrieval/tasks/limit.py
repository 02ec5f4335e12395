"""Limit the data of a task to its first items, for quick trials of a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from marsretrieval.datasets import ImageSource, Record, Shard, Skipped
from marsretrieval.errors import UsageError
from marsretrieval.io import sha256_json
from marsretrieval.tasks.base import Task, TaskData


@runtime_checkable
class SupportsLimit(Protocol):
    """A task whose data can be limited. Custom tasks may implement it."""

    def limit(self, data: TaskData, count: int) -> TaskData:
        """Limit the data to their first items.

        Args:
            data: Data of the task.
            count: Number of items to keep.

        Returns:
            The limited data, made by `limited_data`.
        """


@dataclass(frozen=True)
class SelectedSource:
    """Image source of selected items of another source.

    Attributes:
        source: The source.
        selection: Shards that hold a selected item, each with the ids of these items.
    """

    source: ImageSource
    selection: tuple[tuple[Shard, frozenset[str]], ...]

    @property
    def name(self) -> str:
        """The path as the user gave it, for messages."""
        return self.source.name

    @property
    def kind(self) -> str:
        """Layout of the source."""
        return self.source.kind

    def shards(self) -> Sequence[Shard]:
        """List the shards that hold a selected item.

        Returns:
            Shards whose fingerprints include the selection.
        """
        return [
            Shard(shard.name, sha256_json([shard.fingerprint, sorted(ids)]), len(ids))
            for shard, ids in self.selection
        ]

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        """Stream the selected items of a shard.

        Args:
            shard: One of `shards()`.
            images: As in `ImageSource.read`.

        Yields:
            The items in the order of the source, each id once.
        """
        for original, ids in self.selection:
            if original.name == shard.name:
                remaining = set(ids)
                for item in self.source.read(original, images=images):
                    if item.id in remaining:
                        remaining.discard(item.id)
                        yield item
                    if not remaining:
                        return


def limit_task(task: Task, data: TaskData, count: int) -> TaskData:
    """Limit the data of a task.

    Args:
        task: The task.
        data: Its data.
        count: Number of items to keep.

    Returns:
        The limited data.

    Raises:
        UsageError: If the task does not support a limit.
    """
    if not isinstance(task, SupportsLimit):
        raise UsageError(
            f"task {task.name} cannot be limited",
            remedy="Leave out --limit, or give the class of the task a method limit(data, count).",
        )
    return task.limit(data, count)


def limited_data(
    data: TaskData,
    source: ImageSource | None,
    count: int,
    *,
    kept: int,
    of: int | None,
    items: str,
    dropped_queries: int = 0,
    **changes: Any,
) -> TaskData:
    """Assemble limited data, with a note and a fingerprint of their own.

    Args:
        data: The data before.
        source: The selected images.
        count: The limit.
        kept: Number of items that stay.
        of: Number of items before; None if unknown.
        items: What is counted: "pairs", "images" or "tiles".
        dropped_queries: Number of queries without a relevant item left.
        **changes: Other fields of the data.

    Returns:
        The limited data.
    """
    total = "" if of is None else f" of {of:,}"
    note = f"limited to {kept:,}{total} {items}: not comparable with results on all of them"
    if dropped_queries:
        note += f"; queries dropped, without a relevant item left: {dropped_queries:,}"
    return replace(
        data,
        source=source,
        fingerprint=sha256_json([data.fingerprint, "limit", count]),
        notes=[*data.notes, note],
        limit={
            "count": count,
            "items": items,
            "kept": kept,
            "of": of,
            "dropped_queries": dropped_queries,
        },
        **changes,
    )


def select(source: ImageSource, ids: Sequence[str]) -> SelectedSource:
    """Select items of a source by id.

    Args:
        source: The source.
        ids: Ids of the items.

    Returns:
        A source of these items. Of several items with one id the first is selected.
    """
    remaining = set(ids)
    selection = []
    for shard in source.shards():
        if not remaining:
            break
        item_ids = frozenset(
            item.id
            for item in source.read(shard, images=False)
            if isinstance(item, Record) and item.id in remaining
        )
        remaining -= item_ids
        if item_ids:
            selection.append((shard, item_ids))
    return SelectedSource(source, tuple(selection))


def first_items(source: ImageSource, count: int) -> SelectedSource:
    """Select the first items of a source.

    Args:
        source: The source.
        count: Number of items.

    Returns:
        A source of the first `count` items in the order of shards and items.
    """
    used_ids: set[str] = set()
    selection = []
    for shard in source.shards():
        ids: set[str] = set()
        for item in source.read(shard, images=False):
            if len(used_ids) == count:
                break
            if isinstance(item, Record) and item.id not in used_ids:
                used_ids.add(item.id)
                ids.add(item.id)
        if ids:
            selection.append((shard, frozenset(ids)))
        if len(used_ids) == count:
            break
    return SelectedSource(source, tuple(selection))


def balanced(labels: Mapping[str, str], count: int) -> dict[str, str]:
    """Take items in turn from each class: the first of every class, then the second, and so on.

    Args:
        labels: Item id to class, in the order of the source.
        count: Number of items.

    Returns:
        Item id to class of `count` items, in the order of the source.
    """
    ranks: dict[str, int] = defaultdict(int)
    order = []
    for position, (key, label) in enumerate(labels.items()):
        order.append((ranks[label], position, key))
        ranks[label] += 1
    chosen = {key for _, _, key in sorted(order)[:count]}
    return {key: label for key, label in labels.items() if key in chosen}
