"""What a task needs to know of each image, read without decoding any."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from marsretrieval.datasets import ImageSource, Record, Skipped, read_annotations
from marsretrieval.files import sha256_json

__all__ = ["collect", "fingerprint", "first_rows"]


def collect(
    source: ImageSource, pick: Callable[[Record], str | None], *, missing: str
) -> tuple[dict[str, str], list[Skipped]]:
    """Item id to what `pick` finds in its record; items without any are skipped as `missing`."""
    found: dict[str, str] = {}
    records, skipped = read_annotations(source)
    for record in records:
        value = pick(record)
        if value and value.strip():
            found[record.id] = value
        else:
            reasons = [
                warning.reason for warning in record.warnings if warning.kind == "annotation"
            ]
            skipped.append(Skipped(record.id, record.source, "; ".join([missing, *reasons])))
    return found, skipped


def first_rows(ids: Iterable[str]) -> dict[str, int]:
    """Id to its row in a store; of an id that stands there twice the first, as in `collect`."""
    rows: dict[str, int] = {}
    for row, key in enumerate(ids):
        rows.setdefault(key, row)
    return rows


def fingerprint(source: ImageSource) -> str:
    """Moves when any file of the source may have changed."""
    return sha256_json([[shard.name, shard.fingerprint] for shard in source.shards()])
