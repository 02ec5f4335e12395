"""Positions from GeoTIFF georeferences and world files."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from marsretrieval import geo
from marsretrieval.datasets.geotiff import is_tiff, open_gtiff
from marsretrieval.datasets.listing import WORLD_FILE_SUFFIXES
from marsretrieval.datasets.position_fields import Position
from marsretrieval.errors import DataError

if TYPE_CHECKING:
    from rasterio.crs import CRS

_GEO_TAGS = (34264, 33550, 33922, 34735)  # transformation, pixel scale, tie points, keys
_EDGE_POINTS = 9  # points per edge, since edges may be curved
_DECIMALS = 9  # decimals of a degree

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
        The bounds, or None if the image is not a TIFF or has no georeference.

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
        The bounds.

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
    fractions = np.linspace(0, 1, _EDGE_POINTS)
    zeros, ones = np.zeros(_EDGE_POINTS), np.ones(_EDGE_POINTS)
    column = np.concatenate([[0.5], fractions, fractions, zeros, ones]) * width
    row = np.concatenate([[0.5], zeros, ones, fractions, fractions]) * height
    a, b, c, d, e, f = affine
    x, y = a * column + b * row + c, d * column + e * row + f
    if crs is not None:
        convert, wraps = _degree_converter(crs.to_wkt())
        lon, lat = convert(x, y)
    else:  # degrees if all values are in range, else metres on the sphere of Mars
        is_degrees = x.min() >= -180 and x.max() <= 360 and np.abs(y).max() <= 90
        lon, lat = (x, y) if is_degrees else geo.metres_to_lonlat(x, y)
        wraps = False
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise ValueError("its georeference is outside the planet")
    offsets = lon - lon[0]
    if wraps:
        offsets = geo.wrap_lon(offsets)
    span = float(offsets.max() - offsets.min())
    south, north = (round(float(edge), _DECIMALS) for edge in (lat.min(), lat.max()))
    pixel = (north - south) / height
    if north > 90 + pixel or south < -90 - pixel:
        raise ValueError(f"its georeference reaches from {south:.7g} to {north:.7g} of latitude")
    # Grids registered at pixel centres may extend half a pixel over the poles.
    south, north = max(south, -90.0), min(north, 90.0)
    if span > 180 + 1e-9:
        if wraps:  # around a pole: only the centre is defined
            return Position(centre=(float(geo.wrap_lon(lon[0])), float(lat[0])))
        raise ValueError(f"its footprint is {span:.7g} degrees wide, more than 180")
    west = round(float(geo.wrap_lon(lon[0] + offsets.min())), _DECIMALS)
    east = round(west + span, _DECIMALS)
    return Position(bounds=(west, south, east if east <= 180 else east - 360, north))


@lru_cache(maxsize=64)
def _degree_converter(wkt: str) -> tuple[ToDegrees, bool]:
    """Return the result of `geo.planetocentric` for a CRS in WKT."""
    from rasterio.crs import CRS
    from rasterio.errors import RasterioError
    from rasterio.warp import transform

    def by_proj(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        target = CRS.from_string(json.dumps(geo.MARS_CRS))
        try:
            lon, lat = transform(CRS.from_wkt(wkt), target, x.tolist(), y.tolist())[:2]
        except (RasterioError, ValueError) as error:
            raise ValueError(f"its coordinate system cannot be converted ({error})") from error
        return np.asarray(lon), np.asarray(lat)

    try:
        crs = CRS.from_wkt(wkt).to_dict(projjson=True)
    except (RasterioError, ValueError) as error:
        raise ValueError(f"its coordinate system cannot be read ({error})") from error
    return geo.planetocentric(crs, by_proj)
