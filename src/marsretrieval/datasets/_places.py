"""Position of a tile: checked bounds and centres, or the published name of the tile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePosixPath

from marsretrieval import geo

_ROUNDING = 1e-9
_TOLERANCE = 1e-6  # degrees: centres and bounds are written with few decimals
_WIDEST = 180.0


@dataclass(frozen=True, slots=True)
class Place:
    """Centre and extent in degrees, longitude in -180..180; what is not known is None."""

    lon: float | None = None
    lat: float | None = None
    width_deg: float | None = None
    height_deg: float | None = None


NOWHERE = Place()


@dataclass(frozen=True, slots=True)
class Position:
    """A position as a file states it, in degrees and not checked yet.

    bounds: west, south, east, north. centre: longitude, latitude. size: width, height.
    """

    bounds: tuple[float, ...] | None = None
    centre: tuple[float, ...] | None = None
    size: tuple[float, ...] | None = None

    def __bool__(self) -> bool:
        return self.bounds is not None or self.centre is not None


def place_of(
    key: str,
    bounds: tuple[float, ...] | None = None,
    centre: tuple[float, ...] | None = None,
    size: tuple[float, ...] | None = None,
) -> Place:
    """Check a position, or take the one of a tile's published name.

    Longitudes may be -180..180 or 0..360; bounds whose east is less than their west cross the
    antimeridian.

    Args:
        key: Name of the tile; its position counts without `bounds` and `centre`.
        bounds: West, south, east, north in degrees.
        centre: Longitude and latitude; with `bounds`, it must lie within them.
        size: Width and height in degrees, for a centre without bounds.

    Returns:
        The place; `NOWHERE` if nothing states one.

    Raises:
        ValueError: If the numbers contradict each other or are no position on a planet.
    """
    if bounds is not None:
        return _of_bounds(bounds, centre)
    if centre is not None:
        return Place(*_centre(*centre), *_extent(size))
    name = PurePosixPath(key).name
    corner, middle = geo.tile_corner(name), geo.tile_centre(name)
    if corner is None or middle is None:
        return NOWHERE
    if not (_on_planet(*corner) and _on_planet(corner[0], corner[1] + geo.TILE_DEG)):
        return NOWHERE
    return Place(*middle, geo.TILE_DEG, geo.TILE_DEG)


def _of_bounds(bounds: tuple[float, ...], centre: tuple[float, ...] | None) -> Place:
    west, south, east, north = bounds
    shown = ", ".join(f"{value:.10g}" for value in bounds)
    if not (_on_planet(west, south) and _on_planet(east, north)):
        raise ValueError(f"bounds {shown} are no position on a planet in degrees")
    if south >= north:
        raise ValueError(f"bounds {shown}: south {south:g} is not below north {north:g}")
    if east == west:
        raise ValueError(f"bounds {shown}: east and west are the same")
    width = east - west if east > west else east - west + 360
    if width > _WIDEST + _TOLERANCE:
        what = f"footprint {width:g} degrees wide, more than {_WIDEST:g}"
        if east < west:
            what = f"east {east:g} lies before west {west:g}"
        raise ValueError(f"bounds {shown}: {what}")
    lon, lat = west + width / 2, (south + north) / 2
    if centre is not None:
        off_lon = abs(float(geo.wrap_lon(centre[0] - lon)))
        off_lat = abs(centre[1] - lat)
        if not (off_lon <= width / 2 + _TOLERANCE and off_lat <= (north - south) / 2 + _TOLERANCE):
            raise ValueError(
                f"centre {centre[0]:.10g}, {centre[1]:.10g} lies outside of the bounds {shown}"
            )
        if off_lon <= _TOLERANCE and off_lat <= _TOLERANCE:
            lon, lat = centre  # as it is written, without the rounding errors of the middle
    return Place(*_centre(lon, lat), width, north - south)


def _extent(size: tuple[float, ...] | None) -> tuple[float | None, float | None]:
    if size is None:
        return None, None
    width, height = size
    if not (0 < width <= _WIDEST and 0 < height <= 180):
        raise ValueError(f"footprint of {width:g} x {height:g} degrees (0 to 180 is expected)")
    return width, height


def _centre(lon: float, lat: float) -> tuple[float, float]:
    if not _on_planet(lon, lat):
        raise ValueError(f"centre {lon:.10g}, {lat:.10g} is no position on a planet in degrees")
    return float(geo.wrap_lon(lon)), lat


def _on_planet(lon: float, lat: float) -> bool:
    return (
        math.isfinite(lon)
        and -180 - _ROUNDING <= lon <= 360 + _ROUNDING
        and abs(lat) <= 90 + _ROUNDING
    )
