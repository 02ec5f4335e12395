"""Positions and boxes on the sphere of Mars, and the names of the mosaic's tiles and quads.

Angles, distances and the equirectangular projection. Names of tiles and quads of the Murray Lab CTX
mosaic carry their south-west corner; in tile names (`E137_2_N_4_6.png`) the decimal point and the
minus sign are underscores: `E_4_0_N_4_0` lies at 4.0 W, 4.0 S.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Self

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import UsageError

MARS_RADIUS_M = 3_396_190.0  # IAU 2015 sphere, IAU_2015:49900
TILE_DEG = 0.2
QUAD_DEG = 4

Floats = npt.NDArray[np.float64]

_TOLERANCE_DEG = 1e-9  # 0.06 mm; tolerance for edges rounded to decimals

_PUBLISHED = re.compile(r"E(_?)(\d+_\d+)_N(_?)(\d+_\d+)\.png")
_TILE = re.compile(r"E(_?)(\d+(?:_\d+)?)_N(_?)(\d+(?:_\d+)?)(?:\.[A-Za-z0-9]+)?")
_QUAD = re.compile(r"(?<![A-Za-z0-9])E(-?\d{1,3})_N(-?\d{1,2})(?!\d)")


def wrap_lon(lon: npt.ArrayLike) -> Floats:
    """Wrap longitudes to -180 <= lon < 180; values within are returned bit for bit.

    Args:
        lon: Longitudes in degrees.

    Returns:
        Array of the same shape.
    """
    values = np.asarray(lon, dtype=np.float64)
    return _wrap(values, -180.0)


def lon_180_to_360(lon: npt.ArrayLike) -> Floats:
    """Wrap longitudes to 0 <= lon < 360; values within are returned bit for bit.

    Args:
        lon: Longitudes in degrees.

    Returns:
        Array of the same shape.
    """
    values = np.asarray(lon, dtype=np.float64)
    return _wrap(values, 0.0)


def _wrap(lon: Floats, start: float) -> Floats:
    inside = (lon >= start) & (lon < start + 360.0)
    wrapped = np.remainder(lon - start, 360.0) + start
    # A value just below the start rounds to start + 360.
    wrapped = np.where(wrapped >= start + 360.0, start, wrapped)
    return np.where(inside | ~np.isfinite(lon), lon, wrapped)


def lonlat_to_metres(lon: npt.ArrayLike, lat: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Project to equirectangular metres: x = R lon, y = R lat, angles in radians.

    Args:
        lon: Longitudes in degrees.
        lat: Latitudes in degrees.

    Returns:
        x and y in metres.
    """
    return (
        MARS_RADIUS_M * np.radians(np.asarray(lon, dtype=np.float64)),
        MARS_RADIUS_M * np.radians(np.asarray(lat, dtype=np.float64)),
    )


def metres_to_lonlat(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Invert `lonlat_to_metres`.

    Args:
        x: Eastings in metres.
        y: Northings in metres.

    Returns:
        Longitudes and latitudes in degrees.
    """
    return (
        np.degrees(np.asarray(x, dtype=np.float64) / MARS_RADIUS_M),
        np.degrees(np.asarray(y, dtype=np.float64) / MARS_RADIUS_M),
    )


def unit_vectors(lon: npt.ArrayLike, lat: npt.ArrayLike) -> Floats:
    """Convert positions to points on the unit sphere; two are 2 sin(angle / 2) apart.

    Args:
        lon: Longitudes in degrees, shape (n,).
        lat: Latitudes in degrees, shape (n,).

    Returns:
        Array of shape (n, 3).
    """
    lam = np.radians(np.atleast_1d(np.asarray(lon, dtype=np.float64)))
    phi = np.radians(np.atleast_1d(np.asarray(lat, dtype=np.float64)))
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def great_circle_deg(
    lon1: npt.ArrayLike, lat1: npt.ArrayLike, lon2: npt.ArrayLike, lat2: npt.ArrayLike
) -> Floats:
    """Compute the central angle between positions by the haversine formula.

    One degree is 59.27 km on Mars. The arguments broadcast.

    Args:
        lon1: Longitudes in degrees.
        lat1: Latitudes in degrees.
        lon2: Longitudes in degrees.
        lat2: Latitudes in degrees.

    Returns:
        Angles in degrees.
    """
    lam1, phi1, lam2, phi2 = (
        np.radians(np.asarray(values, dtype=np.float64)) for values in (lon1, lat1, lon2, lat2)
    )
    half = (
        np.sin((phi2 - phi1) / 2) ** 2
        + np.cos(phi1) * np.cos(phi2) * np.sin((lam2 - lam1) / 2) ** 2
    )
    angle: Floats = np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0))))
    return angle


def near_any(
    lon: npt.ArrayLike,
    lat: npt.ArrayLike,
    points_lon: npt.ArrayLike,
    points_lat: npt.ArrayLike,
    radius_deg: float,
) -> npt.NDArray[np.bool_]:
    """Return which positions have a point within a great-circle distance.

    Args:
        lon: Longitudes of n positions, degrees.
        lat: Latitudes of n positions, degrees.
        points_lon: Longitudes of the points, degrees.
        points_lat: Latitudes of the points, degrees.
        radius_deg: Great-circle distance in degrees.

    Returns:
        Booleans of shape (n,).
    """
    from scipy.spatial import cKDTree

    positions = unit_vectors(lon, lat)
    points = unit_vectors(points_lon, points_lat)
    if len(points) == 0 or len(positions) == 0:
        return np.zeros(len(positions), dtype=np.bool_)
    chord = 2 * np.sin(np.radians(min(radius_deg, 180.0)) / 2)
    nearest, _ = cKDTree(points).query(positions)
    near: npt.NDArray[np.bool_] = np.asarray(nearest) <= chord
    return near


def parse_tile_name(name: str) -> tuple[float, float] | None:
    """Read the south-west corner from a file name as the published code does.

    Args:
        name: File name or path.

    Returns:
        Longitude and latitude in degrees; None without `.png` or without decimals.
    """
    match = _PUBLISHED.fullmatch(PurePosixPath(name).name)
    return _corner(match) if match else None


def tile_corner(name: str) -> tuple[float, float] | None:
    """Read the south-west corner from a tile name.

    WebDataset keys (no extension), other image formats and whole degrees are accepted.

    Args:
        name: Tile name, file name or path.

    Returns:
        Longitude and latitude in degrees; None if it is not a tile name or out of range.
    """
    match = _TILE.fullmatch(PurePosixPath(name).name)
    if not match:
        return None
    lon, lat = _corner(match)
    return (lon, lat) if -180 <= lon <= 360 and -90 <= lat <= 90 else None


def tile_centre(name: str, delta: float = TILE_DEG) -> tuple[float, float] | None:
    """Read the centre from a tile name.

    Args:
        name: Tile name, file name or path.
        delta: Tile size in degrees.

    Returns:
        Longitude (-180..180) and latitude in degrees; None if it is not a tile name.
    """
    corner = tile_corner(name)
    if corner is None:
        return None
    lon = float(wrap_lon(round(corner[0] + delta / 2, 9)))
    return lon, round(corner[1] + delta / 2, 9)


def tile_name(lon: float, lat: float, delta: float = TILE_DEG) -> str:
    """Format the name of a tile, without extension.

    It has as many decimals as `delta` needs, at least one, so that the corner can be read back.
    With `delta` 0.2 it is the published name.

    Args:
        lon: Longitude of the south-west corner, degrees.
        lat: Latitude of the south-west corner, degrees.
        delta: Tile size in degrees.

    Returns:
        The name.
    """
    decimals = max(1, _decimals(delta))
    return f"E{_format_degrees(lon, decimals)}_N{_format_degrees(lat, decimals)}"


@lru_cache(maxsize=4096)
def parse_quad_name(name: str) -> tuple[int, int] | None:
    """Read the south-west corner from the name of a quad's GeoTIFF or zip.

    `MurrayLab_CTX_V01_E-004_N-04_Mosaic.tif` and `MurrayLab_GlobalCTXMosaic_V01_E-004_N-04.zip`
    give (-4, -4).

    Args:
        name: File name or path.

    Returns:
        Longitude and latitude in degrees; None if it contains no valid quad.
    """
    match = _QUAD.search(PurePosixPath(name).name)
    if not match:
        return None
    lon, lat = int(match[1]), int(match[2])
    return (lon, lat) if -180 <= lon <= 180 and -90 <= lat < 90 else None


def quad_name(lon: float, lat: float) -> str:
    """Format the name of the quad that contains a position, such as `E-004_N-04`.

    Args:
        lon: Longitude in degrees.
        lat: Latitude in degrees, 88 S to 88 N.

    Returns:
        The name.
    """
    wrapped = lon if -180 <= lon < 180 else float(wrap_lon(lon))
    west = int(wrapped // QUAD_DEG) * QUAD_DEG
    south = int(lat // QUAD_DEG) * QUAD_DEG
    return f"E{_pad(west, 3)}_N{_pad(south, 2)}"


def _corner(match: re.Match[str]) -> tuple[float, float]:
    values = []
    for sign, number in ((match[1], match[2]), (match[3], match[4])):
        value = float(number.replace("_", "."))
        values.append(-value if sign and value else value)
    return values[0], values[1]


def _decimals(delta: float) -> int:
    text = f"{delta:.9f}".rstrip("0")
    return len(text.partition(".")[2])


def _format_degrees(value: float, decimals: int) -> str:
    text = f"{round(value, decimals) + 0.0:.{decimals}f}"  # + 0.0: no negative zero
    return text.replace("-", "_").replace(".", "_")


def _pad(value: int, width: int) -> str:
    return f"{'-' if value < 0 else ''}{abs(value):0{width}d}"


@dataclass(frozen=True, slots=True)
class Box:
    """A range of longitude, eastward from `west` to `east`, and of latitude, edges included.

    Longitudes may be given as -180..180 or 0..360. `west` > `east` means that the box crosses the
    antimeridian; a difference of 360 or more means all longitudes.

    Attributes:
        west: Western edge in degrees.
        south: Southern edge in degrees.
        east: Eastern edge in degrees.
        north: Northern edge in degrees.
    """

    west: float
    south: float
    east: float
    north: float

    def __post_init__(self) -> None:
        for name in ("west", "south", "east", "north"):
            try:  # JSON cannot serialize numpy scalars
                object.__setattr__(self, name, float(getattr(self, name)))
            except (TypeError, ValueError) as error:
                raise UsageError(
                    f"{name} of a box is {getattr(self, name)!r}, not a number",
                    remedy="Give west, south, east, north in degrees.",
                ) from error
        values = (self.west, self.south, self.east, self.north)
        text = ",".join(f"{value:g}" for value in values)
        if not all(np.isfinite(values)):
            raise UsageError(
                f"box {text}: not all numbers are finite",
                remedy="Give west,south,east,north in degrees, such as 130,-10,140,0.",
            )
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
        """Parse a box.

        Args:
            text: `W,S,E,N` in degrees.

        Returns:
            The box.

        Raises:
            UsageError: If the text is not a valid box.
        """
        try:
            west, south, east, north = (float(part) for part in text.split(","))
        except ValueError as error:
            raise UsageError(
                f"'{text}' is not a box",
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
        """The box itself; see `Region.boxes`."""
        return (self,)

    def contains(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return which positions lie in the box.

        Args:
            lon: Longitudes in degrees, shape (n,).
            lat: Latitudes in degrees, shape (n,).

        Returns:
            Booleans of shape (n,); False for NaN.
        """
        x = np.atleast_1d(np.asarray(lon, dtype=np.float64))
        y = np.atleast_1d(np.asarray(lat, dtype=np.float64))
        inside: npt.NDArray[np.bool_] = (y >= self.south - _TOLERANCE_DEG) & (
            y <= self.north + _TOLERANCE_DEG
        )
        east_of = np.remainder(x - self.west + _TOLERANCE_DEG, 360.0)
        return inside & (east_of <= self.width + 2 * _TOLERANCE_DEG)

    def overlaps(self, other: Box) -> bool:
        """Whether two boxes share an area, more than an edge.

        Args:
            other: The other box.

        Returns:
            True if they overlap.
        """
        if self.north <= other.south or other.north <= self.south:
            return False
        return (other.west - self.west) % 360 < self.width or (
            self.west - other.west
        ) % 360 < other.width
