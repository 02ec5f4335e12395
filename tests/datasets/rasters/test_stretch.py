"""The stretch to 8 bits."""

from __future__ import annotations

import numpy as np
import pytest

from marsretrieval.datasets.rasters import compute_stretch, open_raster
from marsretrieval.errors import DataError


@pytest.fixture
def values() -> np.ndarray:
    grid = np.random.default_rng(0).normal(1000, 100, (80, 90)).clip(1, None)
    grid[:20] = 0
    return grid


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "float32"])
@pytest.mark.parametrize("method", ["percentile", "std", "minmax"])
def test_limits_are_those_of_the_valid_pixels(dtype, method, values, write_raster) -> None:
    scale = 0.1 if dtype == "uint8" else 1
    stored = (values * scale).round().astype(dtype)
    path = write_raster("a.tif", stored, nodata=0)
    with open_raster(path) as raster:
        stretch = compute_stretch(raster, method)
        pixels, valid = raster.sample()
    data = stored[20:].astype(float)
    expected = {
        "percentile": np.percentile(data, (1, 99)),
        "std": np.clip(data.mean() + np.array([-2.5, 2.5]) * data.std(), data.min(), data.max()),
        "minmax": (data.min(), data.max()),
    }[method]
    assert (*stretch.low, *stretch.high) == pytest.approx(tuple(expected))
    grey = stretch.apply(pixels, valid)
    assert grey.shape == (80, 90) and not grey[:20].any()
    inner = np.clip((data - expected[0]) / (expected[1] - expected[0]) * 255, 0, 255)
    assert np.abs(grey[20:] - inner).max() <= 0.5 + 1e-3


def test_nan_masks_and_special_pixels_are_invalid(write_raster) -> None:
    values = np.full((64, 64), 5, np.float32)
    values[0], values[1], values[2] = np.nan, -3.4e38, np.inf
    values[3] = 9
    mask = np.full((64, 64), 255, np.uint8)
    mask[4] = 0
    with open_raster(write_raster("a.tif", values, mask=mask)) as raster:
        _, valid = raster.sample()
        stretch = compute_stretch(raster, "minmax")
    assert not valid[[0, 1, 2, 4]].any() and valid[[3, 5, 63]].all()
    assert (stretch.low, stretch.high) == ((5,), (9,))


def test_alpha_hides_pixels_and_colours_have_limits_of_their_own(write_raster) -> None:
    rng = np.random.default_rng(1)
    colour = np.stack([rng.integers(low, low + 90, (64, 64)) for low in (10, 60, 120)])
    alpha = np.full((1, 64, 64), 255)
    alpha[:, :8] = 0
    stored = np.concatenate([colour, alpha]).astype(np.uint8)
    path = write_raster("a.tif", stored, photometric="RGB", alpha="YES")
    with open_raster(path) as raster:
        assert raster.bands == (1, 2, 3)
        values, valid = raster.sample()
        stretch = compute_stretch(raster, "minmax")
    assert not valid[:8].any() and valid[8:].all()
    assert stretch.low == tuple(colour[:, 8:].min(axis=(1, 2)))
    image = stretch.apply(values, valid)
    assert image.shape == (64, 64, 3) and image[8:].min() == 0 and image.max() == 255
    with open_raster(path, bands=[3, 2, 1]) as raster:
        assert (raster.sample()[0] == values[::-1]).all()


def test_8_bits_stay_as_they_are_and_more_need_a_stretch(write_raster) -> None:
    grey = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    with open_raster(write_raster("a.tif", (grey % 256).astype(np.uint8))) as raster:
        stretch = compute_stretch(raster, None)
        assert stretch.method == "none"
        assert (stretch.apply(*raster.sample()) == grey % 256).all()
    with open_raster(write_raster("b.tif", grey)) as raster:
        assert compute_stretch(raster, None).method == "percentile"
        with pytest.raises(DataError, match="--stretch none cannot show"):
            compute_stretch(raster, "none")


def test_a_raster_without_data_and_a_constant_one(write_raster) -> None:
    with (
        open_raster(write_raster("a.tif", np.zeros((64, 64), np.uint16), nodata=0)) as raster,
        pytest.raises(DataError, match="no valid pixel"),
    ):
        compute_stretch(raster, None)
    with open_raster(write_raster("b.tif", np.full((64, 64), 77, np.uint16))) as raster:
        stretch = compute_stretch(raster, "percentile")
        assert (stretch.apply(*raster.sample()) == 128).all()


def test_a_no_data_value_can_be_given(write_raster) -> None:
    values = np.full((64, 64), 5, np.uint8)
    values[:32] = 0
    path = write_raster("a.tif", values)
    with open_raster(path) as raster:
        assert raster.sample()[1].all()
    with open_raster(path, nodata=0) as raster:
        assert raster.sample()[1].mean() == 0.5
    with pytest.raises(DataError, match="--nodata 300"), open_raster(path, nodata=300):
        pass
