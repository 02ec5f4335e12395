"""Read, decode and preprocess images ahead of the models, in order and in bounded memory.

Workers are threads or processes. Processes return their arrays through files in shared memory.
"""

from __future__ import annotations

import mmap
import os
import pickle
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from marsretrieval.datasets import (
    ImageSource,
    ItemWarning,
    Record,
    Shard,
    Skipped,
    content_hash,
    decode_image,
    decode_rgb,
)
from marsretrieval.datasets.base import EncodingFailure
from marsretrieval.embeddings.shards import Item
from marsretrieval.errors import (
    DataError,
    ImageError,
    MarsRetrievalError,
    UsageError,
    describe_exception,
)
from marsretrieval.system import process_pool

Preprocess = Callable[[Image.Image], Any]
DecodeIn = Literal["auto", "threads", "processes"]
DECODE_IN: tuple[DecodeIn, ...] = ("auto", "threads", "processes")
_POLL_S = 0.1
_IMAGES_PER_TASK = 8  # of a process: the overhead of a task is that of decoding a small image
_MIN_WORKERS_FOR_PROCESSES = 6  # more threads wait for the interpreter lock
_MIN_IMAGES_FOR_PROCESSES = 50_000  # fewer do not repay ten seconds of starting processes
_MIN_SHARED_BYTES = 2**16  # smaller arrays are not worth a file
_ALIGNMENT = 64
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoded image, preprocessed for each model.

    Attributes:
        item: Metadata of the image.
        features: Result of each model's preprocessing, or a Skipped where it failed.
        seconds: Time of decoding and preprocessing in the worker.
        warnings: Parts of the annotation that were ignored.
    """

    item: Item
    features: tuple[Any, ...]
    seconds: float
    warnings: tuple[ItemWarning, ...] = ()


DecodeResults = list[Decoded | Skipped]


@dataclass(frozen=True, slots=True)
class ShardEnd:
    """Last event of a shard.

    Attributes:
        error: Why the shard ended early. None if it is complete.
    """

    error: MarsRetrievalError | None = None


PipelineEvent = Decoded | Skipped | ShardEnd


def decode_ahead(
    source: ImageSource,
    work: Iterable[tuple[Shard, tuple[int, ...]]],
    decoders: Decoders,
    *,
    depth: int,
) -> Generator[tuple[Shard, tuple[int, ...], PipelineEvent], None, None]:
    """Read and decode shards in order, ahead of the consumer.

    Each image is read and decoded once for all models. The next shard is drawn from `work` only
    when it is to be read. About `depth` images are in flight, or two tasks per worker if that is
    more.

    Args:
        source: Images to decode.
        work: Shards, each with the indexes of the models that embed it.
        decoders: Workers.
        depth: Number of images in flight.

    Yields:
        Shard, indexes of its models, and one event per image. The last event of a shard is a
        ShardEnd.

    Raises:
        MarsRetrievalError: If a worker dies.
    """
    stop = threading.Event()
    ahead: queue.Queue[
        tuple[Shard, tuple[int, ...], Future[Any] | PipelineEvent] | BaseException | None
    ]
    ahead = queue.Queue(maxsize=max(2 * decoders.workers, depth // decoders.images_per_task))

    def put(value: Any) -> None:
        while not stop.is_set():
            try:
                ahead.put(value, timeout=_POLL_S)
            except queue.Full:
                continue
            return

    def read_shard(shard: Shard, model_indexes: tuple[int, ...]) -> None:
        records: list[Record] = []

        def submit() -> None:
            if records:
                put((shard, model_indexes, decoders.submit(records.copy(), model_indexes)))
                records.clear()

        end = ShardEnd()
        item: Record | Skipped | None = None
        try:
            for item in source.read(shard):
                if stop.is_set():
                    return
                if isinstance(item, Record):
                    records.append(item)
                    if len(records) == decoders.images_per_task:
                        submit()
                else:
                    submit()
                    put((shard, model_indexes, item))
            # A shard that ends with a skipped item may have been damaged or removed meanwhile.
            if isinstance(item, Skipped) and not _is_unchanged(source, shard):
                text = f"shard {shard.name}: changed or removed while it was read"
                end = ShardEnd(DataError(f"{text} ({item.source}: {item.reason})"))
        except MarsRetrievalError as error:
            end = ShardEnd(error)
        except OSError as error:
            end = ShardEnd(DataError(f"shard {shard.name}: cannot be read ({error})"))
        submit()
        put((shard, model_indexes, end))

    def read() -> None:
        try:
            for shard, model_indexes in work:
                read_shard(shard, model_indexes)
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
            shard, model_indexes, event = value
            if not isinstance(event, Future):
                yield shard, model_indexes, event
                continue
            for result in decoders.results(event):
                yield shard, model_indexes, result
    finally:
        stop.set()
        reader.join()


def _is_unchanged(source: ImageSource, shard: Shard) -> bool:
    try:
        return any(
            current.name == shard.name and current.fingerprint == shard.fingerprint
            for current in source.shards()
        )
    except (MarsRetrievalError, OSError):
        return False


class Decoders(Protocol):
    """Workers that decode and preprocess images concurrently.

    Attributes:
        workers: Number of workers.
        images_per_task: Largest number of images per call of `submit`.
    """

    workers: int
    images_per_task: int

    def submit(self, records: list[Record], model_indexes: tuple[int, ...]) -> Future[Any]:
        """Start decoding images.

        Args:
            records: Up to `images_per_task` encoded images.
            model_indexes: Indexes of the models whose preprocessing is run.

        Returns:
            Future, for `results`.
        """

    def results(self, future: Future[Any]) -> DecodeResults:
        """Wait for the images of a future.

        Args:
            future: Return value of `submit`.

        Returns:
            One result per image.

        Raises:
            MarsRetrievalError: If a worker died.
        """

    def close(self) -> None:
        """Stop the workers and cancel pending tasks."""


def open_decoders(
    preprocess: Sequence[Preprocess],
    workers: int,
    kind: DecodeIn = "threads",
    *,
    gpu: bool = False,
    images: int | None = None,
) -> Decoders:
    """Start workers for a list of models.

    Threads share the interpreter lock, which Pillow and torch release for most of the time.
    Processes share nothing, but take seconds to start. "auto" uses processes if a GPU, at least
    six workers and at least 50,000 images (or an unknown number) are involved.

    Args:
        preprocess: Preprocessing of each model.
        workers: Number of workers.
        kind: "threads", "processes" or "auto".
        gpu: Whether the models run on a GPU.
        images: Number of images. None if unknown.

    Returns:
        The workers, to be closed by the caller.

    Raises:
        UsageError: If `kind` is "processes" and a model's preprocessing cannot be pickled.
    """
    workers = max(1, workers)
    many = workers >= _MIN_WORKERS_FOR_PROCESSES and (
        images is None or images >= _MIN_IMAGES_FOR_PROCESSES
    )
    if kind == "threads" or (kind == "auto" and not (gpu and many)):
        return _ThreadDecoders(preprocess, workers)
    try:
        sent = pickle.dumps(tuple(preprocess))
    except Exception as error:  # the exception depends on the library
        if kind == "auto":
            return _ThreadDecoders(preprocess, workers)
        raise UsageError(
            f"the model's preprocessing cannot be sent to a process ({error})",
            remedy="Decode in threads.",
        ) from error
    return _ProcessDecoders(sent, workers)


class _ThreadDecoders:
    images_per_task = 1

    def __init__(self, preprocess: Sequence[Preprocess], workers: int) -> None:
        self.workers = workers
        self._preprocess = preprocess
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="decode")

    def submit(
        self, records: list[Record], model_indexes: tuple[int, ...]
    ) -> Future[DecodeResults]:
        preprocess = [self._preprocess[index] for index in model_indexes]
        return self._pool.submit(decode_records, records, preprocess)

    def results(self, future: Future[DecodeResults]) -> DecodeResults:
        return future.result()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class _ProcessDecoders:
    images_per_task = _IMAGES_PER_TASK

    def __init__(self, preprocess: bytes, workers: int) -> None:
        self.workers = workers
        self._folder = shared_memory_folder()
        folder = Path(self._folder.name)
        self._pool = process_pool(workers, _start_worker, (preprocess, folder), scratch=folder)

    def submit(self, records: list[Record], model_indexes: tuple[int, ...]) -> Future[SharedPickle]:
        try:
            return self._pool.submit(_decode_in_worker, records, model_indexes)
        except BrokenProcessPool as error:
            raise _worker_died_error() from error

    def results(self, future: Future[SharedPickle]) -> DecodeResults:
        try:
            results: DecodeResults = read_shared(future.result())
        except BrokenProcessPool as error:
            raise _worker_died_error() from error
        return results

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()


def _worker_died_error() -> MarsRetrievalError:
    return MarsRetrievalError(
        "a process that decodes images died (killed, or out of memory)",
        remedy="Finished shards are saved: run the same command again to resume. Fewer --workers "
        "need less memory. A script that embeds must do so below if __name__ == '__main__', since "
        "the processes import it.",
    )


class _WorkerState:
    """Global state of a worker process of `_ProcessDecoders`."""

    preprocess: tuple[Preprocess, ...]
    folder: Path
    failed: Exception | None = None


def _start_worker(preprocess: bytes, folder: Path) -> None:
    _WorkerState.folder = folder
    try:
        _WorkerState.preprocess = pickle.loads(preprocess)
    except Exception as error:  # raised with the first task; here it would print a traceback
        _WorkerState.failed = error
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)  # the processes are the parallelism


def _decode_in_worker(records: list[Record], model_indexes: tuple[int, ...]) -> SharedPickle:
    if _WorkerState.failed is not None:
        raise MarsRetrievalError(
            f"a process that decodes images cannot load the model's preprocessing "
            f"({type(_WorkerState.failed).__name__}: {_WorkerState.failed})",
            remedy="Decode in threads.",
        )
    preprocess = [_WorkerState.preprocess[index] for index in model_indexes]
    return write_shared(decode_records(records, preprocess), _WorkerState.folder)


def decode_records(records: Sequence[Record], preprocess: Sequence[Preprocess]) -> DecodeResults:
    """Decode images and run the preprocessing of each model.

    Args:
        records: Encoded images.
        preprocess: Preprocessing of each model.

    Returns:
        One result per image: a Decoded, or a Skipped if it cannot be decoded.
    """
    return [_decode_record(record, preprocess) for record in records]


def _decode_record(record: Record, preprocess: Sequence[Preprocess]) -> Decoded | Skipped:
    start = time.perf_counter()
    try:
        grey = any(_accepts_grey(function) for function in preprocess)
        image = (decode_image if grey else decode_rgb)(record.data, record.source)
    except ImageError as error:
        return Skipped(record.id, record.source, error.message)
    features = tuple(_features(image, function, record) for function in preprocess)
    item = Item(
        id=record.id,
        source=record.source,
        content=content_hash(record.data),
        lon=record.lon,
        lat=record.lat,
        width_deg=record.width_deg,
        height_deg=record.height_deg,
        valid=record.valid,
    )
    return Decoded(item, features, time.perf_counter() - start, record.warnings)


def _features(image: Image.Image, preprocess: Preprocess, record: Record) -> Any | Skipped:
    try:
        if image.mode == "L" and not _accepts_grey(preprocess):
            image = image.convert("RGB")
        return preprocess(image)
    except MemoryError as error:  # not a fault of this image: a retry may succeed
        raise MarsRetrievalError(
            f"{record.source}: out of memory while preparing it for the model",
            remedy="Use fewer --workers, a smaller --batch-size, or fewer models at once.",
        ) from error
    except Exception as error:  # a user's encoder may raise anything
        reason = f"the model's preprocessing failed: {describe_exception(error)}"
        return EncodingFailure(record.id, record.source, reason)


def _accepts_grey(preprocess: Preprocess) -> bool:
    """Check for `accepts_grey`, see `marsretrieval.encoders.Encoder.preprocess`."""
    return getattr(preprocess, "accepts_grey", False) is True


@dataclass(frozen=True, slots=True)
class SharedPickle:
    """A pickle whose arrays are stored separately.

    Attributes:
        pickled: The pickle without its arrays.
        file: File with the arrays. None if they are in `parts`.
        parts: Offset and length of each array in `file`, or the arrays themselves.
    """

    pickled: bytes
    file: Path | None
    parts: list[tuple[int, int]] | list[bytes]


def shared_memory_folder() -> tempfile.TemporaryDirectory[str]:
    """Create a temporary folder for `write_shared`, in /dev/shm if it is writable.

    Returns:
        The folder, to be cleaned up by the caller.
    """
    parent = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
    return tempfile.TemporaryDirectory(
        prefix=f"marsretrieval-{os.getpid()}-", dir=parent, ignore_cleanup_errors=True
    )


def write_shared(value: Any, folder: Path) -> SharedPickle:
    """Pickle a value, with its arrays and CPU tensors in a file.

    The arrays stay in memory beside the pickle if they are small or the folder is full (/dev/shm
    of a container may be small).

    Args:
        value: Any picklable value.
        folder: Folder for the file.

    Returns:
        The pickle, for `read_shared` in another process.
    """
    buffers: list[pickle.PickleBuffer] = []
    out = BytesIO()
    _TensorPickler(out, protocol=5, buffer_callback=buffers.append).dump(value)
    raw = [buffer.raw() for buffer in buffers]
    if sum(part.nbytes for part in raw) >= _MIN_SHARED_BYTES:
        try:
            return SharedPickle(out.getvalue(), *_write_buffers(raw, folder))
        except OSError:
            pass  # the folder is full
    return SharedPickle(out.getvalue(), None, [bytes(part) for part in raw])


def read_shared(shared: SharedPickle) -> Any:
    """Load a value and remove its file.

    Args:
        shared: Return value of `write_shared`.

    Returns:
        The value. Its arrays are writable.

    Raises:
        OSError: If the file is missing.
    """
    if shared.file is None:
        return pickle.loads(shared.pickled, buffers=map(bytearray, shared.parts))
    with shared.file.open("rb") as file:
        shared.file.unlink()
        # Private pages: writes do not go back to the removed file. The mapping lives as long as
        # one of its arrays.
        buffer = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    return pickle.loads(
        shared.pickled, buffers=[buffer[start : start + size] for start, size in shared.parts]
    )


def _write_buffers(raw: list[memoryview], folder: Path) -> tuple[Path, list[tuple[int, int]]]:
    descriptor, name = tempfile.mkstemp(dir=folder)
    parts = []
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for part in raw:
                start = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
                file.seek(start)
                rest = part
                while rest.nbytes:
                    rest = rest[file.write(rest) :]
                parts.append((start, part.nbytes))
    except OSError:
        Path(name).unlink()
        raise
    return Path(name), parts


class _TensorPickler(pickle.Pickler):
    """Pickle tensors as arrays, since torch itself writes their data into the pickle."""

    def reducer_override(self, value: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is None or type(value) is not torch.Tensor or value.requires_grad:
            return NotImplemented
        try:
            return _tensor_from_array, (np.asarray(value.numpy(), order="C"),)
        except (TypeError, RuntimeError):  # bfloat16, sparse, on another device
            return NotImplemented


def _tensor_from_array(array: npt.NDArray[Any]) -> Any:
    import torch

    return torch.from_numpy(array)
