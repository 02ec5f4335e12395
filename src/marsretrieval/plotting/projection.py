"""Cartopy map projections on the sphere of Mars, and the regions that close-up maps show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.errors import MissingDependencyError
from marsretrieval.geo import MARS_RADIUS_M, Box, great_circle_deg, wrap_lon

if TYPE_CHECKING:
    from cartopy.crs import Projection

Floats = npt.NDArray[np.float64]

POLAR_LAT_DEG = 60.0  # boxes poleward of this latitude get a polar map
_MAX_REGIONS, _MAX_REGION_DEG = 8, 24.0  # limits for maps of regions


def require_cartopy() -> None:
    """Raise MissingDependencyError if cartopy is not installed, without importing it."""
    from importlib.util import find_spec

    if find_spec("cartopy") is None:
        raise MissingDependencyError("cartopy", "gis", needed_for="a map")


def is_polar(box: Box) -> bool:
    """Whether a box is mapped in polar stereographic projection.

    Args:
        box: The area of the map.

    Returns:
        True for boxes poleward of 60 degrees, and for caps of all longitudes that hold a pole and
        end poleward of 30 degrees.
    """
    inner = box.south if box.north > -box.south else -box.north
    outer = box.north if box.north > -box.south else -box.south
    return inner >= POLAR_LAT_DEG or (inner >= 30.0 and outer == 90.0 and box.width >= 360.0)


@dataclass(frozen=True, slots=True)
class MapFrame:
    """A projection of the sphere of Mars and the part of its plane that a map shows.

    Attributes:
        projection: A cartopy projection. Its plane is in degrees for equirectangular maps and in
            metres for polar ones.
        polar: Whether the projection is polar stereographic.
        centre_lon: Longitude of the central meridian, degrees.
        extent: Left, right, bottom and top edges in the plane.
        circular: Whether the map is a disk about a pole.
    """

    projection: Projection
    polar: bool
    centre_lon: float
    extent: tuple[float, float, float, float]
    circular: bool

    @property
    def width(self) -> float:
        """Width in units of the plane."""
        return self.extent[1] - self.extent[0]

    @property
    def height(self) -> float:
        """Height in units of the plane."""
        return self.extent[3] - self.extent[2]

    def project(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Convert positions to coordinates of the plane.

        Args:
            lon: Longitudes of any range, degrees, broadcast against `lat`.
            lat: Planetocentric latitudes, degrees.

        Returns:
            x and y. On an equirectangular map x lies within half a turn of the central meridian.
        """
        x, y = np.broadcast_arrays(np.asarray(lon, np.float64), np.asarray(lat, np.float64))
        if not self.polar:
            return np.asarray(wrap_lon(x - self.centre_lon)), y.copy()
        points = self.projection.transform_points(_geodetic(), x.ravel(), y.ravel())
        return points[:, 0].reshape(x.shape), points[:, 1].reshape(x.shape)

    def locate(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Convert coordinates of the plane to positions.

        Args:
            x: Horizontal coordinates, broadcast against `y`.
            y: Vertical coordinates.

        Returns:
            Longitudes (-180..180) and latitudes in degrees.
        """
        u, v = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
        if not self.polar:
            return np.asarray(wrap_lon(u + self.centre_lon)), v.copy()
        points = _geodetic().transform_points(self.projection, u.ravel(), v.ravel())
        return np.asarray(wrap_lon(points[:, 0])).reshape(u.shape), points[:, 1].reshape(u.shape)

    def pixel_positions(self, columns: int, rows: int) -> tuple[Floats, Floats]:
        """Return the positions of the pixels of an image that fills the map.

        Args:
            columns: Number of columns.
            rows: Number of rows.

        Returns:
            Longitudes (-180..180) and latitudes in degrees, which broadcast to (rows, columns).
        """
        left, _, _, top = self.extent
        x = left + (np.arange(columns) + 0.5) / columns * self.width
        y = top - (np.arange(rows) + 0.5) / rows * self.height
        if self.polar:
            return self.locate(*np.meshgrid(x, y))
        return self.locate(x, 0.0)[0][None, :], y[:, None]

    def contains(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return which positions lie on the map.

        Args:
            lon: Longitudes in degrees, shape (n,).
            lat: Latitudes in degrees, shape (n,).

        Returns:
            Booleans of shape (n,); False for NaN.
        """
        x, y = (np.atleast_1d(values) for values in self.project(lon, lat))
        left, right, bottom, top = self.extent
        slack = 1e-9 * self.width
        inside = (x >= left - slack) & (x <= right + slack) & (y >= bottom - slack)
        inside &= y <= top + slack
        if self.circular:
            inside &= np.hypot(x, y) <= right + slack
        return np.asarray(inside)

    def outline(
        self, lon: float, lat: float, width_deg: float, height_deg: float, steps: int
    ) -> Floats:
        """Project a rectangle of longitude and latitude.

        Args:
            lon: Longitude of the centre, degrees.
            lat: Latitude of the centre, degrees.
            width_deg: Width in degrees of longitude.
            height_deg: Height in degrees.
            steps: Number of segments per edge.

        Returns:
            Corners of shape (4 * steps, 2).
        """
        t = np.linspace(0, 1, steps, endpoint=False)
        u = np.concatenate([t, np.ones(steps), 1 - t, np.zeros(steps)]) - 0.5
        v = np.concatenate([np.zeros(steps), t, np.ones(steps), 1 - t]) - 0.5
        if not self.polar:
            x, _ = self.project(lon, lat)
            return np.column_stack([float(x) + u * width_deg, lat + v * height_deg])
        latitudes = np.clip(lat + v * height_deg, -90.0, 90.0)
        return np.column_stack(self.project(lon + u * width_deg, latitudes))

    def kilometres_per_unit(self, x: float, y: float) -> float:
        """Return the length on the sphere of one horizontal unit of the plane.

        Args:
            x: Horizontal coordinate.
            y: Vertical coordinate.

        Returns:
            Kilometres per unit.
        """
        step = 1e-4 * self.width
        lon, lat = self.locate([x - step, x + step], [y, y])
        angle = float(great_circle_deg(lon[0], lat[0], lon[1], lat[1]))
        return float(np.radians(angle) * MARS_RADIUS_M / 1000 / (2 * step))


def west_edge(box: Box, domain: int) -> float:
    """Return the west edge of a map.

    Args:
        box: What the map shows.
        domain: 180 for longitudes of -180..180, 360 for 0..360.

    Returns:
        Degrees in the range of `domain`; a global map starts where the range does.
    """
    low = -180.0 if domain == 180 else 0.0
    return low if box.width >= 360 else low + (box.west - low) % 360.0


def map_frame(box: Box, west: float) -> MapFrame:
    """Choose projection and extent of a map.

    Args:
        box: What the map shows. Boxes near a pole (`is_polar`) get a polar stereographic
            projection, all others an equirectangular one.
        west: Longitude of the left edge of an equirectangular map, degrees.

    Returns:
        The frame of the map.

    Raises:
        MissingDependencyError: cartopy is not installed.
    """
    require_cartopy()
    from cartopy import crs

    centre = west + box.width / 2
    if not is_polar(box):
        projection = crs.PlateCarree(central_longitude=float(wrap_lon(centre)), globe=_globe())
        half = box.width / 2
        return MapFrame(projection, False, centre, (-half, half, box.south, box.north), False)
    north = box.north > -box.south
    if box.width >= 360.0:
        centre = 0.0
    stereo: Any = crs.NorthPolarStereo if north else crs.SouthPolarStereo
    projection = stereo(central_longitude=float(wrap_lon(centre)), globe=_globe())
    frame = MapFrame(projection, True, centre, (-1.0, 1.0, -1.0, 1.0), False)
    edge = box.south if north else box.north
    if box.width >= 360.0:
        radius = float(np.hypot(*frame.project(0.0, edge)))
        return MapFrame(projection, True, centre, (-radius, radius, -radius, radius), True)
    middle = (box.south + box.north) / 2
    corners = frame.outline(centre, middle, box.width, box.height, 90)
    (left, bottom), (right, top) = corners.min(axis=0), corners.max(axis=0)
    extent = (float(left), float(right), float(bottom), float(top))
    return MapFrame(projection, True, centre, extent, False)


def _globe() -> Any:
    from cartopy.crs import Globe

    # On a sphere PROJ leaves the degrees of the mosaic unchanged.
    return Globe(ellipse=None, semimajor_axis=MARS_RADIUS_M, semiminor_axis=MARS_RADIUS_M)


def _geodetic() -> Any:
    from cartopy.crs import PlateCarree

    return PlateCarree(globe=_globe())


def regions_of(lonlat: Floats) -> list[geo.Box]:
    """Find groups of neighbouring quads that hold any position.

    Args:
        lonlat: Positions of shape (n, 2), lon and lat in degrees; NaN if unknown.

    Returns:
        Bounding boxes from north to south; empty if there are too many or one is too wide.
    """
    from scipy import ndimage

    positions = lonlat[np.isfinite(lonlat).all(axis=1)]
    quad = geo.QUAD_DEG
    columns = 360 // quad
    top = 90 // quad  # index of the northernmost row, counted from the equator
    row = top - np.floor(positions[:, 1] / quad).astype(int)
    column = np.floor((geo.wrap_lon(positions[:, 0]) + 180) / quad).astype(int) % columns
    occupied = np.zeros((2 * top + 2, columns), dtype=bool)
    occupied[row, column] = True
    empty = np.flatnonzero(~occupied.any(axis=0))
    if not len(empty):
        return []
    first = int(empty[0])  # an empty column, so that no region crosses the edge of the grid
    labels, count = ndimage.label(np.roll(occupied, -first, axis=1), np.ones((3, 3)))
    parts = ndimage.find_objects(labels)
    spans = [part.stop - part.start for pair in parts for part in pair]
    if count > _MAX_REGIONS or max(spans, default=0) * quad > _MAX_REGION_DEG:
        return []
    return [
        geo.Box(
            float(geo.wrap_lon((x.start + first) * quad - 180)),
            max(-90.0, (top + 1 - y.stop) * quad),
            float(geo.wrap_lon((x.stop + first) * quad - 180)),
            min(90.0, (top + 1 - y.start) * quad),
        )
        for y, x in parts
    ]
