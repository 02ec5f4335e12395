"""Images in memory are decoded like the same file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marsretrieval.datasets import decode_rgb, rgb_of
from marsretrieval.errors import ImageError

RNG = np.random.default_rng(3)
GREY16 = RNG.integers(300, 41_000, (20, 30)).astype(np.uint16)
RGBA = RNG.integers(0, 256, (20, 30, 4)).astype(np.uint8)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return encoded(Image.fromarray(RGBA[..., :3]), exif=exif)


FILES = {
    "16 bit": encoded(Image.fromarray(GREY16)),
    "16 bit TIFF": encoded(Image.fromarray(GREY16), "TIFF"),
    "32 bit floats": encoded(Image.fromarray(GREY16.astype(np.float32) / 7), "TIFF"),
    "alpha": encoded(Image.fromarray(RGBA)),
    "grey and alpha": encoded(Image.fromarray(RGBA[..., :2])),
    "palette": encoded(Image.fromarray(RGBA[..., :3]).quantize(16), transparency=3),
    "black and white": encoded(Image.fromarray(GREY16 > 20_000)),
    "rotated": rotated(),
    "grey": encoded(Image.fromarray(RGBA[..., 0])),
}


@pytest.mark.parametrize("name", FILES)
def test_a_pillow_image_is_as_its_file(name: str) -> None:
    data = FILES[name]
    expected = np.asarray(decode_rgb(data, name))
    np.testing.assert_array_equal(np.asarray(rgb_of(Image.open(io.BytesIO(data)))), expected)


@pytest.mark.parametrize(
    "name", [name for name in FILES if name not in ("rotated", "palette")]
)  # an array has no orientation and no palette
def test_an_array_is_as_its_file(name: str) -> None:
    data = FILES[name]
    expected = np.asarray(decode_rgb(data, name))
    array = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(np.asarray(rgb_of(array)), expected)
    if array.ndim == 2:
        np.testing.assert_array_equal(np.asarray(rgb_of(array[..., None])), expected)


def test_deep_colours() -> None:
    rasterio = pytest.importorskip("rasterio")
    bands = RNG.integers(0, 60_000, (4, 20, 30)).astype(np.uint16)
    bands[3] = np.where(bands[3] > 20_000, 65_535, 0)
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", width=30, height=20, count=4, dtype="uint16",
                         photometric="RGB", alpha="YES") as file:  # fmt: skip
            file.write(bands)
        data = memory.read()
    expected = np.asarray(decode_rgb(data, "deep"))
    np.testing.assert_array_equal(np.asarray(rgb_of(np.moveaxis(bands, 0, -1))), expected)
    with pytest.raises(ImageError, match="Give the path of the file"):
        rgb_of(_deep_tiff(bands))


def _deep_tiff(bands: Any) -> Image.Image:
    """Pillow opens such an image for a TIFF of three 16-bit bands in memory."""
    rasterio = pytest.importorskip("rasterio")
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", width=30, height=20, count=3, dtype="uint16",
                         photometric="RGB") as file:  # fmt: skip
            file.write(bands[:3])
        return Image.open(io.BytesIO(memory.read()))


@pytest.mark.parametrize(
    "array",
    [np.zeros(5), np.zeros((3, 40, 50)), np.zeros((0, 4)), np.zeros((4, 4), complex),
     np.array([["a", "b"]])],
)  # fmt: skip
def test_other_arrays_are_refused(array: Any) -> None:
    with pytest.raises(ImageError, match="image: an array of"):
        rgb_of(array)


def test_invalid_values_are_black() -> None:
    values = np.array([[np.nan, 1.0], [3.0, np.inf]])
    assert np.asarray(rgb_of(values))[..., 0].tolist() == [[0, 0], [255, 0]]
