"""Map the values of a raster to 8 bits, with limits that are computed once per raster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets.rasters.source import Mask, Raster, Values
from marsretrieval.errors import DataError

METHODS = ("percentile", "std", "minmax", "none")
PERCENTILES = (1.0, 99.0)
DEVIATIONS = 2.5


@dataclass(frozen=True, slots=True)
class Stretch:
    """Linear stretch of the bands of a raster.

    Attributes:
        method: One of `METHODS`.
        low: Value per band that becomes 0.
        high: Value per band that becomes 255.
    """

    method: str
    low: tuple[float, ...]
    high: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the stretch as plain data for JSON."""
        return {"method": self.method, "low": list(self.low), "high": list(self.high)}

    def apply(self, values: Values, valid: Mask) -> npt.NDArray[np.uint8]:
        """Convert values to 8 bits; invalid pixels become 0.

        Args:
            values: Array of shape (bands, rows, columns).
            valid: Mask of shape (rows, columns).

        Returns:
            uint8 array of shape (rows, columns) for one band, else (rows, columns, bands).
        """
        if self.method == "none":
            grey = values.astype(np.uint8)
        else:
            grey = np.empty(values.shape, dtype=np.uint8)
            for band, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
                grey[band] = _scale(values[band], valid, low, high)
        grey[:, ~valid] = 0
        return grey[0] if len(grey) == 1 else np.ascontiguousarray(np.moveaxis(grey, 0, -1))


def compute_stretch(raster: Raster, method: str | None) -> Stretch:
    """Compute the limits of a raster's stretch from a decimated read of all of it.

    `percentile` stretches from the 1st to the 99th percentile, `std` from 2.5 standard deviations
    below to 2.5 above the mean, within the smallest and largest value, and `minmax` from the
    smallest to the largest value. The sample has at most 2048 x 2048 pixels.

    Args:
        raster: The open raster.
        method: One of `METHODS`; None: `none` for 8-bit rasters, else `percentile`.

    Returns:
        The stretch.

    Raises:
        DataError: If `none` is asked for more than 8 bits, or the sample has no valid pixel.
    """
    if method is None:
        method = "none" if raster.dtype == "uint8" else "percentile"
    if method == "none":
        if raster.dtype != "uint8":
            raise DataError(
                f"{raster.path}: values of type {raster.dtype}, which --stretch none cannot show",
                remedy="Use --stretch percentile, std or minmax.",
            )
        return Stretch("none", (0.0,) * len(raster.bands), (255.0,) * len(raster.bands))
    values, valid = raster.sample()
    if not valid.any():
        raise DataError(
            f"{raster.path}: no valid pixel in a sample of {valid.size:,} pixels (all no-data)",
            remedy="Check its no-data value (gdalinfo), or set another with --nodata.",
        )
    limits = [_limits(band[valid].astype(np.float64), method) for band in values]
    return Stretch(method, tuple(low for low, _ in limits), tuple(high for _, high in limits))


def _limits(values: npt.NDArray[np.float64], method: str) -> tuple[float, float]:
    smallest, largest = float(values.min()), float(values.max())
    if method == "percentile":
        low, high = (float(limit) for limit in np.percentile(values, PERCENTILES))
    elif method == "std":
        mean, deviation = float(values.mean()), float(values.std())
        low = max(mean - DEVIATIONS * deviation, smallest)
        high = min(mean + DEVIATIONS * deviation, largest)
    else:
        low, high = smallest, largest
    # A few bright pixels on an even ground leave no range between percentiles.
    return (low, high) if high > low else (smallest, largest)


def _scale(
    values: npt.NDArray[Any], valid: Mask, low: float, high: float
) -> npt.NDArray[np.float32]:
    if high <= low:  # the sample is constant
        return np.full(values.shape, 0 if high == 0 else 128, dtype=np.float32)
    filled = np.where(valid, values, low).astype(np.float64)
    return np.rint(np.clip((filled - low) * (255 / (high - low)), 0, 255)).astype(np.float32)
