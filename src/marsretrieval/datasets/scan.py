"""Decode and hash every image of a source in parallel."""

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

_HASH_SIDE = 16
_HASH_WORDS = _HASH_SIDE * _HASH_SIDE // 64
_MIN_CONTRAST = 8  # grey levels; images with less contrast have no hash
_BLOCK_ROWS = 512
# One row per decoded image; a columnar table, so that millions of tiles fit into memory.
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
_BATCH_ROWS = 4096  # rows converted to columns at a time

_stop: Event | None = None  # set in worker processes: the scan is cancelled


@dataclass(slots=True)
class ScanResult:
    """Decoded images of a source, and the items that could not be read.

    Attributes:
        items: One row per image (`SCHEMA`), in the order of the source.
        bad: Items that could not be read or decoded.
        empty: Shards without an image.
        warnings: Parts of annotations that were ignored.
    """

    items: pa.Table = field(default_factory=SCHEMA.empty_table)
    bad: list[Skipped] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    warnings: list[ItemWarning] = field(default_factory=list)


def scan(
    source: ImageSource,
    *,
    likeness: bool,
    workers: int | None = None,
    progress: Progress = NO_PROGRESS,
) -> ScanResult:
    """Read, hash and decode every image.

    Args:
        source: Images to scan.
        likeness: Compute difference hashes too.
        workers: Processes that share the shards; None: the number of usable CPUs.
        progress: Receives the progress.

    Returns:
        The decoded images and the problems.

    Raises:
        DatasetNotFoundError: If there are no images.
        DataError: If the source cannot be listed.
        MarsRetrievalError: If a worker process dies.
    """
    shards = source.shards()
    rows = [shard.rows for shard in shards]
    total = None if None in rows else sum(row or 0 for row in rows)
    parts: dict[int, ScanResult] = {}
    bad = 0
    with progress.start(f"check {source.name}", total, "images") as bar:
        for number, part in _scan_shards(source, shards, likeness, workers or usable_cpus()):
            parts[number] = part
            bar.advance(part.items.num_rows + len(part.bad))
            bad += len(part.bad)
            bar.note(f"{bad} bad" if bad else "")
    result = merge(parts[number] for number in range(len(shards)))
    for number, shard in enumerate(shards):
        if not parts[number].items.num_rows and not parts[number].bad:
            result.empty.append(f"{source.name}: {shard.name}")
    return result


def merge(scans: Iterable[ScanResult]) -> ScanResult:
    """Concatenate scans.

    Args:
        scans: Scans in order; their lists are not modified.

    Returns:
        One scan.
    """
    result = ScanResult()
    tables = [result.items]
    for partial in scans:
        tables.append(partial.items)
        result.bad += partial.bad
        result.empty += partial.empty
        result.warnings += partial.warnings
    result.items = pa.concat_tables(tables)
    return result


def difference_hash(image: Image.Image) -> npt.NDArray[np.uint64] | None:
    """Compute a 256-bit difference hash of an image.

    The image is reduced to 17 x 16 pixels; each bit is set if a pixel is brighter than its left
    neighbour. Difference hash of N. Krawetz, "Kind of like that" (2013), with four times the bits.

    Args:
        image: A decoded image.

    Returns:
        Words of shape (4,), or None for an image without contrast.
    """
    small = image.convert("L").resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.BOX)
    grey = np.asarray(small)
    if int(grey.max()) - int(grey.min()) < _MIN_CONTRAST:
        return None
    bits = grey[:, 1:] > grey[:, :-1]
    return np.packbits(bits).view(np.uint64)


def near_pairs(hashes: npt.NDArray[np.uint64], limit: int = 32) -> list[tuple[int, int]]:
    """Find pairs of hashes that differ in few bits.

    For HiRISE and CTX patches, copies scaled to a third to twice the size and JPEG quality 60 to 90
    differed in at most 28 bits, different images in at least 77. Takes O(n^2) time and O(n) memory.

    Args:
        hashes: Difference hashes, shape (n, 4).
        limit: Largest number of differing bits, of 256.

    Returns:
        Pairs of rows (i, j) with i < j.
    """
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(hashes), _BLOCK_ROWS):
        block = hashes[start : start + _BLOCK_ROWS]
        distance = np.zeros((len(block), len(hashes) - start), dtype=np.uint16)
        for word in range(_HASH_WORDS):
            distance += np.bitwise_count(block[:, None, word] ^ hashes[None, start:, word])
        first, second = np.nonzero(distance <= limit)
        pairs += [
            (start + int(i), start + int(j)) for i, j in zip(first, second, strict=True) if i < j
        ]
    return pairs


def _scan_shards(
    source: ImageSource, shards: Sequence[Shard], likeness: bool, workers: int
) -> Iterator[tuple[int, ScanResult]]:
    if workers == 1 or len(shards) < 2:
        for number, shard in enumerate(shards):
            yield number, _scan_shard(source, shard, likeness)
        return
    stop = SPAWN.Event()
    with process_pool(min(workers, len(shards)), _init_worker, (stop,)) as pool:
        futures = {
            pool.submit(_scan_shard, source, shard, likeness): number
            for number, shard in enumerate(shards)
        }
        try:
            for future in as_completed(futures):
                yield futures.pop(future), future.result()
        except BrokenProcessPool as error:
            raise MarsRetrievalError(
                f"{source.name}: a worker process died (possibly out of memory)",
                remedy="Use fewer workers. A script that verifies must do so below "
                "if __name__ == '__main__', since the workers import it.",
            ) from error
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _init_worker(stop: Event) -> None:
    global _stop
    _stop = stop


def _scan_shard(source: ImageSource, shard: Shard, likeness: bool) -> ScanResult:
    result = ScanResult()
    tables = [result.items]
    rows: list[dict[str, Any]] = []
    try:
        for record in source.read(shard):
            if _stop is not None and _stop.is_set():
                break
            row = record if isinstance(record, Skipped) else _decode_record(record, likeness)
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


def _decode_record(record: Record, likeness: bool) -> dict[str, Any] | Skipped:
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
