"""Images read, decoded and preprocessed ahead of the model, in order and in bounded memory."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PIL import Image

from marsretrieval.datasets import (
    ImageSource,
    Record,
    Shard,
    Skipped,
    content_hash,
    decode_rgb,
)
from marsretrieval.embeddings._shards import Item
from marsretrieval.errors import ImageError, MarsRetrievalError

__all__ = ["Decoded", "ShardEnd", "decode_ahead"]

_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Decoded:
    """One image, ready for the model."""

    item: Item
    features: Any
    seconds: float  # spent decoding and preprocessing, in its worker


@dataclass(frozen=True, slots=True)
class ShardEnd:
    """Nothing more comes of this shard; `error` says why it ended early, if it did."""

    error: MarsRetrievalError | None = None


Event = Decoded | Skipped | ShardEnd


def decode_ahead(
    source: ImageSource,
    shards: Sequence[Shard],
    preprocess: Callable[[Image.Image], Any],
    *,
    workers: int,
    depth: int,
) -> Generator[tuple[Shard, Event], None, None]:
    """Yield each shard's events in order, the last one a ShardEnd, with at most `depth` images
    in flight. Threads, not processes: Pillow lets go of the interpreter lock while it decodes.
    """
    stop = threading.Event()
    ahead: queue.Queue[tuple[Shard, Future[Event] | Event] | BaseException | None]
    ahead = queue.Queue(maxsize=max(2, depth))
    pool = ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="decode")

    def put(value: Any) -> None:
        while not stop.is_set():
            try:
                ahead.put(value, timeout=_POLL_S)
            except queue.Full:
                continue
            return

    def read() -> None:
        try:
            for shard in shards:
                end = ShardEnd()
                try:
                    for item in source.read(shard):
                        if stop.is_set():
                            return
                        if isinstance(item, Record):
                            put((shard, pool.submit(_decode, item, preprocess)))
                        else:
                            put((shard, item))
                except MarsRetrievalError as error:
                    end = ShardEnd(error)
                put((shard, end))
            put(None)
        except BaseException as error:
            put(error)

    reader = threading.Thread(target=read, name="read", daemon=True)
    reader.start()
    try:
        while (value := ahead.get()) is not None:
            if isinstance(value, BaseException):
                raise value
            shard, event = value
            yield shard, event.result() if isinstance(event, Future) else event
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        reader.join()


def _decode(record: Record, preprocess: Callable[[Image.Image], Any]) -> Decoded | Skipped:
    start = time.perf_counter()
    try:
        image = decode_rgb(record.data, record.source)
    except ImageError as error:
        return Skipped(record.id, record.source, error.message)
    try:
        features = preprocess(image)
    except Exception as error:  # a user's encoder may raise anything, for one odd image too
        reason = f"the model's preprocessing failed: {type(error).__name__}: {error}"
        return Skipped(record.id, record.source, reason)
    item = Item(
        id=record.id,
        source=record.source,
        content=content_hash(record.data),
        lon=record.lon,
        lat=record.lat,
        width_deg=record.width_deg,
        height_deg=record.height_deg,
    )
    return Decoded(item, features, time.perf_counter() - start)
