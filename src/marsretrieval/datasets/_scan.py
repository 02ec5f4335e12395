"""Every image of a source, hashed and decoded, on all cores; a shard at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event

from marsretrieval._environment import usable_cpus
from marsretrieval._processes import SPAWN, process_pool
from marsretrieval.datasets._hashing import content_hash
from marsretrieval.datasets._images import decode_rgb
from marsretrieval.datasets._items import Item, Items
from marsretrieval.datasets._likeness import difference_hash
from marsretrieval.datasets._protocol import ImageSource, ItemWarning, Record, Shard, Skipped
from marsretrieval.errors import MarsRetrievalError
from marsretrieval.progress import NO_PROGRESS, Progress

__all__ = ["Scan", "scan"]

_IN_OBJECTS = 4096  # of a shard, before they become columns


@dataclass(slots=True)
class Scan:
    """All items in the order of the source, and all that could not be read."""

    items: Items = field(default_factory=Items)
    bad: list[Skipped] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)  # shards without an image
    warnings: list[ItemWarning] = field(default_factory=list)


def scan(
    source: ImageSource,
    *,
    likeness: bool,
    workers: int | None = None,
    progress: Progress = NO_PROGRESS,
) -> Scan:
    """Read, hash and decode every image; `likeness` computes difference hashes too.

    Two shards or more are shared out among `workers` processes (default: the CPUs there are).
    Raises what `source.shards()` raises, and MarsRetrievalError when a worker dies.
    """
    shards = source.shards()
    rows = [shard.rows for shard in shards]
    total = None if None in rows else sum(row or 0 for row in rows)
    parts: dict[int, Scan] = {}
    bad = 0
    with progress.start(f"check {source.name}", total, "images") as bar:
        for number, part in _scanned(source, shards, likeness, workers or usable_cpus()):
            parts[number] = part
            bar.advance(len(part.items) + len(part.bad))
            bad += len(part.bad)
            bar.note(f"{bad} bad" if bad else "")
    found = Scan()
    for number, shard in enumerate(shards):
        part = parts.pop(number)
        found.items.extend(part.items)
        found.bad += part.bad
        found.warnings += part.warnings
        if not part.items and not part.bad:
            found.empty.append(f"{source.name}: {shard.name}")
    return found


def _scanned(
    source: ImageSource, shards: Sequence[Shard], likeness: bool, workers: int
) -> Iterator[tuple[int, Scan]]:
    if workers == 1 or len(shards) < 2:
        for number, shard in enumerate(shards):
            yield number, _scan_shard(source, shard, likeness)
        return
    stop = SPAWN.Event()
    with process_pool(min(workers, len(shards)), _begin, (stop,)) as pool:
        futures = {
            pool.submit(_scan_shard, source, shard, likeness): number
            for number, shard in enumerate(shards)
        }
        try:
            for future in as_completed(futures):
                yield futures.pop(future), future.result()
        except BrokenProcessPool as error:
            raise MarsRetrievalError(
                f"{source.name}: a worker process died (out of memory, perhaps)",
                remedy="Use fewer workers. A script that verifies must do so below "
                "if __name__ == '__main__', since the workers import it.",
            ) from error
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_stop: Event | None = None  # of a worker: nobody waits for it any more


def _begin(stop: Event) -> None:
    global _stop
    _stop = stop


def _scan_shard(source: ImageSource, shard: Shard, likeness: bool) -> Scan:
    found = Scan()
    items: list[Item] = []
    try:
        for record in source.read(shard):
            if _stop is not None and _stop.is_set():
                break
            item = record if isinstance(record, Skipped) else _decoded(record, likeness)
            if isinstance(record, Record):
                found.warnings += record.warnings
            if isinstance(item, Skipped):
                found.bad.append(item)
                continue
            items.append(item)
            if len(items) == _IN_OBJECTS:
                found.items.extend(Items.of(items))
                items.clear()
    except MarsRetrievalError as error:
        found.bad.append(Skipped(shard.name, source.name, error.message))
    found.items.extend(Items.of(items))
    return found


def _decoded(record: Record, likeness: bool) -> Item | Skipped:
    try:
        image = decode_rgb(record.data, record.source)
    except MarsRetrievalError as error:
        reason = error.message.removeprefix(f"{record.source}: ")
        return Skipped(record.id, record.source, reason)
    position = None
    if record.lon is not None and record.lat is not None:
        position = (record.lon, record.lat)
    return Item(
        id=record.id,
        source=record.source,
        content=content_hash(record.data),
        size=image.size,
        caption=record.caption,
        label=record.label,
        position=position,
        width_deg=record.width_deg,
        height_deg=record.height_deg,
        likeness=difference_hash(image) if likeness else None,
    )
