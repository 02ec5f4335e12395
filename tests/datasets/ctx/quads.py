"""Small quads of the mosaic: GeoTIFFs and zips under its names, in all layouts, and damaged."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import from_bounds, from_origin
from rasterio.warp import reproject

from marsretrieval import geo
from marsretrieval.datasets.ctx import Quad

__all__ = ["CRS", "LAYOUTS", "noise", "tiff_name", "warped", "write_quad", "zipped"]

Bytes = npt.NDArray[np.uint8]

_TEXT = (
    'PROJCS["{name}",GEOGCS["Mars",DATUM["Mars",SPHEROID["Mars",3396190,{flattening}]],'
    'PRIMEM["Reference Meridian",0],UNIT["degree",0.0174532925199433]],'
    'PROJECTION["Equirectangular"],PARAMETER["standard_parallel_1",0],'
    'PARAMETER["central_meridian",0],PARAMETER["false_easting",0],'
    'PARAMETER["false_northing",0],UNIT["metre",1]]'
)
# The mosaic's own text names an ellipsoid; other copies name the sphere.
CRS = {
    "oblate": _TEXT.format(
        name="Mars_2015_Ocentric_Equirectangular_clon_0", flattening=169.894447223612
    ),
    "sphere": _TEXT.format(name="Equirectangular Mars", flattening=0),
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "rows": {"tiled": False, "blockysize": 1},
    "strips": {"tiled": False, "blockysize": 37},
    "lzw strips": {"tiled": False, "blockysize": 16, "compress": "lzw"},
    "tiled": {"tiled": True, "blockxsize": 64, "blockysize": 64},
    "tiled lzw": {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "lzw"},
    "deflate": {"tiled": True, "compress": "deflate", "predictor": 2},
    "big": {"tiled": False, "blockysize": 1, "BIGTIFF": "YES"},
}


def noise(pixels: int, seed: int = 0, *, no_data: bool = True) -> Bytes:
    """Return noise with gaps, the image that is hardest to resample."""
    values = np.random.default_rng(seed).integers(1, 256, (pixels, pixels), dtype=np.uint8)
    if no_data:
        values[pixels // 5 : pixels // 3, pixels // 2 :] = 0
        values[::7, 3::11] = 0
    return values


def tiff_name(quad: Quad) -> str:
    return f"MurrayLab_CTX_V01_{quad.name}_Mosaic.tif"


def write_quad(
    folder: Path,
    quad: Quad,
    pixels: Bytes,
    *,
    crs: str | None = CRS["oblate"],
    layout: str = "rows",
    name: str | None = None,
    shift: float = 0.0,
    **profile: Any,
) -> Path:
    """Write a GeoTIFF of `pixels` (n, n), moved east by `shift` pixels."""
    path = folder / (name or tiff_name(quad))
    left, _ = geo.lonlat_to_metres(quad.west, quad.south)
    right, top = geo.lonlat_to_metres(quad.west + 4, quad.south + 4)
    size = float(right - left) / len(pixels)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=pixels.shape[1],
        height=pixels.shape[0],
        count=1,
        dtype=pixels.dtype,
        crs=crs and rasterio.crs.CRS.from_wkt(crs),
        transform=from_origin(float(left) + shift * size, float(top), size, size),
        **LAYOUTS[layout],
        **profile,
    ) as file:
        file.write(pixels, 1)
    return path


def zipped(tiff: Path, quad: Quad, folder: Path, *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write the zip of a quad in the layout of the server."""
    path = folder / quad.zip_name
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(f"{path.stem}/ReadMe.txt", "synthetic")
        archive.write(tiff, f"{path.stem}/{tiff_name(quad)}")
        archive.writestr(f"{path.stem}/{quad.name}_SeamMap.shp", b"\0" * 100)
    return path


def warped(tiff: Path, bounds: Sequence[float], size: int) -> Bytes:
    """Cut a tile with the published method: bilinear, destination 0, from the file."""
    west, south, east, north = bounds
    left, bottom = geo.lonlat_to_metres(west, south)
    right, top = geo.lonlat_to_metres(east, north)
    pixels = np.zeros((size, size), dtype=np.uint8)
    with rasterio.open(tiff) as file:
        reproject(
            rasterio.band(file, 1),
            pixels,
            dst_transform=from_bounds(
                float(left), float(bottom), float(right), float(top), size, size
            ),
            dst_crs=file.crs,
            dst_nodata=0,
            resampling=Resampling.bilinear,
        )
    return pixels
