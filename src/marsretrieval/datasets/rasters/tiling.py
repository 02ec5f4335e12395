"""Tiles of a raster: windows of its own pixels, or cells of a grid of longitudes and latitudes.

Windows are cut without a change of projection: only resized. Cells are warped by this module, not
by GDAL, whose result depends on the version of PROJ (up to 0.40 degrees for equirectangular
rasters with an ellipsoid) and whose latitudes are planetographic on ellipsoids. A raster that does
not divide into whole windows has its last windows shifted inwards, so that no pixel is lost and
no image is padded; only a raster smaller than a tile is padded with no-data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from marsretrieval import geo
from marsretrieval.datasets.rasters.source import Floats, Mask, Raster, Values
from marsretrieval.datasets.rasters.spec import RasterSpec
from marsretrieval.errors import DataError
from marsretrieval.text import format_metres

_MAX_TILES = 20_000_000
_WEST, _SOUTH = -180.0, -90.0  # origin of the grid of cells
_PROBES = 5  # points per side of a cell that are looked up in the raster
_RASTER_PROBES = 65  # points per side of the raster that are looked up in the grid
_NODES = 17  # exact positions per side of a cell; between them, a cubic spline
_DECIMALS = 9
_BATCH = 2_000  # cells whose points are converted at once


@dataclass(frozen=True, slots=True)
class RasterTile:
    """A tile to cut.

    Attributes:
        key: Last part of the id: row and column, or the south-west corner.
        row: First row in the raster's pixels, or row of the grid.
        column: First column, or column of the grid.
        window: First column, first row, width and height in pixels of the raster; None for a cell.
        cell: West, south, east and north in degrees, west in the raster's turn of 360 degrees;
            None for a window.
    """

    key: str
    row: int
    column: int
    window: tuple[int, int, int, int] | None = None
    cell: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class TilePixels:
    """Pixels and position of a tile.

    Attributes:
        values: Array of shape (bands, size, size).
        valid: Mask of shape (size, size).
        placement: Position; None if no pixel is valid, or a part lies off the planet.
        pixel_m: Mean width and height of a pixel of the image on the ground in metres.
    """

    values: Values
    valid: Mask
    placement: geo.Placement | None
    pixel_m: tuple[float, float]


def window_size(raster: Raster, spec: RasterSpec) -> tuple[int, int]:
    """Compute the size of the windows of a raster.

    Args:
        raster: The raster.
        spec: Options with `tile_px` or `tile_m`.

    Returns:
        Width and height in pixels of the raster.

    Raises:
        DataError: If a window of `tile_m` is smaller than 2 pixels or larger than the planet.
    """
    if spec.tile_m is None:
        side = spec.native_px or spec.size
        return side, side
    if spec.tile_m > math.pi * geo.MARS_RADIUS_M:
        raise DataError(
            f"{raster.path}: --tile-m {spec.tile_m:g} is larger than half of the planet",
            remedy="Use a smaller tile.",
        )
    width, height = (max(1, round(spec.tile_m / side)) for side in raster.pixel_m)
    if min(width, height) < 2:
        raise DataError(
            f"{raster.path}: a tile of {format_metres(spec.tile_m)} has {width} x {height} pixels "
            f"(one pixel is {format_metres(raster.pixel_m[0])})",
            remedy="Use a larger --tile-m.",
        )
    return width, height


def list_tiles(raster: Raster, spec: RasterSpec) -> list[RasterTile]:
    """List the tiles of a raster, in rows from its first row on (cells: from north to south).

    Args:
        raster: The raster.
        spec: Tile options.

    Returns:
        Tiles that overlap the raster; whether they have data is known when they are read.

    Raises:
        DataError: If there would be more than 20 million, or the grid leads off the planet.
    """
    if spec.delta is not None:
        return list(_cells(raster, spec.delta, spec.overlap))
    width, height = window_size(raster, spec)
    rows = _starts(raster.height, height, spec.overlap)
    columns = _starts(raster.width, width, spec.overlap)
    _check_count(raster, len(rows) * len(columns))
    return [
        RasterTile(f"r{row:06d}_c{column:06d}", row, column, window=(column, row, width, height))
        for row in rows
        for column in columns
    ]


def read_tile(raster: Raster, tile: RasterTile, spec: RasterSpec) -> TilePixels:
    """Read the pixels of a tile, resampled to the size of its image.

    Args:
        raster: The open raster.
        tile: One of `list_tiles`.
        spec: Tile options.

    Returns:
        Pixels and position.

    Raises:
        DataError: If the pixels cannot be read, or the tile is more than 180 degrees wide.
    """
    if tile.window is not None:
        values, valid = _read_window(raster, tile.window, spec.size)
        placement = raster.place(tile.window) if valid.any() else None
        return TilePixels(values, valid, placement, _scale(raster, tile, spec.size))
    assert tile.cell is not None
    west, south, east, north = tile.cell
    values, valid = _warp_cell(raster, tile.cell, spec.size)
    lon, lat = round((west + east) / 2, _DECIMALS), round((south + north) / 2, _DECIMALS)
    centre = round(float(geo.wrap_lon(lon)), _DECIMALS)
    half = round((east - west) / 2, _DECIMALS)
    placement = geo.Placement(
        centre,
        lat,
        round(east - west, _DECIMALS),
        round(north - south, _DECIMALS),
        tuple(
            (round(centre + side * half, _DECIMALS), edge)
            for side, edge in ((-1, north), (1, north), (1, south), (-1, south))
        ),
    )
    metres = math.radians(1) * geo.MARS_RADIUS_M / spec.size
    wide = (east - west) * metres * math.cos(math.radians(lat))
    return TilePixels(values, valid, placement, (wide, (north - south) * metres))


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    if length <= tile:
        return [0]
    step = max(1, round(tile * (1 - overlap)))
    starts = list(range(0, length - tile + 1, step))
    if starts[-1] != length - tile:
        starts.append(length - tile)
    return starts


def _check_count(raster: Raster, count: int) -> None:
    if count > _MAX_TILES:
        raise DataError(
            f"{raster.path}: {count:,} tiles, more than {_MAX_TILES:,}",
            remedy="Use larger tiles or a smaller --overlap.",
        )


def _read_window(
    raster: Raster, window: tuple[int, int, int, int], size: int
) -> tuple[Values, Mask]:
    """Read a window; the part beyond the raster is invalid."""
    column, row, width, height = window
    inner_width, inner_height = min(width, raster.width), min(height, raster.height)
    shape = (
        max(1, round(size * inner_height / height)),
        max(1, round(size * inner_width / width)),
    )
    values, valid = raster.read((column, row, inner_width, inner_height), shape)
    if shape == (size, size):
        return values, valid
    padded = np.zeros((len(values), size, size), dtype=values.dtype)
    mask = np.zeros((size, size), dtype=np.bool_)
    padded[:, : shape[0], : shape[1]], mask[: shape[0], : shape[1]] = values, valid
    return padded, mask


def _scale(raster: Raster, tile: RasterTile, size: int) -> tuple[float, float]:
    """Measure a pixel of the image at the centre of its window."""
    assert tile.window is not None
    column, row, width, height = tile.window
    x, y = column + width / 2, row + height / 2
    step_x, step_y = width / size, height / size
    lon, lat = raster.to_degrees(
        np.array([x - step_x / 2, x + step_x / 2, x, x]),
        np.array([y, y, y - step_y / 2, y + step_y / 2]),
    )
    metres = math.radians(1) * geo.MARS_RADIUS_M
    with np.errstate(invalid="ignore"):  # infinite beyond the limb
        sides = geo.great_circle_deg(lon[::2], lat[::2], lon[1::2], lat[1::2]) * metres
    return float(sides[0]), float(sides[1])


def _cells(raster: Raster, delta: float, overlap: float) -> Iterator[RasterTile]:
    step = round(delta * (1 - overlap), _DECIMALS)
    west, south, east, north = raster_bounds(raster)
    first_row, end_row = _cover(south - _SOUTH, north - _SOUTH, delta, step)
    first_column, end_column = _cover(west - _WEST, east - _WEST, delta, step)
    if east - west >= 360 - 1e-9:  # the grid closes
        end_column = min(end_column, first_column + math.ceil(round(360 / step, 6)))
    # The last row is shifted southwards, so that it ends at the pole.
    first_row = max(first_row, 0)
    end_row = min(end_row, math.ceil(round((180 - delta) / step, 6)) + 1)
    _check_count(raster, max(0, end_row - first_row) * max(0, end_column - first_column))
    hit = _cells_of_raster(raster, (west + east) / 2, step)
    columns = np.arange(first_column, end_column)
    wests = (_WEST + columns * step).astype(np.float64)
    for row in reversed(range(first_row, end_row)):
        cell_south = round(min(_SOUTH + row * step, -_SOUTH - delta), _DECIMALS)
        overlaps = np.concatenate(
            [
                _overlap_raster(raster, wests[start : start + _BATCH], cell_south, delta)
                for start in range(0, len(wests), _BATCH)
            ]
        )
        for column, is_inside in zip(columns.tolist(), overlaps.tolist(), strict=True):
            if not is_inside and (row, column) not in hit:
                continue
            cell_west = round(_WEST + column * step, _DECIMALS)
            wrapped = round(float(geo.wrap_lon(cell_west)), _DECIMALS)
            east_edge, north_edge = cell_west + delta, cell_south + delta
            cell = cell_west, cell_south, round(east_edge, _DECIMALS), round(north_edge, _DECIMALS)
            yield RasterTile(geo.tile_name(wrapped, cell_south, step), row, column, cell=cell)


def _cover(low: float, high: float, delta: float, step: float) -> tuple[int, int]:
    """Return the first and one past the last index of cells of `delta` that overlap a range."""
    first = math.floor(round((low - delta) / step, 6)) + 1
    return first, max(first + 1, math.ceil(round(high / step, 6)))


def raster_bounds(raster: Raster) -> tuple[float, float, float, float]:
    """Compute the range of longitudes and latitudes of a raster.

    Args:
        raster: The raster.

    Returns:
        West, south, east and north; west and east within 360 degrees of its centre. All
        longitudes if it contains a pole.

    Raises:
        DataError: If no point of the raster lies on the planet.
    """
    lon, lat = _probe_raster(raster)
    centre = _centre_lon(raster)
    offsets = geo.wrap_lon(lon - centre) if raster.converter.wraps else lon - centre
    west, east = centre + float(offsets.min()), centre + float(offsets.max())
    south, north = max(float(lat.min()), -90.0), min(float(lat.max()), 90.0)
    if raster.converter.wraps:
        for pole in (-90.0, 90.0):
            column, row = _look_up(raster, np.array([centre]), np.array([pole]))
            if 0 <= column[0] <= raster.width and 0 <= row[0] <= raster.height:
                west, east = -180.0, 180.0
                south, north = min(south, pole), max(north, pole)
    return west, south, east, min(north, 90.0)


def _centre_lon(raster: Raster) -> float:
    lon, _ = raster.to_degrees(np.array([raster.width / 2]), np.array([raster.height / 2]))
    return float(lon[0])


def _probe_raster(raster: Raster) -> tuple[Floats, Floats]:
    """Return the positions of a grid of points of the raster that lie on the planet."""
    share = np.linspace(0, 1, _RASTER_PROBES)
    column, row = np.meshgrid(share * raster.width, share * raster.height)
    lon, lat = raster.to_degrees(column.ravel(), row.ravel())
    finite = np.isfinite(lon) & np.isfinite(lat)
    if not finite.any() or not math.isfinite(_centre_lon(raster)):
        raise DataError(
            f"{raster.path}: its centre lies off the planet",
            remedy="Cut it with --tile-px, or crop it to the planet first.",
        )
    return lon[finite], lat[finite]


def _cells_of_raster(raster: Raster, centre: float, step: float) -> set[tuple[int, int]]:
    """Return cells that hold a point of the raster: small rasters fall between points of cells."""
    lon, lat = _probe_raster(raster)
    if raster.converter.wraps:
        lon = lon + 360 * np.round((centre - lon) / 360)
    rows = np.floor((lat - _SOUTH - 1e-9) / step).astype(int)
    columns = np.floor((lon - _WEST - 1e-9) / step).astype(int)
    return set(zip(rows.tolist(), columns.tolist(), strict=True))


def _overlap_raster(raster: Raster, wests: Floats, south: float, delta: float) -> Mask:
    share = (np.arange(_PROBES) + 0.5) / _PROBES * delta
    lon, lat = np.broadcast_arrays(
        wests[:, None, None] + share[None, None, :], south + share[None, :, None]
    )
    column, row = _look_up(raster, lon.ravel(), lat.ravel())
    inside: Mask = (column > 0) & (column < raster.width) & (row > 0) & (row < raster.height)
    overlaps: Mask = np.asarray(inside.reshape(len(wests), -1).any(axis=1), dtype=np.bool_)
    return overlaps


def _look_up(raster: Raster, lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Return pixel coordinates; infinite where a point does not return from the projection."""
    column, row = raster.from_degrees(lon, np.clip(lat, -90, 90))
    if not raster.converter.wraps:
        return column, row
    column, row = column.copy(), row.copy()
    finite = np.isfinite(column) & np.isfinite(row)
    column[~finite], row[~finite] = np.inf, np.inf
    return column, row


def _warp_cell(
    raster: Raster, cell: tuple[float, float, float, float], size: int
) -> tuple[Values, Mask]:
    """Resample a cell bilinearly from the raster, reduced beforehand if it is finer."""
    column, row, seam = _pixel_grid(raster, cell, size)
    empty = np.zeros((len(raster.bands), size, size), dtype=np.float32)
    if not seam:
        return _sample_grid(raster, column, row, np.ones(column.shape, dtype=np.bool_))
    # The cell crosses the edge of the projection: each side is read on its own.
    is_west = column < raster.width / 2
    values: Values = empty
    valid: Mask = np.zeros((size, size), dtype=np.bool_)
    for side in (is_west, ~is_west):
        part, part_valid = _sample_grid(raster, column, row, side)
        values = np.where(part_valid, part, values)
        valid = np.asarray(valid | part_valid, dtype=np.bool_)
    return values, valid


def _pixel_grid(
    raster: Raster, cell: tuple[float, float, float, float], size: int
) -> tuple[Floats, Floats, bool]:
    """Return the pixel coordinates of an image, and whether an edge of the projection is in it."""
    from scipy.interpolate import RectBivariateSpline

    west, south, east, north = cell
    nodes = np.linspace(0, 1, _NODES)
    lon, lat = np.meshgrid(west + nodes * (east - west), north - nodes * (north - south))
    column, row = (
        part.reshape(lon.shape) for part in raster.from_degrees(lon.ravel(), lat.ravel())
    )
    fractions = (np.arange(size) + 0.5) / size
    steps = np.abs(np.diff(column, axis=1))
    smooth = np.isfinite(column).all() and np.isfinite(row).all()
    # Steps between neighbouring nodes are alike, except across the edge of the projection.
    if smooth and steps.max() <= 10 * np.median(steps) + raster.width / 100:
        return (
            RectBivariateSpline(nodes, nodes, column)(fractions, fractions),
            RectBivariateSpline(nodes, nodes, row)(fractions, fractions),
            False,
        )
    lon, lat = np.meshgrid(west + fractions * (east - west), north - fractions * (north - south))
    column, row = (
        part.reshape(lon.shape) for part in raster.from_degrees(lon.ravel(), lat.ravel())
    )
    return column, row, True


def _sample_grid(raster: Raster, column: Floats, row: Floats, mask: Mask) -> tuple[Values, Mask]:
    from scipy.ndimage import map_coordinates

    size = column.shape
    inside = mask & (column >= 0) & (column <= raster.width) & (row >= 0) & (row <= raster.height)
    result = np.zeros((len(raster.bands), *size), dtype=np.float32)
    if not inside.any():
        return result, np.zeros(size, dtype=np.bool_)
    x, y = column[inside], row[inside]
    first_x, first_y = max(0, math.floor(x.min()) - 2), max(0, math.floor(y.min()) - 2)
    end_x, end_y = (
        min(raster.width, math.ceil(x.max()) + 2),
        min(raster.height, math.ceil(y.max()) + 2),
    )
    width, height = end_x - first_x, end_y - first_y
    # Average to about one source pixel per pixel of the image before interpolating.
    steps_x, steps_y = (_finest_step(part, inside) for part in (column, row))
    shape = (
        max(1, math.ceil(height / max(1.0, steps_y))),
        max(1, math.ceil(width / max(1.0, steps_x))),
    )
    values, valid = raster.read((first_x, first_y, width, height), shape)
    points = np.stack(
        [
            (y - first_y) * shape[0] / height - 0.5,
            (x - first_x) * shape[1] / width - 0.5,
        ]
    )
    if valid.all():
        weight = np.ones(len(x), dtype=np.float32)
    else:
        weight = map_coordinates(valid.astype(np.float32), points, order=1, mode="nearest")
    enough: Mask = weight >= 0.5
    is_filled = np.zeros(size, dtype=np.bool_)
    is_filled[inside] = enough
    for band, plane in enumerate(values):
        filled = np.where(valid, plane, 0).astype(np.float64)
        sampled = map_coordinates(filled, points, order=1, mode="nearest")
        result[band][is_filled] = sampled[enough] / weight[enough]
    if values.dtype.kind in "iu":  # 8-bit values are shown unchanged by the stretch `none`
        return np.rint(result), is_filled
    return result, is_filled


def _finest_step(coordinates: Floats, inside: Mask) -> float:
    """Return the median distance in source pixels between neighbouring pixels of the image."""
    steps = np.maximum(
        np.abs(np.diff(coordinates, axis=0))[:, :-1], np.abs(np.diff(coordinates, axis=1))[:-1, :]
    )
    selected = steps[inside[:-1, :-1]]
    return float(np.median(selected)) if selected.size else 1.0
