"""Maps of hits and of heat maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from marsretrieval.geo import Box, Shape, wrap_lon
from marsretrieval.plotting import PlanetMap, planet_map, window
from marsretrieval.text import counted

if TYPE_CHECKING:
    from marsretrieval.search.heatmap import Heatmap
    from marsretrieval.search.hits import Hits

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
        subtitle=f"cosine similarity of {counted(heat.tiles, 'tile')}{_marked(hits)}",
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
    texts += [counted(images, "example image")] if images else []
    texts += [f"like {about['like'][0]}" if tiles == 1 else f"like {tiles} tiles"] if tiles else []
    against = [*(about.get("not_text") or ())]
    images, tiles = len(about.get("not_images") or ()), len(about.get("not_like") or ())
    against += [counted(images, "image")] if images else []
    against += [counted(tiles, "tile")] if tiles else []
    line = ", ".join(texts) or "Search"
    return line + (f", not {', '.join(against)}" if against else "")


def _told(hits: Hits) -> str:
    parts = [str(hits.about["model"])] if hits.about.get("model") else []
    if hits.tiles is None:
        parts.append(f"the best {len(hits):,} tiles" if len(hits) else "no hits")
    else:
        parts.append(f"{counted(len(hits), 'place')} of {counted(sum(hits.tiles), 'tile')}")
    unknown = sum(lon is None for lon in hits.lon)
    if unknown:
        parts.append(f"{unknown:,} without a position")
    return ", ".join(parts)
