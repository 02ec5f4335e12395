"""Write a synthetic quad of the CTX mosaic: terrain, craters, noise, areas without data."""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from marsretrieval import geo
from marsretrieval.datasets.ctx import Quad
from tests.datasets.ctx.quads import CRS, LAYOUTS, tiff_name

__all__ = ["FULL_PIXELS", "write_quad", "write_zip"]

FULL_PIXELS = 47_420
_PERIOD = 2048  # of the textures
_CRATERS = 4000

Floats = npt.NDArray[np.float32]


def write_quad(folder: Path, quad: Quad, pixels: int, *, layout: str = "rows") -> Path:
    """Write a square GeoTIFF of `pixels` per side with 1 byte per pixel, band by band."""
    rng = np.random.default_rng([quad.west % 360, quad.south % 180, pixels])
    relief = _fractal(rng, 2.0)
    textures = [_fractal(rng, 1.35), _fractal(rng, 1.35)]
    radius = np.minimum(4 + 12 * pixels / FULL_PIXELS * rng.pareto(1.4, _CRATERS), pixels * 0.06)
    craters = np.column_stack(
        [rng.random((_CRATERS, 2)) * pixels, radius, rng.uniform(0.3, 1.1, _CRATERS)]
    )
    left, _ = geo.lonlat_to_metres(quad.west, quad.south)
    right, top = geo.lonlat_to_metres(quad.west + 4, quad.south + 4)
    size = float(right - left) / pixels
    path = folder / tiff_name(quad)
    with rasterio.open(
        path, "w", driver="GTiff", width=pixels, height=pixels, count=1, dtype="uint8",
        crs=rasterio.crs.CRS.from_wkt(CRS["oblate"]),
        transform=from_origin(float(left), float(top), size, size), **LAYOUTS[layout],
    ) as file:  # fmt: skip
        height = max(64, min(1024, pixels // 20))
        for first in range(0, pixels, height):
            rows = np.arange(first, min(first + height, pixels))
            band = 118 + 18 * _stretched(relief, rows, pixels)
            band += 9 * np.take(textures[0][rows % _PERIOD], np.arange(pixels), 1, mode="wrap")
            third = np.arange(pixels) // 3
            band += 8 * np.take(textures[1][rows // 3 % _PERIOD], third, 1, mode="wrap")
            _dig(band, craters, first)
            band += 1.6 * rng.standard_normal(band.shape, dtype=np.float32)
            grey = np.clip(np.rint(band), 1, 255).astype(np.uint8)
            grey[_gaps(rows, pixels)] = 0
            file.write(grey, 1, window=Window(0, first, pixels, len(rows)))
    return path


def write_zip(tiff: Path, quad: Quad, folder: Path) -> Path:
    """Write the zip of a quad with deflate compression."""
    path = folder / quad.zip_name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        archive.write(tiff, f"{path.stem}/{tiff.name}")
    return path


def _fractal(rng: np.random.Generator, exponent: float) -> Floats:
    """Return periodic noise with a decaying spectrum, mean 0 and variance 1."""
    across = np.fft.rfftfreq(_PERIOD)
    frequency = np.hypot(np.fft.fftfreq(_PERIOD)[:, None], across)
    frequency[0, 0] = 1
    phase = np.exp(2j * np.pi * rng.random(frequency.shape))
    field = np.fft.irfft2(frequency**-exponent * phase, s=(_PERIOD, _PERIOD))
    return ((field - field.mean()) / field.std()).astype(np.float32)


def _stretched(field: Floats, rows: npt.NDArray[np.intp], pixels: int) -> Floats:
    """Interpolate `field` linearly over the quad and return the given rows."""

    def positions(at: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.intp], Floats]:
        position = (at + 0.5) / pixels * (_PERIOD - 2)
        return position.astype(np.intp), (position % 1).astype(np.float32)

    i, down = positions(rows)
    j, right = positions(np.arange(pixels))
    lines = field[i] * (1 - down[:, None]) + field[i + 1] * down[:, None]
    values: Floats = lines[:, j] * (1 - right) + lines[:, j + 1] * right
    return values


def _dig(band: Floats, craters: npt.NDArray[np.float64], first: int) -> None:
    """Return craters with rims, lit from the west."""
    height, width = band.shape
    for x, y, radius, depth in craters:
        reach = 1.5 * radius
        top, bottom = max(0, int(y - reach) - first), min(height, int(y + reach) + 1 - first)
        left, right = max(0, int(x - reach)), min(width, int(x + reach) + 1)
        if bottom <= top or right <= left:
            continue
        down, along = np.mgrid[top:bottom, left:right].astype(np.float32)
        along, down = (along - x) / radius, (down + first - y) / radius
        distance = np.hypot(along, down)
        slope = np.where(distance < 1, 2 * distance, -2.5 * np.clip(1.5 - distance, 0, 0.5))
        slope[distance >= 1.5] = 0
        lit = (along * 0.8 + down * 0.3) / np.maximum(distance, 0.05)
        band[top:bottom, left:right] -= depth * 40 * slope * lit


def _gaps(rows: npt.NDArray[np.intp], pixels: int) -> npt.NDArray[np.bool_]:
    """Return the mask of a slanted strip and a corner without data."""
    y = rows[:, None] / pixels
    x = np.arange(pixels)[None] / pixels
    offset = x - 0.3 + 0.12 * y
    strip = (offset > 0) & (offset < 0.012) & (y > 0.2) & (y < 0.9)
    return strip | ((x > 0.82) & (y > 0.83))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quad", type=int, nargs=2, default=(-4, -4), metavar=("WEST", "SOUTH"))
    parser.add_argument("--pixels", type=int, default=FULL_PIXELS)
    parser.add_argument("--layout", choices=LAYOUTS, default="rows")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    west, south = arguments.quad
    print(
        write_quad(arguments.folder, Quad(south, west), arguments.pixels, layout=arguments.layout)
    )


if __name__ == "__main__":
    main()
