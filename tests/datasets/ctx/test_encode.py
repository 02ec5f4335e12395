from __future__ import annotations

import io
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from marsretrieval.datasets.ctx.tiling import encode
from tests.datasets.ctx.quads import noise

PICTURES = {
    "noise": noise(64),
    "flat": np.zeros((16, 16), dtype=np.uint8),
    "ramp": np.arange(256, dtype=np.uint8)[None].repeat(3, axis=0),
    "one column": np.arange(200, dtype=np.uint8)[:, None],
}


@pytest.mark.parametrize("pixels", PICTURES.values(), ids=PICTURES)
def test_png_is_lossless_and_grey(pixels) -> None:
    data = encode(pixels, "png")
    image = Image.open(io.BytesIO(data))
    image.verify()
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.mode) == ("PNG", "L")
    np.testing.assert_array_equal(np.asarray(image), pixels)
    assert encode(pixels, "png") == data


def test_png_depends_on_the_pixels_alone() -> None:
    """Threads that run at once have stacks of their own, whose addresses must not matter."""
    rng = np.random.default_rng(0)
    pictures = [np.tile(rng.integers(0, 256, (1, 40), np.uint8), (2, 1)) for _ in range(1000)]
    start = threading.Barrier(6)

    def encode_all(_: int) -> list[bytes]:
        start.wait()
        return [encode(pixels, "png") for pixels in pictures]

    with ThreadPoolExecutor(start.parties) as pool:
        first, *others = pool.map(encode_all, range(start.parties))
    assert [sum(a != b for a, b in zip(first, other, strict=True)) for other in others] == [0] * 5


def test_jpeg_is_grey_and_close_to_the_source() -> None:
    pixels = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    image = Image.open(io.BytesIO(encode(pixels, "jpeg")))
    assert (image.format, image.mode) == ("JPEG", "L")
    assert np.abs(np.asarray(image).astype(int) - pixels).mean() < 1


def test_png_works_without_isal() -> None:
    code = (
        "import sys, io; sys.modules['isal'] = None\n"
        "import numpy as np; from PIL import Image\n"
        "from marsretrieval.datasets.ctx.tiling import encode, encoder_name\n"
        "pixels = np.random.default_rng(0).integers(0, 9, (30, 40)).astype(np.uint8)\n"
        "assert (np.asarray(Image.open(io.BytesIO(encode(pixels, 'png')))) == pixels).all()\n"
        "print(encoder_name('png'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "zlib, level 1", done.stderr
