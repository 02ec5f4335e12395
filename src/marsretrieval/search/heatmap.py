"""Heat maps: the scores of all tiles as a raster, written as GeoTIFF or drawn as a map."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.errors import MissingDependencyError, OutputError, UsageError, as_float
from marsretrieval.io import atomic_path, check_output
from marsretrieval.plotting import PlanetMap, Style, require_cartopy
from marsretrieval.search.hits import Domain, lon_domain
from marsretrieval.search.index.find import known_of
from marsretrieval.search.provenance import KEY, picture_metadata, to_text
from marsretrieval.search.tiles import rows_below
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.embeddings import EmbeddingStore
    from marsretrieval.search.hits import Hits

Floats = npt.NDArray[np.float64]

_RASTER_FORMATS, _MAP_FORMATS = (".tif", ".tiff"), (".png", ".svg", ".pdf")
_TOLERANCE = 0.02  # tolerated offset of a tile from the grid, in cells
_MAX_PIXELS, _CHOSEN_PIXELS = 2**28, 2**25  # at most, and where the cell size is chosen here
_CELLS_PER_TILE = 8  # across the smallest tile of an irregular tiling
_BLOCK = 256


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """A raster of scores on the sphere IAU_2015:49900.

    Attributes:
        values: float32 array of shape (rows, columns), north up; NaN where there is no tile.
        west: Longitude of the left edge in degrees.
        north: Latitude of the upper edge in degrees.
        cell_lon: Width of a pixel in degrees.
        cell_lat: Height of a pixel in degrees.
        domain: Longitude range: 180 for -180 to 180, 360 for 0 to 360.
        about: Description of the query.
        scored: Number of tiles with a score; None: one per pixel with a score.
        coarse: Number of tiles smaller than a pixel, which shows the best of them.
        unsized: Number of tiles of unknown extent, one pixel each.
    """

    values: npt.NDArray[np.float32]
    west: float
    north: float
    cell_lon: float
    cell_lat: float
    domain: Domain = 180
    about: Mapping[str, Any] = field(default_factory=dict)
    scored: int | None = None
    coarse: int = 0
    unsized: int = 0

    @property
    def south(self) -> float:
        """Latitude of the lower edge in degrees."""
        return self.north - len(self.values) * self.cell_lat

    @property
    def east(self) -> float:
        """Longitude of the right edge in degrees."""
        return self.west + len(self.values[0]) * self.cell_lon

    @property
    def tiles(self) -> int:
        """Number of tiles with a score."""
        return int(np.isfinite(self.values).sum()) if self.scored is None else self.scored

    def notes(self) -> list[str]:
        """Describe tiles whose footprint is not drawn as it is, one line each."""
        size = f"{self.cell_lon:.3g} x {self.cell_lat:.3g} degrees"
        notes = []
        if self.coarse:
            notes.append(
                f"{pluralize(self.coarse, 'tile')} smaller than the pixels of the heat map "
                f"({size}), which show the best of several"
            )
        if self.unsized:
            notes.append(
                f"{pluralize(self.unsized, 'tile')} of unknown extent: one pixel each ({size})"
            )
        return notes

    def write(
        self, path: str | Path, *, hits: Hits | None = None, style: str | Style = "light"
    ) -> list[Path]:
        """Write a GeoTIFF (.tif) or a map (.png, .svg, .pdf).

        Args:
            path: The output file.
            hits: Hits to mark on a map.
            style: Colour scheme of a map, `light`, `dark` or a `plotting.Style`.

        Returns:
            The files written: `path`, and for a GeoTIFF its QGIS style.

        Raises:
            UsageError: If the suffix is none of these.
            OutputError: If the file cannot be written.
            MissingDependencyError: If the extra `geotiff` or `gis` is not installed.
        """
        path = Path(path)
        check_heatmap_path(path)
        if path.suffix.lower() in _RASTER_FORMATS:
            from marsretrieval.search.qgis import write_raster_style

            self._write_geotiff(path)
            style_path = write_raster_style(self.values, path.with_suffix(".qml"))
            return [path] if style_path is None else [path, style_path]
        kind = path.suffix.lower().removeprefix(".")
        chart = self.draw(hits, style=style)
        chart.save(path, metadata=picture_metadata(self.about, kind))
        return [path]

    def draw(
        self, hits: Hits | None = None, *, style: str | Style = "light", title: str | None = None
    ) -> PlanetMap:
        """Draw a map with graticule, named features, colour bar and marks of `hits`.

        Args:
            hits: Hits to mark.
            style: Colour scheme, `light`, `dark` or a `plotting.Style`.
            title: Title; by default a description of the query.

        Returns:
            The map.

        Raises:
            MissingDependencyError: If the extra `gis` is not installed.
        """
        from marsretrieval.search.maps import draw_heatmap

        return draw_heatmap(self, hits, style=style, title=title)

    def _write_geotiff(self, path: Path) -> None:
        try:
            import rasterio
        except ImportError as error:
            raise MissingDependencyError("rasterio", "geotiff", needed_for="a GeoTIFF") from error

        rows, columns = self.values.shape
        # Written to memory first because GDAL does not report a full disk on close.
        with rasterio.Env(GDAL_PAM_ENABLED="NO"), rasterio.io.MemoryFile() as memory:
            try:
                with memory.open(
                    driver="GTiff",
                    width=columns,
                    height=rows,
                    count=1,
                    dtype="float32",
                    nodata=float("nan"),
                    crs=rasterio.crs.CRS.from_string(json.dumps(geo.MARS_CRS)),
                    transform=rasterio.Affine(
                        self.cell_lon, 0, self.west, 0, -self.cell_lat, self.north
                    ),
                    compress="deflate",
                    predictor=3,
                    tiled=True,
                    blockxsize=_BLOCK,
                    blockysize=_BLOCK,
                ) as file:
                    file.write(self.values, 1)
                    file.set_band_description(1, "cosine similarity")
                    file.update_tags(**{KEY.upper(): to_text(self.about)})
            except rasterio.errors.RasterioError as error:
                raise OutputError(f"{path}: cannot be written ({error})") from error
            memory.seek(0)
            with atomic_path(path) as temporary, temporary.open("wb") as target:
                shutil.copyfileobj(memory, target, 2**20)


def check_heatmap_path(path: str | Path) -> None:
    """Check the suffix of a heat map file and that the path is writable.

    Args:
        path: The output file: .tif, .tiff, .png, .svg or .pdf.

    Raises:
        UsageError: If the suffix is none of these.
        MissingDependencyError: If the extra `geotiff` (rasters) or `gis` (maps) is not installed.
        OutputError: If the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _RASTER_FORMATS + _MAP_FORMATS:
        raise UsageError(
            f"{path}: no format of a heat map",
            remedy="Use .tif for a georeferenced raster, .png, .svg or .pdf for a map.",
        )
    if suffix in _RASTER_FORMATS:
        from importlib.util import find_spec

        if find_spec("rasterio") is None:
            raise MissingDependencyError("rasterio", "geotiff", needed_for="a GeoTIFF")
    else:
        require_cartopy()
    check_output(path)


def heatmap_of(
    store: EmbeddingStore,
    scores: npt.ArrayLike,
    *,
    region: geo.Region | None = None,
    cell: float | None = None,
    domain: int = 180,
    min_valid: float | None = None,
    about: Mapping[str, Any] | None = None,
) -> Heatmap:
    """Put the scores of a store's tiles on a grid.

    Tiles of one size side by side are one pixel each. Other tiles are painted: every tile covers
    the pixels whose centres its footprint contains, at least the pixel of its own centre, and a
    pixel shows the highest score of the tiles that cover it. Without `cell`, the pixels are an
    eighth of the smallest tile, or as small as 2**25 pixels allow. With `cell`, tiles are always
    painted. A painted grid passes through 0 E, 0 N. The raster is as large as the extent of the
    tiles.

    Args:
        store: The store.
        scores: Array of shape (rows,), from `score_all`.
        region: Use only tiles whose centre lies in it.
        cell: Pixel size in degrees.
        domain: Longitude range, 180 or 360.
        min_valid: Tiles with a smaller share of data have no score; see `rows_below`.
        about: Description of the query; `without_data` (number of tiles without a score) is added.

    Returns:
        The heat map.

    Raises:
        UsageError: If no tile has a position, the extents of all tiles are unknown and there is no
            `cell`, or the raster would be too large or extend beyond a pole.
    """
    grid = _grid(store, region, None if cell is None else as_float(cell, "cell"), domain)
    values = np.asarray(scores, dtype=np.float32)
    below = rows_below(store, min_valid)
    if below is not None:
        values = np.where(below, np.float32(np.nan), values)
        about = {**(about or {}), "without_data": int((below & grid.selected).sum())}
    values = values[grid.selected][grid.tile]
    raster = np.full((grid.rows, grid.columns), np.nan, dtype=np.float32)
    # In ascending order, so that the best of overlapping tiles is painted last.
    order = np.argsort(values, kind="stable")
    order = order[: int(np.isfinite(values).sum())]
    spans = grid.spans[order]
    if (spans[:, 0] == spans[:, 1]).all() and (spans[:, 2] == spans[:, 3]).all():
        raster[spans[:, 2], spans[:, 0]] = values[order]
    else:
        for (left, right, low, high), value in zip(
            spans.tolist(), values[order].tolist(), strict=True
        ):
            raster[low : high + 1, left : right + 1] = value
    return Heatmap(
        raster[::-1].copy(),
        west=round(grid.west, 9),
        north=round(grid.south + grid.rows * grid.lat_step, 9),
        cell_lon=grid.lon_step,
        cell_lat=grid.lat_step,
        domain=lon_domain(domain),
        about=about or {},
        scored=len(np.unique(grid.tile[order])),
        coarse=grid.coarse,
        unsized=grid.unsized,
    )


def check_heatmap(
    store: EmbeddingStore,
    *,
    region: geo.Region | None = None,
    cell: float | None = None,
    domain: int = 180,
) -> None:
    """Check that `heatmap_of` can make a grid, before scores are computed.

    Args:
        store: The store.
        region: Use only tiles whose centre lies in it.
        cell: Pixel size in degrees.
        domain: Longitude range, 180 or 360.

    Raises:
        UsageError: As in `heatmap_of`.
    """
    _grid(store, region, cell, domain)


class _Grid(NamedTuple):
    """Pixels of tiles, counted from the lower left.

    selected: (rows of the store,) tiles on the grid. spans: (n, 4) first and last column, first and
    last row of each rectangle. tile: (n,) its tile among the selected; two for a tile across the
    seam.
    """

    selected: npt.NDArray[np.bool_]
    spans: npt.NDArray[np.int64]
    tile: npt.NDArray[np.int64]
    west: float
    south: float
    lon_step: float
    lat_step: float
    coarse: int = 0
    unsized: int = 0

    @property
    def rows(self) -> int:
        return int(self.spans[:, 3].max()) + 1

    @property
    def columns(self) -> int:
        return int(self.spans[:, 1].max()) + 1


def _grid(
    store: EmbeddingStore, region: geo.Region | None, cell: float | None, domain: int
) -> _Grid:
    lon_range = lon_domain(domain)
    if cell is not None and not (np.isfinite(cell) and 0 < cell <= 90):
        raise UsageError(f"cells of {cell:g} degrees", remedy="Use a size above 0, up to 90.")
    reader = known_of(store)
    (lon, lat), (width, height) = reader.positions().T, reader.extents().T
    selected = np.isfinite(lon) & np.isfinite(lat)
    if not selected.any():
        raise UsageError(
            f"no tile of {store.path} has a known position: there is nothing to map",
            remedy="Embed tiles with positions in their names, metadata or georeference.",
        )
    if region is not None:
        selected &= region.contains(lon, lat)
        if not selected.any():
            raise UsageError(
                "no tile lies in the region: there is nothing to map",
                remedy="Select a larger region.",
            )
    lon, lat, width, height = (
        values[selected].astype(np.float64) for values in (lon, lat, width, height)
    )
    lon = geo.wrap_lon(lon) if lon_range == 180 else geo.lon_180_to_360(lon)
    width, height = np.round(width, 6), np.round(height, 6)  # stored as float32
    grid = _regular_grid(selected, lon, lat, width, height) if cell is None else None
    if grid is None:
        start = -180.0 if lon_range == 180 else 0.0
        grid = _painted_grid(selected, lon, lat, width, height, cell, start)
    if grid.rows * grid.columns > _MAX_PIXELS:
        raise UsageError(
            f"a heat map of {grid.columns:,} x {grid.rows:,} pixels",
            remedy="Take a smaller region, or larger cells (--heatmap-cell).",
        )
    return grid


def _regular_grid(
    selected: npt.NDArray[np.bool_], lon: Floats, lat: Floats, width: Floats, height: Floats
) -> _Grid | None:
    """Return the grid of tiles of one size side by side; None if they do not form one."""
    lon_step, lat_step = float(width[0]), float(height[0])
    if not ((width == lon_step).all() and (height == lat_step).all()):  # also if unknown
        return None
    column, west = _cell_numbers((lon - lon_step / 2) / lon_step, lon_step)
    row, south = _cell_numbers((lat - lat_step / 2) / lat_step, lat_step)
    if column is None or row is None:
        return None
    if (int(column.max()) + 1) * (int(row.max()) + 1) > _MAX_PIXELS:
        return None
    spans = np.column_stack([column, column, row, row])
    return _Grid(selected, spans, np.arange(len(lon)), west, south, lon_step, lat_step)


def _cell_numbers(edges: Floats, step: float) -> tuple[npt.NDArray[np.int64] | None, float]:
    """Return the cell number of each tile from the first, and the first cell's edge in degrees."""
    # Relative to the lowest tile, which defines the offset of the grid.
    offsets = edges - edges.min()
    numbers = np.round(offsets)
    if np.abs(offsets - numbers).max() > _TOLERANCE:
        return None, 0.0
    return numbers.astype(np.int64), round(float(edges.min()) * step, 9)


def _painted_grid(
    selected: npt.NDArray[np.bool_],
    lon: Floats,
    lat: Floats,
    width: Floats,
    height: Floats,
    cell: float | None,
    start: float,
) -> _Grid:
    """Return the pixels covered by tiles of any size and position."""
    sized = (width > 0) & (height > 0)
    if cell is None and not sized.any():
        raise UsageError(
            "the extent of all tiles is unknown",
            remedy="--heatmap-cell DEG (cell=DEG) gives each tile a pixel of this size.",
        )
    wide, high = np.where(sized, width, 0.0), np.where(sized, height, 0.0)
    wide = np.minimum(wide, 360.0)
    boxes = np.column_stack(
        [
            lon - wide / 2,
            lon + wide / 2,
            np.maximum(lat - high / 2, -90),
            np.minimum(lat + high / 2, 90),
        ]
    )
    tile = np.arange(len(lon))
    before = np.flatnonzero(boxes[:, 0] < start - 1e-9)
    after = np.flatnonzero(boxes[:, 1] > start + 360 + 1e-9)
    # A tile across the seam is two rectangles.
    parts = np.concatenate([boxes[before] + [360, 360, 0, 0], boxes[after] - [360, 360, 0, 0]])
    boxes = np.concatenate([boxes, parts])
    boxes[:, :2] = np.clip(boxes[:, :2], start, start + 360)
    tile = np.concatenate([tile, before, after])
    centre_lon = np.clip(np.concatenate([lon, lon[before], lon[after]]), boxes[:, 0], boxes[:, 1])
    if cell is None:
        lon_step, lat_step = _choose_steps(boxes, wide[sized], high[sized])
    else:
        lon_step = lat_step = cell
    # So that the seam lies between two pixels.
    last_column = round((start + 360) / lon_step) - 1 if (360 / lon_step) % 1 < 1e-6 else None
    column = _covered(boxes[:, 0], boxes[:, 1], centre_lon, lon_step)
    row = _covered(boxes[:, 2], boxes[:, 3], lat[tile], lat_step)
    if last_column is not None:
        column = np.minimum(column, last_column)
    row = np.minimum(row, math.ceil(90 / lat_step - 1e-9) - 1)
    west, south = float(column.min()) * lon_step, float(row.min()) * lat_step
    north = float(row.max() + 1) * lat_step
    if south < -90 - 1e-6 or north > 90 + 1e-6:
        raise UsageError(
            f"pixels of {lat_step:g} degrees end at latitude "
            f"{south if south < -90 - 1e-6 else north:g}, beyond the pole",
            remedy="Use a pixel size that divides 90, such as 0.5, 1, 2 or 4.5 (--heatmap-cell).",
        )
    spans = np.column_stack([column - column.min(), row - row.min()])
    small = sized & ((wide < lon_step - 1e-9) | (high < lat_step - 1e-9))
    return _Grid(
        selected, spans, tile, west, south, lon_step, lat_step,
        int(small.sum()), int((~sized).sum()),
    )  # fmt: skip


def _choose_steps(boxes: Floats, width: Floats, height: Floats) -> tuple[float, float]:
    """Return pixel width and height: an eighth of the smallest tile, or larger."""
    steps = np.array([width.min(), height.min()]) / _CELLS_PER_TILE
    extent = np.array([np.ptp(boxes[:, :2]), np.ptp(boxes[:, 2:])])
    excess = np.prod(np.maximum(extent / steps, 1)) / _CHOSEN_PIXELS
    if excess > 1:
        steps *= math.sqrt(excess)
    # A whole number of pixels from 0 to the seam and to the poles, so that none lies across them.
    return 180 / math.floor(180 / steps[0]), 90 / math.floor(90 / steps[1])


def _covered(low: Floats, high: Floats, centre: Floats, step: float) -> npt.NDArray[np.int64]:
    """Return first and last pixel, shape (n, 2), with a centre in a range, or around its centre."""
    first = np.ceil(low / step - 0.5 - 1e-6)
    last = np.floor(high / step - 0.5 + 1e-6)
    own = np.floor(centre / step + 1e-9)
    columns = np.column_stack([np.minimum(first, own), np.maximum(last, own)])
    return columns.astype(np.int64)
