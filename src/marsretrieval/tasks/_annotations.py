"""What a task needs to know of each image, read without decoding any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from marsretrieval.datasets import ImageSource, Record, Skipped, read_annotations
from marsretrieval.files import sha256_json


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


def first_reason(skipped: Sequence[Skipped]) -> str:
    """Name the first item that is left out for another reason than a missing annotation.

    Args:
        skipped: Items that are left out.

    Returns:
        The words in parentheses, after a space; nothing where there is no such item.
    """
    for item in skipped:
        if item.reason not in ("no caption", "no label"):
            return f" (first: {item.source}: {item.reason})"
    return ""


def first_rows(ids: Iterable[str]) -> dict[str, int]:
    """Id to its row in a store; of an id that stands there twice the first, as in `collect`."""
    rows: dict[str, int] = {}
    for row, key in enumerate(ids):
        rows.setdefault(key, row)
    return rows


def fingerprint(source: ImageSource, annotations: Mapping[str, str] | None = None) -> str:
    """Compute what changes whenever an image or annotation may have changed.

    Args:
        source: The images of a task.
        annotations: Item id to caption or label, for tasks that read these.

    Returns:
        SHA-256 in hex.
    """
    shards = [[shard.name, shard.fingerprint] for shard in source.shards()]
    if annotations is None or source.kind not in ("folder", "classes"):
        return sha256_json(shards)  # files of other kinds hold the annotations, too
    return sha256_json([shards, sorted(annotations.items())])
