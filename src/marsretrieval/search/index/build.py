"""Build a search index in one pass over the shards, with bounded memory."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import OutputError, StoreError
from marsretrieval.io import locked, sha256_file
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search.index import BANDS, FORMAT, HEADER, TextsWriter, band_of
from marsretrieval.search.kernels import MAX_NORM, Converter
from marsretrieval.search.quantization import Limits, quantize_rows
from marsretrieval.system import usable_cpus

if TYPE_CHECKING:
    from marsretrieval.embeddings import Block, EmbeddingStore

_SAMPLE_BLOCKS, _SAMPLE_ROWS = 256, 64


class IndexBuildInProgressError(Exception):
    """Another process is building an index in this folder."""


def bytes_needed(store: EmbeddingStore) -> int:
    """Estimate the disk space of an index.

    Args:
        store: The store to index.

    Returns:
        Bytes: one per value for the codes, a copy of the vectors, and 128 per row.
    """
    values = store.rows * store.dimension
    return values * (1 + np.dtype(store.dtype).itemsize) + 128 * store.rows


@contextmanager
def build_lock(root: Path, *, wait: bool) -> Iterator[None]:
    """Hold the build lock of `root` and remove temporary folders of killed processes.

    The operating system releases the lock when the process ends.

    Args:
        root: Folder that holds the indexes.
        wait: Wait for another process instead of raising.

    Yields:
        None, while the lock is held.

    Raises:
        IndexBuildInProgressError: If another process holds the lock and `wait` is not set.
        OutputError: If the folder cannot be written.
    """
    lock = root / ".lock"
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError as error:
        raise OutputError(f"{root}: cannot be written ({error.strerror})") from error
    with ExitStack() as stack:
        try:
            has_lock = stack.enter_context(locked(lock, wait=wait))
        except BlockingIOError as error:
            raise IndexBuildInProgressError(str(root)) from error
        except OSError as error:
            raise OutputError(f"{lock}: cannot be written ({error.strerror})") from error
        if has_lock:  # on file systems without locks, two processes may both build
            for stale_folder in root.glob(".*.tmp"):
                shutil.rmtree(stale_folder, ignore_errors=True)
        yield


def build_index(
    store: EmbeddingStore, root: Path, fingerprint: str, *, progress: Progress = NO_PROGRESS
) -> Path:
    """Write the index of `store` to `root`/`fingerprint` atomically.

    Call it while holding `build_lock`.

    Args:
        store: The store to index.
        root: Folder that holds the indexes.
        fingerprint: Fingerprint of the store, the name of the index folder.
        progress: Progress display.

    Returns:
        The index folder.

    Raises:
        OutputError: If the disk is full or not writable.
        StoreError: If a shard is damaged or a vector is not of unit length.
    """
    try:
        folder = root / f".{fingerprint[:16]}.{secrets.token_hex(4)}.tmp"
        folder.mkdir()
    except OSError as error:
        raise _write_error(root, error) from error
    try:
        _write(store, folder, fingerprint, progress)
        _sync(folder)
        # An existing folder is damaged or to be replaced, as checked by the caller.
        shutil.rmtree(root / fingerprint, ignore_errors=True)
        folder.rename(root / fingerprint)
        _sync(root)
    except OSError as error:
        raise _write_error(root, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return root / fingerprint


def _write(store: EmbeddingStore, folder: Path, fingerprint: str, progress: Progress) -> None:
    free = shutil.disk_usage(folder).free
    if free < bytes_needed(store):
        raise OutputError(
            f"{folder.parent}: a search index needs {bytes_needed(store):,} bytes, "
            f"{free:,} are free",
            remedy="Free some space, or search without an index, which is slower.",
        )
    positions = store.positions()
    bands = band_of(positions[:, 1])
    order = np.lexsort((positions[:, 1], positions[:, 0], bands))
    index_arrays = _IndexArrays(store, folder, order)
    arrays = {
        "plane": index_arrays.codes,
        "stored": index_arrays.stored,
        "scale": index_arrays.scale,
        "along": index_arrays.axis_component,
        "error": index_arrays.error,
        "mean": index_arrays.mean,
        "row_of": order.astype(np.int64),
        "lon": positions[order, 0],
        "lat": positions[order, 1],
        "starts": np.searchsorted(bands[order], np.arange(BANDS + 2)).astype(np.int64),
    }
    extents = np.empty((store.rows, 2), dtype=np.float32)
    valid = np.empty(store.rows, dtype=np.float32)
    source_of = np.empty(store.rows, dtype=np.int64)
    limits, last, count = Limits(), None, 0
    with (
        progress.start("prepare search", store.rows, "rows") as bar,
        ThreadPoolExecutor(usable_cpus()) as pool,
        TextsWriter(folder / "ids.txt") as ids,
        TextsWriter(folder / "sources.txt") as sources,
    ):
        pending: deque[Future[tuple[int, Limits]]] = deque()

        def collect_oldest() -> None:
            nonlocal limits
            count, block_limits = pending.popleft().result()
            limits = limits.merge(block_limits)
            bar.advance(count)

        for block in store.blocks():
            pending.append(pool.submit(index_arrays.put, block))
            span = slice(block.start, block.start + len(block))
            extents[span, 0], extents[span, 1] = block.width_deg, block.height_deg
            valid[span] = block.valid
            ids.add(block.ids)
            new_sources = []
            for row, source in enumerate(block.sources, block.start):
                if source != last:  # tiles of one file are consecutive
                    new_sources.append(source)
                    last = source
                source_of[row] = count + len(new_sources) - 1
            sources.add(new_sources)
            count += len(new_sources)
            if len(pending) > 4 * usable_cpus():
                collect_oldest()
        while pending:
            collect_oldest()
    arrays |= {
        "width_deg": extents[order, 0],
        "height_deg": extents[order, 1],
        "id_ends": ids.ends,
        "source_of": source_of,
        "source_ends": sources.ends,
    }
    if np.isfinite(valid).any():
        arrays["valid"] = valid[order]
    header = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "rows": store.rows,
        "dimension": store.dimension,
        "limits": {
            "radius": limits.radius,
            "norm": limits.norm,
            "rest": limits.rest,
            "askew": limits.axis_error,
        },
        "files": _save_arrays(folder, arrays),
    }
    (folder / HEADER).write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
    _sync(folder / HEADER)


class _IndexArrays:
    """The large arrays of an index, filled block by block in any order and from any thread."""

    def __init__(self, store: EmbeddingStore, folder: Path, order: npt.NDArray[np.int64]) -> None:
        shape = (store.rows, store.dimension)
        self._path = store.path
        self._index_row_of = np.empty(store.rows, dtype=np.int64)
        self._index_row_of[order] = np.arange(store.rows)
        self.mean = _sample_mean(store)
        self.codes = _allocate_array(folder, "plane", shape, np.int8)
        self.stored = _allocate_array(folder, "stored", shape, store.dtype)
        self.scale = np.empty(store.rows, dtype=np.float32)
        self.axis_component = np.empty(store.rows, dtype=np.float32)
        self.error = np.empty(store.rows, dtype=np.float32)

    def put(self, block: Block) -> tuple[int, Limits]:
        """Quantize and store a block.

        Args:
            block: Consecutive rows of the store.

        Returns:
            The number of rows and their limits.

        Raises:
            StoreError: If a vector is not of unit length.
        """
        convert = Converter(block.dimension)
        vectors = block.vectors
        limits = Limits()
        for start in range(0, len(block), convert.rows):
            batch = vectors[start : start + convert.rows]
            first = block.start + start
            index_rows = self._index_row_of[first : first + len(batch)]
            floats = convert(batch)
            with np.errstate(invalid="ignore", over="ignore"):
                lengths = np.sqrt(np.einsum("ij,ij->i", floats, floats))
            wrong = np.flatnonzero(~(lengths <= MAX_NORM))
            if len(wrong):
                raise StoreError(
                    f"{self._path}: the vector of '{block.ids[start + wrong[0]]}' is not of unit "
                    f"length but {lengths[wrong[0]]:g}",
                    remedy="Run marsretrieval store verify: a shard is damaged, or the encoder "
                    "returned vectors that are not normalized.",
                )
            quantized = quantize_rows(floats, self.mean)
            self.codes[index_rows], self.stored[index_rows] = quantized.values, batch
            self.scale[index_rows], self.axis_component[index_rows] = (
                quantized.scale,
                quantized.axis_component,
            )
            self.error[index_rows] = quantized.error
            limits = limits.merge(quantized.limits)
        return len(block), limits


def _save_arrays(folder: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, dict[str, Any]]:
    """Write the arrays, flush all files to disk and return the header entry of each file."""
    for name, values in arrays.items():
        if isinstance(values, np.memmap):
            values.flush()
        else:
            np.save(folder / f"{name}.npy", values)
    names = sorted(path.name for path in folder.iterdir())
    with ThreadPoolExecutor(usable_cpus()) as pool:
        files = dict(
            zip(names, pool.map(lambda name: _file_entry(folder / name), names), strict=True)
        )
    for name, values in arrays.items():
        files[f"{name}.npy"] |= {"shape": list(values.shape), "dtype": values.dtype.name}
    return files


def _sample_mean(store: EmbeddingStore) -> npt.NDArray[np.float32]:
    """Return the mean of a sample of rows, shape (d,).

    Any vector gives correct results; one close to the mean of all rows gives narrow bounds.
    """
    total, count = np.zeros(store.dimension), 0
    step = max(1, len(store.entries) // _SAMPLE_BLOCKS)
    for number, block in enumerate(store.blocks()):
        if number % step == 0 and len(block):
            sampled = block.vectors[:: max(1, len(block) // _SAMPLE_ROWS)].astype(np.float64)
            with np.errstate(invalid="ignore"):
                total += sampled.sum(axis=0)
            count += len(sampled)
    mean = total / max(1, count)
    return np.where(np.isfinite(mean), mean, 0.0).astype(np.float32)


def _allocate_array(
    folder: Path, name: str, shape: tuple[int, int], dtype: Any
) -> npt.NDArray[Any]:
    """Create an array file with its disk space allocated.

    Writing to a memory map on a full disk would kill the process.
    """
    path = folder / f"{name}.npy"
    if 0 in shape:
        return np.empty(shape, dtype=dtype)
    array: npt.NDArray[Any] = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _file_entry(path: Path) -> dict[str, Any]:
    _sync(path)
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_error(root: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{root}: the search index cannot be written ({error.strerror or error})",
        remedy="Check that the folder is yours and the disk has space.",
    )
