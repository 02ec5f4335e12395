"""Convert coordinates and rectangles of pixels from a file's reference system to degrees.

Equirectangular metres are converted by the formula of the sphere, lat = lat0 + y / R and
lon = lon0 + x / (R cos lat1), with radius, origin and standard parallel of the file's CRS; PROJ
since 9.8 uses the ellipsoid (up to 0.40 degrees off). Other projections (polar stereographic,
sinusoidal, ...) use PROJ, and planetographic latitudes are converted to planetocentric ones.
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError, MarsRetrievalWarning, MissingDependencyError
from marsretrieval.geo.sphere import wrap_lon

Floats = npt.NDArray[np.float64]
Converter = Callable[[Floats], Floats]
ToDegrees = Callable[[Floats, Floats], tuple[Floats, Floats]]

_MARS_DEGREES = re.compile(r"IAU(?:_2015)?:(?:2015)?:{0,2}49900$", re.IGNORECASE)
_EARTH_DEGREES = re.compile(r"(?:CRS:?84|CRS84|EPSG:(?:[\d.]*:)?(?:4326|4979))$", re.IGNORECASE)
_MARS_RADII_M = (3.36e6, 3.41e6)
_OTHER_BODIES = (
    ("the Earth", 6.3e6, 6.4e6),
    ("the Moon", 1.73e6, 1.75e6),
    ("Mercury", 2.43e6, 2.45e6),
    ("Venus", 6.04e6, 6.06e6),
)
_EQUIRECTANGULAR = ("equidistant cylindrical", "equirectangular", "plate carr", "proj eqc")
# GDAL writes these systems with longitudes named east even if they are positive to the west.
_OGRAPHIC_WKT1 = re.compile(r'GEOGCS\["[^"]*ographic', re.IGNORECASE)
_REMEDY = (
    "Write the file in degrees on the sphere of Mars (IAU_2015:49900), longitudes east positive."
)
_EDGE_DEG = 1e-7  # 6 mm
_STEP_M = 2_000.0  # straight edges of a projection are curved in degrees
_MAX_STEPS = 2_000

_EDGE_POINTS = 9  # points per edge, since edges may be curved
_DECIMALS = 9  # decimals of a degree: 0.06 mm


class OtherBodyError(ValueError):
    """The coordinate reference system is of another body than Mars."""


@dataclass(frozen=True, slots=True)
class CoordinateSystem:
    """A reference system of Mars other than degrees on its sphere.

    Attributes:
        to_degrees: Converts coordinates x, y to planetocentric degrees, east positive.
        is_projected: Whether straight edges are curved in degrees.
        is_mirrored: Whether longitudes are positive to the west.
    """

    to_degrees: ToDegrees
    is_projected: bool
    is_mirrored: bool


def converter_from(crs: Any, *, name: str, allow_earth: bool = True) -> Converter | None:
    """Return a function that converts the rings of polygons to degrees on the sphere of Mars.

    Args:
        crs: The member `crs` of a GeoJSON object, the attribute `crs` of a GeoDataFrame (a
            `pyproj.CRS`), or None.
        name: Prefix of warnings and errors.
        allow_earth: Whether degrees of the Earth are used as degrees of Mars, with a warning.
            RFC 7946 has no other degrees; other formats name their system.

    Returns:
        A function of a closed ring (n, 2) that returns (m, 2) longitudes and latitudes in degrees,
        or None where the coordinates are such degrees already.

    Raises:
        DataError: If the system is unknown, projected on another body than Mars, or in degrees of
            the Earth and `allow_earth` is false.
        MissingDependencyError: If the conversion needs pyproj, which is missing.
    """
    system = coordinate_system(crs, name=name, allow_earth=allow_earth)
    if system is None:
        return None

    def convert(ring: Floats) -> Floats:
        corners = _densify(ring, 1.0 / _STEP_M) if system.is_projected else ring
        lon, lat = system.to_degrees(corners[:, 0], corners[:, 1])
        corners = np.column_stack([lon, np.clip(lat, -90.0, 90.0)])
        return corners[::-1] if system.is_mirrored else corners  # preserves the ring's direction

    return convert


def coordinate_system(crs: Any, *, name: str, allow_earth: bool = True) -> CoordinateSystem | None:
    """Find out how coordinates are converted to degrees on the sphere of Mars.

    Args:
        crs: A reference system in any form that `converter_from` accepts.
        name: Prefix of warnings and errors.
        allow_earth: Whether degrees of the Earth are used as degrees of Mars, with a warning.

    Returns:
        The system, or None where the coordinates are such degrees already.

    Raises:
        DataError: If the system is unknown, projected on another body than Mars, or in degrees of
            the Earth and `allow_earth` is false.
        MissingDependencyError: If the conversion needs pyproj, which is missing.
    """
    if crs is None:
        return None
    text = _text_of(crs, name)
    if text is not None and _MARS_DEGREES.search(text):
        return None
    if text is not None and _EARTH_DEGREES.search(text):
        _warn_of_earth(name, text, allow_earth)
        return None
    if text is not None and _OGRAPHIC_WKT1.match(text):
        raise DataError(
            f"{name}: planetographic reference system, whose file does not state whether "
            "longitudes are positive to the east or to the west",
            remedy=_REMEDY,
        )
    try:
        import pyproj
    except ImportError as error:
        raise MissingDependencyError(
            "pyproj", "gis", needed_for=f"{name}: coordinates in {text}"
        ) from error
    try:
        system = pyproj.CRS.from_user_input(crs if text is None else _for_proj(text))
        radius = system.ellipsoid.semi_major_metre if system.ellipsoid is not None else None
    except (pyproj.exceptions.CRSError, AttributeError) as error:
        raise DataError(
            f"{name}: unknown coordinate reference system '{str(text or crs)[:60]}'",
            remedy=_REMEDY,
        ) from error
    is_mars = radius is not None and _MARS_RADII_M[0] < radius < _MARS_RADII_M[1]
    if not is_mars:
        if system.is_geographic and radius is not None and 6.3e6 < radius < 6.4e6:
            _warn_of_earth(name, system.name, allow_earth)
            return None
        raise DataError(
            f"{name}: its coordinate reference system '{system.name}' is not a system of Mars",
            remedy=_REMEDY,
        )
    if _MARS_DEGREES.search(":".join(system.to_authority() or ())):
        return None

    try:
        record = system.to_json_dict()
        there = pyproj.Transformer.from_crs(system, own_degrees(record), always_xy=True).transform
        back = pyproj.Transformer.from_crs(own_degrees(record), system, always_xy=True).transform
        to_degrees = planetocentric(record, there, back).to_degrees
    except ValueError as error:
        raise DataError(f"{name}: {error}", remedy=_REMEDY) from error
    return CoordinateSystem(
        to_degrees,
        is_projected=not system.is_geographic,
        is_mirrored=any(axis.direction == "west" for axis in system.axis_info),
    )


def mars_ellipsoid(crs: Mapping[str, Any]) -> tuple[float, float]:
    """Read the ellipsoid of a coordinate reference system and check that it is of Mars.

    Args:
        crs: PROJJSON.

    Returns:
        Equatorial radius in metres, and (polar / equatorial radius)^2.

    Raises:
        ValueError: If there is no ellipsoid; an OtherBodyError if it is of another body.
    """
    horizontal = _horizontal(crs)
    base = horizontal.get("base_crs", horizontal)
    datum = base.get("datum") or base.get("datum_ensemble") or {}
    ellipsoid = datum.get("ellipsoid") or base.get("ellipsoid") or {}
    radius = _in_unit(ellipsoid, "semi_major_axis") or _in_unit(ellipsoid, "radius")
    if not radius:
        raise ValueError(f"its coordinate system {horizontal.get('name')!r:.60} is not of a planet")
    if not _MARS_RADII_M[0] <= radius <= _MARS_RADII_M[1]:
        raise OtherBodyError(
            f"its coordinate system is on a body of {radius / 1000:,.0f} km radius, not Mars"
            f"{_name_body(radius)}"
        )
    minor = _in_unit(ellipsoid, "semi_minor_axis")
    inverse = _in_unit(ellipsoid, "inverse_flattening")
    if minor:
        return radius, (minor / radius) ** 2
    return radius, (1 - 1 / inverse) ** 2 if inverse else 1.0


@dataclass(frozen=True, slots=True)
class DegreeConverter:
    """Conversion between the coordinates of a CRS and planetocentric degrees, east positive.

    Attributes:
        to_degrees: From x and y to longitude and latitude.
        from_degrees: From longitude and latitude to x and y. Longitudes are used as they are where
            `wraps` is False, so that x is continuous across 180 degrees. Points outside of the
            projection are infinite in both directions.
        wraps: Whether longitudes may jump by 360 between neighbouring points.
    """

    to_degrees: ToDegrees
    from_degrees: ToDegrees
    wraps: bool


def _name_body(radius: float) -> str:
    name = next((name for name, low, high in _OTHER_BODIES if low < radius < high), None)
    return f" (the radius is that of {name})" if name else ""


def own_degrees(crs: Mapping[str, Any]) -> str:
    """Name the longitudes and latitudes on the ellipsoid of a CRS, without a change of datum.

    PROJ converts the metres of a projection to these degrees by the inverse of the projection
    alone. Their latitudes are planetographic on an ellipsoid.

    Args:
        crs: PROJJSON.

    Returns:
        A PROJ string.

    Raises:
        ValueError: If there is no ellipsoid; an OtherBodyError if it is of another body.
    """
    radius, ratio = mars_ellipsoid(crs)
    return f"+proj=longlat +a={radius!r} +b={radius * math.sqrt(ratio)!r} +no_defs +type=crs"


def planetocentric(
    crs: Mapping[str, Any], by_proj: ToDegrees, to_proj: ToDegrees
) -> DegreeConverter:
    """Return the conversion between a CRS and planetocentric degrees, east positive.

    The ellipsoid of the CRS counts as follows. Degrees are planetocentric already unless the name
    of the CRS says planetographic. Equirectangular metres are converted by the formula of the
    sphere with the equatorial radius; such data were laid out so, whatever ellipsoid the CRS
    names. Every other projection on an ellipsoid is inverted by PROJ, which gives planetographic
    latitudes (also for systems named ocentric); these are converted to planetocentric ones.

    Args:
        crs: PROJJSON. Coordinates are x (or longitude) first, whatever order its axes have.
        by_proj: Converts coordinates from the CRS to `own_degrees(crs)` by PROJ; used for
            projections other than the equirectangular one.
        to_proj: The inverse of `by_proj`.

    Returns:
        The conversion.

    Raises:
        ValueError: If the CRS is not of Mars, or has no valid projection.
    """
    radius, ratio = mars_ellipsoid(crs)
    crs = _horizontal(crs)
    base = crs.get("base_crs", crs)
    meridian = next(
        (
            _in_unit(holder["prime_meridian"], "longitude")
            for holder in (base.get("datum") or {}, base)
            if isinstance(holder.get("prime_meridian"), dict)
        ),
        0.0,
    )
    name = str(base.get("name", "")).lower()
    graphic = ratio if "ographic" in name or "graphic /" in name else 1.0
    axes = crs.get("coordinate_system", {}).get("axis", [])[:2]
    sign = -1.0 if any(axis.get("direction") == "west" for axis in axes) else 1.0
    unit = _in_unit({"value": 1.0, "unit": axes[0].get("unit") if axes else None})
    if "base_crs" not in crs:
        return DegreeConverter(
            lambda x, y: (sign * x * unit + meridian, _to_planetocentric(y * unit, graphic)),
            lambda lon, lat: (
                sign * (lon - meridian) / unit,
                _to_planetocentric(lat, 1 / graphic) / unit,
            ),
            wraps=False,
        )
    conversion = crs.get("conversion", {})
    method = str(conversion.get("method", {}).get("name", "")).lower()
    if not any(method_name in method for method_name in _EQUIRECTANGULAR):
        # Spherical methods leave the latitudes of the base system as they are.
        graphic = 1.0 if "spherical" in method and "ocentric" in name else ratio

        def convert(x: Floats, y: Floats) -> tuple[Floats, Floats]:
            lon, lat = by_proj(x, y)
            off_planet = ~_returns(to_proj, lon, lat, x, y, 1.0 / unit)
            for shift in (_EDGE_DEG, -_EDGE_DEG):  # points on the edge may return on its other side
                rest = np.flatnonzero(off_planet)
                if rest.size:
                    off_planet[rest] = ~_returns(
                        to_proj, lon[rest] + shift, lat[rest], x[rest], y[rest], 1.0 / unit
                    )
            lon, lat = np.where(off_planet, np.inf, lon), np.where(off_planet, np.inf, lat)
            return lon, _to_planetocentric(lat, graphic)

        def invert(lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
            return to_proj(lon, _to_planetocentric(lat, 1 / graphic))

        return DegreeConverter(convert, invert, wraps=True)
    numbers = {
        str(parameter.get("name", "")).lower(): _in_unit(parameter)
        for parameter in conversion.get("parameters", [])
    }
    lon0 = numbers.get("longitude of natural origin", 0.0) + meridian
    lat0 = numbers.get("latitude of natural origin", 0.0)
    parallel = numbers.get("latitude of 1st standard parallel", 0.0)
    x0, y0 = numbers.get("false easting", 0.0), numbers.get("false northing", 0.0)
    parallel_radius = radius * math.cos(math.radians(parallel))
    if parallel_radius <= 0:
        raise ValueError(f"its coordinate system has a standard parallel of {parallel:g} degrees")

    def equirectangular(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        lon = lon0 + np.degrees((sign * x * unit - x0) / parallel_radius)
        return lon, _to_planetocentric(lat0 + np.degrees((y * unit - y0) / radius), graphic)

    def to_metres(lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
        inner = _to_planetocentric(lat, 1 / graphic)
        x = sign * (np.radians(lon - lon0) * parallel_radius + x0) / unit
        return x, (np.radians(inner - lat0) * radius + y0) / unit

    return DegreeConverter(equirectangular, to_metres, wraps=False)


def _returns(
    to_proj: ToDegrees, lon: Floats, lat: Floats, x: Floats, y: Floats, tolerance: float
) -> npt.NDArray[np.bool_]:
    """Check that degrees lead back to their point: PROJ inverts points beyond the limb of a map."""
    returns = np.isfinite(lon) & np.isfinite(lat)
    back_x, back_y = to_proj(np.where(returns, lon, 0.0), np.where(returns, lat, 0.0))
    with np.errstate(invalid="ignore"):
        returns &= (np.abs(back_x - x) <= tolerance) & (np.abs(back_y - y) <= tolerance)
    return returns


def _to_planetocentric(lat: Floats, ratio: float) -> Floats:
    """Convert planetographic to planetocentric latitude; `ratio` is (polar / equatorial)^2.

    The inverse has the inverse of the ratio.
    """
    if ratio == 1.0:
        return lat
    inner: Floats = np.degrees(np.arctan(ratio * np.tan(np.radians(lat))))
    return np.where(np.abs(lat) >= 90, lat, inner)


def _horizontal(crs: Mapping[str, Any]) -> Mapping[str, Any]:
    while "source_crs" in crs or crs.get("components"):
        crs = crs["source_crs"] if "source_crs" in crs else crs["components"][0]
    return crs


def _in_unit(holder: Mapping[str, Any], key: str = "value") -> float:
    """Return a PROJJSON number in metres or degrees; 0 if absent."""
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


def _warn_of_earth(name: str, system: str, is_allowed: bool) -> None:
    if not is_allowed:
        raise DataError(
            f"{name}: its coordinate reference system '{system}' is a system of the Earth",
            remedy="If the coordinates are degrees on Mars, assign IAU_2015:49900 to the file "
            "(in QGIS, or by ogr2ogr -a_srs IAU_2015:49900).",
        )
    warnings.warn(
        f"{name}: it names {system}, a system of the Earth; its degrees are used as longitudes "
        "and latitudes of Mars",
        MarsRetrievalWarning,
        stacklevel=4,
    )


def _text_of(crs: Any, name: str) -> str | None:
    """Return the name of a reference system; None for a pyproj object without authority."""
    if isinstance(crs, str):
        return crs
    if isinstance(crs, dict):
        properties = crs.get("properties")
        text = properties.get("name") if isinstance(properties, dict) else None
        if not isinstance(text, str):
            raise DataError(f"{name}: its member crs has no name ({crs!r})", remedy=_REMEDY)
        return text
    authority = crs.to_authority() if hasattr(crs, "to_authority") else None
    return None if authority is None else ":".join(authority)


def _for_proj(text: str) -> str:
    """Convert URNs of the IAU to the form that PROJ accepts."""
    parts = re.search(r"IAU(?:_(\d{4}))?:(?:(\d{4})?::?)?(\d+)$", text, re.IGNORECASE)
    if parts is None:
        return text
    return f"IAU_{parts[1] or parts[2] or 2015}:{parts[3]}"


def _densify(ring: Floats, per_unit: float) -> Floats:
    """Add points on long edges of a ring."""
    parts: list[Floats] = []
    for start, end in itertools.pairwise(ring):
        length = float(np.abs(end - start).max())
        steps = int(np.clip(np.ceil(length * per_unit), 1, _MAX_STEPS))
        parts.append(start + (end - start) * (np.arange(steps) / steps)[:, None])
    return np.concatenate([*parts, ring[-1:]])


class OffPlanetError(ValueError):
    """A point outside of the projection, or beyond a pole."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Position of a rectangle of pixels on the planet, in planetocentric degrees, east positive.

    Attributes:
        lon: Longitude of the centre of the rectangle, -180 <= lon < 180.
        lat: Latitude of the centre.
        width_deg: Extent in longitude; None if the rectangle contains a pole.
        height_deg: Extent in latitude; None if the rectangle contains a pole.
        corners: Longitude and latitude of the four corners: first row and column, then along the
            first row. Longitudes are within 180 of `lon`, so they may exceed -180..180.
    """

    lon: float
    lat: float
    width_deg: float | None
    height_deg: float | None
    corners: tuple[tuple[float, float], ...]


def place_rectangle(
    affine: Sequence[float],
    window: tuple[float, float, float, float],
    to_degrees: ToDegrees,
    *,
    wraps: bool,
) -> Placement:
    """Compute the position of a rectangle of pixels of a raster.

    Args:
        affine: a, b, c, d, e, f with x = a column + b row + c and y = d column + e row + f, for
            edges of pixels.
        window: First column, first row, width and height in pixels.
        to_degrees: Converts x and y to planetocentric longitude and latitude.
        wraps: Whether longitudes may jump by 360 between neighbouring points.

    Returns:
        The position.

    Raises:
        OffPlanetError: If a part lies off the planet.
        ValueError: If the rectangle is more than 180 degrees wide without containing a pole.
    """
    first_column, first_row, width, height = window
    fractions = np.linspace(0, 1, _EDGE_POINTS)
    zeros, ones = np.zeros(_EDGE_POINTS), np.ones(_EDGE_POINTS)
    column = first_column + width * np.concatenate(
        [[0.5, 0.0, 1.0, 1.0, 0.0], fractions, fractions, zeros, ones]
    )
    row = first_row + height * np.concatenate(
        [[0.5, 0.0, 0.0, 1.0, 1.0], zeros, ones, fractions, fractions]
    )
    a, b, c, d, e, f = affine
    lon, lat = to_degrees(a * column + b * row + c, d * column + e * row + f)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise OffPlanetError("its georeference is outside the planet")
    offsets = lon - lon[0]
    if wraps:
        offsets = wrap_lon(offsets)
    span = float(offsets.max() - offsets.min())
    south, north = (round(float(edge), _DECIMALS) for edge in (lat.min(), lat.max()))
    pixel = (north - south) / height
    if north > 90 + pixel or south < -90 - pixel:
        raise OffPlanetError(
            f"its georeference reaches from {south:.7g} to {north:.7g} of latitude"
        )
    # Grids registered at pixel centres may extend half a pixel over the poles.
    lat = np.clip(lat, -90.0, 90.0)
    south, north = max(south, -90.0), min(north, 90.0)
    centre_lon = round(float(wrap_lon(lon[0])), _DECIMALS)
    centre_lat = round(float(lat[0]), _DECIMALS)
    corners = tuple(
        (round(centre_lon + float(offset), _DECIMALS), round(float(corner_lat), _DECIMALS))
        for offset, corner_lat in zip(offsets[1:5], lat[1:5], strict=True)
    )
    if span > 180 + 1e-9:
        if wraps:  # around a pole: only the centre and the corners are defined
            return Placement(centre_lon, centre_lat, None, None, corners)
        raise ValueError(f"its footprint is {span:.7g} degrees wide, more than 180")
    return Placement(
        centre_lon, centre_lat, round(span, _DECIMALS), round(north - south, _DECIMALS), corners
    )
