"""Sums of products of whole numbers, as fast as the machine allows: numpy, NumKong, or a GPU.

All give the same sums without any rounding, so which of them is used changes the time a search
takes and nothing else.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import MissingDependencyError, UnknownNameError, UsageError

# OpenBLAS puts all its threads to work on larger products. Called from several of our threads, or
# on a machine with other work, they wait for each other: up to ten times slower, measured.
_UNSHARED = 2**18
_UNSHARED_WITH_ONE = 2**13  # a matrix times a single vector


def rows_at_once(dimension: int, count: int) -> int:
    """How many rows to multiply at a time with `count` vectors."""
    most = _UNSHARED if count > 1 else _UNSHARED_WITH_ONE
    return max(1, min(16, most // max(1, dimension * count)))


def thread_products(
    rows: npt.NDArray[Any], columns: npt.NDArray[Any], out: npt.NDArray[Any]
) -> None:
    """out = rows @ columns, (n, d) times (d, m), as a stack of products so small that none is
    shared out among threads. `rows` and `out` are contiguous."""
    few = rows_at_once(*columns.shape)
    whole = len(rows) // few * few
    stack = rows[:whole].reshape(-1, few, rows.shape[1])
    with np.errstate(invalid="ignore", over="ignore"):  # callers look at what comes out
        np.matmul(stack, columns, out=out[:whole].reshape(-1, few, columns.shape[1]))
        if whole < len(rows):
            np.matmul(rows[whole:], columns, out=out[whole:])


Whole = npt.NDArray[np.int8]
Sums = Callable[[int, int], npt.NDArray[Any]]

KERNELS = ("auto", "numpy", "numkong", "torch")

_EXACT_FLOAT32 = 2.0**24  # whole numbers below it are float32 numbers
_TILE = 16  # vectors in a tile of AMX
_CHUNK_BYTES = 2**20  # of floats: fits a core's second-level cache


class Kernel(Protocol):
    """Multiplies the rows of a matrix with a few vectors, both int8."""

    name: str

    def prepare(self, matrix: Whole, vectors: Whole, norm: float) -> Sums:
        """matrix: (n, d). vectors: (m, d). norm: no row of the matrix is longer.

        Returns a function of start and end that gives the inner products of rows start..end - 1
        with all vectors, (end - start, m), exact whole numbers of any type; it may be called from
        several threads.
        """


class NumpyKernel:
    """Products in float32, where every partial sum is below 2^24 and so exact; else in float64."""

    name = "numpy"

    def prepare(self, matrix: Whole, vectors: Whole, norm: float) -> Sums:
        kind = _exact_float(vectors, norm)
        columns = vectors.astype(kind).T
        dimension, count = columns.shape
        step = max(1, _CHUNK_BYTES // (columns.itemsize * dimension))

        def sums(start: int, end: int) -> npt.NDArray[Any]:
            found = np.empty((end - start, count), dtype=kind)
            rows = np.empty((min(step, end - start), dimension), dtype=kind)
            for first in range(start, end, step):
                some = rows[: min(step, end - first)]
                np.copyto(some, matrix[first : first + len(some)])
                into = found[first - start : first - start + len(some)]
                thread_products(some, columns, into)
            return found

        return sums


class NumkongKernel:
    """Products in int32 by the instructions of this CPU: AMX, AVX-512, AVX2, NEON, SVE.

    Raises MissingDependencyError without the library.
    """

    name = "numkong"

    def __init__(self) -> None:
        try:
            import numkong
        except ImportError as error:
            raise MissingDependencyError("numkong", "fast", needed_for="this kernel") from error
        self._numkong = numkong
        self._tiles = numkong.get_capabilities().get("sapphireamx", False)

    def prepare(self, matrix: Whole, vectors: Whole, norm: float) -> Sums:
        count, dimension = vectors.shape
        multiply = self._numkong.dots_packed
        packed = self._packed(vectors)
        # AMX multiplies with 16 vectors in the time of one, and likes long rows: so several rows
        # are taken as one long row, each to be multiplied with its own copy of the vectors.
        together = max(1, _TILE // count) if self._tiles else 1
        packed_long = self._packed(np.kron(np.eye(together, dtype=np.int8), vectors))

        def sums(start: int, end: int) -> npt.NDArray[Any]:
            middle = end - (end - start) % together
            long = matrix[start:middle].reshape(-1, together * dimension)
            found = np.asarray(multiply(long, packed_long)).reshape(-1, count)
            if middle == end:
                return found
            rest = np.asarray(multiply(matrix[middle:end], packed))
            return np.concatenate([found, rest])

        return sums

    def _packed(self, vectors: Whole) -> Any:
        return self._numkong.dots_pack(np.ascontiguousarray(vectors), dtype="int8")


class TorchKernel:
    """Products on a device of torch; the matrix is sent there once and stays, room permitting.

    Whole numbers up to 127 are exact in float32 and in its shortened forms (TF32), and sums below
    2^24 are exact whatever their order; larger ones are made in float64.
    """

    name = "torch"

    def __init__(self, device: str = "cuda") -> None:
        try:
            import torch
        except ImportError as error:
            raise MissingDependencyError("torch", "models", needed_for="this kernel") from error
        self._torch = torch
        try:
            self._device = torch.device(device)
            torch.empty(1, device=self._device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"device '{device}' cannot be used: {error}") from error
        self._there: Any = None
        self._of: weakref.ref[Any] | None = None

    def prepare(self, matrix: Whole, vectors: Whole, norm: float) -> Sums:
        torch = self._torch
        kind = torch.float32 if _exact_float(vectors, norm) is np.float32 else torch.float64
        columns = torch.from_numpy(vectors).to(self._device, kind).T
        resident = self._resident(matrix)

        def sums(start: int, end: int) -> npt.NDArray[Any]:
            if resident is None:
                rows = torch.from_numpy(np.array(matrix[start:end])).to(self._device)
            else:
                rows = resident[start:end]
            found: npt.NDArray[Any] = (rows.to(kind) @ columns).cpu().numpy()
            return found

        return sums

    def _resident(self, matrix: Whole) -> Any:
        if self._of is None or self._of() is not matrix:
            self._there = None
            if self._device.type == "cuda":
                free, _ = self._torch.cuda.mem_get_info(self._device)
                if 2 * matrix.nbytes > free:
                    return None
            there = self._torch.empty(matrix.shape, dtype=self._torch.int8, device=self._device)
            step = max(1, 2**26 // max(1, matrix.shape[1]))
            for start in range(0, len(matrix), step):
                some = np.array(matrix[start : start + step])
                there[start : start + len(some)] = self._torch.from_numpy(some)
            self._there, self._of = there, weakref.ref(matrix, self._forget)
        return self._there

    def _forget(self, matrix: object) -> None:
        if self._of is matrix:
            self._there = self._of = None


_ready: dict[str, Kernel] = {}


def choose_kernel(name: str = "auto") -> Kernel:
    """The kernel of that name; `auto` takes NumKong if it is installed, else a GPU if torch is in
    use and has one (it must first be sent the plane), else numpy.

    Raises UsageError for an unknown name, MissingDependencyError without the library.
    """
    if name not in KERNELS:
        raise UnknownNameError("kernel", name, KERNELS)
    if name == "auto":
        try:
            return _made("numkong", NumkongKernel)
        except MissingDependencyError:
            # To import torch takes longer than the search.
            torch = sys.modules.get("torch")
            gpu = torch is not None and torch.cuda.is_available()
            return _made("torch", TorchKernel) if gpu else _made("numpy", NumpyKernel)
    makers: dict[str, Callable[[], Kernel]] = {
        "numpy": NumpyKernel,
        "numkong": NumkongKernel,
        "torch": TorchKernel,
    }
    return _made(name, makers[name])


def _made(name: str, make: Callable[[], Kernel]) -> Kernel:
    if name not in _ready:
        _ready[name] = make()
    return _ready[name]


def _exact_float(vectors: Whole, norm: float) -> type[np.float32] | type[np.float64]:
    """The float type in which all partial sums are exact: by Cauchy-Schwarz none is greater than
    the product of the lengths, in whatever order they are made."""
    longest = np.linalg.norm(vectors.astype(np.float64), axis=1).max(initial=0.0)
    return np.float32 if norm * longest * (1 + 1e-9) < _EXACT_FLOAT32 else np.float64


# Of float32: fits a core's second-level cache, where conversion is fastest.
_HALF_CHUNK_BYTES = 2**19

_KEEP_SIGN = np.int32(-(2**31) + 2**28 - 1)
_SCALE = np.float32(2.0**112)

Widen = Callable[[npt.NDArray[np.float16], npt.NDArray[np.float32]], object]


class Converter:
    """float16 or float32 rows as float32, in a buffer that stays in the cache; one a thread."""

    def __init__(self, dimension: int) -> None:
        self.rows = max(1, _HALF_CHUNK_BYTES // (4 * dimension))
        self._floats = np.empty((self.rows, dimension), dtype=np.float32)
        self._widen = _fastest()

    def __call__(self, vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """At most `rows` rows; the array returned is written over by the next call."""
        floats = self._floats[: len(vectors)]
        if vectors.dtype == np.float16:
            self._widen(vectors, floats)
        else:
            np.copyto(floats, vectors)
        return floats


def widen(halves: npt.NDArray[np.float16], out: npt.NDArray[np.float32]) -> None:
    """Write halves as float32, exactly for all finite ones, subnormal ones included.

    numpy converts them one by one; shifting their bits into place and scaling by 2^112 takes half
    the time.
    """
    bits = out.view(np.int32)
    np.copyto(bits, halves.view(np.int16))
    bits <<= 13
    bits &= _KEEP_SIGN
    out *= _SCALE


@cache
def _fastest() -> Widen:
    """NumKong's conversion where it is installed and right for every half there is."""
    try:
        import numkong
    except ImportError:
        return widen
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)]
    found = np.empty(len(every), dtype=np.float32)
    numkong.astype(every, "float32", out=found)
    if not np.array_equal(found, every.astype(np.float32)):
        return widen
    return lambda halves, out: numkong.astype(halves, "float32", out=out)
