"""Positions that images carry themselves: GeoTIFF georeferences and world files.

Degrees count as they stand. Equirectangular metres become degrees by the formula of the sphere,
lat = lat0 + y / R and lon = lon0 + x / (R cos lat1), with the radius, origin and standard parallel
of the file's own CRS, never by PROJ, which since 9.8 follows the ellipsoid there (up to 0.40
degrees off). Only other projections (polar stereographic, sinusoidal, ...) go through PROJ.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from marsretrieval import geo
from marsretrieval.datasets._gdal import is_tiff, open_gtiff
from marsretrieval.datasets._places import Position
from marsretrieval.errors import DataError

if TYPE_CHECKING:
    from rasterio.crs import CRS

MARS_RADII_M = (3_376_000.0, 3_397_500.0)  # polar to equatorial, any of the usual bodies
_GEO_TAGS = (34264, 33550, 33922, 34735)  # transformation, pixel scale, tie points, keys
_WORLD_FILES = frozenset(
    {".pgw", ".jgw", ".tfw", ".wpw", ".bpw", ".gfw", ".j2w", ".wld"}
    | {".pngw", ".jpgw", ".jpegw", ".tifw", ".tiffw", ".webpw", ".bmpw", ".gifw", ".jp2w", ".jfifw"}
)
_PARTS = 9  # points along an edge, where edges are curved
_DECIMALS = 9  # of a degree
_EQUIRECTANGULAR = ("equidistant cylindrical", "equirectangular", "plate carr", "proj eqc")

Floats = npt.NDArray[np.float64]
ToDegrees = Callable[[Floats, Floats], tuple[Floats, Floats]]


class MissingRasterioError(ValueError):
    """A georeference that needs rasterio, which is not installed."""


def world_file_suffixes(suffix: str) -> tuple[str, ...]:
    """Extensions of world files for an image's own: .pgw, .pngw and .wld for .png."""
    letters = suffix.lower().lstrip(".")
    return f".{letters[0]}{letters[-1]}w", f".{letters}w", ".wld"


def is_world_file(suffix: str) -> bool:
    """Check for the extension of a world file of any kind of image."""
    return suffix.lower() in _WORLD_FILES


def read_georeference(data: bytes) -> Position | None:
    """Read where a GeoTIFF lies.

    Args:
        data: An encoded image.

    Returns:
        The bounds, or None if the image is no TIFF, or one without georeference.

    Raises:
        ValueError: If the georeference cannot be read, or is not of Mars.
        MissingRasterioError: If it needs rasterio.
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
            return _position(affine, (file.width, file.height), file.crs)
    except (RasterioError, OSError, DataError) as error:
        raise ValueError(f"its georeference cannot be read ({error})") from error


def read_world_file(text: bytes, image: bytes, projection: bytes | None = None) -> Position:
    """Read where an image lies by the world file beside it.

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
        MissingRasterioError: If there is a .prj file, and no rasterio.
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
    except Exception as error:  # damaged bytes lead Pillow into errors of nearly any class
        raise ValueError("its world file needs the size of the image") from error
    a, d, b, e, x, y = numbers
    # World files name the centre of the first pixel.
    affine = (a, b, x - (a + b) / 2, d, e, y - (d + e) / 2)
    return _position(affine, size, None if projection is None else _crs_of_prj(projection))


def _crs_of_prj(text: bytes) -> CRS:
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
    except Exception:  # of a kind that Pillow does not know: GDAL may
        return True


def _position(affine: tuple[float, ...], size: tuple[int, int], crs: CRS | None) -> Position:
    width, height = size
    along = np.linspace(0, 1, _PARTS)
    zero, one = np.zeros(_PARTS), np.ones(_PARTS)
    column = np.concatenate([[0.5], along, along, zero, one]) * width
    row = np.concatenate([[0.5], zero, one, along, along]) * height
    a, b, c, d, e, f = affine
    x, y = a * column + b * row + c, d * column + e * row + f
    convert = _by_numbers(x, y) if crs is None else _conversion(crs.to_wkt())
    lon, lat = convert(x, y)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise ValueError("its georeference leads off the planet")
    offsets = lon - lon[0]
    if getattr(convert, "wraps", False):
        offsets = geo.wrap_lon(offsets)
    span = float(offsets.max() - offsets.min())
    south, north = (round(float(edge), _DECIMALS) for edge in (lat.min(), lat.max()))
    pixel = (north - south) / height
    if north > 90 + pixel or south < -90 - pixel:
        raise ValueError(f"its georeference reaches from {south:.7g} to {north:.7g} of latitude")
    # A map of points, not cells, may reach half a pixel over the poles.
    south, north = max(south, -90.0), min(north, 90.0)
    if span > 180 + 1e-9:
        if getattr(convert, "wraps", False):  # round a pole: the middle is known
            return Position(centre=(float(geo.wrap_lon(lon[0])), float(lat[0])))
        raise ValueError(f"its footprint is {span:.7g} degrees wide, more than 180")
    west = round(float(geo.wrap_lon(lon[0] + offsets.min())), _DECIMALS)
    east = round(west + span, _DECIMALS)
    return Position(bounds=(west, south, east if east <= 180 else east - 360, north))


def _by_numbers(x: Floats, y: Floats) -> ToDegrees:
    """Degrees where the numbers may be degrees, else metres on the sphere of Mars."""
    if x.min() >= -180 and x.max() <= 360 and np.abs(y).max() <= 90:
        return lambda x, y: (x, y)
    return geo.metres_to_lonlat


@lru_cache(maxsize=64)
def _conversion(wkt: str) -> ToDegrees:
    """Function from coordinates of a CRS to planetocentric degrees.

    Its attribute `wraps` is True where longitudes may jump by 360 between neighbouring points.
    """
    from rasterio.crs import CRS
    from rasterio.errors import RasterioError

    try:
        crs = _horizontal(CRS.from_wkt(wkt).to_dict(projjson=True))
    except (RasterioError, ValueError, KeyError) as error:
        raise ValueError(f"its coordinate system cannot be read ({error})") from error
    base = crs.get("base_crs", crs)
    radius, ratio = _ellipsoid(base)
    if radius is None:
        raise ValueError(f"its coordinate system {crs.get('name')!r:.60} is not of a planet")
    if not MARS_RADII_M[0] <= radius <= MARS_RADII_M[1]:
        raise ValueError(
            f"its coordinate system is on a body of {radius / 1000:,.0f} km radius, not Mars"
        )
    meridian = _prime_meridian(base)
    name = str(base.get("name", "")).lower()
    graphic = "ographic" in name or "graphic /" in name
    if "base_crs" not in crs:
        unit_x, sign = _axis(crs, 0, angular=True)
        for number in (0, 1):
            _, direction = _axis(crs, number, angular=True)
            sign = -1.0 if -1.0 in (sign, direction) else 1.0
        factor = math.degrees(unit_x)
        return lambda x, y: (
            sign * x * factor + meridian,
            _centric(y * factor, ratio) if graphic else y * factor,
        )
    method = str(crs.get("conversion", {}).get("method", {}).get("name", "")).lower()
    if any(known in method for known in _EQUIRECTANGULAR):
        return _equirectangular(crs, radius, ratio if graphic else 1.0, meridian)
    return _by_proj(wkt, base, 1.0 if "ocentric" in name else ratio, meridian)


def _equirectangular(
    crs: dict[str, Any], radius: float, ratio: float, meridian: float
) -> ToDegrees:
    unit, sign = _axis(crs, 0, angular=False)
    numbers = {
        str(parameter.get("name", "")).lower(): _in_unit(parameter)
        for parameter in crs["conversion"].get("parameters", [])
    }
    lon0 = numbers.get("longitude of natural origin", 0.0)
    lat0 = numbers.get("latitude of natural origin", 0.0)
    parallel = numbers.get("latitude of 1st standard parallel", 0.0)
    x0, y0 = numbers.get("false easting", 0.0), numbers.get("false northing", 0.0)
    across = radius * math.cos(math.radians(parallel))
    if across <= 0:
        raise ValueError(f"its coordinate system has a standard parallel of {parallel:g} degrees")

    def convert(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        lon = lon0 + meridian + np.degrees((sign * x * unit - x0) / across)
        lat = lat0 + np.degrees((y * unit - y0) / radius)
        return lon, lat if ratio == 1.0 else _centric(lat, ratio)

    return convert


def _by_proj(wkt: str, base: dict[str, Any], ratio: float, meridian: float) -> ToDegrees:
    from rasterio.crs import CRS
    from rasterio.errors import RasterioError
    from rasterio.warp import transform

    def convert(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        try:
            lon, lat = transform(
                CRS.from_wkt(wkt), CRS.from_string(json.dumps(base)), x.tolist(), y.tolist()
            )[:2]
        except (RasterioError, ValueError) as error:
            raise ValueError(f"its coordinate system cannot be converted ({error})") from error
        return np.asarray(lon) + meridian, _centric(np.asarray(lat), ratio)

    convert.wraps = True  # type: ignore[attr-defined]
    return convert


def _centric(lat: Floats, ratio: float) -> Floats:
    """Planetographic to planetocentric latitude; `ratio` is (polar / equatorial radius)^2."""
    if ratio == 1.0:
        return lat
    inner: Floats = np.degrees(np.arctan(ratio * np.tan(np.radians(lat))))
    return np.where(np.abs(lat) >= 90, lat, inner)


def _horizontal(crs: dict[str, Any]) -> dict[str, Any]:
    while True:
        if "source_crs" in crs:
            crs = crs["source_crs"]
        elif crs.get("components"):
            crs = crs["components"][0]
        else:
            return crs


def _ellipsoid(base: dict[str, Any]) -> tuple[float | None, float]:
    """Equatorial radius in metres, and (polar / equatorial radius)^2."""
    datum = base.get("datum") or base.get("datum_ensemble") or {}
    ellipsoid = datum.get("ellipsoid") or base.get("ellipsoid") or {}
    radius = _in_unit(ellipsoid, "semi_major_axis") or _in_unit(ellipsoid, "radius")
    if not radius:
        return None, 1.0
    minor = _in_unit(ellipsoid, "semi_minor_axis")
    inverse = _in_unit(ellipsoid, "inverse_flattening")
    if minor:
        return radius, (minor / radius) ** 2
    return radius, (1 - 1 / inverse) ** 2 if inverse else 1.0


def _prime_meridian(base: dict[str, Any]) -> float:
    for holder in (base.get("datum") or {}, base):
        meridian = holder.get("prime_meridian")
        if isinstance(meridian, dict):
            return _in_unit(meridian, "longitude")
    return 0.0


def _in_unit(holder: dict[str, Any], key: str = "value") -> float:
    """A number of PROJJSON, in metres or degrees; 0 where it is absent."""
    value: Any = holder.get(key)
    if isinstance(value, dict):
        return _in_unit(value)
    unit: Any = holder.get("unit")
    if not isinstance(value, int | float):
        return 0.0
    if isinstance(unit, dict) and isinstance(unit.get("conversion_factor"), int | float):
        angular = unit.get("type") == "AngularUnit"
        factor = float(unit["conversion_factor"])
        return float(value) * (math.degrees(factor) if angular else factor)
    return math.degrees(value) if unit == "radian" else float(value)


def _axis(crs: dict[str, Any], number: int, *, angular: bool) -> tuple[float, float]:
    """Radians or metres in a unit of an axis, and -1 if it points west."""
    axes = crs.get("coordinate_system", {}).get("axis", [])
    axis = axes[number] if number < len(axes) else {}
    unit = axis.get("unit")
    factor = math.radians(1) if angular else 1.0
    if isinstance(unit, dict) and isinstance(unit.get("conversion_factor"), int | float):
        factor = float(unit["conversion_factor"])
    elif unit == "radian":
        factor = 1.0
    return factor, -1.0 if axis.get("direction") == "west" else 1.0
