"""Images read, decoded and preprocessed ahead of the models, in order and in bounded memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from marsretrieval.datasets import ImageSource, Record, Shard, Skipped
from marsretrieval.embeddings._decode import Decoded
from marsretrieval.embeddings._workers import Decoders
from marsretrieval.errors import DataError, MarsRetrievalError

_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class ShardEnd:
    """Nothing more comes of this shard; `error` says why it ended early, if it did."""

    error: MarsRetrievalError | None = None


Event = Decoded | Skipped | ShardEnd


def decode_ahead(
    source: ImageSource,
    work: Iterable[tuple[Shard, tuple[int, ...]]],
    decoders: Decoders,
    *,
    depth: int,
) -> Generator[tuple[Shard, tuple[int, ...], Event], None, None]:
    """Yield each shard's events in order, the last one a ShardEnd, with about `depth` images in
    flight, or two portions a worker if that is more.

    `work` gives shards, each with the numbers of the models that take it; it is asked for the next
    one only when that is to be read. Every image is read and decoded once, for all of them.
    """
    stop = threading.Event()
    ahead: queue.Queue[tuple[Shard, tuple[int, ...], Future[Any] | Event] | BaseException | None]
    ahead = queue.Queue(maxsize=max(2 * decoders.workers, depth // decoders.at_once))

    def put(value: Any) -> None:
        while not stop.is_set():
            try:
                ahead.put(value, timeout=_POLL_S)
            except queue.Full:
                continue
            return

    def read_shard(shard: Shard, takers: tuple[int, ...]) -> None:
        records: list[Record] = []

        def submit() -> None:
            if records:
                put((shard, takers, decoders.submit(records.copy(), takers)))
                records.clear()

        end = ShardEnd()
        item: Record | Skipped | None = None
        try:
            for item in source.read(shard):
                if stop.is_set():
                    return
                if isinstance(item, Record):
                    records.append(item)
                    if len(records) == decoders.at_once:
                        submit()
                else:
                    submit()
                    put((shard, takers, item))
            # What ends early is damaged, or was taken away: then it is not finished.
            if isinstance(item, Skipped) and not _is_still_there(source, shard):
                text = f"shard {shard.name}: changed or vanished while it was read"
                end = ShardEnd(DataError(f"{text} ({item.source}: {item.reason})"))
        except MarsRetrievalError as error:
            end = ShardEnd(error)
        except OSError as error:
            end = ShardEnd(DataError(f"shard {shard.name}: cannot be read ({error})"))
        submit()
        put((shard, takers, end))

    def read() -> None:
        try:
            for shard, takers in work:
                read_shard(shard, takers)
                if stop.is_set():
                    return
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
            if not isinstance(event, Future):
                yield shard, takers, event
                continue
            for answer in decoders.answers(event):
                yield shard, takers, answer
    finally:
        stop.set()
        reader.join()


def _is_still_there(source: ImageSource, shard: Shard) -> bool:
    try:
        return any(
            each.name == shard.name and each.fingerprint == shard.fingerprint
            for each in source.shards()
        )
    except (MarsRetrievalError, OSError):
        return False
