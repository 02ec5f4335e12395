"""Decode image files of any mode to 8-bit RGB or grey.

Pillow decodes most files. TIFFs that it would decode incorrectly are read with rasterio.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from marsretrieval.datasets.listing import is_tiff
from marsretrieval.errors import DataError, ImageError

EXTENSIONS = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".tif", ".tiff", ".bmp", ".gif"}
    | {".jp2", ".j2k", ".jpf", ".jpx"}
)
# The widest image of the caption dataset has 37,971 pixels.
MAX_PIXELS = 500_000_000
# Upper bound for the encoded size of MAX_PIXELS in uncompressed RGB; larger files are not read.
MAX_BYTES = 2**31

# Pillow supports more formats, some of which run external programs.
_PILLOW_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000")
# An image above this size with more pixels per byte is rejected as a decompression bomb.
_LARGE_PIXELS, _MAX_PIXELS_PER_BYTE = 100_000_000, 250
_BLOCK = 4_000_000  # values held as float64 at a time
# ISIS stores its special pixels (null, saturated) as float32 near -3.4e38.
_MAX_MAGNITUDE = 1e38

_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
# TIFF tags
_SUBFILE_TYPE, _BITS_PER_SAMPLE, _PHOTOMETRIC = 254, 258, 262
_ORIENTATION, _SAMPLE_FORMAT, _GDAL_NODATA = 274, 339, 42113
_MASK_BIT = 4  # of _SUBFILE_TYPE
_MIN_IS_WHITE = 0  # of _PHOTOMETRIC; Pillow inverts 8-bit grey
_MAX_DIRECTORIES = 64
# Transposes that Pillow applies when it loads a TIFF, by orientation. Masks are read by GDAL.
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Process-wide settings: changing them around each call is not safe with several threads.
# Pillow's default limit rejects images of the caption dataset.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
# Problems are raised as ImageError, and images need no geotransform.
warnings.filterwarnings("ignore", message="Dataset has no geotransform")
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_rgb(data: bytes, source: str) -> Image.Image:
    """Decode an image to RGB at its stored size, with the EXIF orientation applied.

    Grey is repeated over the channels. Transparency is composited over black, the no-data value
    of the mosaic; pixels of GDAL's no-data value (in all bands) and pixels hidden by the internal
    mask of a TIFF are black too. More than 8 bits are stretched linearly over the range of the
    valid values (`stretch`), except for colour PNGs, which keep their upper 8 bits. Of several
    bands the first three are used, of fewer than three the first; of an animation the first frame.

    Args:
        data: The encoded file.
        source: Name of the file in messages.

    Returns:
        An image of mode RGB.

    Raises:
        ImageError: If the bytes are not an image, are truncated, or hold more than MAX_PIXELS.
    """
    return _decode(data, source, _as_rgb)


def decode_image(data: bytes, source: str) -> Image.Image:
    """Decode as `decode_rgb` does, but keep grey images in one channel.

    Converting the result to RGB gives the same pixels as `decode_rgb`. Resizing one channel takes
    about half the time of three.

    Args:
        data: The encoded file.
        source: Name of the file in messages.

    Returns:
        An image of mode L if the file has one channel of grey, of any depth, without transparency,
        or is a TIFF read through GDAL with fewer than three bands; else of mode RGB.

    Raises:
        ImageError: If the bytes are not an image, are truncated, or hold more than MAX_PIXELS.
    """
    return _decode(data, source, lambda image: image)


def make_thumbnail(data: bytes, source: str, *, side: int, quality: int) -> bytes:
    """Decode an image as `decode_rgb` does and encode it as a small WebP file.

    Args:
        data: The encoded file.
        source: Name of the file in messages.
        side: Longer side in pixels; smaller images keep their size.
        quality: WebP quality, 0 to 100.

    Returns:
        A WebP file.

    Raises:
        ImageError: As of `decode_rgb`.
    """
    image = decode_rgb(data, source)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "webp", quality=quality, method=4)
    return buffer.getvalue()


def rgb_of(image: Image.Image | npt.NDArray[Any], name: str = "image") -> Image.Image:
    """Convert a Pillow image or an array to RGB by the rules of `decode_rgb`.

    Args:
        image: A Pillow image of any mode, or an array of shape (height, width) or (height, width,
            bands). One band is grey, two are grey and alpha, three RGB, four RGBA. Values of
            types other than uint8 are stretched from their smallest to their largest; bool is
            black and white.
        name: Name of the image in messages.

    Returns:
        An RGB image, the EXIF orientation of a Pillow image applied.

    Raises:
        ImageError: If the shape or type is not supported, or the image cannot be decoded.
    """
    if isinstance(image, Image.Image):
        if not image.width or not image.height:
            raise ImageError(f"{name}: an image without pixels")
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
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).any():
        raise ImageError(f"{name}: an array without finite numbers is not an image")
    bands = pixels.shape[2]
    if pixels.dtype != np.uint8:
        valid = pixels[..., -1] != 0 if bands in (2, 4) else None
        pixels = stretch(pixels[..., : 3 if bands > 2 else 1], valid=valid)
    pixels = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return to_rgb(Image.fromarray(pixels), None)


def to_rgb(image: Image.Image, file: Image.Image | None) -> Image.Image:
    """Convert a Pillow image to RGB by the rules of `decode_rgb`.

    Args:
        image: An upright image, its EXIF orientation already applied.
        file: The image as it was opened, for its TIFF tags.

    Returns:
        An image of mode RGB.
    """
    return _as_rgb(_to_grey_or_rgb(image, file))


def stretch(
    values: npt.NDArray[Any], nodata: float | None = None, valid: npt.NDArray[Any] | None = None
) -> npt.NDArray[np.uint8]:
    """Scale values linearly to 0..255, from the smallest to the largest valid value.

    Invalid values become 0 and do not count for the range: NaN, infinities, magnitudes above 1e38
    (special pixels of ISIS), `nodata`, and pixels masked by `valid`. If all values are equal, they
    become 128, or 0 if they are 0. Channels share one range.

    Args:
        values: Array of shape (height, width) or (height, width, bands).
        nodata: No-data value of the file.
        valid: Mask of shape (height, width), 0 for invalid pixels.

    Returns:
        Array of the shape of `values`.
    """
    low, high = np.inf, -np.inf
    for _, block, is_valid in _iter_blocks(values, nodata, valid):
        low = min(low, float(np.min(block, where=is_valid, initial=np.inf)))
        high = max(high, float(np.max(block, where=is_valid, initial=-np.inf)))
    grey = np.zeros(values.shape, np.uint8)
    for start, block, is_valid in _iter_blocks(values, nodata, valid):
        if high > low:
            scaled = np.rint((block - low) * (255 / (high - low)))
        else:
            scaled = np.full(block.shape, 0.0 if high == 0 else 128.0)
        scaled[~is_valid] = 0
        grey[start : start + len(block)] = scaled.astype(np.uint8)
    return grey


def check_size(source: str, width: int, height: int, max_pixels: int) -> None:
    """Check the number of pixels of an image.

    Args:
        source: Name of the file in messages.
        width: Columns.
        height: Rows.
        max_pixels: Largest number of pixels that is accepted.

    Raises:
        ImageError: If the image has more pixels.
    """
    if width * height > max_pixels:
        raise ImageError(
            f"{source}: {width} x {height} pixels, more than {max_pixels:,}",
            remedy="Cut it into tiles first.",
        )


def needs_gdal(image: Image.Image) -> bool:
    """Check for TIFFs that Pillow decodes incorrectly.

    Pillow reads signed bytes as unsigned, and keeps only the upper 8 bits of deep colours.

    Args:
        image: The opened file.

    Returns:
        True if the pixels must be read with rasterio.
    """
    tags = _tiff_tags(image) if image.format == "TIFF" else {}
    bits = tags.get(_BITS_PER_SAMPLE, (1,))
    return max(bits) > 8 if len(bits) > 1 else bits == (8,) and tags.get(_SAMPLE_FORMAT) == (2,)


def has_mask(data: bytes) -> bool:
    """Check for a transparency mask in the directories after the first, as GDAL writes it.

    Args:
        data: An encoded TIFF whose first directory is sound.

    Returns:
        True if a mask is found; False also if a later directory is damaged.
    """
    file = io.BytesIO(data)
    visited: set[int] = set()
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2] == 43 else 8])
        while tags.next and tags.next not in visited and len(visited) < _MAX_DIRECTORIES:
            visited.add(tags.next)
            file.seek(tags.next)
            tags.load(file)
            kind = tags.get(_SUBFILE_TYPE, 0)
            if isinstance(kind, int) and kind & _MASK_BIT:
                return True
    except Exception:  # a damaged later directory does not affect the first image
        return False
    return False


def read_mask(data: bytes, source: str) -> npt.NDArray[np.bool_]:
    """Read the internal mask of a TIFF.

    Args:
        data: The encoded TIFF.
        source: Name of the file in messages.

    Returns:
        Booleans of shape (height, width), True for valid pixels.

    Raises:
        ImageError: If the mask cannot be read, or rasterio is not installed.
    """
    with _open_tiff(data, source) as file:
        mask: npt.NDArray[Any] = file.dataset_mask()
    valid: npt.NDArray[np.bool_] = mask != 0
    return valid


def read_tiff(data: bytes, source: str, max_pixels: int) -> Image.Image:
    """Read the first three bands of a TIFF as RGB, or the first as grey if there are fewer.

    8-bit values are unchanged, others are stretched. No-data and transparent pixels are black.

    Args:
        data: The encoded TIFF.
        source: Name of the file in messages.
        max_pixels: Largest number of pixels that is decoded.

    Returns:
        An image of mode RGB or L.

    Raises:
        ImageError: If the file cannot be read or is too large, or rasterio is not installed.
    """
    with _open_tiff(data, source) as file:
        check_size(source, file.width, file.height, max_pixels)
        bands: npt.NDArray[Any] = file.read([1, 2, 3] if file.count > 2 else [1])
        valid: npt.NDArray[Any] = file.dataset_mask()
    if np.iscomplexobj(bands):
        raise ImageError(
            f"{source}: complex pixel values are not supported",
            remedy="Convert the image to its magnitude in real numbers.",
        )
    pixels = np.moveaxis(bands, 0, -1)
    if pixels.dtype == np.uint8:
        grey = np.where(valid[..., None] != 0, pixels, 0).astype(np.uint8)
    else:
        grey = stretch(pixels, valid=valid)
    return Image.fromarray(grey if grey.shape[2] == 3 else grey[..., 0])


def _from_pillow(image: Image.Image, name: str) -> Image.Image:
    file = Path(getattr(image, "filename", "") or "")
    if image.format == "TIFF" and file.is_file() and has_mask(file.read_bytes()):
        return decode_rgb(file.read_bytes(), str(file))
    if needs_gdal(image):
        if not file.is_file():
            raise ImageError(
                f"{name}: Pillow cannot read the pixels of such a TIFF",
                remedy="Give the path of the file, or an array, instead of a Pillow image.",
            )
        return decode_rgb(file.read_bytes(), str(file))
    try:
        return to_rgb(ImageOps.exif_transpose(image), image)
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(
            f"{name}: cannot be decoded ({error})",
            remedy="Copy or download the image again, or convert it to PNG.",
        ) from error


def _decode(data: bytes, source: str, finish: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Decode to mode L or RGB and apply `finish`, whose errors become ImageError too."""
    if not data:
        raise ImageError(f"{source}: empty file", remedy="Copy or download the image again.")
    # Other libraries set this for the whole process; truncated images must raise an error.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(io.BytesIO(data), formats=_PILLOW_FORMATS) as image:
            check_size(source, image.width, image.height, MAX_PIXELS)
            _check_expansion(source, image.width * image.height, len(data))
            if needs_gdal(image):
                return finish(read_tiff(data, source, MAX_PIXELS))
            turn = _TRANSPOSES.get(_tiff_tags(image).get(_ORIENTATION, 1))
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
        raise ImageError(
            f"{source}: too many pixels ({error})",
            remedy="Cut it into tiles: marsretrieval data tiles.",
        ) from error
    except UnidentifiedImageError as error:
        if is_tiff(data):
            return finish(read_tiff(data, source, MAX_PIXELS))
        raise ImageError(
            f"{source}: not an image in a known format", remedy="Convert it to PNG, JPEG or TIFF."
        ) from error
    except ImageError:
        raise
    except Exception as error:
        # Pillow raises many classes of errors for damaged files.
        raise ImageError(
            f"{source}: cannot be decoded ({error})",
            remedy="Copy or download the image again, or convert it to PNG.",
        ) from error


def _check_expansion(source: str, pixels: int, stored: int) -> None:
    """Raise ImageError for a decompression bomb: very many pixels from few bytes."""
    if pixels > _LARGE_PIXELS and pixels > stored * _MAX_PIXELS_PER_BYTE:
        raise ImageError(
            f"{source}: {pixels:,} pixels in {stored:,} bytes, an implausible compression ratio",
            remedy="Remove it, or cut it into tiles.",
        )


def _to_grey_or_rgb(image: Image.Image, file: Image.Image | None) -> Image.Image:
    if file is None:
        return _to_8_bits(image, None, None)
    nodata, white = _nodata_value(file), _tiff_tags(file).get(_PHOTOMETRIC) == _MIN_IS_WHITE
    return _to_8_bits(image, nodata, _valid_pixels(image, nodata, inverted=white))


def _to_8_bits(
    image: Image.Image, nodata: float | None, valid: npt.NDArray[np.bool_] | None
) -> Image.Image:
    """Convert to mode L if the mode has one channel of grey, else to RGB."""
    if image.mode in _DEEP_MODES:
        return Image.fromarray(stretch(np.asarray(image), nodata, valid))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        opaque = Image.alpha_composite(black, rgba).convert("RGB")
    elif image.mode in ("L", "1"):
        opaque = image.convert("L")
    else:
        opaque = image.convert("RGB")
    if valid is None:
        return opaque
    pixels = np.asarray(opaque)
    mask = valid if pixels.ndim == 2 else valid[..., None]
    return Image.fromarray(np.where(mask, pixels, np.uint8(0)))


def _as_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _valid_pixels(
    image: Image.Image, nodata: float | None, *, inverted: bool
) -> npt.NDArray[np.bool_] | None:
    """Mask the 8-bit pixels that differ from the no-data value in any band; None for other modes.

    Deeper images are masked when they are stretched.
    """
    if nodata is None or image.mode not in ("L", "P", "RGB"):
        return None
    values = np.asarray(image)
    if inverted and image.mode == "L":
        nodata = 255 - nodata
    differs: npt.NDArray[np.bool_] = values != nodata
    return differs if differs.ndim == 2 else np.asarray(differs.any(axis=2))


def _tiff_tags(image: Image.Image) -> dict[int, Any]:
    return dict(getattr(image, "tag_v2", {}))


def _nodata_value(image: Image.Image) -> float | None:
    """Read the no-data value from GDAL's TIFF tag."""
    tag = _tiff_tags(image).get(_GDAL_NODATA)
    try:
        return float(str(tag).strip(" \0")) if tag is not None else None
    except ValueError:
        return None


@contextmanager
def _open_tiff(data: bytes, source: str) -> Iterator[Any]:
    try:
        from rasterio.errors import RasterioError
    except ModuleNotFoundError as error:
        raise ImageError(
            f"{source}: a damaged TIFF, or a TIFF that needs rasterio",
            remedy="pip install 'marsretrieval[geotiff]'",
        ) from error
    try:
        from marsretrieval.datasets.geotiff import open_gtiff

        with open_gtiff(data, source) as file:
            yield file
    except DataError as error:
        raise ImageError(error.message, remedy=error.remedy) from error
    except (RasterioError, OSError, ValueError) as error:
        raise ImageError(
            f"{source}: cannot be decoded ({error})",
            remedy="Copy or download the image again, or convert it to PNG.",
        ) from error


def _iter_blocks(
    values: npt.NDArray[Any], nodata: float | None, valid: npt.NDArray[Any] | None
) -> Iterator[tuple[int, npt.NDArray[np.float64], npt.NDArray[np.bool_]]]:
    """Yield the first row, the values, and a mask of the valid ones, in blocks of rows."""
    rows = max(1, _BLOCK // max(1, values[:1].size))
    for start in range(0, len(values), rows):
        raw = values[start : start + rows]
        block = raw.astype(np.float64)
        with np.errstate(invalid="ignore"):
            is_valid = np.abs(block) < _MAX_MAGNITUDE  # false for NaN
        if nodata is not None:
            # Compare in the precision of the file: float64 -3.4e38 is not a float32.
            with np.errstate(over="ignore"):
                is_valid &= block != float(np.float64(nodata).astype(_float_type(raw)))
        if valid is not None:
            row_mask = valid[start : start + rows] != 0
            is_valid &= row_mask.reshape(row_mask.shape + (1,) * (block.ndim - row_mask.ndim))
        yield start, np.where(is_valid, block, 0), is_valid


def _float_type(raw: npt.NDArray[Any]) -> Any:
    return np.float32 if raw.dtype == np.float32 else np.float64
