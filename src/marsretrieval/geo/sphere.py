"""Angles, distances and the equirectangular projection on the sphere of Mars."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MARS_RADIUS_M = 3_396_190.0  # IAU 2015 sphere, IAU_2015:49900

Floats = npt.NDArray[np.float64]


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
