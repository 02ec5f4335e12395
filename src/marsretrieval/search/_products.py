"""Matrix products on the calling thread alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

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
