"""Rasters whose values are the planetocentric longitude and latitude of their pixels.

The projections are inverted here by the formulas of Snyder (1987), Map Projections: A Working
Manual, without PROJ.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

A, B = 3_396_190.0, 3_376_200.0


@dataclass(frozen=True)
class Projected:
    """A projection, and the area and pixel size of a raster in it.

    `invert` returns planetocentric degrees for x, y.
    """

    crs: str
    invert: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    corner: tuple[float, float]
    pixel: float


def _e(b: float) -> float:
    return float(np.sqrt(1 - (b / A) ** 2))


def _centric(phi: np.ndarray, e: float) -> np.ndarray:
    return np.degrees(np.arctan((1 - e * e) * np.tan(phi)))


def _phi_of_t(t: np.ndarray, e: float) -> np.ndarray:
    """Snyder 7-9."""
    phi = np.pi / 2 - 2 * np.arctan(t)
    for _ in range(12):
        sine = e * np.sin(phi)
        phi = np.pi / 2 - 2 * np.arctan(t * ((1 - sine) / (1 + sine)) ** (e / 2))
    return phi


def mercator(b: float, lon0: float = 0.0):
    e = _e(b)

    def invert(x, y):
        return lon0 + np.degrees(x / A), _centric(_phi_of_t(np.exp(-y / A), e), e)

    return invert


def polar(b: float, lon0: float, south: bool = False):
    e = _e(b)
    scale = np.sqrt((1 + e) ** (1 + e) * (1 - e) ** (1 - e))

    def invert(x, y):
        t = np.hypot(x, y) * scale / (2 * A)  # 21-39
        lat = _centric(_phi_of_t(t, e), e)
        if south:
            return lon0 + np.degrees(np.arctan2(x, y)), -lat
        return lon0 + np.degrees(np.arctan2(x, -y)), lat

    return invert


def oblique(b: float, lat0: float, lon0: float):
    e = _e(b)
    phi1 = np.radians(lat0)
    sine = e * np.sin(phi1)
    chi1 = 2 * np.arctan(np.tan(np.pi / 4 + phi1 / 2) * ((1 - sine) / (1 + sine)) ** (e / 2))
    chi1 -= np.pi / 2
    m1 = np.cos(phi1) / np.sqrt(1 - sine**2)

    def invert(x, y):
        rho = np.hypot(x, y)
        c = 2 * np.arctan2(rho * np.cos(chi1), 2 * A * m1)  # 21-38
        chi = np.arcsin(np.cos(c) * np.sin(chi1) + y * np.sin(c) * np.cos(chi1) / rho)
        lon = np.arctan2(
            x * np.sin(c), rho * np.cos(chi1) * np.cos(c) - y * np.sin(chi1) * np.sin(c)
        )
        return lon0 + np.degrees(lon), _centric(_phi_of_t(np.tan(np.pi / 4 - chi / 2), e), e)

    return invert


def sinusoidal(b: float, lon0: float):
    e = _e(b)
    e2 = e * e
    root = np.sqrt(1 - e2)
    e1 = (1 - root) / (1 + root)

    def invert(x, y):
        mu = y / (A * (1 - e2 / 4 - 3 * e2**2 / 64 - 5 * e2**3 / 256))  # 7-19
        phi = (  # 3-26
            mu
            + (3 * e1 / 2 - 27 * e1**3 / 32) * np.sin(2 * mu)
            + (21 * e1**2 / 16 - 55 * e1**4 / 32) * np.sin(4 * mu)
            + 151 * e1**3 / 96 * np.sin(6 * mu)
            + 1097 * e1**4 / 512 * np.sin(8 * mu)
        )
        lon = x * np.sqrt(1 - e2 * np.sin(phi) ** 2) / (A * np.cos(phi))
        return lon0 + np.degrees(lon), _centric(phi, e)

    return invert


def equirectangular(lon0: float = 0.0, parallel: float = 0.0, radius: float = A):
    def invert(x, y):
        lon = lon0 + np.degrees(x / (radius * np.cos(np.radians(parallel))))
        return lon, np.degrees(y / radius)

    return invert


def graphic_degrees(x, y):
    return x, _centric(np.radians(y), _e(B))


def degrees(x, y):
    return x, y


SPHERE, OBLATE = f"+R={A} +units=m +no_defs", f"+a={A} +b={B} +units=m +no_defs"
GRAPHIC_WKT = (
    'GEOGCS["Mars (2015) / Ographic east",DATUM["Mars (2015)",SPHEROID["Mars (2015)",3396190,'
    '169.894447223612]],PRIMEM["Reference Meridian",0],UNIT["degree",0.0174532925199433]]'
)
M = float(np.radians(1) * A)  # metres of a degree
PROJECTIONS = {
    "eqc sphere": Projected(f"+proj=eqc {SPHERE}", equirectangular(), (137 * M, 42 * M), 500),
    "eqc ellipsoid": Projected(f"+proj=eqc {OBLATE}", equirectangular(), (137 * M, -60 * M), 500),
    "eqc lon_0 lat_ts (HiRISE)": Projected(
        f"+proj=eqc +lon_0=180 +lat_ts=40 {OBLATE}",
        equirectangular(180, 40),
        (-30 * M, 44 * M),
        250,
    ),
    "eqc local radius": Projected(
        "+proj=eqc +lon_0=180 +lat_ts=-45 +R=3386000 +units=m +no_defs",
        equirectangular(180, -45, 3_386_000),
        (-30 * M, -44 * M),
        250,
    ),
    "degrees sphere 0..360": Projected(
        f"+proj=longlat +R={A} +no_defs", degrees, (250.0, -33.0), 0.01
    ),
    "degrees ellipsoid planetographic": Projected(GRAPHIC_WKT, graphic_degrees, (-120, 50), 0.01),
    "mercator sphere": Projected(f"+proj=merc {SPHERE}", mercator(A), (60 * M, 50 * M), 500),
    "mercator ellipsoid": Projected(
        f"+proj=merc +lon_0=90 {OBLATE}", mercator(B, 90), (10 * M, 50 * M), 500
    ),
    "polar sphere": Projected(
        f"+proj=stere +lat_0=90 +lon_0=30 {SPHERE}", polar(A, 30), (200_000, 700_000), 500
    ),
    "polar ellipsoid": Projected(
        f"+proj=stere +lat_0=-90 +lon_0=0 {OBLATE}", polar(B, 0, True), (200_000, 900_000), 500
    ),
    "polar IAU ocentric ellipsoid": Projected(
        "IAU_2015:49937", polar(B, 0, True), (200_000, 900_000), 500
    ),
    "oblique sphere": Projected(
        f"+proj=stere +lat_0=40 +lon_0=-100 {SPHERE}", oblique(A, 40, -100), (50_100, 500_100), 500
    ),
    "oblique ellipsoid": Projected(
        f"+proj=stere +lat_0=40 +lon_0=-100 {OBLATE}", oblique(B, 40, -100), (50_100, 500_100), 500
    ),
    "sinusoidal sphere (HRSC)": Projected(
        f"+proj=sinu +lon_0=77 {SPHERE}", sinusoidal(A, 77), (-90_000, 30 * M), 200
    ),
    "sinusoidal ellipsoid": Projected(
        f"+proj=sinu +lon_0=77 {OBLATE}", sinusoidal(B, 77), (-90_000, 30 * M), 200
    ),
}  # fmt: skip


def pixel_positions(case: Projected, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return case.invert(case.corner[0] + column * case.pixel, case.corner[1] - row * case.pixel)


WriteRaster = Callable[..., Path]


@pytest.fixture
def write_raster(tmp_path: Path) -> WriteRaster:
    """Return a function that writes an array (bands, rows, columns) as a raster."""
    rasterio = pytest.importorskip("rasterio")

    def write(
        name: str,
        values: np.ndarray,
        crs: str | None = f"+proj=eqc +R={A} +units=m +no_defs",
        corner: tuple[float, float] = (137 * M, -4 * M),
        pixel: float = 10.0,
        *,
        transform: Any = None,
        mask: np.ndarray | None = None,
        **options: Any,
    ) -> Path:
        values = values[None] if values.ndim == 2 else values
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        parsed = None
        if crs is not None:
            read = rasterio.CRS.from_wkt if crs.startswith("GEOG") else rasterio.CRS.from_string
            parsed = read(crs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(
                path,
                "w",
                driver=options.pop("driver", "GTiff"),
                width=values.shape[2],
                height=values.shape[1],
                count=len(values),
                dtype=values.dtype,
                crs=parsed,
                transform=transform or rasterio.Affine(pixel, 0, corner[0], 0, -pixel, corner[1]),
                **options,
            ) as file:
                file.write(values)
                if mask is not None:
                    file.write_mask(mask)
        return path

    return write
