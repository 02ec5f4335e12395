"""Angles, distances and the equirectangular plane of the Mars sphere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MARS_RADIUS_M = 3_396_190.0  # IAU 2015 sphere, IAU_2015:49900

Floats = npt.NDArray[np.float64]


def wrap_lon(lon: npt.ArrayLike) -> Floats:
    """Longitudes in -180 <= lon < 180; values already there are returned unchanged, bit by bit."""
    values = np.asarray(lon, dtype=np.float64)
    return _into(values, -180.0)


def lon_180_to_360(lon: npt.ArrayLike) -> Floats:
    """Longitudes in 0 <= lon < 360; values already there are returned unchanged, bit by bit."""
    values = np.asarray(lon, dtype=np.float64)
    return _into(values, 0.0)


def _into(lon: Floats, start: float) -> Floats:
    inside = (lon >= start) & (lon < start + 360.0)
    moved = np.remainder(lon - start, 360.0) + start
    # A value a hair below the start comes back as start + 360 by rounding.
    moved = np.where(moved >= start + 360.0, start, moved)
    return np.where(inside | ~np.isfinite(lon), lon, moved)


def lonlat_to_metres(lon: npt.ArrayLike, lat: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Equirectangular x, y in metres: x = R lon, y = R lat, angles in radians."""
    return (
        MARS_RADIUS_M * np.radians(np.asarray(lon, dtype=np.float64)),
        MARS_RADIUS_M * np.radians(np.asarray(lat, dtype=np.float64)),
    )


def metres_to_lonlat(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Inverse of `lonlat_to_metres`: degrees."""
    return (
        np.degrees(np.asarray(x, dtype=np.float64) / MARS_RADIUS_M),
        np.degrees(np.asarray(y, dtype=np.float64) / MARS_RADIUS_M),
    )


def unit_vectors(lon: npt.ArrayLike, lat: npt.ArrayLike) -> Floats:
    """Points on the unit sphere, (n, 3); the Euclidean distance of two is 2 sin(angle / 2)."""
    lam = np.radians(np.atleast_1d(np.asarray(lon, dtype=np.float64)))
    phi = np.radians(np.atleast_1d(np.asarray(lat, dtype=np.float64)))
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def great_circle_deg(
    lon1: npt.ArrayLike, lat1: npt.ArrayLike, lon2: npt.ArrayLike, lat2: npt.ArrayLike
) -> Floats:
    """Angle between points seen from the centre, degrees, by the haversine formula; broadcasts.

    One degree is 59.27 km on Mars.
    """
    lam1, phi1, lam2, phi2 = (
        np.radians(np.asarray(each, dtype=np.float64)) for each in (lon1, lat1, lon2, lat2)
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
    """For each of n positions: is any of the points within `radius_deg` (great circle)? (n,)"""
    from scipy.spatial import cKDTree

    here = unit_vectors(lon, lat)
    points = unit_vectors(points_lon, points_lat)
    if len(points) == 0 or len(here) == 0:
        return np.zeros(len(here), dtype=np.bool_)
    chord = 2 * np.sin(np.radians(min(radius_deg, 180.0)) / 2)
    nearest, _ = cKDTree(points).query(here)
    near: npt.NDArray[np.bool_] = np.asarray(nearest) <= chord
    return near
