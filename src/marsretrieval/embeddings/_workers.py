"""Workers that decode and preprocess images, in threads or in processes."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Literal, Protocol

from marsretrieval._processes import process_pool
from marsretrieval.datasets import Record
from marsretrieval.embeddings._decode import Answers, Preprocess, decode
from marsretrieval.embeddings._ferry import Packed, dock, pack, unpack
from marsretrieval.errors import MarsRetrievalError, UsageError

DecodeIn = Literal["auto", "threads", "processes"]
DECODE_IN: tuple[DecodeIn, ...] = ("auto", "threads", "processes")

_IMAGES_AT_ONCE = 8  # handed to a process: each handing over costs as much as a small image
_MANY_WORKERS = 6  # threads wait for one another beyond it
_MANY_IMAGES = 50_000  # repay the start of the processes, ten seconds or so


class Decoders(Protocol):
    """Decodes and preprocesses a few images at a time, several times at once."""

    workers: int
    at_once: int

    def submit(self, records: list[Record], takers: tuple[int, ...]) -> Future[Any]:
        """Begin with up to `at_once` images for some of the models, by their numbers."""

    def answers(self, future: Future[Any]) -> Answers:
        """What came of it, for each image. Raises MarsRetrievalError when a worker died."""

    def close(self) -> None:
        """End the workers; what was begun is given up."""


def open_decoders(
    preprocess: Sequence[Preprocess],
    workers: int,
    kind: DecodeIn = "threads",
    *,
    gpu: bool = False,
    images: int | None = None,
) -> Decoders:
    """Workers for models with this preprocessing.

    Threads share one interpreter lock, which Pillow and torch let go of for most, but not all, of
    the time: about seven eighths of it. Processes share nothing, but have to be started. `auto`
    takes processes where a GPU is to be fed with many `images` (None: unknown) by many workers.

    Raises UsageError for `processes` where a model's preprocessing cannot be sent to one.
    """
    workers = max(1, workers)
    many = workers >= _MANY_WORKERS and (images is None or images >= _MANY_IMAGES)
    if kind == "threads" or (kind == "auto" and not (gpu and many)):
        return _Threads(preprocess, workers)
    try:
        sent = pickle.dumps(tuple(preprocess))
    except Exception as error:  # each library refuses in its own way
        if kind == "auto":
            return _Threads(preprocess, workers)
        raise UsageError(
            f"the model's preprocessing cannot be sent to a process ({error})",
            remedy="Decode in threads.",
        ) from error
    return _Processes(sent, workers)


class _Threads:
    at_once = 1

    def __init__(self, preprocess: Sequence[Preprocess], workers: int) -> None:
        self.workers = workers
        self._preprocess = preprocess
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="decode")

    def submit(self, records: list[Record], takers: tuple[int, ...]) -> Future[Answers]:
        wanted = [self._preprocess[taker] for taker in takers]
        return self._pool.submit(decode, records, wanted)

    def answers(self, future: Future[Answers]) -> Answers:
        return future.result()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Processes:
    at_once = _IMAGES_AT_ONCE

    def __init__(self, preprocess: bytes, workers: int) -> None:
        self.workers = workers
        self._folder = dock()
        folder = Path(self._folder.name)
        self._pool = process_pool(workers, _begin, (preprocess, folder), scratch=folder)

    def submit(self, records: list[Record], takers: tuple[int, ...]) -> Future[Packed]:
        try:
            return self._pool.submit(_decode_there, records, takers)
        except BrokenProcessPool as error:
            raise _died() from error

    def answers(self, future: Future[Packed]) -> Answers:
        try:
            answers: Answers = unpack(future.result())
        except BrokenProcessPool as error:
            raise _died() from error
        return answers

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()


def _died() -> MarsRetrievalError:
    return MarsRetrievalError(
        "a process that decodes images died (killed, or out of memory)",
        remedy="Finished shards are kept: the same command goes on from there. Fewer --workers "
        "need less memory. A script that embeds must do so below if __name__ == '__main__', since "
        "the processes import it.",
    )


class _There:
    """What a process of `_Processes` has."""

    preprocess: tuple[Preprocess, ...]
    folder: Path
    failed: Exception | None = None


def _begin(preprocess: bytes, folder: Path) -> None:
    _There.folder = folder
    try:
        _There.preprocess = pickle.loads(preprocess)
    except Exception as error:  # told with the first answer; here it would print a traceback
        _There.failed = error
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)  # the processes are the parallelism


def _decode_there(records: list[Record], takers: tuple[int, ...]) -> Packed:
    if _There.failed is not None:
        raise MarsRetrievalError(
            f"a process that decodes images cannot load the model's preprocessing "
            f"({type(_There.failed).__name__}: {_There.failed})",
            remedy="Decode in threads.",
        )
    wanted = [_There.preprocess[taker] for taker in takers]
    return pack(decode(records, wanted), _There.folder)
