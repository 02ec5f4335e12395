"""Where a tile lies: told beside the image, or by its published name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePosixPath

from marsretrieval import geo

__all__ = ["NOWHERE", "Place", "place_of"]

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Place:
    """Centre and extent in degrees, longitude in -180..180; what is not known is None."""

    lon: float | None = None
    lat: float | None = None
    width_deg: float | None = None
    height_deg: float | None = None


NOWHERE = Place()


def place_of(
    key: str,
    bounds: tuple[float, ...] | None = None,
    centre: tuple[float, ...] | None = None,
) -> Place:
    """From `bounds` (west, south, east, north) or `centre` (lon, lat), else from the name.

    Longitudes may be -180..180 or 0..360; bounds whose east is less than their west cross the seam.
    Raises ValueError for numbers that are no place on the planet.
    """
    if bounds is not None:
        west, south, east, north = bounds
        width = east - west if east > west else east - west + 360
        inside = _on_planet(west, south) and _on_planet(east, north)
        if not inside or south >= north or east == west:
            raise ValueError(f"bounds {list(bounds)} are no place on the planet")
        lon, lat = centre or (west + width / 2, (south + north) / 2)
        return Place(*_centre(lon, lat), width, north - south)
    if centre is not None:
        return Place(*_centre(*centre))
    name = PurePosixPath(key).name
    corner, middle = geo.tile_corner(name), geo.tile_centre(name)
    if corner is None or middle is None:
        return NOWHERE
    if not (_on_planet(*corner) and _on_planet(corner[0], corner[1] + geo.TILE_DEG)):
        return NOWHERE
    return Place(*middle, geo.TILE_DEG, geo.TILE_DEG)


def _centre(lon: float, lat: float) -> tuple[float, float]:
    if not _on_planet(lon, lat):
        raise ValueError(f"centre {lon}, {lat} is no place on the planet")
    return float(geo.wrap_lon(lon)), lat


def _on_planet(lon: float, lat: float) -> bool:
    return (
        math.isfinite(lon)
        and -180 - _ROUNDING <= lon <= 360 + _ROUNDING
        and abs(lat) <= 90 + _ROUNDING
    )
