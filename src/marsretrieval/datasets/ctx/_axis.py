"""Weights of gdalwarp's bilinear kernel along one axis, ready for banded matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["Axis", "axis"]

# GDAL widens the kernel only where it shrinks by more than 5 % (gdalwarpkernel.cpp).
_WIDENED_FROM = 1 / 0.95
_BLOCK = 8  # outputs of one product: few enough that little is multiplied by zero


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
def axis(length: int, origin: float, step: float, count: int) -> Axis:
    """`count` outputs, each `step` source pixels wide, from `origin` (in source pixels) on.

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
    start, bands = _blocks(pixels, weights, length)
    return Axis(
        first=first,
        weights=weights,
        centre=np.clip(np.floor(middles), 0, length - 1).astype(np.intp),
        start=start,
        bands=bands,
        step=step,
    )


def _blocks(
    pixels: npt.NDArray[np.intp], weights: npt.NDArray[np.float64], length: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    used = weights > 0
    edges = range(0, len(pixels), _BLOCK)
    low = np.array(
        [pixels[i : i + _BLOCK][used[i : i + _BLOCK]].min(initial=length) for i in edges]
    )
    high = np.array([pixels[i : i + _BLOCK][used[i : i + _BLOCK]].max(initial=0) for i in edges])
    width = min(length, int(np.max(high - low)) + 1)
    start = np.clip(low, 0, length - width)
    bands = np.zeros((len(start), _BLOCK, width), dtype=np.float32)
    output, tap = np.nonzero(used)
    block = output // _BLOCK
    bands[block, output % _BLOCK, pixels[output, tap] - start[block]] = weights[output, tap]
    return start, bands
