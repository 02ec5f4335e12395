"""Encoded bytes to an RGB picture, whatever the mode, or an error that names the file."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from marsretrieval.errors import ImageError

__all__ = ["EXTENSIONS", "MAX_PIXELS", "decode_rgb"]

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".jp2"})

# The widest image of the caption dataset is 37,971 px; beyond this it is no picture to look at.
MAX_PIXELS = 500_000_000
# Pillow's own limit, for the whole process, refuses images that this benchmark really holds.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS

_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def decode_rgb(data: bytes, source: str) -> Image.Image:
    """Decode to an RGB image of the size it is stored in, EXIF orientation applied.

    Grey is repeated over the channels; transparency is laid over black, as no-data is in the
    mosaic; more than 8 bits are stretched linearly from the least to the greatest finite value.
    Only the first frame of an animation is taken. Raises ImageError naming `source` when the
    bytes are no image, are cut short, or hold more than MAX_PIXELS.
    """
    if not data:
        raise ImageError(f"{source}: empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                pixels = image.width * image.height
                if pixels > MAX_PIXELS:
                    size = f"{image.width} x {image.height}"
                    raise ImageError(
                        f"{source}: {size} pixels, more than {MAX_PIXELS:,}",
                        remedy="Cut it into tiles first.",
                    )
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise ImageError(f"{source}: too many pixels ({error})") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{source}: not an image in a known format") from error
    except ImageError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError) as error:
        # Pillow's decoders raise any of these on damaged bytes.
        raise ImageError(f"{source}: cannot be decoded ({error})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP:
        return _stretch(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        black = Image.new("RGBA", over.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, over).convert("RGB")
    return image.convert("RGB")


def _stretch(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Image.new("L", image.size, 0)
    low, high = float(finite.min()), float(finite.max())
    if high == low:
        return Image.new("L", image.size, 0 if low == 0 else 128)
    scaled = np.nan_to_num((values - low) * (255 / (high - low)), nan=0.0, posinf=255, neginf=0)
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))
