"""Quads of the planet as GeoTIFFs like those of the Murray Lab CTX mosaic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.errors import MissingDependencyError

# The CRS text of the mosaic: it names an oblate Mars, though the pixels are laid out on the
# sphere (x = R lon, y = R lat). Readers have to cope with that, so it is kept.
_CRS = (
    'PROJCS["Mars_2015_Ocentric_Equirectangular_clon_0",GEOGCS["Mars (2015) / Ocentric",'
    'DATUM["Mars (2015)",SPHEROID["Mars (2015)",3396190,169.894447223612]],'
    'PRIMEM["Reference Meridian",0],UNIT["degree",0.0174532925199433]],'
    'PROJECTION["Equirectangular"],PARAMETER["standard_parallel_1",0],'
    'PARAMETER["central_meridian",0],PARAMETER["false_easting",0],'
    'PARAMETER["false_northing",0],UNIT["metre",1]]'
)


def quad_file_name(west: int, south: int) -> str:
    """`MurrayLab_CTX_V01_E-180_N-04_Mosaic.tif`."""
    return f"MurrayLab_CTX_V01_{geo.quad_name(west, south)}_Mosaic.tif"


def require_rasterio() -> None:
    """Raises MissingDependencyError before any work is done."""
    try:
        import rasterio  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "rasterio", "geotiff", needed_for="writing the planet's GeoTIFFs"
        ) from error


def write_quad(path: Path, west: int, south: int, pixels: npt.NDArray[np.uint8]) -> None:
    """Write (n, n) pixels of the quad with that south-west corner: uncompressed, no nodata tag."""
    import rasterio

    left, top = (float(edge) for edge in geo.lonlat_to_metres(west, south + geo.QUAD_DEG))
    right, bottom = (float(edge) for edge in geo.lonlat_to_metres(west + geo.QUAD_DEG, south))
    rows, columns = pixels.shape
    # In memory first: GDAL reports no error of a disk that is full when a file is closed.
    with rasterio.io.MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            width=columns,
            height=rows,
            count=1,
            dtype="uint8",
            crs=rasterio.crs.CRS.from_wkt(_CRS),
            transform=rasterio.Affine(
                (right - left) / columns, 0, left, 0, (bottom - top) / rows, top
            ),
        ) as file:
            file.write(pixels, 1)
        memory.seek(0)
        path.write_bytes(memory.read())
