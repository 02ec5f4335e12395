"""TIFFs through GDAL: kinds that Pillow cannot decode, and masks.

Pillow decodes neither several bands of more than 8 bits, nor 64-bit floats, nor LERC.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from marsretrieval.datasets._gdal import open_gtiff
from marsretrieval.datasets._stretch import stretch
from marsretrieval.errors import DataError, ImageError

# A picture need not lie on a planet. Set once for all threads, as in _images.py.
warnings.filterwarnings("ignore", message="Dataset has no geotransform")

_SUBFILE_TYPE, _MASK = 254, 4
_MOST_DIRECTORIES = 64


def check_size(source: str, width: int, height: int, max_pixels: int) -> None:
    """Raises ImageError where there are more pixels than that."""
    if width * height > max_pixels:
        raise ImageError(
            f"{source}: {width} x {height} pixels, more than {max_pixels:,}",
            remedy="Cut it into tiles first.",
        )


def has_mask(data: bytes) -> bool:
    """Check for a transparency mask among the directories after the first, as GDAL writes it.

    Args:
        data: An encoded TIFF whose first directory is sound.
    """
    file = io.BytesIO(data)
    visited: set[int] = set()
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2] == 43 else 8])
        while tags.next and tags.next not in visited and len(visited) < _MOST_DIRECTORIES:
            visited.add(tags.next)
            file.seek(tags.next)
            tags.load(file)
            kind = tags.get(_SUBFILE_TYPE, 0)
            if isinstance(kind, int) and kind & _MASK:
                return True
    except Exception:  # a damaged directory behind a sound image, which is read without it
        return False
    return False


def read_mask(data: bytes, source: str) -> npt.NDArray[np.bool_]:
    """Read which pixels of a TIFF are valid by its internal mask.

    Args:
        data: The encoded TIFF.
        source: The file as messages name it.

    Returns:
        Booleans of shape (height, width), False where there are no data.

    Raises:
        ImageError: If it cannot be read, or rasterio is not installed.
    """
    with _opened(data, source) as file:
        mask: npt.NDArray[Any] = file.dataset_mask()
    valid: npt.NDArray[np.bool_] = mask != 0
    return valid


def read_tiff(data: bytes, source: str, max_pixels: int) -> Image.Image:
    """Read the first three bands as RGB, or the first alone as grey if there are fewer.

    Bytes stay as they are, all else is stretched. No-data and what an alpha band hides are black.

    Args:
        data: The encoded TIFF.
        source: The file as messages name it.
        max_pixels: The largest number of pixels that is decoded.

    Returns:
        An image of mode RGB or L.

    Raises:
        ImageError: If it cannot be read, is too large, or rasterio is not installed.
    """
    with _opened(data, source) as file:
        check_size(source, file.width, file.height, max_pixels)
        bands: npt.NDArray[Any] = file.read([1, 2, 3] if file.count > 2 else [1])
        valid: npt.NDArray[Any] = file.dataset_mask()
    if np.iscomplexobj(bands):
        raise ImageError(f"{source}: holds complex numbers, which are no picture")
    pixels = np.moveaxis(bands, 0, -1)
    if pixels.dtype == np.uint8:
        grey = np.where(valid[..., None] != 0, pixels, 0).astype(np.uint8)
    else:
        grey = stretch(pixels, valid=valid)
    return Image.fromarray(grey if grey.shape[2] == 3 else grey[..., 0])


@contextmanager
def _opened(data: bytes, source: str) -> Iterator[Any]:
    try:
        from rasterio.errors import RasterioError
    except ModuleNotFoundError as error:
        raise ImageError(
            f"{source}: a damaged TIFF, or of a kind that needs rasterio",
            remedy="pip install 'marsretrieval[geotiff]'",
        ) from error
    try:
        with open_gtiff(data, source) as file:
            yield file
    except DataError as error:
        raise ImageError(error.message, remedy=error.remedy) from error
    except (RasterioError, OSError, ValueError) as error:
        raise ImageError(f"{source}: cannot be decoded ({error})") from error
