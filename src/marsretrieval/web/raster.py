"""The raster of all tiles that the map draws: which pixels each tile covers, and score codes.

A score is sent as one byte, 40 steps per factor of ten in the share of tiles that score at least as
high. The map's threshold slider compares bytes, so it needs no server.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from marsretrieval.geo import wrap_lon

Floats = npt.NDArray[np.float64]

STEPS_PER_DECADE = 40
_BINS = 2**16
_MAX_PIXELS = 2**23  # bytes per search
_EDGE = 1e-4  # tolerated overlap of a tile with the next pixel, in pixels
_DEFAULT_DEG = 0.2  # pixel size if no tile has an extent
_LOCAL_GAP_DEG = 30.0  # tiles with a wider gap in longitude do not span the planet


@dataclass(frozen=True, slots=True, eq=False)
class TileRaster:
    """An equirectangular raster that covers all tiles with a position.

    Attributes:
        west: Longitude of the left edge in degrees, -180 to 180.
        north: Latitude of the upper edge in degrees.
        cell_lon: Width of a pixel in degrees.
        cell_lat: Height of a pixel in degrees.
        columns: Number of columns.
        rows: Number of rows.
        pixels: int32 array of shape (m,), pixel numbers in row-major order from the north west.
        tiles: int32 array of shape (m,), the tile that covers each of `pixels`.
        has_overlaps: Whether a pixel is covered by several tiles.
    """

    west: float
    north: float
    cell_lon: float
    cell_lat: float
    columns: int
    rows: int
    pixels: npt.NDArray[np.int32]
    tiles: npt.NDArray[np.int32]
    has_overlaps: bool

    @classmethod
    def from_tiles(
        cls, lon: Floats, lat: Floats, width_deg: Floats, height_deg: Floats
    ) -> TileRaster | None:
        """Choose the raster of a set of tiles.

        The pixels have the median size of the tiles. A tile covers every pixel that its footprint
        touches; a tile of unknown extent covers the pixel of its centre.

        Args:
            lon: Longitudes of the centres in degrees, shape (n,); NaN if unknown.
            lat: Latitudes of the centres in degrees, shape (n,); NaN if unknown.
            width_deg: Widths in degrees, shape (n,); NaN if unknown.
            height_deg: Heights in degrees, shape (n,); NaN if unknown.

        Returns:
            The raster; None if no tile has a position.
        """
        tiles = np.flatnonzero(np.isfinite(lon) & np.isfinite(lat))
        if not len(tiles):
            return None
        lon, lat = np.asarray(lon)[tiles], np.asarray(lat)[tiles]
        width, height = np.asarray(width_deg)[tiles], np.asarray(height_deg)[tiles]
        has_size = np.isfinite(width) & np.isfinite(height) & (width > 0) & (height > 0)
        cell_lon = float(np.median(width[has_size])) if has_size.any() else _DEFAULT_DEG
        cell_lat = float(np.median(height[has_size])) if has_size.any() else _DEFAULT_DEG
        # Extents are stored as float32: 0.2 degrees reads 0.200000003.
        cell_lon, cell_lat = float(f"{cell_lon:.6g}"), float(f"{cell_lat:.6g}")
        width, height = np.where(has_size, width, 0.0), np.where(has_size, height, 0.0)
        lon = _unrolled(lon)
        west, east = float((lon - width / 2).min()), float((lon + width / 2).max())
        south, north = float((lat - height / 2).min()), float((lat + height / 2).max())
        if east - west > 360 - cell_lon:
            west, east = _aligned(west, cell_lon), 0.0
            east = west + 360.0
        # Coarser pixels for tiles that are small and far apart.
        area = max(east - west, cell_lon) * max(north - south, cell_lat) / (cell_lon * cell_lat)
        factor = float(np.ceil(np.sqrt(max(1.0, area / _MAX_PIXELS))))
        cell_lon, cell_lat = cell_lon * factor, cell_lat * factor
        columns = max(1, int(np.ceil((east - west) / cell_lon - _EDGE)))
        rows = max(1, int(np.ceil((north - south) / cell_lat - _EDGE)))
        first, end = _covered((lon - west) / cell_lon, width / cell_lon)
        top, bottom = _covered((north - lat) / cell_lat, height / cell_lat)
        top, bottom = np.clip(top, 0, rows - 1), np.clip(bottom, 1, rows)
        high, wide = np.maximum(bottom - top, 1), np.maximum(end - first, 1)
        # One entry per pixel of each tile.
        counts = high * wide
        entry = np.repeat(np.arange(len(tiles)), counts)
        step = np.arange(len(entry)) - np.repeat(np.cumsum(counts) - counts, counts)
        row = top[entry] + step // wide[entry]
        column = first[entry] + step % wide[entry]
        spans_planet = columns * cell_lon >= 360 - cell_lon / 2
        column = column % columns if spans_planet else np.clip(column, 0, columns - 1)
        pixels = (np.clip(row, 0, rows - 1) * columns + column).astype(np.int32)
        return cls(
            west=round(float(wrap_lon(west)), 6),
            north=round(north, 6),
            cell_lon=cell_lon,
            cell_lat=cell_lat,
            columns=columns,
            rows=rows,
            pixels=pixels,
            tiles=tiles[entry].astype(np.int32),
            has_overlaps=bool(np.bincount(pixels).max() > 1),
        )

    def paint(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Draw score codes; where tiles overlap, the highest code is drawn.

        Args:
            codes: uint8 array of shape (n,), one code per tile.

        Returns:
            uint8 array of shape (rows, columns), north up; 0 where there is no tile.
        """
        raster = np.zeros(self.rows * self.columns, dtype=np.uint8)
        values = codes[self.tiles]
        if self.has_overlaps:
            np.maximum.at(raster, self.pixels, values)
        else:
            raster[self.pixels] = values
        return raster.reshape(self.rows, self.columns)


@dataclass(frozen=True, slots=True, eq=False)
class ScoreCodes:
    """Scores as bytes; code = 1 + 40 -log10(share of tiles that score at least as high).

    Attributes:
        codes: uint8 array of shape (n,); 0 for tiles without a score.
        counts: int64 array of shape (256,), number of tiles with each code.
        lowest: float64 array of shape (256,), lowest score of each code; NaN for an unused code.
    """

    codes: npt.NDArray[np.uint8]
    counts: npt.NDArray[np.int64]
    lowest: Floats


def encode_scores(
    scores: npt.NDArray[np.float32], exclude: npt.NDArray[np.bool_] | None = None
) -> ScoreCodes:
    """Encode scores by their rank.

    Args:
        scores: float32 array of shape (n,).
        exclude: Tiles without a code, shape (n,).

    Returns:
        The codes. Scores within 1/65,536 of the range of all scores may share a code.
    """
    used = scores if exclude is None else scores[~exclude]
    if not len(used):
        empty = np.zeros(256, np.int64)
        return ScoreCodes(np.zeros(len(scores), np.uint8), empty, np.full(256, np.nan))
    low, high = float(used.min()), float(used.max())
    step = (high - low) / (_BINS - 1) or 1.0
    bins = np.clip((scores - np.float32(low)) * np.float32(1 / step), 0, _BINS - 1)
    bins = bins.astype(np.uint16)
    histogram = np.bincount(bins if exclude is None else bins[~exclude], minlength=_BINS)
    at_least = histogram[::-1].cumsum()[::-1]
    share = np.maximum(at_least, 1) / len(used)
    code_of_bin = np.clip(1 + np.round(-np.log10(share) * STEPS_PER_DECADE), 1, 255)
    code_of_bin = code_of_bin.astype(np.uint8)
    codes = code_of_bin[bins]
    if exclude is not None:
        codes[exclude] = 0
    counts = np.bincount(code_of_bin, weights=histogram, minlength=256).astype(np.int64)
    lowest = np.full(256, np.nan)
    filled = np.flatnonzero(histogram)[::-1]  # the lowest filled bin of a code is written last
    lowest[code_of_bin[filled]] = low + step * filled
    return ScoreCodes(codes, counts, lowest)


def _unrolled(lon: Floats) -> Floats:
    """Shift longitudes so that tiles on both sides of the antimeridian are neighbours."""
    wrapped: Floats = np.asarray(wrap_lon(lon), dtype=np.float64)
    ordered = np.unique(wrapped)
    gaps = np.diff(np.append(ordered, ordered[0] + 360.0))
    widest = int(np.argmax(gaps))
    if gaps[widest] < _LOCAL_GAP_DEG or widest == len(ordered) - 1:
        return wrapped
    return np.where(wrapped <= ordered[widest], wrapped + 360.0, wrapped)


def _aligned(west: float, cell: float) -> float:
    """The edge of a global raster at or west of -180 that keeps the columns of the tiles."""
    return west - cell * round((west + 180.0) / cell)


def _covered(centre: Floats, size: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First pixel and the pixel after the last of each tile along one axis."""
    first = np.floor(centre - size / 2 + _EDGE).astype(np.int64)
    end = np.ceil(centre + size / 2 - _EDGE).astype(np.int64)
    return first, np.maximum(end, first + 1)
