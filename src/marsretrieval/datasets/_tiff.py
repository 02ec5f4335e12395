"""TIFFs that Pillow cannot decode: several bands of more than 8 bits, 64-bit floats, LERC."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from marsretrieval.datasets._stretch import stretch
from marsretrieval.errors import ImageError

__all__ = ["check_size", "is_tiff", "read_tiff"]

# A picture need not lie on a planet. Set once for all threads, as in _images.py.
warnings.filterwarnings("ignore", message="Dataset has no geotransform")

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and BigTIFF, both byte orders


def check_size(source: str, width: int, height: int, max_pixels: int) -> None:
    """Raises ImageError where there are more pixels than that."""
    if width * height > max_pixels:
        raise ImageError(
            f"{source}: {width} x {height} pixels, more than {max_pixels:,}",
            remedy="Cut it into tiles first.",
        )


def is_tiff(data: bytes) -> bool:
    return data[:4] in _MAGIC


def read_tiff(data: bytes, source: str, max_pixels: int) -> Image.Image:
    """RGB of the first three bands, or of the first alone where there are fewer; bytes as they
    stand, all else stretched. No-data and what an alpha band hides are black.

    Raises ImageError naming `source`.
    """
    try:
        from rasterio.errors import RasterioError
        from rasterio.io import MemoryFile
    except ModuleNotFoundError as error:
        raise ImageError(
            f"{source}: a damaged TIFF, or of a kind that needs rasterio",
            remedy="pip install 'marsretrieval[geotiff]'",
        ) from error
    try:
        # By its driver alone: other formats of GDAL's may name further files to open.
        with MemoryFile(data) as memory, memory.open(driver="GTiff") as file:
            check_size(source, file.width, file.height, max_pixels)
            bands: npt.NDArray[Any] = file.read([1, 2, 3] if file.count > 2 else [1])
            valid: npt.NDArray[Any] = file.dataset_mask()
    except (RasterioError, OSError, ValueError) as error:
        raise ImageError(f"{source}: cannot be decoded ({error})") from error
    if np.iscomplexobj(bands):
        raise ImageError(f"{source}: holds complex numbers, which are no picture")
    pixels = np.moveaxis(bands, 0, -1)
    if pixels.dtype == np.uint8:
        grey = np.where(valid[..., None] != 0, pixels, 0).astype(np.uint8)
    else:
        grey = stretch(pixels, valid=valid)
    return Image.fromarray(grey if grey.shape[2] == 3 else grey[..., 0]).convert("RGB")
