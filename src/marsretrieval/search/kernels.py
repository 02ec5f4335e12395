"""Matrix products of a search: integer products by several kernels, and exact inner products.

All kernels (numpy, NumKong, a GPU) return the same exact integer sums, so the choice affects only
the speed of a search. Exact inner products are correctly rounded to float32: their sums are
computed in float64, and those that lie too close to a rounding boundary are recomputed with
`math.fsum`. A score therefore depends only on the stored row and the query, not on kernels, chunk
sizes or threads.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import MissingDependencyError, UnknownNameError, UsageError

# OpenBLAS uses all its threads for larger products. Called from several threads, or on a busy
# machine, these wait for each other: up to ten times slower, as measured.
_UNSHARED = 2**18
_UNSHARED_WITH_ONE = 2**13  # a matrix times a single vector

Int8Array = npt.NDArray[np.int8]
Sums = Callable[[int, int], npt.NDArray[Any]]

KERNELS = ("auto", "numpy", "numkong", "torch")

_EXACT_FLOAT32 = 2.0**24  # integers below are exact in float32
_TILE = 16  # vectors in a tile of AMX
_CHUNK_BYTES = 2**20  # of floats; fits the L2 cache of a core

# Bytes of float32; fits the L2 cache of a core, where conversion is fastest.
_HALF_CHUNK_BYTES = 2**19

_KEEP_SIGN = np.int32(-(2**31) + 2**28 - 1)
_SCALE = np.float32(2.0**112)

Widen = Callable[[npt.NDArray[np.float16], npt.NDArray[np.float32]], object]
ExactSums = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]

MAX_NORM = 1.01  # length of a stored row: 1, rounded to float16


def rows_at_once(dimension: int, count: int) -> int:
    """Return how many rows to multiply at a time, so that OpenBLAS uses one thread.

    Args:
        dimension: Length of the vectors.
        count: Number of vectors that each row is multiplied with.

    Returns:
        Number of rows, 1 to 16.
    """
    limit = _UNSHARED if count > 1 else _UNSHARED_WITH_ONE
    return max(1, min(16, limit // max(1, dimension * count)))


def thread_products(
    rows: npt.NDArray[Any], columns: npt.NDArray[Any], out: npt.NDArray[Any]
) -> None:
    """Compute rows @ columns as a stack of products small enough for one BLAS thread each.

    Args:
        rows: Contiguous array of shape (n, d).
        columns: Array of shape (d, m).
        out: Contiguous array of shape (n, m) that receives the products.
    """
    step = rows_at_once(*columns.shape)
    stacked = len(rows) // step * step
    stack = rows[:stacked].reshape(-1, step, rows.shape[1])
    with np.errstate(invalid="ignore", over="ignore"):  # callers check the products
        np.matmul(stack, columns, out=out[:stacked].reshape(-1, step, columns.shape[1]))
        if stacked < len(rows):
            np.matmul(rows[stacked:], columns, out=out[stacked:])


class Kernel(Protocol):
    """Multiply the rows of an int8 matrix with a few int8 vectors."""

    name: str

    def prepare(self, matrix: Int8Array, vectors: Int8Array, norm: float) -> Sums:
        """Return a function that computes inner products of a range of rows with all vectors.

        Args:
            matrix: int8 array of shape (n, d).
            vectors: int8 array of shape (m, d).
            norm: Upper bound of the length of the matrix rows.

        Returns:
            Thread-safe function of `start` and `end` that returns exact integers, of any dtype, of
            shape (end - start, m).
        """


class NumpyKernel:
    """Products in float32 if every partial sum is below 2^24, hence exact; else in float64."""

    name = "numpy"

    def prepare(self, matrix: Int8Array, vectors: Int8Array, norm: float) -> Sums:
        """Implement `Kernel.prepare`.

        Args:
            matrix: int8 array of shape (n, d).
            vectors: int8 array of shape (m, d).
            norm: Upper bound of the length of the matrix rows.

        Returns:
            Function of `start` and `end`, see `Kernel.prepare`.
        """
        kind = _exact_float(vectors, norm)
        columns = vectors.astype(kind).T
        dimension, count = columns.shape
        step = max(1, _CHUNK_BYTES // (columns.itemsize * dimension))

        def sums(start: int, end: int) -> npt.NDArray[Any]:
            products = np.empty((end - start, count), dtype=kind)
            rows = np.empty((min(step, end - start), dimension), dtype=kind)
            for first in range(start, end, step):
                chunk = rows[: min(step, end - first)]
                np.copyto(chunk, matrix[first : first + len(chunk)])
                target = products[first - start : first - start + len(chunk)]
                thread_products(chunk, columns, target)
            return products

        return sums


class NumkongKernel:
    """Products in int32 with the SIMD instructions of this CPU: AMX, AVX-512, AVX2, NEON or SVE.

    Raises:
        MissingDependencyError: If NumKong is not installed.
    """

    name = "numkong"

    def __init__(self) -> None:
        try:
            import numkong
        except ImportError as error:
            raise MissingDependencyError("numkong", "fast", needed_for="this kernel") from error
        self._numkong = numkong
        self._tiles = numkong.get_capabilities().get("sapphireamx", False)

    def prepare(self, matrix: Int8Array, vectors: Int8Array, norm: float) -> Sums:
        """Implement `Kernel.prepare`.

        Args:
            matrix: int8 array of shape (n, d).
            vectors: int8 array of shape (m, d).
            norm: Not used.

        Returns:
            Function of `start` and `end`, see `Kernel.prepare`.
        """
        count, dimension = vectors.shape
        multiply = self._numkong.dots_packed
        packed = self._packed(vectors)
        # AMX multiplies with 16 vectors in the time of one and is fastest on long rows. So several
        # rows form one long row, and each is multiplied with its own copy of the vectors.
        rows_joined = max(1, _TILE // count) if self._tiles else 1
        packed_long = self._packed(np.kron(np.eye(rows_joined, dtype=np.int8), vectors))

        def sums(start: int, end: int) -> npt.NDArray[Any]:
            middle = end - (end - start) % rows_joined
            long = matrix[start:middle].reshape(-1, rows_joined * dimension)
            products = np.asarray(multiply(long, packed_long)).reshape(-1, count)
            if middle == end:
                return products
            rest = np.asarray(multiply(matrix[middle:end], packed))
            return np.concatenate([products, rest])

        return sums

    def _packed(self, vectors: Int8Array) -> Any:
        return self._numkong.dots_pack(np.ascontiguousarray(vectors), dtype="int8")


class TorchKernel:
    """Products on a torch device; the matrix is copied there once and stays if memory permits.

    Integers up to 127 are exact in float32 and in TF32, and sums below 2^24 are exact in any order;
    larger sums use float64.

    Args:
        device: A torch device.

    Raises:
        MissingDependencyError: If torch is not installed.
        UsageError: If the device cannot be used.
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
        self._device_matrix: Any = None
        self._source_ref: weakref.ref[Any] | None = None

    def prepare(self, matrix: Int8Array, vectors: Int8Array, norm: float) -> Sums:
        """Implement `Kernel.prepare`.

        Args:
            matrix: int8 array of shape (n, d).
            vectors: int8 array of shape (m, d).
            norm: Upper bound of the length of the matrix rows.

        Returns:
            Function of `start` and `end`, see `Kernel.prepare`.
        """
        torch = self._torch
        kind = torch.float32 if _exact_float(vectors, norm) is np.float32 else torch.float64
        columns = torch.from_numpy(vectors).to(self._device, kind).T
        resident = self._resident(matrix)

        def sums(start: int, end: int) -> npt.NDArray[Any]:
            if resident is None:
                rows = torch.from_numpy(np.array(matrix[start:end])).to(self._device)
            else:
                rows = resident[start:end]
            products: npt.NDArray[Any] = (rows.to(kind) @ columns).cpu().numpy()
            return products

        return sums

    def _resident(self, matrix: Int8Array) -> Any:
        if self._source_ref is None or self._source_ref() is not matrix:
            self._device_matrix = None
            if self._device.type == "cuda":
                free, _ = self._torch.cuda.mem_get_info(self._device)
                if 2 * matrix.nbytes > free:
                    return None
            device_matrix = self._torch.empty(
                matrix.shape, dtype=self._torch.int8, device=self._device
            )
            step = max(1, 2**26 // max(1, matrix.shape[1]))
            for start in range(0, len(matrix), step):
                chunk = np.array(matrix[start : start + step])
                device_matrix[start : start + len(chunk)] = self._torch.from_numpy(chunk)
            self._device_matrix, self._source_ref = device_matrix, weakref.ref(matrix, self._forget)
        return self._device_matrix

    def _forget(self, matrix: object) -> None:
        if self._source_ref is matrix:
            self._device_matrix = self._source_ref = None


_ready: dict[str, Kernel] = {}


def choose_kernel(name: str = "auto") -> Kernel:
    """Return a kernel by name.

    `auto` selects NumKong if installed, else a GPU if torch is already imported and has one, else
    numpy.

    Args:
        name: One of KERNELS.

    Returns:
        The kernel, cached for later calls.

    Raises:
        UsageError: If the name is unknown.
        MissingDependencyError: If the library is not installed.
    """
    if name not in KERNELS:
        raise UnknownNameError("kernel", name, KERNELS)
    if name == "auto":
        try:
            return _cached_kernel("numkong", NumkongKernel)
        except MissingDependencyError:
            # Importing torch takes longer than the search.
            torch = sys.modules.get("torch")
            gpu = torch is not None and torch.cuda.is_available()
            return (
                _cached_kernel("torch", TorchKernel)
                if gpu
                else _cached_kernel("numpy", NumpyKernel)
            )
    makers: dict[str, Callable[[], Kernel]] = {
        "numpy": NumpyKernel,
        "numkong": NumkongKernel,
        "torch": TorchKernel,
    }
    return _cached_kernel(name, makers[name])


def _cached_kernel(name: str, make: Callable[[], Kernel]) -> Kernel:
    if name not in _ready:
        _ready[name] = make()
    return _ready[name]


def _exact_float(vectors: Int8Array, norm: float) -> type[np.float32] | type[np.float64]:
    """Return the float type in which all partial sums are exact.

    By Cauchy-Schwarz no partial sum exceeds the product of the lengths, in any order.
    """
    longest = np.linalg.norm(vectors.astype(np.float64), axis=1).max(initial=0.0)
    return np.float32 if norm * longest * (1 + 1e-9) < _EXACT_FLOAT32 else np.float64


class Converter:
    """Convert float16 or float32 rows to float32 in a cache-sized buffer; use one per thread.

    Attributes:
        rows: Maximum number of rows per call.
    """

    def __init__(self, dimension: int) -> None:
        self.rows = max(1, _HALF_CHUNK_BYTES // (4 * dimension))
        self._floats = np.empty((self.rows, dimension), dtype=np.float32)
        self._widen = _fastest_widen()

    def __call__(self, vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Convert at most `rows` rows; the next call overwrites the returned array."""
        floats = self._floats[: len(vectors)]
        if vectors.dtype == np.float16:
            self._widen(vectors, floats)
        else:
            np.copyto(floats, vectors)
        return floats


def widen(halves: npt.NDArray[np.float16], out: npt.NDArray[np.float32]) -> None:
    """Convert float16 to float32, exact for all finite values, subnormal ones included.

    numpy converts one by one; shifting the bits and scaling by 2^112 takes half the time.

    Args:
        halves: float16 array.
        out: float32 array of the same shape that receives the values.
    """
    bits = out.view(np.int32)
    np.copyto(bits, halves.view(np.int16))
    bits <<= 13
    bits &= _KEEP_SIGN
    out *= _SCALE


@cache
def _fastest_widen() -> Widen:
    """Return NumKong's conversion if correct for every finite float16, else `widen`."""
    try:
        import numkong
    except ImportError:
        return widen
    samples = np.arange(2**16, dtype=np.uint16).view(np.float16)
    samples = samples[np.isfinite(samples)]
    converted = np.empty(len(samples), dtype=np.float32)
    numkong.astype(samples, "float32", out=converted)
    if not np.array_equal(converted, samples.astype(np.float32)):
        return widen
    return lambda halves, out: numkong.astype(halves, "float32", out=out)


class WrongBoundsError(Exception):
    """A score lies outside its computed bounds: the index or a stored row is damaged."""


def exact_scores(
    vectors: npt.NDArray[Any], query: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Compute inner products, each rounded once to the nearest float32 (ties to even).

    Error bound of the float64 sums: Higham, Accuracy and Stability of Numerical Algorithms,
    section 3.1, with u = 2^-53.

    Args:
        vectors: float16 or float32 array of shape (n, dim), rows of about unit length.
        query: float32 array of shape (dim,).

    Returns:
        float32 array of shape (n,).

    Raises:
        WrongBoundsError: If a score is not finite.
    """
    count, dimension = vectors.shape
    wide = query.astype(np.float64)
    # gamma_d |x| |q| (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1) with
    # u = 2^-53, twice over for the two sums below.
    tolerance = 2.0**-52 * (dimension + 2) * MAX_NORM * float(np.linalg.norm(wide))
    convert = Converter(dimension)
    dot = _dot_function(query)
    totals = np.empty(count)
    for start in range(0, count, convert.rows):
        rows = convert(vectors[start : start + convert.rows])
        totals[start : start + len(rows)] = dot(rows)
    if not np.isfinite(totals).all():
        raise WrongBoundsError
    scores: npt.NDArray[np.float32] = (totals - tolerance).astype(np.float32)
    for row in np.flatnonzero(scores != (totals + tolerance).astype(np.float32)):
        scores[row] = _nearest_float32(vectors[row].astype(np.float64) * wide)
    return scores


def _dot_function(query: npt.NDArray[np.float32]) -> ExactSums:
    """Return a function that multiplies float32 rows with `query` in float64."""
    numkong = _exact_numkong()
    if numkong is not None:
        packed = numkong.dots_pack(np.ascontiguousarray(query)[None], dtype="float32")
        return lambda rows: np.asarray(numkong.dots_packed(rows, packed))[:, 0]
    wide = query.astype(np.float64)[:, None]

    def dot(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        products = np.empty((len(rows), 1))
        thread_products(rows.astype(np.float64), wide, products)
        return products[:, 0]

    return dot


@cache
def _exact_numkong() -> Any:
    """Return the NumKong module if its float32 products accumulate in float64, else None.

    The check uses cancelling terms and dimensions that leave every register remainder.
    """
    try:
        import numkong
    except ImportError:
        return None
    rng = np.random.default_rng(0)
    for dimension in (1, 3, 17, 31, 100, 1031):
        rows = rng.standard_normal((20, dimension)).astype(np.float32)
        query = rng.standard_normal(dimension).astype(np.float32)
        half = dimension // 2
        rows[10:, half : 2 * half] = -rows[10:, :half]
        query[half : 2 * half] = query[:half]
        packed = numkong.dots_pack(query[None], dtype="float32")
        products = np.asarray(numkong.dots_packed(rows, packed))
        terms = rows.astype(np.float64) * query.astype(np.float64)
        off = np.abs(products[:, 0] - np.array([math.fsum(row_terms) for row_terms in terms]))
        if (
            products.dtype != np.float64
            or (off > 2.0**-53 * dimension * np.abs(terms).sum(1)).any()
        ):
            return None
    return numkong


def _nearest_float32(terms: npt.NDArray[np.float64]) -> np.float32:
    """Round the sum of `terms` to float32; the terms are exact products of two float32 numbers."""
    total = math.fsum(terms)
    near = np.float32(total)
    if float(near) == total:
        return near
    other = np.nextafter(near, np.float32(math.copysign(math.inf, total - float(near))))
    if (float(near) + float(other)) / 2 != total:
        return near
    # The float64 sum is exactly the midpoint; the sign of its error decides.
    rest = math.fsum([*terms, -total])
    if rest == 0:
        return near
    return max(near, other) if rest > 0 else min(near, other)
