"""Bilinear resampling with gdalwarp's kernel: identical pixels, several times faster.

The kernel is separable, so a tile is two banded matrix products in float32. Pixels so near to a
rounding boundary that the float32 error could change them are computed again in float64, so the
result equals that of float64 throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

# Outputs of one product: few, so that little is multiplied by zero. For tiles of the mosaic (4.6
# source pixels to an output) 3 to 8 rows and 8 to 32 columns are all about as fast.
ROW_BLOCK = 4
COLUMN_BLOCK = 16

# GDAL widens the kernel only where it shrinks by more than 5 % (gdalwarpkernel.cpp).
_WIDENED_FROM = 1 / 0.95
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
PixelIndices = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
# Source columns per product, and bytes of rows resampled in y only: both fit into the cache.
_COLUMNS = 2500
_HALF_BYTES = 5 * 2**18
# OpenBLAS computes products of up to this many multiply-adds on the calling thread. Larger ones
# would use threads that are already busy with other tiles.
_SERIAL = 2**18
_RECOMPUTED = 2**20  # source pixels gathered at once
_EPSILON: float = 2.0**-24 * 255
# Error of GDAL's own coordinates, in grey levels: closer to a half it may round either way.
_TIE = 1e-7


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """Resampling weights along one axis, for n outputs.

    Attributes:
        first: (n,) first source pixel of each output.
        weights: (n, taps) weights: output i is the sum over t of
            weights[i, t] * source[first[i] + t]. They sum to 1 and are 0 outside the source.
        centre: (n,) source pixel under the middle of each output.
        start: (m,) first source pixel of each block of outputs.
        bands: (m, block, width) weights of each block; 0 past the last output.
        step: Source pixels per output.
    """

    first: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float64]
    centre: npt.NDArray[np.intp]
    start: npt.NDArray[np.intp]
    bands: npt.NDArray[np.float32]
    step: float

    @property
    def count(self) -> int:
        """Number of outputs."""
        return len(self.first)


@lru_cache(maxsize=256)
def axis(length: int, origin: float, step: float, count: int, block: int) -> Axis:
    """Compute the resampling weights along one axis.

    The kernel is gdalwarp's bilinear one (gdalwarpkernel.cpp): a triangle whose half width is that
    of an output, but at least one source pixel. Weights outside the source are dropped and the
    others are normalized.

    Args:
        length: Number of source pixels.
        origin: West or north edge of the first output, in source pixels.
        step: Source pixels per output.
        count: Number of outputs.
        block: Outputs per block.

    Returns:
        The weights.
    """
    radius = step if step > _WIDENED_FROM else 1.0
    middles = origin + (np.arange(count) + 0.5) * step
    first = np.floor(middles - radius - 0.5).astype(np.intp) + 1
    pixels = first[:, None] + np.arange(int(np.ceil(2 * radius)) + 1)
    weights = np.maximum(0.0, 1 - np.abs(pixels + 0.5 - middles[:, None]) / radius)
    weights[(pixels < 0) | (pixels >= length)] = 0
    total = weights.sum(axis=1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    start, bands = _blocks(pixels, weights, length, block)
    return Axis(
        first=first,
        weights=weights,
        centre=np.clip(np.floor(middles), 0, length - 1).astype(np.intp),
        start=start,
        bands=bands,
        step=step,
    )


@dataclass(frozen=True, slots=True)
class Resampled:
    """Resampled image.

    Attributes:
        pixels: uint8 array of shape (rows, columns).
        ties: Number of pixels so close to a half that GDAL may round them down.
    """

    pixels: Bytes
    ties: int


def resample(source: Bytes, y: Axis, x: Axis, *, no_data: int | None) -> Resampled:
    """Resample an image.

    With `no_data`, pixels of that value do not contribute, and an output whose middle lies on one
    of them is 0, as with gdalwarp for a file with a nodata tag.

    Args:
        source: uint8 array of shape (h, w).
        y: Weights of the rows.
        x: Weights of the columns.
        no_data: Value of pixels without data, or None.

    Returns:
        Image of shape (y.count, x.count).
    """
    if no_data is not None:
        valid = source != no_data
        if not valid.all():
            return _masked(np.where(valid, source, 0).astype(np.uint8), valid, y, x)
    values = _product(source, y, x)
    pixels, (rows, columns) = _rounded(values, np.float32(_error(y, x)))
    ties = 0
    for part in _parts(len(rows), y, x):
        precise = _precise(source, y, x, rows[part], columns[part])
        ties += int(np.count_nonzero(_from_half(precise) < _TIE))
        pixels[rows[part], columns[part]] = np.floor(precise + 0.5)
    return Resampled(pixels, ties)


def _blocks(
    pixels: npt.NDArray[np.intp], weights: npt.NDArray[np.float64], length: int, block: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    used = weights > 0
    parts = [slice(first, first + block) for first in range(0, len(pixels), block)]
    low = np.array([pixels[part][used[part]].min(initial=length) for part in parts])
    high = np.array([pixels[part][used[part]].max(initial=0) for part in parts])
    width = min(length, int(np.max(high - low)) + 1)
    start = np.clip(low, 0, length - width)
    bands = np.zeros((len(parts), block, width), dtype=np.float32)
    output, tap = np.nonzero(used)
    of, within = np.divmod(output, block)
    bands[of, within, pixels[output, tap] - start[of]] = weights[output, tap]
    return start, bands


def _masked(source: Bytes, valid: npt.NDArray[np.bool_], y: Axis, x: Axis) -> Resampled:
    mask = valid.view(np.uint8)
    share = _product(mask, y, x)
    has_data = valid[np.ix_(y.centre, x.centre)] & (share > 0)
    values = np.divide(_product(source, y, x), share, out=np.zeros_like(share), where=has_data)
    error = (2 * _error(y, x) / np.maximum(share, 1e-6)).astype(np.float32)
    pixels, (rows, columns) = _rounded(values, error)
    valid_ties = has_data[rows, columns]
    rows, columns = rows[valid_ties], columns[valid_ties]
    ties = 0
    for part in _parts(len(rows), y, x):
        i, j = rows[part], columns[part]
        precise = _precise(source, y, x, i, j) / _precise(mask, y, x, i, j)
        ties += int(np.count_nonzero(_from_half(precise) < _TIE))
        pixels[i, j] = np.floor(precise + 0.5)
    return Resampled(pixels, ties)


def _product(source: Bytes, y: Axis, x: Axis) -> Floats:
    """Apply both weight matrices; the result has shape (y.count, x.count)."""
    _, block, width = x.bands.shape
    rows = len(y.start) * y.bands.shape[1]
    at_once = max(1, int(_COLUMNS / (block * x.step)))
    out = np.empty((rows, len(x.start) * block), dtype=np.float32)
    for b in range(0, len(x.start), at_once):
        start, bands = x.start[b : b + at_once], x.bands[b : b + at_once]
        west, east = int(start.min()), int(start.max()) + width
        part = out[:, b * block : (b + at_once) * block]
        _columns(source[:, west:east], y, start - west, bands, part)
    return out[: y.count, : x.count]


def _columns(
    source: Bytes, y: Axis, start: npt.NDArray[np.intp], bands: Floats, out: Floats
) -> None:
    """Compute all rows of some blocks of columns: along y first, then along x."""
    _, block, taps = y.bands.shape
    _, out_width, width = bands.shape
    source_width = source.shape[1]
    group = min(_HALF_BYTES // (block * source_width * 4), _SERIAL // (block * out_width * width))
    group = max(1, min(group, len(y.start)))
    step = max(64, _SERIAL // (block * taps))
    weights = np.ascontiguousarray(bands.swapaxes(1, 2))  # (blocks, width, across)
    strip = np.empty((taps, source_width), dtype=np.float32)
    half = np.empty((group * block, source_width), dtype=np.float32)
    for g in range(0, len(y.start), group):
        row_starts = y.start[g : g + group].tolist()
        for i, first in enumerate(row_starts):
            np.copyto(strip, source[first : first + taps])
            rows = half[i * block : (i + 1) * block]
            for c in range(0, source_width, step):
                np.matmul(y.bands[g + i], strip[:, c : c + step], out=rows[:, c : c + step])
        finished = out[g * block : (g + len(row_starts)) * block]
        for b, first in enumerate(start.tolist()):
            part = finished[:, b * out_width : (b + 1) * out_width]
            np.matmul(half[: len(finished), first : first + width], weights[b], out=part)


def _error(y: Axis, x: Axis) -> float:
    """Bound the float32 error of a product in grey levels: rounded weights and rounded sums."""
    return float(y.weights.shape[1] + x.weights.shape[1] + 6) * _EPSILON


def _rounded(values: Floats, error: np.float32 | Floats) -> tuple[Bytes, PixelIndices]:
    """Round to bytes; find the (rows, columns) that `error` could change. Overwrites `values`."""
    values += np.float32(0.5)
    up = np.floor(values)
    pixels = up.astype(np.uint8)
    values -= up
    values -= np.float32(0.5)
    np.abs(values, out=values)
    rows, columns = np.divmod(np.flatnonzero(values >= np.float32(0.5) - error), pixels.shape[1])
    return pixels, (rows, columns)


def _from_half(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    distance: npt.NDArray[np.float64] = np.abs(values - np.floor(values) - 0.5)
    return distance


def _parts(count: int, y: Axis, x: Axis) -> list[slice]:
    step = max(1, _RECOMPUTED // (y.weights.shape[1] * x.weights.shape[1]))
    return [slice(i, i + step) for i in range(0, count, step)]


def _precise(
    source: Bytes,
    y: Axis,
    x: Axis,
    rows: npt.NDArray[np.intp],
    columns: npt.NDArray[np.intp],
) -> npt.NDArray[np.float64]:
    """Compute the outputs at (rows, columns) in float64, shape (n,)."""
    height, width = source.shape
    i = np.clip(y.first[rows, None] + np.arange(y.weights.shape[1]), 0, height - 1)
    j = np.clip(x.first[columns, None] + np.arange(x.weights.shape[1]), 0, width - 1)
    taken = source[i[:, :, None], j[:, None, :]].astype(np.float64)
    values: npt.NDArray[np.float64] = np.einsum(
        "nij,ni,nj->n", taken, y.weights[rows], x.weights[columns]
    )
    return values
