from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from marsretrieval.datasets import decode_rgb, images
from marsretrieval.errors import ImageError
from tests.datasets.layouts import encoded
from tests.shared import shared_file

KINDS = [
    ("L", "PNG"), ("1", "PNG"), ("LA", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("P", "PNG"),
    ("I;16", "PNG"), ("I;16", "TIFF"), ("I", "TIFF"), ("F", "TIFF"), ("CMYK", "JPEG"),
    ("L", "JPEG"), ("RGB", "WEBP"), ("P", "GIF"), ("RGB", "BMP"), ("L", "TIFF"),
    ("RGB", "JPEG2000"),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "kind"), KINDS)
def test_every_mode_and_format_becomes_rgb(mode: str, kind: str) -> None:
    image = decode_rgb(encoded(mode, kind=kind), "x")
    assert image.mode == "RGB"
    assert image.size == (12, 9)
    assert np.asarray(image).std() > 5


def test_decoding_in_threads_leaves_warnings_as_they_were() -> None:
    data, before = encoded("L", kind="TIFF"), list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: decode_rgb(data, str(number)), range(400)))
    assert warnings.filters == before


def test_deep_images_are_stretched_over_all_greys() -> None:
    grey = np.asarray(decode_rgb(encoded("I;16"), "x"))
    assert grey.min() == 0 and grey.max() == 255
    values = np.array([[0.5, np.nan], [np.inf, 1.5]], np.float32)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF")
    assert np.asarray(decode_rgb(buffer.getvalue(), "x"))[..., 0].tolist() == [[0, 0], [0, 255]]


def test_transparency_lies_over_black() -> None:
    image = Image.new("RGBA", (2, 1), (200, 100, 50, 255))
    image.putpixel((1, 0), (200, 100, 50, 0))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    values = decode_rgb(buffer.getvalue(), "x")
    assert [values.getpixel((x, 0)) for x in (0, 1)] == [(200, 100, 50), (0, 0, 0)]


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "JPEG", exif=exif)
    assert decode_rgb(buffer.getvalue(), "x").size == (10, 20)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000"])
def test_truncated_image_is_named_and_never_partially_decoded(kind: str, monkeypatch) -> None:
    # Training libraries set this for the whole process.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encoded("RGB", (200, 200), kind)
    for keep in (0, 3, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(ImageError, match=r"a\.tar:x"):
            decode_rgb(data[:keep], "a.tar:x")


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"<html></html>", bytes(5000), b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_non_image_files_are_named(data: bytes) -> None:
    with pytest.raises(ImageError, match="here"):
        decode_rgb(data, "here")


def test_images_over_the_pixel_limit_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(ImageError, match="12 x 9 pixels"):
        decode_rgb(encoded(), "x")


def test_widest_caption_image_is_decoded_completely() -> None:
    assert decode_rgb(encoded("L", (37_971, 300)), "x").size == (37_971, 300)
    assert images.MAX_PIXELS > 37_971 * 10_000


@given(st.sampled_from(KINDS), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_decoders_survive_any_damage(monkeypatch, kind, changes) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 10_000)
    data = bytearray(encoded(*kind[:1], kind=kind[1]))
    for offset, value in changes:
        data[offset % len(data)] = value
    try:
        assert decode_rgb(bytes(data), "x").mode == "RGB"
    except ImageError as error:
        assert str(error).startswith("x: ")


def test_real_patches_decode() -> None:
    from marsretrieval.datasets import open_images
    from tests.datasets.layouts import read_all

    records = read_all(open_images(shared_file("marsdata/patches")))
    assert len(records) == 251
    assert len({record.label for record in records}) == 9
    for record in records:
        assert np.asarray(decode_rgb(record.data, record.source)).std() > 0


def test_highly_compressed_image_does_not_exhaust_memory() -> None:
    buffer = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(buffer, "PNG", optimize=False)
    with pytest.raises(ImageError, match=r"bomb\.png: 144,000,000 pixels in .* bytes"):
        decode_rgb(buffer.getvalue(), "bomb.png")
