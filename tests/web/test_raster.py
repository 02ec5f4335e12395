"""Pixels of tiles, and scores as bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsretrieval.web.raster import TileRaster, encode_scores


def raster_of(lon, lat, width=0.2, height=0.2):
    lon, lat = np.asarray(lon, float), np.asarray(lat, float)
    sides = [np.broadcast_to(np.asarray(side, float), lon.shape) for side in (width, height)]
    return TileRaster.from_tiles(lon, lat, *sides)


def pixel_at(raster, lon, lat):
    column = int(((lon - raster.west) % 360) / raster.cell_lon)
    return int((raster.north - lat) / raster.cell_lat), column


def test_tiles_of_a_regular_grid_cover_one_pixel_each():
    lon, lat = np.meshgrid(-180 + 0.1 + 0.2 * np.arange(1800), [-0.1, 0.1])
    raster = raster_of(lon.ravel(), lat.ravel())
    assert (raster.columns, raster.rows, raster.west, raster.north) == (1800, 2, -180.0, 0.2)
    assert not raster.has_overlaps
    assert sorted(raster.pixels) == list(range(3600))
    codes = np.zeros(3600, np.uint8)
    codes[0] = 7  # the south-western tile
    assert raster.paint(codes)[1, 0] == 7


def test_extents_stored_as_float32_give_the_step_of_the_grid():
    lon = 10.1 + 0.2 * np.arange(500)
    raster = raster_of(lon, np.full(500, 0.1), np.float32(0.2), np.float32(0.2))
    assert raster.cell_lon == 0.2
    assert (raster.columns, raster.rows) == (500, 1)


def test_tiles_on_both_sides_of_the_antimeridian_are_neighbours():
    raster = raster_of([179.7, 179.9, -179.9, -179.7], [0.1] * 4)
    assert (raster.west, raster.columns) == (179.6, 4)
    painted = raster.paint(np.array([1, 2, 3, 4], np.uint8))
    assert painted.tolist() == [[1, 2, 3, 4]]


def test_a_large_tile_covers_all_its_pixels_and_the_best_score_is_drawn():
    raster = raster_of([0.1, 0.3, 0.5, 0.3], [0.1] * 3 + [0.3], [0.2, 0.2, 0.2, 0.6])
    painted = raster.paint(np.array([5, 9, 5, 8], np.uint8))
    assert painted.tolist() == [[8, 8, 8], [5, 9, 5]]


def test_scattered_tiles_stay_within_the_memory_limit():
    rng = np.random.default_rng(0)
    raster = raster_of(rng.uniform(-180, 180, 50), rng.uniform(-80, 80, 50), 0.001, 0.001)
    assert raster.columns * raster.rows <= 2**23
    painted = raster.paint(np.full(50, 3, np.uint8))
    assert (painted > 0).sum() >= 45


def test_tiles_without_extent_or_position():
    assert raster_of([np.nan], [np.nan]) is None
    raster = raster_of([5.0, np.nan], [5.0, np.nan], np.nan, np.nan)
    assert raster.paint(np.array([9, 200], np.uint8)).max() == 9


@given(st.lists(st.tuples(st.floats(-180, 180), st.floats(-89, 89)), min_size=1, max_size=30))
def test_every_tile_is_drawn_where_it_lies(positions):
    lon, lat = np.array(positions).T
    raster = raster_of(lon, lat, 1.0, 1.0)
    for number in range(len(lon)):
        codes = np.zeros(len(lon), np.uint8)
        codes[number] = 1
        row, column = pixel_at(raster, lon[number] - 1e-3, lat[number] - 1e-3)
        painted = raster.paint(codes)
        assert painted[min(row, raster.rows - 1), min(column, raster.columns - 1)] == 1


def test_codes_give_the_share_of_tiles_that_score_at_least_as_high():
    scores = np.random.default_rng(1).permutation(np.linspace(-0.5, 0.9, 10_000)).astype("f4")
    coded = encode_scores(scores)
    assert coded.counts.sum() == 10_000
    assert coded.codes.max() == 1 + 40 * 4  # one of 10,000
    for code in (41, 81, 121):  # 10 %, 1 % and 0.1 %
        at_least = (coded.codes >= code).sum()
        assert at_least == coded.counts[code:].sum()
        assert at_least / 10_000 == pytest.approx(10 ** (-(code - 1) / 40), rel=0.06)
    order = np.argsort(-scores)
    assert (np.diff(coded.codes[order].astype(int)) <= 0).all()
    best = int(np.argmax(scores))
    assert coded.lowest[coded.codes[best]] == pytest.approx(scores[best], abs=2e-4)


def test_excluded_tiles_have_no_code_and_do_not_count():
    scores = np.array([0.9, 0.1, 0.2, 0.3], "f4")
    coded = encode_scores(scores, np.array([True, False, False, False]))
    assert coded.codes[0] == 0
    assert coded.counts.sum() == 3
    assert coded.codes.argmax() == 3
    assert encode_scores(scores, np.ones(4, bool)).codes.max() == 0
    assert (encode_scores(np.full(5, 0.5, "f4")).codes == 1).all()
