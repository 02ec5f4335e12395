"""Grey files decoded to one channel: the same pixels as in RGB."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marsretrieval.datasets import decode_image, decode_rgb
from marsretrieval.errors import ImageError
from tests.datasets.layouts import encoded, geotiff

GREY = [("L", "PNG"), ("L", "JPEG"), ("L", "TIFF"), ("L", "BMP"), ("L", "JPEG2000"), ("1", "PNG"),
        ("1", "TIFF"), ("I;16", "PNG"), ("I;16", "TIFF"), ("I", "TIFF"), ("F", "TIFF")]  # fmt: skip
COLOUR = [("LA", "PNG"), ("P", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("CMYK", "JPEG"),
          ("RGB", "WEBP"), ("RGB", "JPEG"), ("LA", "TIFF")]  # fmt: skip


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def check(data: bytes, mode: str) -> None:
    image, rgb = decode_image(data, "x"), decode_rgb(data, "x")
    assert (image.mode, rgb.mode) == (mode, "RGB")
    assert image.size == rgb.size
    assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(rgb))
    assert np.asarray(rgb).std() > 5


@pytest.mark.parametrize(("mode", "kind"), GREY)
def test_grey_files_keep_one_channel(mode: str, kind: str) -> None:
    check(encoded(mode, kind=kind), "L")


@pytest.mark.parametrize(("mode", "kind"), COLOUR)
def test_colour_and_transparency_become_rgb(mode: str, kind: str) -> None:
    check(encoded(mode, kind=kind), "RGB")


def test_a_transparent_grey_level_becomes_black_in_rgb() -> None:
    ramp = Image.fromarray(np.arange(1, 49, dtype=np.uint8).reshape(6, 8) * 5)
    data = saved(ramp, "PNG", transparency=100)
    check(data, "RGB")
    assert decode_image(data, "x").getpixel((3, 2)) == (0, 0, 0)


def test_exif_orientation_applies_to_grey() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    ramp = Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20))
    data = saved(ramp, "PNG", exif=exif)
    check(data, "L")
    assert decode_image(data, "x").size == (10, 20)


def test_no_data_values_and_masks_apply_to_grey() -> None:
    values = np.arange(1, 31, dtype=np.uint8).reshape(1, 5, 6) * 8
    values[0, 1, 2] = 255
    mask = np.full((5, 6), 255, np.uint8)
    mask[4, 5] = 0
    for data, (x, y) in (
        (geotiff(values, nodata=255), (2, 1)),
        (geotiff(values, mask=mask), (5, 4)),
        (geotiff(values.astype(np.int16), mask=mask), (5, 4)),
        (geotiff(np.array([[[-100, -49, 104]]], np.int8), nodata=-49), (1, 0)),
    ):
        check(data, "L")
        assert decode_image(data, "x").getpixel((x, y)) == 0


def test_tiffs_of_several_bands() -> None:
    values = np.arange(1, 31).reshape(1, 5, 6) * 8
    check(geotiff(np.repeat(values, 3, axis=0).astype(np.uint16), photometric="rgb"), "RGB")
    check(geotiff(np.repeat(values, 2, axis=0).astype(np.uint16)), "L")


@pytest.mark.parametrize("data", [b"", b"hello", encoded("L", (200, 200))[:200]])
def test_errors_name_the_file(data: bytes) -> None:
    with pytest.raises(ImageError, match="here"):
        decode_image(data, "here")
