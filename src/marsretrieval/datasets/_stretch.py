"""More than 8 bits to 8: one linear stretch, in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK = 4_000_000  # values held as float64 at a time
# ISIS writes its special pixels (null, saturated) as float32 near -3.4e38.
_SPECIAL = 1e38


def stretch(
    values: npt.NDArray[Any], nodata: float | None = None, valid: npt.NDArray[Any] | None = None
) -> npt.NDArray[np.uint8]:
    """Map the least to the greatest value of (height, width, ...) onto 0 to 255.

    What is no measurement becomes 0 and has no part in the range: NaN, infinities, magnitudes
    above 1e38 (the special pixels of ISIS), `nodata`, and pixels where `valid` (height, width) is
    0. Values all alike become 128, or 0 where they are 0. Channels share one range.
    """
    low, high = np.inf, -np.inf
    for _, block, good in _blocks(values, nodata, valid):
        low = min(low, float(np.min(block, where=good, initial=np.inf)))
        high = max(high, float(np.max(block, where=good, initial=-np.inf)))
    grey = np.zeros(values.shape, np.uint8)
    for start, block, good in _blocks(values, nodata, valid):
        if high > low:
            scaled = np.rint((block - low) * (255 / (high - low)))
        else:
            scaled = np.full(block.shape, 0.0 if high == 0 else 128.0)
        scaled[~good] = 0
        grey[start : start + len(block)] = scaled.astype(np.uint8)
    return grey


def _blocks(
    values: npt.NDArray[Any], nodata: float | None, valid: npt.NDArray[Any] | None
) -> Iterator[tuple[int, npt.NDArray[np.float64], npt.NDArray[np.bool_]]]:
    """First row, values, and which of them are measurements."""
    rows = max(1, _BLOCK // max(1, values[:1].size))
    for start in range(0, len(values), rows):
        raw = values[start : start + rows]
        block = raw.astype(np.float64)
        with np.errstate(invalid="ignore"):
            good = np.abs(block) < _SPECIAL  # false for NaN
        if nodata is not None:
            # In the precision of the file: 64-bit -3.4e38 is no float32.
            with np.errstate(over="ignore"):
                good &= block != float(np.float64(nodata).astype(_precision(raw)))
        if valid is not None:
            part = valid[start : start + rows] != 0
            good &= part.reshape(part.shape + (1,) * (block.ndim - part.ndim))
        yield start, np.where(good, block, 0), good


def _precision(raw: npt.NDArray[Any]) -> Any:
    return np.float32 if raw.dtype == np.float32 else np.float64
