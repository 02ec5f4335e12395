"""Decode image files of any mode to 8-bit RGB or grey, or raise an error that names the file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from marsretrieval.datasets._gdal import is_tiff
from marsretrieval.datasets._stretch import stretch
from marsretrieval.datasets._tiff import check_size, has_mask, read_mask, read_tiff
from marsretrieval.errors import ImageError

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
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _GDAL_NODATA = 258, 262, 339, 42113  # TIFF tags
_ORIENTATION = 274
_MIN_IS_WHITE = 0  # of _PHOTOMETRIC: Pillow inverts 8-bit grey
# What Pillow does to a TIFF of an orientation when it loads it; masks are read without Pillow.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# What is wrong with an image is raised, and told once. For all threads and once for all: to set a
# filter and take it back again is not safe where several decode.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_rgb(data: bytes, source: str) -> Image.Image:
    """Decode to an RGB image of the size it is stored in, EXIF orientation applied.

    Grey is repeated over the channels; transparency is laid over black, as no-data is in the
    mosaic. Black are also pixels of GDAL's no-data value (of colours: in all bands) and those that
    the internal mask of a TIFF hides. More than 8 bits are stretched linearly from the least to
    the greatest value that is a measurement (`stretch`), save the colours of a PNG, which keep
    their upper 8. Of several bands the first three are taken, of fewer than three the first; of an
    animation the first frame.
    Raises ImageError naming `source` when the bytes are no image, are cut short, or hold more
    than MAX_PIXELS.
    """
    return _decode(data, source, _as_rgb)


def decode_image(data: bytes, source: str) -> Image.Image:
    """Decode by the rules of `decode_rgb`, but leave grey images in one channel.

    Converting the result to RGB gives what `decode_rgb` returns, pixel by pixel. Resizing one
    channel takes about half the time of three.

    Args:
        data: The encoded file.
        source: The file as messages name it.

    Returns:
        An image of mode L if the file has one channel of grey, of any depth, without transparency,
        or is a TIFF read through GDAL with fewer than three bands; else of mode RGB.

    Raises:
        ImageError: If the bytes are not an image, are truncated, or hold more than MAX_PIXELS.
    """
    return _decode(data, source, lambda image: image)


def _decode(data: bytes, source: str, finish: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Decode to mode L or RGB; `finish` converts the result, errors of its own included."""
    if not data:
        raise ImageError(f"{source}: empty file")
    # Other libraries switch this on for the whole process; half an image must never count as one.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            check_size(source, image.width, image.height, MAX_PIXELS)
            _check_expansion(source, image.width * image.height, len(data))
            if has_other_pixels(image):
                return finish(read_tiff(data, source, MAX_PIXELS))
            turn = _TURNS.get(_tags(image).get(_ORIENTATION, 1))
            masked = image.format == "TIFF" and has_mask(data)
            image.load()
            upright = ImageOps.exif_transpose(image)
            if masked:
                valid = read_mask(data, source)
                if turn is not None:
                    valid = np.asarray(Image.fromarray(valid.astype(np.uint8)).transpose(turn)) != 0
                return finish(_to_8_bits(upright, None, valid))
            return finish(_to_grey_or_rgb(upright, image))
    except Image.DecompressionBombError as error:
        raise ImageError(f"{source}: too many pixels ({error})") from error
    except UnidentifiedImageError as error:
        if is_tiff(data):
            return finish(read_tiff(data, source, MAX_PIXELS))
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
    return _as_rgb(_to_grey_or_rgb(image, file))


def _to_grey_or_rgb(image: Image.Image, file: Image.Image | None) -> Image.Image:
    if file is None:
        return _to_8_bits(image, None, None)
    nodata, white = _nodata(file), _tags(file).get(_PHOTOMETRIC) == _MIN_IS_WHITE
    return _to_8_bits(image, nodata, _valid(image, nodata, inverted=white))


def _to_8_bits(
    image: Image.Image, nodata: float | None, valid: npt.NDArray[np.bool_] | None
) -> Image.Image:
    """Convert to mode L where all channels would be equal by the mode alone, else to RGB."""
    if image.mode in _DEEP:
        return Image.fromarray(stretch(np.asarray(image), nodata, valid))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        black = Image.new("RGBA", over.size, (0, 0, 0, 255))
        opaque = Image.alpha_composite(black, over).convert("RGB")
    elif image.mode in ("L", "1"):
        opaque = image.convert("L")
    else:
        opaque = image.convert("RGB")
    if valid is None:
        return opaque
    pixels = np.asarray(opaque)
    shown = valid if pixels.ndim == 2 else valid[..., None]
    return Image.fromarray(np.where(shown, pixels, np.uint8(0)))


def _as_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _valid(
    image: Image.Image, nodata: float | None, *, inverted: bool
) -> npt.NDArray[np.bool_] | None:
    """Which pixels of 8 bits differ from the no-data value, in any band; None for other modes.

    Deeper images are masked when they are stretched.
    """
    if nodata is None or image.mode not in ("L", "P", "RGB"):
        return None
    values = np.asarray(image)
    if inverted and image.mode == "L":
        nodata = 255 - nodata
    differs: npt.NDArray[np.bool_] = values != nodata
    return differs if differs.ndim == 2 else np.asarray(differs.any(axis=2))


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
