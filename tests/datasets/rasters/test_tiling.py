"""Positions and windows of tiles, on rasters whose values are their own coordinates."""

from __future__ import annotations

import numpy as np
import pytest

from marsretrieval import geo
from marsretrieval.datasets import open_images
from marsretrieval.datasets.rasters import (
    RasterSpec,
    cut_rasters,
    list_tiles,
    open_raster,
    read_tile,
)
from tests.datasets.layouts import read_all
from tests.datasets.rasters.conftest import (
    PROJECTIONS,
    A,
    M,
    Projected,
    pixel_positions,
    polar,
    sinusoidal,
)

WIDTH, HEIGHT = 300, 200


def coded(write_raster, case: Projected, **options):
    values = np.stack(pixel_positions(case, WIDTH, HEIGHT))
    return write_raster("coded.tif", values, case.crs, case.corner, case.pixel, **options)


def error_pixels(raster, lon, lat, true_lon, true_lat) -> float:
    metres = geo.great_circle_deg(lon, lat, true_lon, true_lat) * M
    return float(np.max(metres)) / min(raster.pixel_m)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_windows_lie_where_their_pixels_say(name: str, write_raster) -> None:
    path = coded(write_raster, PROJECTIONS[name])
    spec = RasterSpec(tile_px=64, size=64)
    worst = 0.0
    with open_raster(path, bands=[1, 2]) as raster:
        tiles = list_tiles(raster, spec)
        assert len(tiles) == 5 * 4
        for tile in tiles:
            pixels = read_tile(raster, tile, spec)
            assert pixels.valid.all()
            lon, lat = pixels.values[:, 31:33, 31:33].mean(axis=(1, 2))
            placement = pixels.placement
            assert placement is not None
            worst = max(worst, error_pixels(raster, placement.lon, placement.lat, lon, lat))
            # The corner pixels' centres are half a pixel inside of the corners.
            for (corner_lon, corner_lat), (i, j) in zip(
                placement.corners, ((0, 0), (0, -1), (-1, -1), (-1, 0)), strict=True
            ):
                off = error_pixels(raster, corner_lon, corner_lat, *pixels.values[:, i, j])
                assert 0.4 < off < 1.5
    print(f"POSITION {name}: {worst:.2g} px")
    assert worst < 0.01


@pytest.mark.parametrize("name", PROJECTIONS)
def test_cells_hold_the_pixels_of_their_degrees(name: str, write_raster) -> None:
    path = coded(write_raster, PROJECTIONS[name])
    spec = RasterSpec(delta=0.4, size=64)
    worst = counted = 0.0
    with open_raster(path, bands=[1, 2]) as raster:
        tiles = list_tiles(raster, spec)
        for tile in tiles:
            pixels = read_tile(raster, tile, spec)
            assert tile.cell is not None
            west, south, _, north = tile.cell
            share = (np.arange(64) + 0.5) / 64 * 0.4
            lon, lat = np.meshgrid(west + share, north - share)
            inner = pixels.valid.copy()
            # Half a source pixel at the edge of the raster is filled with the nearest value.
            column, row = raster.from_degrees(lon.ravel(), lat.ravel())
            inside = (column > 1) & (column < WIDTH - 1) & (row > 1) & (row < HEIGHT - 1)
            inner &= inside.reshape(lon.shape)
            counted += float(inner.sum())
            if inner.any():
                assert pixels.placement is not None
                assert (pixels.placement.lat, pixels.placement.width_deg) == pytest.approx(
                    ((south + north) / 2, 0.4)
                )
                values = pixels.values[:, inner]
                worst = max(worst, error_pixels(raster, lon[inner], lat[inner], *values))
    print(f"WARP {name}: {worst:.2g} px")
    assert counted > 1000
    assert worst < 0.5


@pytest.mark.parametrize("name", PROJECTIONS)
def test_a_single_georeferenced_image_has_the_position_of_its_tile(name: str, write_raster) -> None:
    case = PROJECTIONS[name]
    values = np.zeros((1, 64, 64), np.uint8)
    path = write_raster("one.tif", values, case.crs, case.corner, case.pixel)
    spec = RasterSpec(size=64)
    with open_raster(path) as raster:
        (tile,) = list_tiles(raster, spec)
        placement = read_tile(raster, tile, spec).placement
    assert placement is not None
    (record,) = read_all(open_images(path.parent))
    assert (record.lon, record.lat, record.width_deg, record.height_deg) == (
        placement.lon, placement.lat, placement.width_deg, placement.height_deg,
    )  # fmt: skip


def limb(write_raster, name: str):
    """A sinusoidal map of the whole planet, with no-data off the planet."""
    size = np.pi * 3_396_190 / 100
    case = Projected(f"+proj=sinu +lon_0=0 +R={3_396_190} +units=m +no_defs", sinusoidal(A, 0),
                     (-100 * size, 50 * size), size)  # fmt: skip
    lon, lat = pixel_positions(case, 200, 100)
    values = np.where(np.abs(lon) <= 180, 100, 0).astype(np.uint8)
    return write_raster(name, values, case.crs, case.corner, case.pixel, nodata=0), lon, lat


def test_tiles_beyond_the_limb_of_a_map_are_left_out(write_raster, tmp_path) -> None:
    path, _, _ = limb(write_raster, "planet.tif")
    report = cut_rasters([path], RasterSpec(tile_px=20, size=32), tmp_path / "out")
    (manifest,) = report.cut
    assert report.complete and manifest.tiles and manifest.empty and manifest.off_planet
    assert manifest.tiles + manifest.empty + manifest.off_planet == 50
    cells = cut_rasters([path], RasterSpec(delta=10, size=32), tmp_path / "cells").cut[0]
    assert cells.tiles == 36 * 18  # every cell of the planet


@pytest.mark.parametrize(("tile", "overlap"), [(64, 0.0), (50, 0.5), (70, 0.9), (16, 0.25)])
def test_windows_cover_every_pixel_and_overlap_as_asked(tile, overlap, write_raster) -> None:
    path = write_raster("a.tif", np.zeros((150, 211), np.uint8))
    spec = RasterSpec(tile_px=tile, overlap=overlap, size=16)
    counts = np.zeros((150, 211), int)
    with open_raster(path) as raster:
        tiles = list_tiles(raster, spec)
    for entry in tiles:
        assert entry.window is not None
        column, row, width, height = entry.window
        assert (width, height) == (tile, tile) and column + width <= 211 and row + height <= 150
        counts[row : row + height, column : column + width] += 1
    assert counts.min() >= 1
    assert len({entry.key for entry in tiles}) == len(tiles)
    columns = sorted({entry.column for entry in tiles})
    assert columns[1] - columns[0] == round(tile * (1 - overlap))


def test_metres_on_the_ground_give_square_tiles_at_any_latitude(write_raster) -> None:
    # At 60 N a pixel of this map is half as wide on the ground as it is high.
    path = write_raster("a.tif", np.zeros((400, 800), np.uint8), corner=(10 * M, 60 * M), pixel=100)
    spec = RasterSpec(tile_m=5000, size=50)
    with open_raster(path) as raster:
        tiles = list_tiles(raster, spec)
        assert tiles[0].window is not None
        assert tiles[0].window[2:] == (pytest.approx(100, abs=2), 50)
        for tile in tiles[:3]:
            pixels = read_tile(raster, tile, spec)
            assert pixels.pixel_m == pytest.approx((100, 100), rel=0.02)


def test_a_raster_smaller_than_a_tile_is_padded(write_raster) -> None:
    path = write_raster("a.tif", np.full((20, 40), 7, np.uint8))
    spec = RasterSpec(tile_px=40, size=40)
    with open_raster(path) as raster:
        (tile,) = list_tiles(raster, spec)
        pixels = read_tile(raster, tile, spec)
    assert pixels.valid.mean() == 0.5 and pixels.valid[:20].all()


def test_rotated_rasters_have_rotated_tiles(write_raster) -> None:
    rasterio = pytest.importorskip("rasterio")
    turn = rasterio.Affine.translation(137 * M, -4 * M) * rasterio.Affine.rotation(30)
    transform = turn * rasterio.Affine.scale(100, -100)
    column, row = np.meshgrid(np.arange(100) + 0.5, np.arange(80) + 0.5)
    x, y = transform * (column, row)
    values = np.stack([x / M, y / M])
    path = write_raster("turned.tif", values, transform=transform)
    spec = RasterSpec(tile_px=40, size=40)
    with open_raster(path, bands=[1, 2]) as raster:
        for tile in list_tiles(raster, spec):
            pixels = read_tile(raster, tile, spec)
            assert pixels.placement is not None
            lon, lat = pixels.values[:, 19:21, 19:21].mean(axis=(1, 2))
            assert (pixels.placement.lon, pixels.placement.lat) == pytest.approx((lon, lat))
        for cell in list_tiles(raster, RasterSpec(delta=0.1, size=40)):
            pixels = read_tile(raster, cell, RasterSpec(delta=0.1, size=40))
            assert cell.cell is not None
            west, _, _, north = cell.cell
            share = (np.arange(40) + 0.5) / 400
            lons, lats = np.meshgrid(west + share, north - share)
            close = np.abs(pixels.values - np.stack([lons, lats]))[:, pixels.valid]
            assert close.size == 0 or close.max() < 100 / M


def test_cells_cross_the_antimeridian_and_the_pole(write_raster) -> None:
    case = Projected(f"+proj=stere +lat_0=90 +lon_0=0 +R={A} +units=m +no_defs", polar(A, 0),
                     (-100_000, 100_000), 1000)  # fmt: skip
    values = np.full((200, 200), 9, np.uint8)
    path = write_raster("pole.tif", values, case.crs, case.corner, case.pixel)
    spec = RasterSpec(delta=1, size=32)
    with open_raster(path) as raster:
        tiles = list_tiles(raster, spec)
        top = [tile for tile in tiles if tile.cell is not None and tile.cell[3] == 90]
        assert len(top) == 360
        assert all(read_tile(raster, tile, spec).valid.all() for tile in top[::40])
    path = write_raster("date.tif", values, corner=(179 * M, M), pixel=0.01 * M)
    with open_raster(path) as raster:
        tiles = list_tiles(raster, spec)
        lons = {read_tile(raster, tile, spec).placement.lon for tile in tiles}  # type: ignore[union-attr]
        assert lons == {179.5, -179.5}
        assert len(tiles) == 4


def test_cells_on_the_seam_of_a_projection_hold_both_sides(write_raster) -> None:
    """A Mercator map from -180 to 180, and a cell across its edge."""
    case = PROJECTIONS["mercator sphere"]
    pixel = 360 * M / 720
    planet = Projected(case.crs, case.invert, (-180 * M, 60 * pixel), pixel)
    lon, lat = pixel_positions(planet, 720, 120)
    path = write_raster("map.tif", np.stack([np.abs(lon), lat]), case.crs, planet.corner, pixel)
    spec = RasterSpec(delta=7, size=32)
    with open_raster(path, bands=[1, 2]) as raster:
        tiles = [tile for tile in list_tiles(raster, spec) if tile.cell and tile.cell[2] > 180]
        assert tiles
        for tile in tiles:
            assert tile.cell is not None
            pixels = read_tile(raster, tile, spec)
            west = tile.cell[0]
            expected = np.abs(geo.wrap_lon(west + (np.arange(32) + 0.5) / 32 * 7))
            valid_values = pixels.values[0][pixels.valid]
            near = np.broadcast_to(expected, (32, 32))[pixels.valid]
            assert np.abs(valid_values - near).max() < 0.5


def test_reduced_reads_average_all_pixels(write_raster) -> None:
    values = np.tile(np.array([[0, 100], [100, 0]], np.uint8), (256, 256))
    path = write_raster("checks.tif", values, nodata=None)
    spec = RasterSpec(tile_px=512, size=64)
    with open_raster(path) as raster:
        (tile,) = list_tiles(raster, spec)
        pixels = read_tile(raster, tile, spec)
    assert np.abs(pixels.values.astype(float) - 50).max() <= 6
