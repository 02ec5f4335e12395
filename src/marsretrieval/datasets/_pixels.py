"""Images in memory, of Pillow or numpy, converted as the same file would be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from marsretrieval.datasets._images import decode_rgb, has_other_pixels, to_rgb
from marsretrieval.datasets._stretch import stretch
from marsretrieval.datasets._tiff import has_mask
from marsretrieval.errors import ImageError


def rgb_of(image: Image.Image | npt.NDArray[Any], name: str = "image") -> Image.Image:
    """Convert a Pillow image or an array to RGB by the rules of `decode_rgb`.

    Args:
        image: A Pillow image of any mode, or an array of shape (height, width) or (height, width,
            bands). One band is grey, two are grey and alpha, three RGB, four RGBA. Values of
            other types than uint8 are stretched from their least to their greatest; bool is black
            and white.
        name: Begins the message of an error.

    Returns:
        An RGB image, the EXIF orientation of a Pillow image applied.

    Raises:
        ImageError: If it has no such shape or type, or cannot be decoded.
    """
    if isinstance(image, Image.Image):
        return _from_pillow(image, name)
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4 or not pixels.size:
        raise ImageError(
            f"{name}: an array of shape {np.shape(image)} is not an image",
            remedy="Use (height, width) or (height, width, bands) with 1 to 4 bands; "
            "np.moveaxis(array, 0, -1) moves bands from the front.",
        )
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.dtype.kind not in "uif":
        raise ImageError(
            f"{name}: an array of {pixels.dtype} is not an image",
            remedy="Use integers or floating-point numbers.",
        )
    bands = pixels.shape[2]
    if pixels.dtype != np.uint8:
        valid = pixels[..., -1] != 0 if bands in (2, 4) else None
        pixels = stretch(pixels[..., : 3 if bands > 2 else 1], valid=valid)
    pixels = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return to_rgb(Image.fromarray(pixels), None)


def _from_pillow(image: Image.Image, name: str) -> Image.Image:
    file = Path(getattr(image, "filename", "") or "")
    if image.format == "TIFF" and file.is_file() and has_mask(file.read_bytes()):
        return decode_rgb(file.read_bytes(), str(file))
    if has_other_pixels(image):
        if not file.is_file():
            raise ImageError(
                f"{name}: Pillow cannot read the pixels of such a TIFF",
                remedy="Give the path of the file, or an array, instead of a Pillow image.",
            )
        return decode_rgb(file.read_bytes(), str(file))
    try:
        return to_rgb(ImageOps.exif_transpose(image), image)
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"{name}: cannot be decoded ({error})") from error
