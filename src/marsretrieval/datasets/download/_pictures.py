"""Are these bytes a whole picture; and the crop that the published pipeline makes of it."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from marsretrieval.datasets._images import MAX_PIXELS, decode_rgb
from marsretrieval.datasets.download._fetch import FetchError

# Formats that the readers take. Pillow knows more, some of which call other programs.
_EXTENSIONS = {
    "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp", "TIFF": "tif",
    "BMP": "bmp", "JPEG2000": "jp2",
}  # fmt: skip
_FORMATS = tuple(name for name in _EXTENSIONS if name != "MPO")  # MPO is opened as JPEG
_MANY_PIXELS = 50_000_000
_ONE_AT_A_TIME = threading.Lock()

_SIZE = 512
# What img2dataset does with image_size=512 and resize_mode=center_crop, its defaults otherwise.
PUBLISHED = {
    "size": _SIZE,
    "resize": "smallest side, up or down",
    "downscale": "area",
    "upscale": "lanczos",
    "crop": "centre",
    "transparency": "over white",
    "format": "JPEG, quality 95",
}


@dataclass(frozen=True, slots=True)
class Picture:
    format: str  # Pillow's name
    extension: str
    width: int
    height: int


def inspect(body: bytes) -> Picture:
    """Decode `body` to its last byte. Raises FetchError: final where it is no image at all."""
    try:
        with Image.open(io.BytesIO(body), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise FetchError(f"too large ({width} x {height} pixels)", final=True)
            if width * height > _MANY_PIXELS:
                with _ONE_AT_A_TIME:  # a gigabyte each
                    image.load()
            else:
                image.load()
            name = str(image.format)
            return Picture(name, _EXTENSIONS[name], width, height)
    except UnidentifiedImageError as error:
        raise FetchError(f"not an image ({_looks_like(body)})", final=True) from error
    except Image.DecompressionBombError as error:
        raise FetchError("too large (pixels)", final=True) from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError) as error:
        # Pillow's decoders raise any of these on damaged bytes.
        raise FetchError(f"damaged image ({error})", final=False) from error


def published_crop(body: bytes) -> bytes:
    """The JPEG of 512 x 512 pixels that the published pipeline stores (PUBLISHED).

    Resampled by Pillow, not OpenCV: the same filters, not the same bytes. EXIF orientation is
    left alone, as there.
    """
    with Image.open(io.BytesIO(body), formats=_FORMATS) as image:
        image.load()
        flat = _flat(image, body)
    scale = _SIZE / min(flat.size)
    filter_ = Image.Resampling.BOX if scale < 1 else Image.Resampling.LANCZOS
    cuts = [_middle(side, round(side * scale)) for side in flat.size]
    # Only the part that stays is resampled: a mosaic may be dozens of times wider than high.
    box = (cuts[0][0], cuts[1][0], cuts[0][1], cuts[1][1])
    cropped = flat.resize((_SIZE, _SIZE), filter_, box=box)
    buffer = io.BytesIO()
    cropped.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _middle(side: int, resized: int) -> tuple[float, float]:
    """Where the middle _SIZE pixels of a side `resized` pixels long lie on the original."""
    first = (resized - _SIZE) // 2
    return first * side / resized, min(float(side), (first + _SIZE) * side / resized)


def _flat(image: Image.Image, body: bytes) -> Image.Image:
    """8 bits, grey or colour, transparency over white."""
    if image.mode.startswith(("I", "F")):
        return decode_rgb(body, "image")
    if "A" in image.getbands() or "transparency" in image.info:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, over).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _looks_like(body: bytes) -> str:
    head = body[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if head.startswith((b"<?xml", b"<svg")):
        return "XML or SVG"
    return f"starts with {body[:8]!r}"
