"""Images read, decoded and preprocessed ahead of the models, in order and in bounded memory."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

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
from marsretrieval.errors import DataError, ImageError, MarsRetrievalError

__all__ = ["Decoded", "ShardEnd", "decode_ahead"]

_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Decoded:
    """One image, ready for every model that wants it.

    `features` has what each model's preprocessing gave, or a Skipped where it failed.
    """

    item: Item
    features: tuple[Any, ...]
    seconds: float  # spent decoding and preprocessing, in its worker


@dataclass(frozen=True, slots=True)
class ShardEnd:
    """Nothing more comes of this shard; `error` says why it ended early, if it did."""

    error: MarsRetrievalError | None = None


Event = Decoded | Skipped | ShardEnd


class Taker(Protocol):
    """A model that wants the images of a shard."""

    @property
    def preprocess(self) -> Callable[[Image.Image], Any]: ...


T = TypeVar("T", bound=Taker)


def decode_ahead(
    source: ImageSource,
    work: Iterable[tuple[Shard, tuple[T, ...]]],
    *,
    workers: int,
    depth: int,
) -> Generator[tuple[Shard, tuple[T, ...], Event], None, None]:
    """Yield each shard's events in order, the last one a ShardEnd, with at most `depth` images
    in flight. Every image is read and decoded once, whatever the number of models that take it;
    `work` is asked for the next shard only when that is to be read.

    Threads, not processes: Pillow lets go of the interpreter lock while it decodes.
    """
    stop = threading.Event()
    ahead: queue.Queue[tuple[Shard, tuple[T, ...], Future[Event] | Event] | BaseException | None]
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
            for shard, takers in work:
                preprocess = tuple(taker.preprocess for taker in takers)
                end = ShardEnd()
                item: Record | Skipped | None = None
                try:
                    for item in source.read(shard):
                        if stop.is_set():
                            return
                        if isinstance(item, Record):
                            put((shard, takers, pool.submit(_decode, item, preprocess)))
                        else:
                            put((shard, takers, item))
                    # What ends early is damaged, or was taken away: then it is not finished.
                    if isinstance(item, Skipped) and not _is_still_there(source, shard):
                        text = f"shard {shard.name}: changed or vanished while it was read"
                        end = ShardEnd(DataError(f"{text} ({item.source}: {item.reason})"))
                except MarsRetrievalError as error:
                    end = ShardEnd(error)
                except OSError as error:
                    end = ShardEnd(DataError(f"shard {shard.name}: cannot be read ({error})"))
                put((shard, takers, end))
            put(None)
        except BaseException as error:
            put(error)

    reader = threading.Thread(target=read, name="read", daemon=True)
    reader.start()
    try:
        while (value := ahead.get()) is not None:
            if isinstance(value, BaseException):
                raise value
            shard, takers, event = value
            yield shard, takers, event.result() if isinstance(event, Future) else event
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        reader.join()


def _is_still_there(source: ImageSource, shard: Shard) -> bool:
    try:
        return any(
            each.name == shard.name and each.fingerprint == shard.fingerprint
            for each in source.shards()
        )
    except (MarsRetrievalError, OSError):
        return False


def _decode(
    record: Record, preprocess: Sequence[Callable[[Image.Image], Any]]
) -> Decoded | Skipped:
    start = time.perf_counter()
    try:
        image = decode_rgb(record.data, record.source)
    except ImageError as error:
        return Skipped(record.id, record.source, error.message)
    features = tuple(_features(image, each, record) for each in preprocess)
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


def _features(
    image: Image.Image, preprocess: Callable[[Image.Image], Any], record: Record
) -> Any | Skipped:
    try:
        return preprocess(image)
    except MemoryError as error:  # no fault of this image: next time there may be enough
        raise MarsRetrievalError(
            f"{record.source}: no memory left to prepare it for the model",
            remedy="Use fewer --workers, a smaller --batch-size, or fewer models at once.",
        ) from error
    except Exception as error:  # a user's encoder may raise anything, for one odd image too
        reason = f"the model's preprocessing failed: {type(error).__name__}: {error}"
        return Skipped(record.id, record.source, reason)
