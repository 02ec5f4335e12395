"""Heat maps of scores, and maps of hits, as rasters and figures."""

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

_RASTERS, _PICTURES = (".tif", ".tiff"), (".png", ".svg", ".pdf")
_TOLERANCE = 0.02  # of a cell: how far a tile may be off the grid
_MOST_PIXELS = 2**28
_BLOCK = 256


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """values: (rows, columns) float32, north up, NaN where no tile is; west, north: its upper left
    corner; cell_lon, cell_lat: size of a pixel; all in degrees on the sphere IAU_2015:49900.
    about: what was asked."""

    values: npt.NDArray[np.float32]
    west: float
    north: float
    cell_lon: float
    cell_lat: float
    domain: Domain = 180
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def south(self) -> float:
        return self.north - len(self.values) * self.cell_lat

    @property
    def east(self) -> float:
        return self.west + len(self.values[0]) * self.cell_lon

    @property
    def tiles(self) -> int:
        """Pixels with a score."""
        return int(np.isfinite(self.values).sum())

    def write(self, path: Path, *, hits: Hits | None = None, style: str = "light") -> None:
        """A GeoTIFF (.tif), or a map of it (.png, .svg, .pdf) with `hits` on it.

        Raises UsageError for another name, OutputError, MissingDependencyError without the extra
        `geotiff`.
        """
        check_heatmap_path(path)
        if path.suffix.lower() in _RASTERS:
            self._write_geotiff(path)
        else:
            self.draw(hits, style=style).save(path)

    def draw(
        self, hits: Hits | None = None, *, style: str = "light", title: str | None = None
    ) -> PlanetMap:
        """A map with graticule, named features, colour bar, and the places of `hits`."""

        return draw_heatmap(self, hits, style=style, title=title)

    def _write_geotiff(self, path: Path) -> None:
        try:
            import rasterio
        except ImportError as error:
            raise MissingDependencyError("rasterio", "geotiff", needed_for="a GeoTIFF") from error

        rows, columns = self.values.shape
        # In memory first: GDAL reports no error of a disk that is full when a file is closed.
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
    """Raises UsageError unless the name ends in .tif, .tiff, .png, .svg or .pdf,
    MissingDependencyError for a .tif without the extra `geotiff` and for a map without the extra
    `gis`, and OutputError where it plainly cannot be written."""
    suffix = path.suffix.lower()
    if suffix not in _RASTERS + _PICTURES:
        raise UsageError(
            f"{path}: no format of a heat map",
            remedy="Use .tif for a georeferenced raster, .png, .svg or .pdf for a map.",
        )
    if suffix in _RASTERS:
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
    """Scores (rows,), as `score_all` gives them, on the grid of the tiles of a store.

    All tiles with a position (of `region`) must be of one size and lie on one grid; each is one
    pixel. Where they do not, or their size is unknown, `cell` (degrees) asks for a grid of this
    step through 0 E, 0 N: each tile counts for the pixel that holds its centre, and the highest
    score for a pixel of several. The raster is as large as the tiles it holds; longitudes are
    -180..180 or 0..360 as `domain` says. Tiles without data, or below `min_valid` (`rows_below`),
    have no score: NaN; `about` has their number as `without_data`. Raises UsageError naming what
    does not fit.
    """
    grid = _grid(store, region, None if cell is None else float(cell), int(domain))
    raster = np.full((grid.rows, grid.columns), np.nan, dtype=np.float32)
    values = np.asarray(scores, dtype=np.float32)
    below = rows_below(store, min_valid)
    if below is not None:
        values = np.where(below, np.float32(np.nan), values)
        about = {**(about or {}), "without_data": int((below & grid.kept).sum())}
    values = values[grid.kept]
    np.fmax.at(raster, (grid.rows - 1 - grid.row, grid.column), values)
    return Heatmap(
        raster,
        west=round(grid.west, 9),
        north=round(grid.south + grid.rows * grid.upward, 9),
        cell_lon=grid.across,
        cell_lat=grid.upward,
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
    """Raises the UsageError that `heatmap_of` would, before there are scores."""
    _grid(store, region, cell, domain)


class _Grid(NamedTuple):
    """kept: (n,) which tiles of the store count; row, column: of these, from the lower left."""

    kept: npt.NDArray[np.bool_]
    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    west: float
    south: float
    across: float
    upward: float

    @property
    def rows(self) -> int:
        return int(self.row.max()) + 1

    @property
    def columns(self) -> int:
        return int(self.column.max()) + 1


def _grid(
    store: EmbeddingStore, region: geo.Region | None, cell: float | None, domain: int
) -> _Grid:
    turned = lon_domain(domain)
    known = known_of(store)
    (lon, lat), (width, height) = known.positions().T, known.extents().T
    kept = np.isfinite(lon) & np.isfinite(lat)
    if not kept.any():
        raise UsageError(f"no tile of {store.path} has a known position: there is nothing to map")
    if region is not None:
        kept &= region.contains(lon, lat)
        if not kept.any():
            raise UsageError("no tile lies in the region: there is nothing to map")
    lon, lat, width, height = (each[kept] for each in (lon, lat, width, height))
    lon = geo.wrap_lon(lon) if turned == 180 else geo.lon_180_to_360(lon)
    if cell is None:
        across, upward = _size(width, "width"), _size(height, "height")
        column, west = _lattice((lon - across / 2) / across, across)
        row, south = _lattice((lat - upward / 2) / upward, upward)
    else:
        if not (np.isfinite(cell) and 0 < cell <= 90):
            raise UsageError(f"cells of {cell:g} degrees", remedy="Use a size above 0, up to 90.")
        across = upward = cell
        column, row = (np.floor(each / cell + 1e-9).astype(np.int64) for each in (lon, lat))
        west, south = (float(each.min() * cell) for each in (column, row))
        column, row = column - column.min(), row - row.min()
    grid = _Grid(kept, row, column, west, south, across, upward)
    if grid.rows * grid.columns > _MOST_PIXELS:
        raise UsageError(
            f"a heat map of {grid.columns:,} x {grid.rows:,} pixels",
            remedy="Take a smaller region, or larger cells (--heatmap-cell).",
        )
    return grid


def _size(values: Floats, name: str) -> float:
    unknown = int((~np.isfinite(values)).sum())
    remedy = "--heatmap-cell DEG (cell=DEG) puts them on a grid of this step."
    if unknown:
        raise UsageError(f"the {name} of {unknown:,} tiles is unknown", remedy=remedy)
    sizes = np.unique(np.round(values, 6))
    if len(sizes) > 1:
        shown = ", ".join(f"{each:g}" for each in sizes[:4])
        more = ", ..." if len(sizes) > 4 else ""
        raise UsageError(f"tiles are of several sizes: {name}s of {shown}{more} degrees",
                         remedy=remedy)  # fmt: skip
    return float(sizes[0])


def _lattice(places: Floats, step: float) -> tuple[npt.NDArray[np.int64], float]:
    """Number of each tile's cell from the first on, and where the first begins, degrees."""
    # From the lowest, whose offset all share.
    offsets = places - places.min()
    numbers = np.round(offsets)
    if np.abs(offsets - numbers).max() > _TOLERANCE:
        raise UsageError(
            f"tiles do not lie side by side on one grid of {step:g} degrees",
            remedy="--heatmap-cell DEG (cell=DEG) puts them on a grid of this step.",
        )
    return numbers.astype(np.int64), round(float(places.min()) * step, 9)


_RANKED = 10  # hits whose rank is written beside them
_SEEN_PIXELS = 6.0
_SCALED_DEG = 120.0  # narrower maps have a bar of length


def draw_hits(hits: Hits, *, style: str = "light", title: str | None = None) -> PlanetMap:
    """Hits as marks coloured by score, with their outlines where they are large enough to see."""
    lon = np.array([np.nan if each is None else each for each in hits.lon])
    lat = np.array([np.nan if each is None else each for each in hits.lat])
    chart = planet_map(
        window(lon, lat),
        lon=hits.domain,
        style=style,
        title=title or _title(hits.about),
        subtitle=_told(hits),
    )
    drawn = _mark(chart, hits, lon, lat, coloured=True)
    _finish(chart, drawn)
    return chart


def draw_heatmap(
    heat: Heatmap, hits: Hits | None, *, style: str = "light", title: str | None = None
) -> PlanetMap:
    """Scores as colours; hits as rings."""
    lon = heat.west + (np.arange(heat.values.shape[1]) + 0.5) * heat.cell_lon
    lat = heat.north - (np.arange(heat.values.shape[0]) + 0.5) * heat.cell_lat
    there = np.isfinite(heat.values)
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
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
        title=title or _title(heat.about),
        subtitle=f"cosine similarity of {pluralize(heat.tiles, 'tile')}{_marked(hits)}",
    )
    low, high = np.nanpercentile(heat.values, (2, 100))
    span = _box_of(heat)
    drawn = chart.raster(heat.values, span, vmin=float(low), vmax=float(high))
    if hits is not None:
        places = [np.array([np.nan if v is None else v for v in each]) for each in
                  (hits.lon, hits.lat)]  # fmt: skip
        _mark(chart, hits, *places, coloured=False)
    _finish(chart, drawn)
    return chart


def _marked(hits: Hits | None) -> str:
    if hits is None or not len(hits):
        return ""
    return f", the best {len(hits):,}{'' if hits.tiles is None else ' places'} marked"


def _box_of(heat: Heatmap) -> Box:
    """Where the raster lies; one of all longitudes starts where its first column does."""
    west = float(wrap_lon(heat.west))
    return Box(west, heat.south, west + (heat.east - heat.west), heat.north)


def _mark(chart: PlanetMap, hits: Hits, lon: Any, lat: Any, *, coloured: bool) -> Any:
    """Marks of the hits, the best on top; as tiles where these are large enough to see."""
    scores = hits.scores.astype(np.float64)
    order = np.flatnonzero(np.isfinite(lon) & np.isfinite(lat))[::-1]
    size = 46.0 if len(order) <= 30 else 26.0 if len(order) <= 300 else 12.0
    limits = {}
    if len(scores):
        limits = {"vmin": scores.min(), "vmax": max(scores.max(), scores.min() + 1e-6)}
    tiles = order[:0]
    if not coloured:
        size *= 0.3 if chart.box.width > _SCALED_DEG else 1.0  # so as not to hide the raster
        ring = chart.style.second
        drawn = chart.points(lon[order], lat[order], colour=ring, size=size, hollow=True)
    else:
        extents = np.array([_extent(hits.shapes[index]) for index in order]).reshape(-1, 2)
        middle = (chart.box.south + chart.box.north) / 2
        seen = extents[:, 0] * chart.pixels_per_degree(middle) >= _SEEN_PIXELS
        tiles, marks = order[seen], order[~seen]
        sizes = extents[seen]
        drawn = chart.points(lon[marks], lat[marks], scores[marks], size=size, **limits)
        if len(tiles):
            drawn = chart.tiles(
                lon[tiles], lat[tiles], sizes[:, 0], sizes[:, 1], scores[tiles], **limits
            )
    within = set(tiles.tolist())
    for index in order[::-1][:_RANKED].tolist():
        chart.mark_text(lon[index], lat[index], str(index + 1), centred=index in within)
    return drawn


def _extent(shape: Shape | None) -> tuple[float, float]:
    """Width and height of an outline in degrees, its parts on both sides of the seam together."""
    if not isinstance(shape, list):
        return 0.0, 0.0
    widths = [max(x for x, _ in ring) - min(x for x, _ in ring) for ring in shape]
    heights = [y for _, y in shape[0]]
    return sum(widths), max(heights) - min(heights)


def _finish(chart: PlanetMap, drawn: Any) -> None:
    if chart.frame.polar or chart.box.width <= _SCALED_DEG:
        chart.scale_bar()
    chart.features().colour_bar(drawn, "cosine similarity")


def _title(about: Any) -> str:
    """What was looked for, in a line."""
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


def _told(hits: Hits) -> str:
    parts = [str(hits.about["model"])] if hits.about.get("model") else []
    if hits.tiles is None:
        parts.append(f"the best {len(hits):,} tiles" if len(hits) else "no hits")
    else:
        parts.append(f"{pluralize(len(hits), 'place')} of {pluralize(sum(hits.tiles), 'tile')}")
    unknown = sum(lon is None for lon in hits.lon)
    if unknown:
        parts.append(f"{unknown:,} without a position")
    return ", ".join(parts)
