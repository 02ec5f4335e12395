"""Boxes in longitude and latitude, and footprints cut where the map is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import UsageError
from marsretrieval.geo._sphere import lon_180_to_360, wrap_lon

Ring = list[tuple[float, float]]  # closed, counter-clockwise, (lon, lat) degrees

_TOLERANCE_DEG = 1e-9  # 0.06 mm: an edge written in decimals counts as inside
_DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Box:
    """A range of longitude, eastward from `west` to `east`, and of latitude; edges belong to it.

    Longitudes may be given as -180..180 or 0..360. `west` > `east` means that the box crosses
    the antimeridian; a difference of 360 or more means all longitudes.
    """

    west: float
    south: float
    east: float
    north: float

    def __post_init__(self) -> None:
        for name in ("west", "south", "east", "north"):
            try:  # numpy's scalars are no numbers to JSON
                object.__setattr__(self, name, float(getattr(self, name)))
            except (TypeError, ValueError) as error:
                raise UsageError(
                    f"{name} of a box is {getattr(self, name)!r}, not a number",
                    remedy="Give west, south, east, north in degrees.",
                ) from error
        values = (self.west, self.south, self.east, self.north)
        text = ",".join(f"{value:g}" for value in values)
        if not all(np.isfinite(values)):
            raise UsageError(f"box {text}: not all numbers are finite")
        if not all(-360 <= lon <= 360 for lon in (self.west, self.east)):
            raise UsageError(
                f"box {text}: a longitude is outside -180..360",
                remedy="Give west,south,east,north in degrees, east positive.",
            )
        if not -90 <= self.south < self.north <= 90:
            raise UsageError(
                f"box {text}: south must be below north, both within -90..90",
                remedy="Give west,south,east,north in degrees; a box over the antimeridian has "
                "west greater than east.",
            )
        if self.east - self.west in (0, -360):
            raise UsageError(
                f"box {text}: it has no width",
                remedy="For all longitudes give -180 as west and 180 as east.",
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "W,S,E,N". Raises UsageError."""
        try:
            west, south, east, north = (float(part) for part in text.split(","))
        except ValueError as error:
            raise UsageError(
                f"'{text}' is no box",
                remedy="Give west,south,east,north in degrees, such as 130,-10,140,0.",
            ) from error
        return cls(west, south, east, north)

    @property
    def width(self) -> float:
        """Degrees of longitude, 0 < width <= 360."""
        span = self.east - self.west
        return 360.0 if span >= 360 else span % 360

    @property
    def height(self) -> float:
        """Degrees of latitude."""
        return self.north - self.south

    @property
    def boxes(self) -> Sequence[Self]:
        """Itself: what every region can be covered with."""
        return (self,)

    def contains(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which of n positions lie in the box, (n,); never those that are NaN."""
        x = np.atleast_1d(np.asarray(lon, dtype=np.float64))
        y = np.atleast_1d(np.asarray(lat, dtype=np.float64))
        inside: npt.NDArray[np.bool_] = (y >= self.south - _TOLERANCE_DEG) & (
            y <= self.north + _TOLERANCE_DEG
        )
        east_of = np.remainder(x - self.west + _TOLERANCE_DEG, 360.0)
        return inside & (east_of <= self.width + 2 * _TOLERANCE_DEG)

    def overlaps(self, other: Box) -> bool:
        """Do the two share an area (more than an edge)?"""
        if self.north <= other.south or other.north <= self.south:
            return False
        return (other.west - self.west) % 360 < self.width or (
            self.west - other.west
        ) % 360 < other.width


def footprint(
    lon: float, lat: float, width_deg: float, height_deg: float, *, domain: int = 180
) -> list[Ring]:
    """Outline of the tile centred at `lon`, `lat`: one ring, or two where it crosses the seam.

    The seam lies at 180 degrees for `domain` 180 (longitudes -180..180) and at 0 degrees for
    `domain` 360 (0..360). Corners beyond a pole are pulled back to it.
    """
    south = round(max(lat - height_deg / 2, -90.0), _DECIMALS)
    north = round(min(lat + height_deg / 2, 90.0), _DECIMALS)
    start = -180.0 if domain == 180 else 0.0
    if width_deg >= 360:
        return [_ring(start, south, start + 360, north)]
    middle = float(wrap_lon(lon) if domain == 180 else lon_180_to_360(lon))
    west = round(middle - width_deg / 2, _DECIMALS)
    east = round(middle + width_deg / 2, _DECIMALS)
    end = start + 360
    if west < start:
        return [
            _ring(round(west + 360, _DECIMALS), south, end, north),
            _ring(start, south, east, north),
        ]
    if east > end:
        return [
            _ring(west, south, end, north),
            _ring(start, south, round(east - 360, _DECIMALS), north),
        ]
    return [_ring(west, south, east, north)]


def _ring(west: float, south: float, east: float, north: float) -> Ring:
    return [(west, south), (east, south), (east, north), (west, north), (west, south)]
