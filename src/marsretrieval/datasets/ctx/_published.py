"""The published pixels of a tile by GDAL itself, for the few that depend on its rounding errors.

Where a pixel lies exactly between two grey levels, gdalwarp rounds as the errors of its
coordinates happen to fall. Only GDAL can repeat that, with the geometry of the whole quad.
"""

from __future__ import annotations

from threading import Lock

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets.ctx._grid import Tile
from marsretrieval.datasets.geotiff import GeoTiff

_BLOCK = 512
# GDAL's coordinate systems must not be used by two threads at once, and all threads share the
# quad's. Few tiles come here.
_LOCK = Lock()

Bytes = npt.NDArray[np.uint8]


def published_pixels(
    raster: GeoTiff, window: Bytes, row: int, column: int, tile: Tile, size: int
) -> Bytes:
    """Warp `tile` out of `window`, the part of `raster` at `row`, `column` that surrounds it:
    (size, size), bilinear, as gdalwarp does from the file itself, no-data not yet lifted to 1."""
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.io import MemoryFile
    from rasterio.transform import from_bounds
    from rasterio.warp import reproject
    from rasterio.windows import Window

    pixels = np.zeros((size, size), dtype=np.uint8)
    height, width = window.shape
    with (
        _LOCK,
        rasterio.Env(),
        MemoryFile() as memory,
        memory.open(
            driver="GTiff",
            width=raster.width,
            height=raster.height,
            count=1,
            dtype="uint8",
            crs=raster.crs,
            transform=raster.transform,
            nodata=raster.nodata,
            tiled=True,
            blockxsize=_BLOCK,
            blockysize=_BLOCK,
            SPARSE_OK=True,  # only the window takes memory
        ) as quad,
    ):
        quad.write(window, 1, window=Window(column, row, width, height))
        reproject(
            rasterio.band(quad, 1),
            pixels,
            dst_transform=from_bounds(*_edges(raster, tile), size, size),
            dst_crs=raster.crs,
            dst_nodata=0,
            resampling=Resampling.bilinear,
            num_threads=1,
        )
    return pixels


def _edges(raster: GeoTiff, tile: Tile) -> tuple[float, ...]:
    """West, south, east, north in the unit of the file."""
    if raster.crs.is_geographic:
        return tile.west, tile.south, tile.east, tile.north
    x, y = geo.lonlat_to_metres([tile.west, tile.east], [tile.south, tile.north])
    scale = raster.transform.a / float(geo.lonlat_to_metres(raster.pixel_deg[0], 0)[0])
    if abs(scale - 1) > 1e-9:  # a sphere of another radius
        x, y = x * scale, y * scale
    return float(x[0]), float(y[0]), float(x[1]), float(y[1])
