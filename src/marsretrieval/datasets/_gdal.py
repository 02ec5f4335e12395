"""GeoTIFFs opened with GDAL: by the GTiff driver alone, without sidecar files or network access.

GDAL opens whatever a raster names: a VRT called .tif its sources, overviews and masks beside a file
or named in its metadata any address. Rasters are data from elsewhere and must not choose that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marsretrieval.errors import DataError

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and BigTIFF, both byte orders
_OPTIONS = {
    # No .ovr, .msk or .aux.xml: these are opened by any driver, whatever address they name.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # The one address that the network file systems may open, which does not exist.
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "/vsicurl/none",
}


def is_tiff(data: bytes) -> bool:
    """Check the signature of a TIFF or BigTIFF.

    Args:
        data: The first 4 bytes of a file, or more.
    """
    return data[:4] in _MAGIC


@contextmanager
def open_gtiff(source: Path | str | bytes, name: str) -> Iterator[Any]:
    """Open a TIFF with rasterio.

    Args:
        source: A file, a path below /vsizip/ that the caller has built, or the encoded bytes.
        name: The file as messages name it.

    Yields:
        The open `rasterio.DatasetReader`.

    Raises:
        DataError: If the file names another one as its overviews.
        rasterio.errors.RasterioError: If the file is no TIFF, or damaged.
    """
    import rasterio
    from rasterio.io import MemoryFile

    with rasterio.Env(**_OPTIONS):
        if isinstance(source, bytes):
            with MemoryFile(source) as memory, memory.open(driver="GTiff") as file:
                _check_overviews(file, name)
                yield file
        else:
            with rasterio.open(source, driver="GTiff") as file:
                _check_overviews(file, name)
                yield file


def _check_overviews(file: Any, name: str) -> None:
    other = file.tags(ns="OVERVIEWS").get("OVERVIEW_FILE")
    if other is not None:
        raise DataError(
            f"{name}: its metadata names another file as its overviews ({other!r:.80})",
            remedy="Write it again without them: gdal_translate -of GTiff IN.tif OUT.tif",
        )
