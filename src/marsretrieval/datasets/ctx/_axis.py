"""Weights of gdalwarp's bilinear kernel along one axis, ready for banded matrix products."""

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


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """How n outputs are made from source pixels.

    first, weights: output i is the sum over t of weights[i, t] * source[first[i] + t]; (n,) and
    (n, taps), weights sum to 1 and are 0 outside the source.
    centre: the source pixel under the middle of each output, (n,).
    start, bands: the same for blocks of outputs: (m,) first source pixels, (m, block, width)
    weights; past the last output the weights are 0.
    step: source pixels an output.
    """

    first: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float64]
    centre: npt.NDArray[np.intp]
    start: npt.NDArray[np.intp]
    bands: npt.NDArray[np.float32]
    step: float

    @property
    def count(self) -> int:
        return len(self.first)


@lru_cache(maxsize=256)
def axis(length: int, origin: float, step: float, count: int, block: int) -> Axis:
    """`count` outputs, each `step` source pixels wide, from `origin` (in source pixels) on, in
    blocks of `block`.

    The kernel is a triangle as wide to each side as an output, but no narrower than a source
    pixel; what falls outside the `length` source pixels is left out and the rest weighs more.
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
