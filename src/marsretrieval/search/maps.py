"""Maps of hits and of heat maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from marsretrieval.geo import Box, Shape, wrap_lon
from marsretrieval.plotting import PLANET, PlanetMap, Style, planet_map, window
from marsretrieval.search.provenance import describe_query
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.search.hits import Domain, Hits

Floats = npt.NDArray[np.float64]

_RANKED = 10  # number of hits labelled with their rank
_MIN_TILE_PIXELS = 6.0
_SCALE_BAR_DEG = 120.0  # narrower maps have a scale bar
_LOCAL_DEG = 12.0  # a store no wider than this is shown whole, unless the hits are far smaller
_LOCAL_RATIO = 8.0
_TILES_ACROSS = 10.0  # the smallest map is as high as this number of tiles, at most 2 degrees
_MAX_RINGS, _SPARSE, _OVER_TERRAIN = 50, 0.25, 0.85


class ScoreRaster(Protocol):
    """A heat map; see `search.Heatmap`."""

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """Scores, shape (rows, columns), north up, NaN without a tile."""

    @property
    def west(self) -> float:
        """Longitude of the left edge in degrees."""

    @property
    def east(self) -> float:
        """Longitude of the right edge in degrees."""

    @property
    def south(self) -> float:
        """Latitude of the lower edge in degrees."""

    @property
    def north(self) -> float:
        """Latitude of the upper edge in degrees."""

    @property
    def cell_lon(self) -> float:
        """Width of a pixel in degrees."""

    @property
    def cell_lat(self) -> float:
        """Height of a pixel in degrees."""

    @property
    def domain(self) -> Domain:
        """Longitude range."""

    @property
    def about(self) -> Mapping[str, Any]:
        """Description of the query."""

    @property
    def tiles(self) -> int:
        """Number of tiles with a score."""


def draw_hits(hits: Hits, *, style: str | Style = "light", title: str | None = None) -> PlanetMap:
    """Draw hits as marks coloured by score, as tiles where they are large enough to see.

    Hits compared with a catalogue are crosses where they are known. The map shows the extent of the
    hits; if the searched tiles cover a small area around them, such
    as a scene of a few kilometres, it shows that area and its outline.

    Args:
        hits: The hits.
        style: Colour scheme, `light`, `dark` or a `plotting.Style`.
        title: Title; by default a description of the query.

    Returns:
        The map.

    Raises:
        MissingDependencyError: If the extra `gis` is not installed.
    """
    lon = np.array([np.nan if value is None else value for value in hits.lon])
    lat = np.array([np.nan if value is None else value for value in hits.lat])
    box, outline = _area(hits, lon, lat)
    chart = planet_map(
        box,
        lon=hits.domain,
        style=style,
        title=title or describe_query(hits.about),
        subtitle=_subtitle(hits) + ("" if outline is None else "; outline: the searched area"),
    ).terrain()
    if outline is not None:
        middle = float(wrap_lon(outline.west + outline.width / 2))
        chart.tiles(
            middle, (outline.south + outline.north) / 2, outline.width, outline.height,
            colour=chart.style.muted, outline=True,
        )  # fmt: skip
    artist = _draw_marks(chart, hits, lon, lat, coloured=True)
    _draw_known(chart, hits, lon, lat)
    _finish(chart, artist)
    return chart.legend()


def draw_heatmap(
    heat: ScoreRaster,
    hits: Hits | None,
    *,
    style: str | Style = "light",
    title: str | None = None,
) -> PlanetMap:
    """Draw a heat map, with hits as rings.

    Args:
        heat: The heat map.
        hits: Hits to mark.
        style: Colour scheme, `light`, `dark` or a `plotting.Style`.
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
    if not len(rows):
        rows, columns = np.arange(len(lat)), np.arange(len(lon))
    width, height = heat.cell_lon / 2, heat.cell_lat / 2
    west, east = lon[columns] - width, lon[columns] + width
    box = window(
        np.concatenate([west, east]),
        np.resize([lat[rows].min() - height, lat[rows].max() + height], 2 * len(columns)),
        least_deg=min(2.0, _TILES_ACROSS * heat.cell_lat),
        margin=0.03,
    )
    chart = planet_map(
        box,
        lon=heat.domain,
        style=style,
        title=title or describe_query(heat.about),
        subtitle=f"cosine similarity of {pluralize(heat.tiles, 'tile')}{_marks_note(hits)}",
    ).terrain()
    scores = heat.values[has_score]
    low, high = np.percentile(scores, (2, 100)) if len(scores) else (0.0, 1.0)
    share = len(scores) * heat.cell_lon * heat.cell_lat / (chart.box.width * chart.box.height)
    artist = chart.raster(
        heat.values,
        _box_of(heat),
        vmin=float(low),
        vmax=float(high),
        alpha=_OVER_TERRAIN if chart.axes.images else 1.0,
        grow_to=5 if share < _SPARSE else 1,
    )
    if hits is not None:
        positions = [np.array([np.nan if v is None else v for v in values]) for values in
                  (hits.lon, hits.lat)]  # fmt: skip
        _draw_marks(chart, hits, *positions, coloured=False)
    _finish(chart, artist)
    return chart


def _area(hits: Hits, lon: Floats, lat: Floats) -> tuple[Box, Box | None]:
    """Return the area of a map of hits, and the searched area if its outline is to be drawn."""
    half = np.array([_extent(shape) for shape in hits.shapes]).reshape(-1, 2) / 2
    sides = [(lon - half[:, 0], lat - half[:, 1]), (lon + half[:, 0], lat + half[:, 1])]
    x, y = (np.concatenate(values) for values in zip(*sides, strict=True))
    y = np.clip(y, -90, 90)
    tallest = 2 * half[np.isfinite(lat), 1].max(initial=0.0)
    least = min(2.0, _TILES_ACROSS * tallest) if tallest > 0 else 2.0
    box = window(x, y, least_deg=least)
    extent = hits.about.get("extent")
    if extent is None or box == PLANET:
        return box, None
    searched = Box(*extent) if extent[0] != extent[2] and extent[1] < extent[3] else None
    if searched is None or max(searched.width, searched.height) > _LOCAL_DEG:
        return box, None
    if searched.height > _LOCAL_RATIO * box.height or searched.width > _LOCAL_RATIO * box.width:
        return box, None
    edges = (np.array([extent[0], extent[2]]), np.array([extent[1], extent[3]]))
    return window(*edges, least_deg=min(least, searched.height), margin=0.08), searched


def _marks_note(hits: Hits | None) -> str:
    if hits is None or not len(hits):
        return ""
    count = min(len(hits), _MAX_RINGS)
    return f", the best {count:,}{'' if hits.tiles is None else ' places'} marked"


def _box_of(heat: ScoreRaster) -> Box:
    """Return the bounding box of the raster; a global one starts at its first column."""
    west, span = float(wrap_lon(heat.west)), heat.east - heat.west
    west -= 360.0 if west + span > 360 else 0.0
    return Box(west, max(heat.south, -90.0), west + span, min(heat.north, 90.0))


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
        order = order[-_MAX_RINGS:]  # more would hide the raster
        extents = np.array([_extent(hits.shapes[index]) for index in order]).reshape(-1, 2)
        visible = _is_visible(chart, extents, 2 * _MIN_TILE_PIXELS)
        tiles, marks = order[visible], order[~visible]
        artist = chart.points(
            lon[marks], lat[marks], colour=chart.style.second, size=min(size, 18.0), hollow=True
        )
        for colour, width in ((chart.style.paper, 3.0), (chart.style.second, 1.4)):
            outlines = chart.tiles(
                lon[tiles], lat[tiles], *extents[visible].T, colour=colour, alpha=1.0, outline=True
            )
            outlines.set(linewidth=width, zorder=5, joinstyle="miter")
    else:
        extents = np.array([_extent(hits.shapes[index]) for index in order]).reshape(-1, 2)
        visible = _is_visible(chart, extents, _MIN_TILE_PIXELS)
        tiles, marks = order[visible], order[~visible]
        sizes = extents[visible]
        artist = chart.points(lon[marks], lat[marks], scores[marks], size=size, **limits)
        if len(tiles):
            artist = chart.tiles(
                lon[tiles], lat[tiles], sizes[:, 0], sizes[:, 1], scores[tiles], **limits
            )
            if not _is_visible(chart, sizes, 18.0).all():  # pale ones would vanish on terrain
                artist.set(edgecolor=chart.style.ink, linewidth=0.4, antialiased=True)
    wide = _is_visible(chart, np.array([_extent(hits.shapes[index]) for index in tiles]), 18.0)
    within = set(tiles[wide].tolist())
    for index in order[::-1][:_RANKED].tolist():
        chart.mark_text(lon[index], lat[index], str(index + 1), centred=index in within)
    return artist


def _draw_known(chart: PlanetMap, hits: Hits, lon: Floats, lat: Floats) -> None:
    """Mark the hits near a feature of a catalogue with crosses, with a legend."""
    against = hits.about.get("against")
    if hits.known is None or against is None:
        return
    is_known = np.array([value is True for value in hits.known], dtype=np.bool_)
    name = Path(against["file"]).name if against.get("file") else "the catalogue"
    chart.points(
        lon[is_known],
        lat[is_known],
        colour=chart.style.second,
        marker="P",
        size=34.0,
        edge=0.8,
        label=f"known: within {against['km']:g} km of a feature of {name} "
        f"({against['known']:,} of {len(hits):,})",
    )


def _is_visible(chart: PlanetMap, extents: Floats, pixels: float) -> npt.NDArray[np.bool_]:
    """Return which tiles of (n, 2) degrees are at least so wide and high at 100 dots per inch."""
    middle = (chart.box.south + chart.box.north) / 2
    scale = chart.pixels_per_degree(middle) * np.array([1.0, chart.stretch])
    return np.asarray((extents.reshape(-1, 2) * scale >= pixels).all(axis=1))


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


def _subtitle(hits: Hits) -> str:
    parts = [str(hits.about["model"])] if hits.about.get("model") else []
    if hits.tiles is None:
        parts.append(f"the best {pluralize(len(hits), 'tile')}" if len(hits) else "no hits")
    else:
        parts.append(f"{pluralize(len(hits), 'place')} of {pluralize(sum(hits.tiles), 'tile')}")
    unknown = sum(lon is None for lon in hits.lon)
    if unknown:
        parts.append(f"{unknown:,} without a position")
    return ", ".join(parts)
