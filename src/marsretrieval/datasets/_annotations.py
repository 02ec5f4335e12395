"""What is known of all items of a source, without an image read."""

from __future__ import annotations

from marsretrieval.datasets._protocol import ImageSource, Record, Skipped


def read_annotations(source: ImageSource) -> tuple[list[Record], list[Skipped]]:
    """All items, with `data` empty, and all that are left out. An id that stood in a shard before
    is left out too. Raises what the source raises."""
    records: dict[str, Record] = {}
    skipped: list[Skipped] = []
    for shard in source.shards():
        for item in source.read(shard, images=False):
            if isinstance(item, Skipped):
                skipped.append(item)
            elif item.id in records:
                before = records[item.id].source
                skipped.append(Skipped(item.id, item.source, f"the same key as {before}"))
            else:
                records[item.id] = item
    return list(records.values()), skipped
