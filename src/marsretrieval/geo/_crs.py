"""Convert the coordinates of a region from the reference system that its file names."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError, MarsRetrievalWarning, MissingDependencyError

Floats = npt.NDArray[np.float64]
Converter = Callable[[Floats], Floats]

_MARS_DEGREES = re.compile(r"IAU(?:_2015)?:(?:2015)?:{0,2}49900$", re.IGNORECASE)
_EARTH_DEGREES = re.compile(r"(?:CRS:?84|CRS84|EPSG:(?:[\d.]*:)?(?:4326|4979))$", re.IGNORECASE)
_MARS_RADII_M = (3.36e6, 3.41e6)
# As GDAL writes systems whose longitudes may be positive to the west: it names them east.
_OGRAPHIC_WKT1 = re.compile(r'GEOGCS\["[^"]*ographic', re.IGNORECASE)
_REMEDY = (
    "Write the region in degrees on the sphere of Mars (IAU_2015:49900), longitudes east positive."
)
_STEP_M = 2_000.0  # an edge that is straight in a projection is curved in degrees
_MOST_STEPS = 2_000


def converter_from(crs: Any, *, name: str, allow_earth: bool = True) -> Converter | None:
    """Make the function that turns coordinates of `crs` into degrees on the sphere of Mars.

    Args:
        crs: The member `crs` of a GeoJSON object, the attribute `crs` of a GeoDataFrame (a
            `pyproj.CRS`), or None.
        name: Begins warnings and errors.
        allow_earth: Whether degrees of the Earth are used as degrees of Mars, with a warning.
            RFC 7946 knows no other degrees; formats that name their system properly do.

    Returns:
        A function of a closed ring (n, 2) that returns (m, 2) longitudes and latitudes in degrees,
        or None where the coordinates are such degrees already.

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
            "pyproj", "gis", needed_for=f"a region in the reference system {text}"
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
            f"{name}: its coordinate reference system '{system.name}' is not one of Mars",
            remedy=_REMEDY,
        )
    if _MARS_DEGREES.search(":".join(system.to_authority() or ())):
        return None
    from marsretrieval.geo._exchange import MARS_CRS

    target = pyproj.CRS.from_json_dict(MARS_CRS)
    if system.axis_info and system.axis_info[0].unit_name == "degree":
        return _degrees_converter(system, pyproj.Transformer.from_crs(system, target))
    transformer = pyproj.Transformer.from_crs(system, target, always_xy=True)

    def convert(ring: Floats) -> Floats:
        corners = _with_points_between(ring, 1.0 / _STEP_M)
        lon, lat = transformer.transform(corners[:, 0], corners[:, 1], errcheck=False)
        return np.column_stack([lon, lat])

    return convert


def _degrees_converter(system: Any, transformer: Any) -> Converter:
    """As `converter_from`, of a system in degrees; `transformer` keeps the order of its axes."""
    # Not always_xy: PROJ does not swap the axes of planetocentric systems (IAU_2015:49902).
    is_latitude_first = system.axis_info[0].direction == "north"
    is_west_positive = any(axis.direction == "west" for axis in system.axis_info)

    def convert(ring: Floats) -> Floats:
        axes = ring.T[::-1] if is_latitude_first else ring.T
        lat, lon = transformer.transform(*axes, errcheck=False)
        # PROJ wraps longitudes; a ring's turns of the planet (0 to 360, 170 to 190) must stay.
        eastward = -ring[:, 0] if is_west_positive else ring[:, 0]
        shift = np.remainder(lon - eastward + 180.0, 360.0) - 180.0
        corners = np.column_stack([eastward + shift.round(9), np.clip(lat, -90.0, 90.0)])
        return corners[::-1] if is_west_positive else corners  # mirrored: turn the direction back

    return convert


def _warn_of_earth(name: str, system: str, is_allowed: bool) -> None:
    if not is_allowed:
        raise DataError(
            f"{name}: its coordinate reference system '{system}' is one of the Earth",
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
    """The name of a reference system; None for an object of pyproj, which is no text."""
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
    """URNs of the IAU in the form that PROJ looks up."""
    parts = re.search(r"IAU(?:_(\d{4}))?:(?:(\d{4})?::?)?(\d+)$", text, re.IGNORECASE)
    if parts is None:
        return text
    return f"IAU_{parts[1] or parts[2] or 2015}:{parts[3]}"


def _with_points_between(ring: Floats, per_unit: float) -> Floats:
    """The ring with points added on long edges."""
    parts: list[Floats] = []
    for start, end in itertools.pairwise(ring):
        length = float(np.abs(end - start).max())
        steps = int(np.clip(np.ceil(length * per_unit), 1, _MOST_STEPS))
        parts.append(start + (end - start) * (np.arange(steps) / steps)[:, None])
    return np.concatenate([*parts, ring[-1:]])
