"""Encoded bytes to an RGB picture, whatever the mode, or an error that names the file."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from marsretrieval.datasets._stretch import stretch
from marsretrieval.datasets._tiff import check_size, is_tiff, read_tiff
from marsretrieval.errors import ImageError

__all__ = [
    "EXTENSIONS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "decode_rgb",
    "has_other_pixels",
    "to_rgb",
]

EXTENSIONS = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".tif", ".tiff", ".bmp", ".gif"}
    | {".jp2", ".j2k", ".jpf", ".jpx"}
)
# Pillow knows more, some of which call other programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000")

# The widest image of the caption dataset is 37,971 px; beyond this it is no picture to look at.
MAX_PIXELS = 500_000_000
# So many pixels take less, even in RGB and uncompressed; readers load no larger file.
MAX_BYTES = 2**31
# Pillow's own limit, for the whole process, refuses images that this benchmark really holds.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS

# Above so many pixels, no real picture takes less than a byte for so many of them.
_LARGE, _PIXELS_PER_BYTE = 100_000_000, 250

_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_BITS, _SAMPLE_FORMAT, _GDAL_NODATA = 258, 339, 42113  # TIFF tags


# What is wrong with an image is raised, and told once. For all threads and once for all: to set a
# filter and take it back again is not safe where several decode.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_rgb(data: bytes, source: str) -> Image.Image:
    """Decode to an RGB image of the size it is stored in, EXIF orientation applied.

    Grey is repeated over the channels; transparency is laid over black, as no-data is in the
    mosaic; more than 8 bits are stretched linearly from the least to the greatest value that is a
    measurement (`stretch`), save the colours of a PNG, which keep their upper 8. Of several bands
    the first three are taken, of fewer than three the first; of an animation the first frame.
    Raises ImageError naming `source` when the bytes are no image, are cut short, or hold more
    than MAX_PIXELS.
    """
    if not data:
        raise ImageError(f"{source}: empty file")
    # Other libraries switch this on for the whole process; half an image must never count as one.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            check_size(source, image.width, image.height, MAX_PIXELS)
            _check_expansion(source, image.width * image.height, len(data))
            if has_other_pixels(image):
                return read_tiff(data, source, MAX_PIXELS)
            image.load()
            return to_rgb(ImageOps.exif_transpose(image), image)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{source}: too many pixels ({error})") from error
    except UnidentifiedImageError as error:
        if is_tiff(data):
            return read_tiff(data, source, MAX_PIXELS)
        raise ImageError(f"{source}: not an image in a known format") from error
    except ImageError:
        raise
    except Exception as error:
        # Damaged bytes lead Pillow's decoders into errors of nearly any class.
        raise ImageError(f"{source}: cannot be decoded ({error})") from error


def _check_expansion(source: str, pixels: int, stored: int) -> None:
    """Raise ImageError for a few bytes that would fill the memory with one colour."""
    if pixels > _LARGE and pixels > stored * _PIXELS_PER_BYTE:
        raise ImageError(
            f"{source}: {pixels:,} pixels in {stored:,} bytes, which no real picture has",
            remedy="Leave it out, or cut it into tiles.",
        )


def to_rgb(image: Image.Image, file: Image.Image | None) -> Image.Image:
    """Convert an upright image to RGB; `file` is what it was opened as, for its tags."""
    if image.mode in _DEEP:
        nodata = None if file is None else _nodata(file)
        return Image.fromarray(stretch(np.asarray(image), nodata)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        black = Image.new("RGBA", over.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, over).convert("RGB")
    return image.convert("RGB")


def _tags(image: Image.Image) -> dict[int, Any]:
    return dict(getattr(image, "tag_v2", {}))


def has_other_pixels(image: Image.Image) -> bool:
    """Does Pillow decode the file wrongly?

    It is a TIFF of signed bytes, which Pillow takes for unsigned ones, or of deep colours, of which
    it keeps the upper 8 bits."""
    tags = _tags(image) if image.format == "TIFF" else {}
    bits = tags.get(_BITS, (1,))
    return max(bits) > 8 if len(bits) > 1 else bits == (8,) and tags.get(_SAMPLE_FORMAT) == (2,)


def _nodata(image: Image.Image) -> float | None:
    """The value that GDAL's tag declares to be none."""
    told = _tags(image).get(_GDAL_NODATA)
    try:
        return float(str(told).strip(" \0")) if told is not None else None
    except ValueError:
        return None
