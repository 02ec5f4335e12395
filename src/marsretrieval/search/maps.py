"""Heat maps of scores as GeoTIFF, and maps of hits and heat maps as figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.errors import MissingDependencyError, OutputError, UsageError
from marsretrieval.geo import Box, Shape, wrap_lon
from marsretrieval.io import atomic_path, check_output
from marsretrieval.plotting import PlanetMap, planet_map, window
from marsretrieval.plotting.projection import require_cartopy
from marsretrieval.search.hits import Domain, lon_domain
from marsretrieval.search.index.find import known_of
from marsretrieval.search.tiles import rows_below
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.embeddings import EmbeddingStore
    from marsretrieval.search.hits import Hits

Floats = npt.NDArray[np.float64]

_RASTER_FORMATS, _MAP_FORMATS = (".tif", ".tiff"), (".png", ".svg", ".pdf")
_TOLERANCE = 0.02  # tolerated offset of a tile from the grid, in cells
_MAX_PIXELS = 2**28
_BLOCK = 256

_RANKED = 10  # number of hits labelled with their rank
_MIN_TILE_PIXELS = 6.0
_SCALE_BAR_DEG = 120.0  # narrower maps have a scale bar


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
    """

    values: npt.NDArray[np.float32]
    west: float
    north: float
    cell_lon: float
    cell_lat: float
    domain: Domain = 180
    about: Mapping[str, Any] = field(default_factory=dict)

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
        """Number of pixels with a score."""
        return int(np.isfinite(self.values).sum())

    def write(self, path: Path, *, hits: Hits | None = None, style: str = "light") -> None:
        """Write a GeoTIFF (.tif) or a map (.png, .svg, .pdf).

        Args:
            path: The output file.
            hits: Hits to mark on a map.
            style: Colour scheme of a map, `light` or `dark`.

        Raises:
            UsageError: If the suffix is none of these.
            OutputError: If the file cannot be written.
            MissingDependencyError: If the extra `geotiff` or `gis` is not installed.
        """
        check_heatmap_path(path)
        if path.suffix.lower() in _RASTER_FORMATS:
            self._write_geotiff(path)
        else:
            self.draw(hits, style=style).save(path)

    def draw(
        self, hits: Hits | None = None, *, style: str = "light", title: str | None = None
    ) -> PlanetMap:
        """Draw a map with graticule, named features, colour bar and marks of `hits`.

        Args:
            hits: Hits to mark.
            style: Colour scheme, `light` or `dark`.
            title: Title; by default a description of the query.

        Returns:
            The map.

        Raises:
            MissingDependencyError: If the extra `gis` is not installed.
        """
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
                    file.update_tags(MARSRETRIEVAL=json.dumps(dict(self.about), ensure_ascii=False))
            except rasterio.errors.RasterioError as error:
                raise OutputError(f"{path}: cannot be written ({error})") from error
            memory.seek(0)
            with atomic_path(path) as temporary, temporary.open("wb") as target:
                shutil.copyfileobj(memory, target, 2**20)


def check_heatmap_path(path: Path) -> None:
    """Check the suffix of a heat map file and that the path is writable.

    Args:
        path: The output file: .tif, .tiff, .png, .svg or .pdf.

    Raises:
        UsageError: If the suffix is none of these.
        MissingDependencyError: If the extra `geotiff` (rasters) or `gis` (maps) is not installed.
        OutputError: If the file cannot be written.
    """
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

    Without `cell`, all tiles with a position in the region must have one size and lie on one grid;
    each is one pixel. With `cell`, the grid has this step and passes through 0 E, 0 N; each tile
    belongs to the pixel that contains its centre, and a pixel shows its highest score. The raster
    is as large as the extent of the tiles.

    Args:
        store: The store.
        scores: Array of shape (rows,), from `score_all`.
        region: Use only tiles whose centre lies in it.
        cell: Grid step in degrees.
        domain: Longitude range, 180 or 360.
        min_valid: Tiles with a smaller share of data have no score; see `rows_below`.
        about: Description of the query; `without_data` (number of tiles without a score) is added.

    Returns:
        The heat map.

    Raises:
        UsageError: If no tile has a position, or the tiles do not fit a grid.
    """
    grid = _grid(store, region, None if cell is None else float(cell), int(domain))
    raster = np.full((grid.rows, grid.columns), np.nan, dtype=np.float32)
    values = np.asarray(scores, dtype=np.float32)
    below = rows_below(store, min_valid)
    if below is not None:
        values = np.where(below, np.float32(np.nan), values)
        about = {**(about or {}), "without_data": int((below & grid.selected).sum())}
    values = values[grid.selected]
    np.fmax.at(raster, (grid.rows - 1 - grid.row, grid.column), values)
    return Heatmap(
        raster,
        west=round(grid.west, 9),
        north=round(grid.south + grid.rows * grid.lat_step, 9),
        cell_lon=grid.lon_step,
        cell_lat=grid.lat_step,
        domain=lon_domain(domain),
        about=about or {},
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
        cell: Grid step in degrees.
        domain: Longitude range, 180 or 360.

    Raises:
        UsageError: If no tile has a position, or the tiles do not fit a grid.
    """
    _grid(store, region, cell, domain)


class _Grid(NamedTuple):
    """selected: (n,) tiles of the store on the grid; row, column: of these, from the lower left."""

    selected: npt.NDArray[np.bool_]
    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    west: float
    south: float
    lon_step: float
    lat_step: float

    @property
    def rows(self) -> int:
        return int(self.row.max()) + 1

    @property
    def columns(self) -> int:
        return int(self.column.max()) + 1


def _grid(
    store: EmbeddingStore, region: geo.Region | None, cell: float | None, domain: int
) -> _Grid:
    lon_range = lon_domain(domain)
    reader = known_of(store)
    (lon, lat), (width, height) = reader.positions().T, reader.extents().T
    selected = np.isfinite(lon) & np.isfinite(lat)
    if not selected.any():
        raise UsageError(f"no tile of {store.path} has a known position: there is nothing to map")
    if region is not None:
        selected &= region.contains(lon, lat)
        if not selected.any():
            raise UsageError("no tile lies in the region: there is nothing to map")
    lon, lat, width, height = (values[selected] for values in (lon, lat, width, height))
    lon = geo.wrap_lon(lon) if lon_range == 180 else geo.lon_180_to_360(lon)
    if cell is None:
        lon_step, lat_step = _tile_size(width, "width"), _tile_size(height, "height")
        column, west = _cell_numbers((lon - lon_step / 2) / lon_step, lon_step)
        row, south = _cell_numbers((lat - lat_step / 2) / lat_step, lat_step)
    else:
        if not (np.isfinite(cell) and 0 < cell <= 90):
            raise UsageError(f"cells of {cell:g} degrees", remedy="Use a size above 0, up to 90.")
        lon_step = lat_step = cell
        column, row = (np.floor(values / cell + 1e-9).astype(np.int64) for values in (lon, lat))
        west, south = (float(values.min() * cell) for values in (column, row))
        column, row = column - column.min(), row - row.min()
    grid = _Grid(selected, row, column, west, south, lon_step, lat_step)
    if grid.rows * grid.columns > _MAX_PIXELS:
        raise UsageError(
            f"a heat map of {grid.columns:,} x {grid.rows:,} pixels",
            remedy="Take a smaller region, or larger cells (--heatmap-cell).",
        )
    return grid


def _tile_size(values: Floats, name: str) -> float:
    unknown = int((~np.isfinite(values)).sum())
    remedy = "--heatmap-cell DEG (cell=DEG) puts them on a grid of this step."
    if unknown:
        raise UsageError(f"the {name} of {unknown:,} tiles is unknown", remedy=remedy)
    sizes = np.unique(np.round(values, 6))
    if len(sizes) > 1:
        listed = ", ".join(f"{size:g}" for size in sizes[:4])
        more = ", ..." if len(sizes) > 4 else ""
        raise UsageError(f"tiles are of several sizes: {name}s of {listed}{more} degrees",
                         remedy=remedy)  # fmt: skip
    return float(sizes[0])


def _cell_numbers(edges: Floats, step: float) -> tuple[npt.NDArray[np.int64], float]:
    """Return the cell number of each tile from the first, and the first cell's edge in degrees."""
    # Relative to the lowest tile, which defines the offset of the grid.
    offsets = edges - edges.min()
    numbers = np.round(offsets)
    if np.abs(offsets - numbers).max() > _TOLERANCE:
        raise UsageError(
            f"tiles do not lie side by side on one grid of {step:g} degrees",
            remedy="--heatmap-cell DEG (cell=DEG) puts them on a grid of this step.",
        )
    return numbers.astype(np.int64), round(float(edges.min()) * step, 9)


def draw_hits(hits: Hits, *, style: str = "light", title: str | None = None) -> PlanetMap:
    """Draw hits as marks coloured by score, with outlines where they are large enough to see.

    Args:
        hits: The hits.
        style: Colour scheme, `light` or `dark`.
        title: Title; by default a description of the query.

    Returns:
        The map.

    Raises:
        MissingDependencyError: If the extra `gis` is not installed.
    """
    lon = np.array([np.nan if value is None else value for value in hits.lon])
    lat = np.array([np.nan if value is None else value for value in hits.lat])
    chart = planet_map(
        window(lon, lat),
        lon=hits.domain,
        style=style,
        title=title or query_title(hits.about),
        subtitle=_subtitle(hits),
    )
    artist = _draw_marks(chart, hits, lon, lat, coloured=True)
    _finish(chart, artist)
    return chart


def draw_heatmap(
    heat: Heatmap, hits: Hits | None, *, style: str = "light", title: str | None = None
) -> PlanetMap:
    """Draw a heat map, with hits as rings.

    Args:
        heat: The heat map.
        hits: Hits to mark.
        style: Colour scheme, `light` or `dark`.
        title: Title; by default a description of the query.

    Returns:
        The map.

    Raises:
        MissingDependencyError: If the extra `gis` is not installed.
    """
    lon = heat.west + (np.arange(heat.values.shape[1]) + 0.5) * heat.cell_lon
    lat = heat.north - (np.arange(heat.values.shape[0]) + 0.5) * heat.cell_lat
    has_score = np.isfinite(heat.values)
    rows, columns = np.flatnonzero(has_score.any(axis=1)), np.flatnonzero(has_score.any(axis=0))
    width, height = heat.cell_lon / 2, heat.cell_lat / 2
    west, east = lon[columns] - width, lon[columns] + width
    box = window(
        np.concatenate([west, east]),
        np.resize([lat[rows].min() - height, lat[rows].max() + height], 2 * len(columns)),
        margin=0.03,
    )
    chart = planet_map(
        box,
        lon=heat.domain,
        style=style,
        title=title or query_title(heat.about),
        subtitle=f"cosine similarity of {pluralize(heat.tiles, 'tile')}{_marks_note(hits)}",
    )
    low, high = np.nanpercentile(heat.values, (2, 100))
    span = _box_of(heat)
    artist = chart.raster(heat.values, span, vmin=float(low), vmax=float(high))
    if hits is not None:
        positions = [np.array([np.nan if v is None else v for v in values]) for values in
                  (hits.lon, hits.lat)]  # fmt: skip
        _draw_marks(chart, hits, *positions, coloured=False)
    _finish(chart, artist)
    return chart


def _marks_note(hits: Hits | None) -> str:
    if hits is None or not len(hits):
        return ""
    return f", the best {len(hits):,}{'' if hits.tiles is None else ' places'} marked"


def _box_of(heat: Heatmap) -> Box:
    """Return the bounding box of the raster; a global one starts at its first column."""
    west = float(wrap_lon(heat.west))
    return Box(west, heat.south, west + (heat.east - heat.west), heat.north)


def _draw_marks(chart: PlanetMap, hits: Hits, lon: Any, lat: Any, *, coloured: bool) -> Any:
    """Mark the hits, the best on top; as tiles where these are large enough to see."""
    scores = hits.scores.astype(np.float64)
    order = np.flatnonzero(np.isfinite(lon) & np.isfinite(lat))[::-1]
    size = 46.0 if len(order) <= 30 else 26.0 if len(order) <= 300 else 12.0
    limits = {}
    if len(scores):
        limits = {"vmin": scores.min(), "vmax": max(scores.max(), scores.min() + 1e-6)}
    tiles = order[:0]
    if not coloured:
        size *= 0.3 if chart.box.width > _SCALE_BAR_DEG else 1.0  # to leave the raster visible
        ring = chart.style.second
        artist = chart.points(lon[order], lat[order], colour=ring, size=size, hollow=True)
    else:
        extents = np.array([_extent(hits.shapes[index]) for index in order]).reshape(-1, 2)
        middle = (chart.box.south + chart.box.north) / 2
        visible = extents[:, 0] * chart.pixels_per_degree(middle) >= _MIN_TILE_PIXELS
        tiles, marks = order[visible], order[~visible]
        sizes = extents[visible]
        artist = chart.points(lon[marks], lat[marks], scores[marks], size=size, **limits)
        if len(tiles):
            artist = chart.tiles(
                lon[tiles], lat[tiles], sizes[:, 0], sizes[:, 1], scores[tiles], **limits
            )
    within = set(tiles.tolist())
    for index in order[::-1][:_RANKED].tolist():
        chart.mark_text(lon[index], lat[index], str(index + 1), centred=index in within)
    return artist


def _extent(shape: Shape | None) -> tuple[float, float]:
    """Return width and height of an outline in degrees, parts across the antimeridian added up."""
    if not isinstance(shape, list):
        return 0.0, 0.0
    widths = [max(x for x, _ in ring) - min(x for x, _ in ring) for ring in shape]
    heights = [y for _, y in shape[0]]
    return sum(widths), max(heights) - min(heights)


def _finish(chart: PlanetMap, artist: Any) -> None:
    if chart.frame.polar or chart.box.width <= _SCALE_BAR_DEG:
        chart.scale_bar()
    chart.features().colour_bar(artist, "cosine similarity")


def query_title(about: Mapping[str, Any]) -> str:
    """Describe the query in one line.

    Args:
        about: Description of the request, as in `Hits.about`.

    Returns:
        Texts, images and tiles of the query.
    """
    texts = [*(about.get("texts") or ([about["text"]] if about.get("text") else []))]
    images, tiles = len(about.get("images") or ()), len(about.get("like") or ())
    texts += [pluralize(images, "example image")] if images else []
    texts += [f"like {about['like'][0]}" if tiles == 1 else f"like {tiles} tiles"] if tiles else []
    against = [*(about.get("not_text") or ())]
    images, tiles = len(about.get("not_images") or ()), len(about.get("not_like") or ())
    against += [pluralize(images, "image")] if images else []
    against += [pluralize(tiles, "tile")] if tiles else []
    line = ", ".join(texts) or "Search"
    return line + (f", not {', '.join(against)}" if against else "")


def _subtitle(hits: Hits) -> str:
    parts = [str(hits.about["model"])] if hits.about.get("model") else []
    if hits.tiles is None:
        parts.append(f"the best {len(hits):,} tiles" if len(hits) else "no hits")
    else:
        parts.append(f"{pluralize(len(hits), 'place')} of {pluralize(sum(hits.tiles), 'tile')}")
    unknown = sum(lon is None for lon in hits.lon)
    if unknown:
        parts.append(f"{unknown:,} without a position")
    return ", ".join(parts)
