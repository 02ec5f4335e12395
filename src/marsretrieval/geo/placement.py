"""Positions of rectangles of pixels: exact centre, extent in degrees and corners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marsretrieval.geo.crs import ToDegrees
from marsretrieval.geo.sphere import wrap_lon

_EDGE_POINTS = 9  # points per edge, since edges may be curved
_DECIMALS = 9  # decimals of a degree: 0.06 mm


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
