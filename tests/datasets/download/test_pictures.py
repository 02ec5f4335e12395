"""The crop of the published pipeline."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from marsretrieval.datasets.download.dataset import published_crop
from tests.datasets.download.servers import picture


def test_images_are_cropped_to_the_centre_and_small_ones_enlarged() -> None:
    ramp = np.tile(np.linspace(0, 255, 3000, dtype=np.uint8), (1000, 1))
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")
    with Image.open(io.BytesIO(published_crop(buffer.getvalue()))) as image:
        assert image.mode == "L"
        values = np.asarray(image).astype(int)
    assert values.shape == (512, 512)
    assert abs(values[:, 0].mean() - 255 / 3) < 2
    assert abs(values[:, -1].mean() - 255 * 2 / 3) < 2
    with Image.open(io.BytesIO(published_crop(picture(1, (72, 40))))) as image:
        assert image.size == (512, 512)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "CMYK", "1"])
def test_every_mode(mode: str) -> None:
    format = "TIFF" if mode == "CMYK" else "PNG"
    buffer = io.BytesIO()
    if mode == "I;16":
        Image.fromarray(np.full((600, 600), 40_000, np.uint16)).save(buffer, format)
    else:
        Image.new("RGB", (600, 600), (10, 20, 30)).convert(mode).save(buffer, format)
    with Image.open(io.BytesIO(published_crop(buffer.getvalue()))) as image:
        assert image.size == (512, 512)


def test_transparency_is_laid_over_white() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (600, 600), (0, 0, 0, 0)).save(buffer, "PNG")
    with Image.open(io.BytesIO(published_crop(buffer.getvalue()))) as image:
        assert image.getpixel((256, 256)) == (255, 255, 255)
