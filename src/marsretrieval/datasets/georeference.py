"""Positions from GeoTIFF georeferences and world files."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from marsretrieval import geo
from marsretrieval.datasets.geotiff import open_gtiff
from marsretrieval.datasets.listing import WORLD_FILE_SUFFIXES, is_tiff
from marsretrieval.datasets.position_fields import Position
from marsretrieval.errors import DataError

if TYPE_CHECKING:
    from rasterio.crs import CRS

_GEO_TAGS = (34264, 33550, 33922, 34735)  # transformation, pixel scale, tie points, keys

logger = logging.getLogger(__name__)
Floats = npt.NDArray[np.float64]
ToDegrees = Callable[[Floats, Floats], tuple[Floats, Floats]]


class MissingRasterioError(ValueError):
    """A georeference that needs rasterio, which is not installed."""


def world_file_suffixes(suffix: str) -> tuple[str, ...]:
    """List the world file extensions of an image extension (.pgw, .pngw and .wld for .png).

    Args:
        suffix: Extension of the image, with its dot.

    Returns:
        Extensions in the order in which they are tried.
    """
    letters = suffix.lower().lstrip(".")
    return f".{letters[0]}{letters[-1]}w", f".{letters}w", ".wld"


def is_world_file(suffix: str) -> bool:
    """Check for the extension of a world file.

    Args:
        suffix: Extension of a file, with its dot.

    Returns:
        True for the world file extensions of any image format.
    """
    return suffix.lower() in WORLD_FILE_SUFFIXES


def read_georeference(data: bytes) -> Position | None:
    """Read the position stored in a GeoTIFF.

    Args:
        data: An encoded image.

    Returns:
        The centre and extent, or None if the image is not a TIFF or has no georeference.

    Raises:
        ValueError: If the georeference cannot be read, or is not of Mars.
        MissingRasterioError: If rasterio is required but not installed.
    """
    if not is_tiff(data) or not _has_geo_tags(data):
        return None
    try:
        from rasterio.errors import RasterioError
    except ModuleNotFoundError as error:
        raise MissingRasterioError(
            "its georeference needs rasterio: pip install 'marsretrieval[geotiff]'"
        ) from error
    try:
        with open_gtiff(data, "image") as file:
            if file.transform.is_identity:
                if file.crs is None and not file.gcps[0]:
                    return None
                raise ValueError("its georeference has no pixel size and corner")
            affine = tuple(file.transform)[:6]
            return _position_from_affine(affine, (file.width, file.height), file.crs)
    except (RasterioError, OSError, DataError) as error:
        raise ValueError(f"its georeference cannot be read ({error})") from error


def read_world_file(text: bytes, image: bytes, projection: bytes | None = None) -> Position:
    """Compute the position of an image from the world file beside it.

    Args:
        text: The world file: six numbers, one per line.
        image: The encoded image, or its beginning, for its size.
        projection: The .prj file beside it. Without one the numbers count as degrees if the whole
            image then lies within -180..360 and -90..90, else as equirectangular metres on the
            sphere of Mars.

    Returns:
        The centre and extent.

    Raises:
        ValueError: If the files cannot be read.
        MissingRasterioError: If there is a .prj file and rasterio is not installed.
    """
    try:
        numbers = [float(part) for part in text.decode("ascii").replace(",", ".").split()]
    except ValueError as error:
        raise ValueError("its world file is not six numbers") from error
    if len(numbers) != 6 or not all(map(math.isfinite, numbers)):
        raise ValueError("its world file is not six numbers")
    try:
        with Image.open(io.BytesIO(image)) as header:
            size = header.size
    except Exception as error:  # Pillow raises many classes of errors for damaged files
        raise ValueError("its world file needs the size of the image") from error
    a, d, b, e, x, y = numbers
    # World files give the centre of the first pixel.
    affine = (a, b, x - (a + b) / 2, d, e, y - (d + e) / 2)
    return _position_from_affine(
        affine, size, None if projection is None else _parse_prj(projection)
    )


def _parse_prj(text: bytes) -> CRS:
    try:
        from rasterio.crs import CRS
        from rasterio.errors import RasterioError
    except ModuleNotFoundError as error:
        raise MissingRasterioError(
            "its .prj file needs rasterio: pip install 'marsretrieval[geotiff]'"
        ) from error
    try:
        return CRS.from_wkt(text.decode("utf-8-sig", errors="replace"))
    except (RasterioError, ValueError) as error:
        raise ValueError(f"its .prj file cannot be read ({error})") from error


def _has_geo_tags(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            tags = getattr(image, "tag_v2", {})
            return any(tag in tags for tag in _GEO_TAGS)
    except Exception:  # not supported by Pillow; GDAL may read it
        return True


def _position_from_affine(
    affine: tuple[float, ...], size: tuple[int, int], crs: CRS | None
) -> Position:
    width, height = size
    if crs is not None:
        converter = degree_converter(crs.to_wkt())
        to_degrees, wraps = converter.to_degrees, converter.wraps
    else:
        to_degrees, wraps = _guess_unit(affine, size), False
    placement = geo.place_rectangle(affine, (0, 0, width, height), to_degrees, wraps=wraps)
    centre = (placement.lon, placement.lat)
    if placement.width_deg is None or placement.height_deg is None:
        return Position(centre=centre)
    return Position(centre=centre, size=(placement.width_deg, placement.height_deg))


def _guess_unit(affine: tuple[float, ...], size: tuple[int, int]) -> ToDegrees:
    """Return degrees if all corners are in their range, else metres on the sphere of Mars."""
    column, row = np.array([0, 1, 0, 1]) * size[0], np.array([0, 0, 1, 1]) * size[1]
    a, b, c, d, e, f = affine
    x, y = a * column + b * row + c, d * column + e * row + f
    if x.min() >= -180 and x.max() <= 360 and np.abs(y).max() <= 90:
        return lambda lon, lat: (lon, lat)
    return geo.metres_to_lonlat


@lru_cache(maxsize=64)
def degree_converter(wkt: str) -> geo.DegreeConverter:
    """Return the conversion between a CRS and planetocentric degrees.

    Args:
        wkt: The CRS in WKT.

    Returns:
        Result of `geo.planetocentric`.

    Raises:
        ValueError: If the CRS is not of Mars or cannot be converted.
    """
    from rasterio.crs import CRS
    from rasterio.errors import RasterioError
    from rasterio.warp import transform

    try:
        system = CRS.from_wkt(wkt)
        record = system.to_dict(projjson=True)
        degrees = CRS.from_string(geo.own_degrees(record))
    except RasterioError as error:
        raise ValueError(f"its coordinate system cannot be read ({error})") from error

    def convert(source: CRS, target: CRS, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        try:
            first, second = transform(source, target, x.tolist(), y.tolist())[:2]
        except Exception as error:  # GDAL's own classes of errors are not public
            if len(x) > 1:  # find the points that lie outside of the projection
                half = len(x) // 2
                left = convert(source, target, x[:half], y[:half])
                right = convert(source, target, x[half:], y[half:])
                return np.concatenate([left[0], right[0]]), np.concatenate([left[1], right[1]])
            if "utside of projection domain" not in str(error) and len(x):
                logger.debug("point %s, %s: %s", x, y, error)
            return np.full(len(x), np.inf), np.full(len(x), np.inf)
        return np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)

    return geo.planetocentric(
        record,
        lambda x, y: convert(system, degrees, x, y),
        lambda lon, lat: convert(degrees, system, lon, lat),
    )
