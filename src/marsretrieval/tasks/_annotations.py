"""What a task needs to know of each image, read without decoding any."""

from __future__ import annotations

from collections.abc import Callable

from marsretrieval.datasets import ImageSource, Record, Skipped
from marsretrieval.files import sha256_json

__all__ = ["fingerprint", "read_annotations"]


def read_annotations(
    source: ImageSource, pick: Callable[[Record], str | None], *, missing: str
) -> tuple[dict[str, str], list[Skipped]]:
    """Item id to what `pick` finds in its record; items without any are skipped as `missing`."""
    found: dict[str, str] = {}
    skipped: list[Skipped] = []
    for shard in source.shards():
        for item in source.read(shard, images=False):
            if isinstance(item, Skipped):
                skipped.append(item)
                continue
            value = pick(item)
            if value and value.strip():
                found[item.id] = value
            else:
                skipped.append(Skipped(item.id, item.source, missing))
    return found, skipped


def fingerprint(source: ImageSource) -> str:
    """Moves when any file of the source may have changed."""
    return sha256_json([[shard.name, shard.fingerprint] for shard in source.shards()])
