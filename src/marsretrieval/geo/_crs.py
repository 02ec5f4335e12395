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

__all__ = ["Converter", "converter_from"]

Floats = npt.NDArray[np.float64]
Converter = Callable[[Floats], Floats]

_MARS_DEGREES = re.compile(r"IAU(?:_2015)?:(?:2015)?:{0,2}49900$", re.IGNORECASE)
_EARTH_DEGREES = re.compile(r"(?:CRS:?84|CRS84|EPSG:(?:[\d.]*:)?(?:4326|4979))$", re.IGNORECASE)
_MARS_RADII_M = (3.36e6, 3.41e6)
_REMEDY = (
    "Write the region in degrees on the sphere of Mars (IAU_2015:49900), longitudes east positive."
)
_STEP_M = 2_000.0  # an edge that is straight in a projection is curved in degrees
_MOST_STEPS = 2_000


def converter_from(crs: Any, *, name: str) -> Converter | None:
    """Make the function that turns coordinates of `crs` into degrees on the sphere of Mars.

    Args:
        crs: The member `crs` of a GeoJSON object, the attribute `crs` of a GeoDataFrame (a
            `pyproj.CRS`), or None.
        name: Begins warnings and errors.

    Returns:
        A function of a closed ring (n, 2) that returns (m, 2) longitudes and latitudes in degrees,
        or None where the coordinates are such degrees already.

    Raises:
        DataError: If the system is unknown, or projected on another body than Mars.
        MissingDependencyError: If the conversion needs pyproj, which is missing.
    """
    if crs is None:
        return None
    text = _text_of(crs, name)
    if text is not None and _MARS_DEGREES.search(text):
        return None
    if text is not None and _EARTH_DEGREES.search(text):
        _warn_of_earth(name, text)
        return None
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
            f"{name}: unknown coordinate reference system '{text or crs}'", remedy=_REMEDY
        ) from error
    is_mars = radius is not None and _MARS_RADII_M[0] < radius < _MARS_RADII_M[1]
    if not is_mars:
        if system.is_geographic and radius is not None and 6.3e6 < radius < 6.4e6:
            _warn_of_earth(name, system.name)
            return None
        raise DataError(
            f"{name}: its coordinate reference system '{system.name}' is not one of Mars",
            remedy=_REMEDY,
        )
    from marsretrieval.geo._exchange import MARS_CRS

    target = pyproj.CRS.from_json_dict(MARS_CRS)
    transformer = pyproj.Transformer.from_crs(system, target, always_xy=True)
    scale = 1.0 if system.is_geographic else 1.0 / _STEP_M

    def convert(ring: Floats) -> Floats:
        corners = _with_points_between(ring, scale)
        lon, lat = transformer.transform(corners[:, 0], corners[:, 1], errcheck=False)
        return np.column_stack([lon, lat])

    return convert


def _warn_of_earth(name: str, system: str) -> None:
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
