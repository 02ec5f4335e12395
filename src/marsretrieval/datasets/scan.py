"""Hash and decode every image of a source on all cores, one shard at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from marsretrieval.datasets.base import (
    ImageSource,
    ItemWarning,
    Record,
    Shard,
    Skipped,
    content_hash,
)
from marsretrieval.datasets.images import decode_rgb
from marsretrieval.errors import MarsRetrievalError
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.system import SPAWN, process_pool, usable_cpus

_SIDE = 16
_WORDS = _SIDE * _SIDE // 64
_FLAT = 8  # grey levels between darkest and brightest: below, there is nothing to compare
_ROWS = 512


def difference_hash(image: Image.Image) -> npt.NDArray[np.uint64] | None:
    """Which of two neighbouring pixels is brighter, on the picture shrunk to 17 x 16: 256 bits as
    (4,) words. None for a picture without contrast.

    The difference hash of N. Krawetz, "Kind of like that" (2013), four times as fine.
    """
    small = image.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BOX)
    grey = np.asarray(small)
    if int(grey.max()) - int(grey.min()) < _FLAT:
        return None
    bits = grey[:, 1:] > grey[:, :-1]
    return np.packbits(bits).view(np.uint64)


def near_pairs(hashes: npt.NDArray[np.uint64], limit: int = 32) -> list[tuple[int, int]]:
    """Pairs of rows i < j of (n, 4) hashes that differ in at most `limit` of 256 bits.

    Of HiRISE and CTX patches, copies at a third to twice the size and JPEG quality 60 to 90
    differed in at most 28 bits, different ones in at least 77. O(n^2) time, n rows of memory.
    """
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(hashes), _ROWS):
        block = hashes[start : start + _ROWS]
        distance = np.zeros((len(block), len(hashes) - start), dtype=np.uint16)
        for word in range(_WORDS):
            distance += np.bitwise_count(block[:, None, word] ^ hashes[None, start:, word])
        left, right = np.nonzero(distance <= limit)
        pairs += [
            (start + int(i), start + int(j)) for i, j in zip(left, right, strict=True) if i < j
        ]
    return pairs


# One row per decoded image. A planet of tiles must fit into memory, so it is a table.
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "source": pa.string(),
        "content": pa.binary(16),
        "width": pa.uint32(),
        "height": pa.uint32(),
        "caption": pa.string(),
        "label": pa.string(),
        "lon": pa.float64(),
        "lat": pa.float64(),
        "width_deg": pa.float64(),
        "height_deg": pa.float64(),
        "likeness": pa.binary(),  # the bytes of a difference hash
    }
)
_BATCH_ROWS = 4096  # of a shard, converted to columns together


@dataclass(slots=True)
class Scan:
    """A table of the decoded images in the order of the source, and what could not be read."""

    items: pa.Table = field(default_factory=SCHEMA.empty_table)
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
            bar.advance(part.items.num_rows + len(part.bad))
            bad += len(part.bad)
            bar.note(f"{bad} bad" if bad else "")
    whole = merge(parts[number] for number in range(len(shards)))
    for number, shard in enumerate(shards):
        if not parts[number].items.num_rows and not parts[number].bad:
            whole.empty.append(f"{source.name}: {shard.name}")
    return whole


def merge(scans: Iterable[Scan]) -> Scan:
    """Concatenate the tables and lists of several scans in order."""
    whole = Scan()
    tables = [whole.items]
    for part in scans:
        tables.append(part.items)
        whole.bad += part.bad
        whole.empty += part.empty
        whole.warnings += part.warnings
    whole.items = pa.concat_tables(tables)
    return whole


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
    result = Scan()
    tables = [result.items]
    rows: list[dict[str, Any]] = []
    try:
        for record in source.read(shard):
            if _stop is not None and _stop.is_set():
                break
            row = record if isinstance(record, Skipped) else _decode(record, likeness)
            if isinstance(record, Record):
                result.warnings += record.warnings
            if isinstance(row, Skipped):
                result.bad.append(row)
                continue
            rows.append(row)
            if len(rows) == _BATCH_ROWS:
                tables.append(pa.Table.from_pylist(rows, schema=SCHEMA))
                rows.clear()
    except MarsRetrievalError as error:
        result.bad.append(Skipped(shard.name, source.name, error.message))
    tables.append(pa.Table.from_pylist(rows, schema=SCHEMA))
    result.items = pa.concat_tables(tables).combine_chunks()
    return result


def _decode(record: Record, likeness: bool) -> dict[str, Any] | Skipped:
    try:
        image = decode_rgb(record.data, record.source)
    except MarsRetrievalError as error:
        reason = error.message.removeprefix(f"{record.source}: ")
        return Skipped(record.id, record.source, reason)
    bits = difference_hash(image) if likeness else None
    return {
        "id": record.id,
        "source": record.source,
        "content": content_hash(record.data),
        "width": image.width,
        "height": image.height,
        "caption": record.caption,
        "label": record.label,
        "lon": record.lon,
        "lat": record.lat,
        "width_deg": record.width_deg,
        "height_deg": record.height_deg,
        "likeness": None if bits is None else bits.tobytes(),
    }
