"""The resampling kernel compared with GDAL's warper, which made the published tiles."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject

from marsretrieval.datasets.ctx.resample import COLUMN_BLOCK, ROW_BLOCK, axis, resample
from tests.datasets.ctx.quads import CRS, noise

MOSAIC = 2371 / 512  # pixels of the mosaic to a pixel of a tile


def gdal(source, origin, step, shape, no_data=None):
    crs = rasterio.crs.CRS.from_wkt(CRS["sphere"])
    pixels = np.zeros(shape, dtype=np.uint8)
    reproject(
        source, pixels, src_crs=crs, dst_crs=crs, src_nodata=no_data, dst_nodata=0,
        src_transform=Affine(5, 0, 0, 0, -5, 0),
        dst_transform=Affine(5 * step[1], 0, 5 * origin[1], 0, -5 * step[0], -5 * origin[0]),
        resampling=Resampling.bilinear,
    )  # fmt: skip
    return pixels


def ours(source, origin, step, shape, no_data=None):
    axes = [
        axis(length, start, item, count, block)
        for length, start, item, count, block in zip(
            source.shape, origin, step, shape, (ROW_BLOCK, COLUMN_BLOCK), strict=True
        )
    ]
    return resample(source, *axes, no_data=no_data)


@pytest.mark.parametrize("no_data", [None, 0])
@pytest.mark.parametrize(
    ("step", "origin"),
    [
        ((MOSAIC, MOSAIC), (0.0, 0.0)),  # the corner of the quad: part of the kernel is outside
        ((MOSAIC, MOSAIC), (100.0, 37.0)),
        ((1.1577, 1.1577), (100.25, 200.75)),
        ((2.3154, 2.3154), (0.3, 33.5)),
        ((9.26, 9.26), (3.0, 5.0)),
        ((22.1, 4.63), (3.0, 5.0)),  # equal aspect near a pole
        ((4.63, 0.7), (3.3, 5.7)),
    ],
)
def test_pixels_equal_gdal_bit_for_bit(step, origin, no_data) -> None:
    shape = (48, 80)
    source = noise(1100)
    pixels = ours(source, origin, step, shape, no_data)
    expected = gdal(source, origin, step, shape, no_data)
    # Where the source declares no nodata, GDAL 3.12 writes 1 for a grey of 0; 3.10 did not.
    least = 1 if no_data is None else 0
    differing = np.count_nonzero(np.maximum(pixels.pixels, least) != np.maximum(expected, least))
    assert differing <= pixels.ties
    assert pixels.ties <= 2


@pytest.mark.parametrize("step", [0.46, 1.03, 1.0, 1.5, 2.0])
def test_only_exact_halves_may_differ_by_one(step: float) -> None:
    source = noise(300, no_data=False)
    pixels = ours(source, (10.0, 7.0), (step, step), (100, 90))
    expected = gdal(source, (10.0, 7.0), (step, step), (100, 90))
    assert np.count_nonzero(pixels.pixels != expected) <= pixels.ties
    assert np.abs(pixels.pixels.astype(int) - expected).max(initial=0) <= 1


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0.3, 12), st.floats(0.3, 12), st.floats(0, 30), st.floats(0, 30), st.integers(0, 99)
)
def test_float32_products_round_as_float64_does(step_y, step_x, top, left, seed) -> None:
    """Recomputing values near a half compensates for float32."""
    source = noise(200, seed, no_data=False)
    spans = ((top, step_y), (left, step_x))
    shape = tuple(max(1, min(40, int((200 - start) / step))) for start, step in spans)
    dense = []
    for start, step, count in ((top, step_y, shape[0]), (left, step_x, shape[1])):
        axis_weights = axis(200, start, step, count, ROW_BLOCK)
        matrix = np.zeros((count, 200))
        for tap in range(axis_weights.weights.shape[1]):
            inside = axis_weights.weights[:, tap] > 0
            matrix[inside, axis_weights.first[inside] + tap] += axis_weights.weights[inside, tap]
        np.testing.assert_allclose(matrix.sum(axis=1), 1)
        dense.append(matrix)
    precise = dense[0] @ source.astype(np.float64) @ dense[1].T
    pixels = ours(source, (top, left), (step_y, step_x), shape)
    clear = np.abs(precise - np.floor(precise) - 0.5) > 1e-9
    np.testing.assert_array_equal(pixels.pixels[clear], np.floor(precise + 0.5)[clear])


@pytest.mark.parametrize("value", [0, 1, 77, 255])
def test_constant_image_stays_constant(value: int) -> None:
    source = np.full((300, 300), value, dtype=np.uint8)
    pixels = ours(source, (0.0, 0.0), (MOSAIC, 3.1), (64, 90))
    assert (pixels.pixels == value).all()
    assert pixels.ties == 0


def test_declared_no_data_does_not_darken_neighbours() -> None:
    source = np.full((400, 400), 200, dtype=np.uint8)
    source[:, 190:] = 0
    declared = ours(source, (0.0, 0.0), (MOSAIC, MOSAIC), (80, 80), no_data=0).pixels
    blended = ours(source, (0.0, 0.0), (MOSAIC, MOSAIC), (80, 80)).pixels
    assert set(np.unique(declared)) == {0, 200}
    assert set(np.unique(blended)) > {0, 200}


def test_four_degree_tile_uses_no_more_memory_than_others() -> None:
    """92 source pixels per output pixel: columns are processed a few at a time."""
    source = noise(3000, no_data=False)[:300]
    pixels = ours(source, (95.0, 0.0), (92.6, 92.6), (1, 32))
    assert pixels.pixels.shape == (1, 32)
    np.testing.assert_array_equal(pixels.pixels, gdal(source, (95.0, 0.0), (92.6, 92.6), (1, 32)))
