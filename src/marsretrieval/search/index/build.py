"""Making a search view: one pass over the shards, in memory that does not grow with them."""

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
from marsretrieval.search.exact import MAX_NORM
from marsretrieval.search.index.index import BANDS, FORMAT, HEADER, TextsWriter, band_of
from marsretrieval.search.kernels import Converter
from marsretrieval.search.quantization import Limits, quantize_rows
from marsretrieval.system import usable_cpus

if TYPE_CHECKING:
    from marsretrieval.embeddings import Block, EmbeddingStore

_SAMPLE_BLOCKS, _SAMPLE_ROWS = 256, 64


class ViewInTheMaking(Exception):
    """Another process is making a view in this folder."""


def bytes_needed(store: EmbeddingStore) -> int:
    """Of disk, about: a byte for each number, the vectors, and 128 bytes a row."""
    numbers = store.rows * store.dimension
    return numbers * (1 + np.dtype(store.dtype).itemsize) + 128 * store.rows


@contextmanager
def turn_to_build(root: Path, *, wait: bool) -> Iterator[None]:
    """One process at a time makes a view in `root`; what dead ones left behind is removed.

    The lock dies with its process. Raises ViewInTheMaking without `wait`, OutputError when the
    folder cannot be written.
    """
    lock = root / ".lock"
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError as error:
        raise OutputError(f"{root}: cannot be written ({error.strerror})") from error
    with ExitStack() as turn:
        try:
            held = turn.enter_context(locked(lock, wait=wait))
        except BlockingIOError as error:
            raise ViewInTheMaking(str(root)) from error
        except OSError as error:
            raise OutputError(f"{lock}: cannot be written ({error.strerror})") from error
        if held:  # without locks, two would do the same work twice
            for left in root.glob(".*.tmp"):
                shutil.rmtree(left, ignore_errors=True)
        yield


def build_view(
    store: EmbeddingStore, root: Path, fingerprint: str, *, progress: Progress = NO_PROGRESS
) -> Path:
    """Write the view of `store` to `root`/`fingerprint`; it appears there whole or not at all.

    Call it within `turn_to_build`. Raises OutputError when the disk is full or cannot be written,
    StoreError when a shard is damaged or a vector not of unit length.
    """
    try:
        folder = root / f".{fingerprint[:16]}.{secrets.token_hex(4)}.tmp"
        folder.mkdir()
    except OSError as error:
        raise _not_written(root, error) from error
    try:
        _write(store, folder, fingerprint, progress)
        _sync(folder)
        # One that is there already is damaged, or to be replaced: the caller has looked.
        shutil.rmtree(root / fingerprint, ignore_errors=True)
        folder.rename(root / fingerprint)
        _sync(root)
    except OSError as error:
        raise _not_written(root, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return root / fingerprint


def _write(store: EmbeddingStore, folder: Path, fingerprint: str, progress: Progress) -> None:
    free = shutil.disk_usage(folder).free
    if free < bytes_needed(store):
        raise OutputError(
            f"{folder.parent}: a search view takes {bytes_needed(store):,} bytes, "
            f"{free:,} are free",
            remedy="Free some space, or search without it: that takes longer.",
        )
    places = store.positions()
    bands = band_of(places[:, 1])
    order = np.lexsort((places[:, 1], places[:, 0], bands))
    into = _Into(store, folder, order)
    arrays = {
        "plane": into.plane,
        "stored": into.stored,
        "scale": into.scale,
        "along": into.along,
        "error": into.error,
        "mean": into.mean,
        "row_of": order.astype(np.int64),
        "lon": places[order, 0],
        "lat": places[order, 1],
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
        ahead: deque[Future[tuple[int, Limits]]] = deque()

        def settle() -> None:
            nonlocal limits
            count, reached = ahead.popleft().result()
            limits = limits.joined(reached)
            bar.advance(count)

        for block in store.blocks():
            ahead.append(pool.submit(into.put, block))
            here = slice(block.start, block.start + len(block))
            extents[here, 0], extents[here, 1] = block.width_deg, block.height_deg
            valid[here] = block.valid
            ids.add(block.ids)
            fresh = []
            for row, source in enumerate(block.sources, block.start):
                if source != last:  # tiles of one file follow each other
                    fresh.append(source)
                    last = source
                source_of[row] = count + len(fresh) - 1
            sources.add(fresh)
            count += len(fresh)
            if len(ahead) > 4 * usable_cpus():
                settle()
        while ahead:
            settle()
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
        "limits": limits._asdict(),
        "files": _saved(folder, arrays),
    }
    (folder / HEADER).write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
    _sync(folder / HEADER)


class _Into:
    """The large arrays of a view, filled block by block in any order and thread."""

    def __init__(self, store: EmbeddingStore, folder: Path, order: npt.NDArray[np.int64]) -> None:
        shape = (store.rows, store.dimension)
        self._path = store.path
        self._place_of = np.empty(store.rows, dtype=np.int64)
        self._place_of[order] = np.arange(store.rows)
        self.mean = _mean(store)
        self.plane = _reserved(folder, "plane", shape, np.int8)
        self.stored = _reserved(folder, "stored", shape, store.dtype)
        self.scale = np.empty(store.rows, dtype=np.float32)
        self.along = np.empty(store.rows, dtype=np.float32)
        self.error = np.empty(store.rows, dtype=np.float32)

    def put(self, block: Block) -> tuple[int, Limits]:
        """The number of its rows, and what none of them exceeds. Raises StoreError."""
        convert = Converter(block.dimension)
        vectors = block.vectors
        limits = Limits()
        for start in range(0, len(block), convert.rows):
            some = vectors[start : start + convert.rows]
            first = block.start + start
            places = self._place_of[first : first + len(some)]
            floats = convert(some)
            with np.errstate(invalid="ignore", over="ignore"):
                lengths = np.sqrt(np.einsum("ij,ij->i", floats, floats))
            wrong = np.flatnonzero(~(lengths <= MAX_NORM))
            if len(wrong):
                raise StoreError(
                    f"{self._path}: the vector of '{block.ids[start + wrong[0]]}' is not of unit "
                    f"length but {lengths[wrong[0]]:g}",
                    remedy="Either its shard is damaged (marsretrieval store verify tells), or the "
                    "model gives such vectors and has to be mended.",
                )
            found = quantize_rows(floats, self.mean)
            self.plane[places], self.stored[places] = found.values, some
            self.scale[places], self.along[places] = found.scale, found.along
            self.error[places] = found.error
            limits = limits.joined(found.limits)
        return len(block), limits


def _saved(folder: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, dict[str, Any]]:
    """Write what is not written yet and flush everything to disk; what the header says of each
    file."""
    for name, values in arrays.items():
        if isinstance(values, np.memmap):
            values.flush()
        else:
            np.save(folder / f"{name}.npy", values)
    names = sorted(path.name for path in folder.iterdir())
    with ThreadPoolExecutor(usable_cpus()) as pool:
        files = dict(zip(names, pool.map(lambda name: _sealed(folder / name), names), strict=True))
    for name, values in arrays.items():
        files[f"{name}.npy"] |= {"shape": list(values.shape), "dtype": values.dtype.name}
    return files


def _mean(store: EmbeddingStore) -> npt.NDArray[np.float32]:
    """(d,) of some rows: what all vectors have in common need not be rounded. Any vector will do
    for the answers to be right; a good one makes the bounds narrow."""
    total, count = np.zeros(store.dimension), 0
    every = max(1, len(store.entries) // _SAMPLE_BLOCKS)
    for number, block in enumerate(store.blocks()):
        if number % every == 0 and len(block):
            some = block.vectors[:: max(1, len(block) // _SAMPLE_ROWS)].astype(np.float64)
            with np.errstate(invalid="ignore"):
                total += some.sum(axis=0)
            count += len(some)
    mean = total / max(1, count)
    return np.where(np.isfinite(mean), mean, 0.0).astype(np.float32)


def _reserved(folder: Path, name: str, shape: tuple[int, int], dtype: Any) -> npt.NDArray[Any]:
    """An array file with its space on disk: writing to a map of a full disk kills the process."""
    path = folder / f"{name}.npy"
    if 0 in shape:
        return np.empty(shape, dtype=dtype)
    array: npt.NDArray[Any] = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _sealed(path: Path) -> dict[str, Any]:
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


def _not_written(root: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{root}: the search view cannot be written ({error.strerror or error})",
        remedy="Check that the folder is yours and the disk has space.",
    )
