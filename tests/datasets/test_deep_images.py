"""Images of more than 8 bits, and TIFFs of several bands."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from marsretrieval.datasets import decode_rgb, images
from marsretrieval.datasets.images import stretch
from marsretrieval.errors import ImageError
from tests.datasets.layouts import geotiff


def ramp(count: int, dtype: str) -> Any:
    """Return values from 0 to 119 that differ between bands."""
    values = np.arange(count * 5 * 6).reshape(count, 5, 6)
    return (values % 120).astype(dtype)


def pixels(data: bytes) -> Any:
    return np.asarray(decode_rgb(data, "x"))


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_tiffs_of_any_bands_and_depth(count: int, dtype: str) -> None:
    bands = ramp(count, dtype)
    visible = bands[:3] if count > 2 else bands[[0, 0, 0]]
    expected = np.moveaxis(visible, 0, -1).astype(np.float64)
    if dtype != "uint8":
        expected = np.rint(expected * (255 / expected.max()))
    image = pixels(geotiff(bands, **({"photometric": "minisblack"} if count == 4 else {})))
    assert image.shape == (5, 6, 3)
    assert np.array_equal(image, expected)


def test_signed_bytes_are_not_read_as_unsigned() -> None:
    image = pixels(geotiff(np.array([[[-100, -49, 104]]], np.int8)))[0, :, 0]
    assert image.tolist() == [0, 64, 255]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("int16", -32768), ("float32", -3.4028235e38), ("float64", -9999), ("float32", np.nan)],
)
def test_no_data_is_black_and_excluded_from_the_range(count: int, dtype: str, nodata) -> None:
    bands = np.array([[[nodata, 10, 20, 30]]] * count).astype(dtype)
    image = pixels(geotiff(bands, nodata=nodata))[0, :, 0]
    assert image.tolist() == [0, 0, 128, 255]


def test_transparent_pixels_are_black() -> None:
    bands = np.array([[[10, 20, 999]]] * 3 + [[[65535, 65535, 0]]], np.uint16)
    image = pixels(geotiff(bands, photometric="rgb", alpha="yes"))[0, :, 0]
    assert image.tolist() == [0, 255, 0]


def test_special_pixels_of_isis_are_black() -> None:
    values = np.array([[-3.4028226550889045e38, 1, 2, 3]], np.float32)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF")
    assert pixels(buffer.getvalue())[0, :, 0].tolist() == [0, 0, 128, 255]


def test_tiff_that_needs_rasterio_is_named_without_it(monkeypatch) -> None:
    data = geotiff(ramp(3, "float32"))
    for name in ("rasterio", "rasterio.io", "rasterio.errors"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImageError, match=r"here: .* needs rasterio") as raised:
        decode_rgb(data, "here")
    assert "marsretrieval[geotiff]" in str(raised.value)


def test_a_cut_or_complex_or_giant_tiff_is_named(monkeypatch) -> None:
    data = geotiff(ramp(3, "float32"))
    for keep in (10, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(ImageError, match="here: "):
            decode_rgb(data[:keep], "here")
    with pytest.raises(ImageError, match="complex"):
        decode_rgb(geotiff(np.ones((1, 3, 3), np.complex64)), "here")
    monkeypatch.setattr(images, "MAX_PIXELS", 20)
    with pytest.raises(ImageError, match="6 x 5 pixels, more than 20"):
        decode_rgb(data, "here")


finite = st.floats(-1e6, 1e6, width=32)
shapes = arrays.array_shapes(min_dims=2, max_dims=3, max_side=6)


class TestStretch:
    @given(arrays.arrays(np.float32, shapes, elements=finite))
    def test_stretch_is_monotonic_and_uses_all_grey_levels(self, values) -> None:
        grey = stretch(values)
        if values.min() < values.max():
            assert (grey.min(), grey.max()) == (0, 255)
            order = np.argsort(values, axis=None, kind="stable")
            assert (np.diff(grey.reshape(-1)[order].astype(int)) >= 0).all()
        else:
            assert (grey == (0 if values.flat[0] == 0 else 128)).all()

    @given(
        arrays.arrays(np.float32, shapes, elements=finite),
        st.sampled_from([np.nan, np.inf, -np.inf, -3.4e38, 12345.0]),
        st.data(),
    )
    def test_invalid_values_do_not_change_the_others(self, values, hole, data) -> None:
        values = np.where(values == 12345, 0, values)
        holes = data.draw(arrays.arrays(bool, values.shape))
        grey = stretch(np.where(holes, np.float32(hole), values), nodata=12345)
        assert (grey[holes] == 0).all()
        if not holes.all():
            assert np.array_equal(grey[~holes], stretch(values[~holes][:, None])[:, 0])

    def test_block_size_does_not_change_the_result(self, monkeypatch) -> None:
        values = np.random.default_rng(0).integers(0, 60_000, (50, 7, 3)).astype(np.uint16)
        valid = values[..., 0] > 9000
        complete = stretch(values, 17, valid)
        monkeypatch.setattr(images, "_BLOCK", 50)
        assert np.array_equal(stretch(values, 17, valid), complete)
        assert (complete[~valid] == 0).all()
