"""Images and rasters on maps: the base map, and resampling into the plane of a map.

The base map of the package, `viking_mdim21.jpg`, is the Viking MDIM 2.1 mosaic (USGS/NASA/JPL,
public domain), reduced to 2880 x 1440 pixels and grey. Its contrast is evened out (deviation from a
Gaussian mean of 5.6 degrees in units of the local standard deviation, plus 0.4 of that mean), so
that relief is visible everywhere and no bright plain competes with the colours of scores.
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError, UsageError
from marsretrieval.geo import Box

Floats = npt.NDArray[np.float64]

VIKING = "viking"
VIKING_LEVELS = (48.0, 208.0)  # most of its pixels lie between
CREDIT = "Base map: Viking MDIM 2.1, USGS/NASA/JPL"
_MIN_PIXELS = 100  # of a base map across a map; fewer show nothing


def check_basemap(basemap: str) -> None:
    """Check a base map without decoding it.

    Args:
        basemap: `viking`, `none`, or an image file that covers -180..180, 90..-90 degrees.

    Raises:
        DataError: If the file is missing or no image.
        UsageError: If it is not twice as wide as high, or too large.
    """
    if basemap in (VIKING, "none"):
        return
    from PIL import Image, UnidentifiedImageError

    path = Path(basemap)
    remedy = "Use viking, none, or an image file that covers -180..180, 90..-90 degrees."
    try:
        with Image.open(path) as image:
            width, height = image.size
    except FileNotFoundError as error:
        raise DataError(f"base map {path}: no such file", remedy=remedy) from error
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"base map {path}: not readable ({error})", remedy=remedy) from error
    if abs(width - 2 * height) > max(2, 0.01 * width):
        raise UsageError(
            f"base map {path}: {width} x {height} pixels, not twice as wide as high", remedy=remedy
        )


def viking_path() -> Path:
    """Return the file of the package's base map, a grey JPEG of 2880 x 1440 pixels."""
    return Path(str(resources.files("marsretrieval.plotting").joinpath("viking_mdim21.jpg")))


@lru_cache(maxsize=2)
def read_basemap(basemap: str) -> npt.NDArray[np.uint8]:
    """Decode a base map.

    Args:
        basemap: `viking`, or an image file that passed `check_basemap`.

    Returns:
        Array of shape (rows, columns) for `viking`, else (rows, columns, 3).

    Raises:
        DataError: If the file cannot be decoded.
    """
    from PIL import Image

    file = viking_path() if basemap == VIKING else Path(basemap)
    try:
        with file.open("rb") as stream, Image.open(stream) as image:
            return np.asarray(image.convert("L" if basemap == VIKING else "RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"base map {basemap}: cannot be decoded ({error})",
            remedy="Name an image in PNG, JPEG or TIFF format.",
        ) from error


def is_fine_enough(columns: int, box: Box) -> bool:
    """Whether a base map has enough pixels for a map.

    Args:
        columns: Columns of the base map around the planet.
        box: Area of the map.

    Returns:
        True if the longer side of the map is at least 100 of its pixels.
    """
    return max(min(box.width, 360.0), box.height) / 360 * columns >= _MIN_PIXELS


def sample(
    array: npt.NDArray[Any],
    box: Box,
    lon: Floats,
    lat: Floats,
    *,
    pixel_deg: float,
    smooth: bool,
) -> Floats:
    """Look up an equirectangular image at positions.

    Args:
        array: Shape (rows, columns) or (rows, columns, 3 or 4), north up.
        box: What the image covers.
        lon: Longitudes in degrees, broadcastable with `lat` to shape (m, n).
        lat: Latitudes in degrees.
        pixel_deg: Distance of neighbouring positions in degrees.
        smooth: Average and interpolate; otherwise take the highest value around each position.

    Returns:
        Array of shape (m, n), NaN outside, or (m, n, 4) of 0 to 1, transparent outside.
    """
    rows, columns = array.shape[:2]
    span = box.east - box.west if box.east > box.west else box.width  # may exceed 360
    column = np.remainder(lon - box.west, 360.0) / span * columns
    row = (box.north - lat) / box.height * rows
    # Comparisons with NaN are False.
    in_columns = (column >= 0) & (column < columns)
    in_rows = (row >= 0) & (row < rows)
    inside = in_columns & in_rows
    column, row = np.where(in_columns, column, 0), np.where(in_rows, row, 0)
    ratios = (pixel_deg * rows / box.height, pixel_deg * columns / span)
    if smooth:
        factor = max(1, int(ratios[1] + 0.3))
        image = _interpolate(array, column, row, factor, closed=span == 360)
    else:
        high, wide = (max(1, math.ceil(ratio - 1e-6)) for ratio in ratios)
        peaks = reduce_by_maximum(array, high, wide).astype(np.float64)
        image = peaks[row.astype(np.int64) // high, column.astype(np.int64) // wide]
    if array.ndim == 2:
        return np.where(inside, image, np.nan)
    scale = 255.0 if array.dtype == np.uint8 else 1.0
    opaque = image[..., 3] / scale if array.shape[2] == 4 else np.ones(inside.shape)
    return np.dstack([image[..., :3] / scale, np.where(inside, opaque, 0.0)])


def _interpolate(
    array: npt.NDArray[Any], column: Floats, row: Floats, factor: int, *, closed: bool
) -> Floats:
    """Interpolate bilinearly in an image averaged over blocks of `factor` pixels."""
    bands = array[..., None] if array.ndim == 2 else array
    high, wide = (max(size // factor, 1) for size in bands.shape[:2])
    if factor > 1 and high * factor <= len(bands) and wide * factor <= bands.shape[1]:
        blocks = bands[: high * factor, : wide * factor].reshape(high, factor, wide, factor, -1)
        bands = blocks.mean(axis=(1, 3))
        column, row = column / factor, row / factor
    rows, columns = bands.shape[:2]
    x, y = column - 0.5, np.clip(row - 0.5, 0, rows - 1)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    u, v = (x - left)[..., None], (y - top)[..., None]
    right, bottom = left + 1, np.minimum(top + 1, rows - 1)
    if closed:
        left, right = left % columns, right % columns
    left, right = (np.clip(index, 0, columns - 1) for index in (left, right))
    upper = bands[top, left] * (1 - u) + bands[top, right] * u
    lower = bands[bottom, left] * (1 - u) + bands[bottom, right] * u
    image = upper * (1 - v) + lower * v
    return np.asarray(image[..., 0] if array.ndim == 2 else image)


def reduce_by_maximum(array: npt.NDArray[Any], rows: int, columns: int) -> npt.NDArray[Any]:
    """Reduce a raster so that no high value is lost.

    Args:
        array: Shape (rows, columns); NaN where there is no value.
        rows: Rows per pixel of the result.
        columns: Columns per pixel of the result.

    Returns:
        The maximum of each block, NaN where all values are.
    """
    if rows > 1:
        array = np.fmax.reduceat(array, np.arange(0, array.shape[0], rows), axis=0)
    if columns > 1:
        array = np.fmax.reduceat(array, np.arange(0, array.shape[1], columns), axis=1)
    return array


def grow(array: Floats, pixels: int) -> Floats:
    """Extend values into empty neighbours, so that single pixels are visible.

    Args:
        array: Shape (rows, columns); NaN where there is no value.
        pixels: Side of the square that a single pixel becomes, odd; 1 changes nothing.

    Returns:
        The raster; present values are unchanged.
    """
    if pixels <= 1:
        return array
    from scipy.ndimage import maximum_filter

    filled = np.where(np.isfinite(array), array, -np.inf)
    grown = maximum_filter(filled, size=pixels, mode="nearest")
    grown[~np.isfinite(grown)] = np.nan
    return np.where(np.isfinite(array), array, grown)
