"""Maps of hits, false alarms and ground truth at the depth of the best F1."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.errors import MissingDependencyError
from marsretrieval.plotting import LIGHT, PLANET, PlanetMap, planet_map, regions_of, require_cartopy
from marsretrieval.progress import NO_PROGRESS, Progress, ProgressTask
from marsretrieval.report.columns import METRICS
from marsretrieval.report.grouping import ResultEntry, ResultSet
from marsretrieval.report.html.gallery import MODELS
from marsretrieval.report.tables import metric_value

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

HIT, ALARM = "#0067a8", "#cb6a10"  # the style sheet inverts the maps in dark mode
_TILE = "#d9c5b3"  # searched tiles
_STYLE = replace(LIGHT, font=7.0)
_MAX_NAMES = 24  # named features; more would hide the marks
_WIDTH, _PLANET_HEIGHT = 7.0, 3.65  # inches
_DPI = 144
_BUDGET = 1_000_000  # bytes of all marks of a result set


@dataclass(frozen=True, slots=True)
class Scene:
    """One ranking of one landform, down to the depth of its best F1.

    Positions have shape (n, 2), lon and lat in degrees.

    Attributes:
        landform: Name of the landform.
        k: Depth of the best F1.
        f1: Best F1.
        hits: Tiles near a point.
        alarms: Other tiles.
        missed: Points without a tile nearby.
        found: Points near a tile.
    """

    landform: str
    k: int
    f1: float
    hits: Floats
    alarms: Floats
    missed: Floats
    found: Floats

    @property
    def text(self) -> str:
        """Counts as text."""
        points = len(self.missed) + len(self.found)
        return (
            f"first {self.k:,} tiles: {len(self.hits):,} hits, {len(self.alarms):,} false alarms; "
            f"{len(self.missed):,} of {points:,} points missed"
        )


@dataclass(frozen=True, slots=True)
class MapView:
    """The marks of one scene.

    Attributes:
        scene: The scene.
        marks: Data URI of a transparent image to overlay on the basemap.
    """

    scene: Scene
    marks: str


@dataclass(frozen=True, slots=True)
class MapGroup:
    """The maps of one model and kind of query.

    Attributes:
        entry: The model.
        mode: Kind of query.
        views: One per landform.
    """

    entry: ResultEntry
    mode: str
    views: Sequence[MapView]


@dataclass(frozen=True, slots=True)
class Maps:
    """The maps of a result set.

    Attributes:
        groups: Maps per model and kind of query.
        basemap: Data URI of the planet and of the regions with the searched tiles.
        size: Width and height of basemap and marks, inches.
        missing: Reason why there are no maps.
        notes: Descriptions of what is not shown.
    """

    groups: Sequence[MapGroup] = ()
    basemap: str = ""
    size: tuple[float, float] = (0.0, 0.0)
    missing: str = ""
    notes: Sequence[str] = ()


def maps_of(results: ResultSet, *, progress: Progress = NO_PROGRESS) -> Maps:
    """Draw the maps of the best models: every query kind of the first, the best of the others.

    Args:
        results: Results of geo-localization over the same tiles.
        progress: Receives the progress.

    Returns:
        The maps; none without tables of hits and points, or without the extra `gis`.
    """
    entries = [e for e in results.entries if e.file.has("hits") and e.file.has("queries")]
    plan = [
        (entry, mode)
        for number, entry in enumerate(entries[:MODELS])
        for mode in _best_modes(entry, results)[: None if number == 0 else 1]
    ]
    if not plan:
        return Maps()
    try:
        require_cartopy()
    except MissingDependencyError as error:
        return Maps(missing=str(error))
    import matplotlib as mpl

    with mpl.rc_context(), progress.start("draw maps", len(plan), "groups of maps") as bar:
        mpl.rcdefaults()  # ignore the user's settings
        return _draw_maps(results, entries, plan, bar)


def _draw_maps(
    results: ResultSet, entries: Sequence[ResultEntry], plan: Sequence[tuple[ResultEntry, str]],
    bar: ProgressTask,
) -> Maps:  # fmt: skip
    searched = _read_positions(entries[0].file.hits)
    regions = regions_of(np.concatenate([searched, _read_positions(entries[0].file.queries)]))
    basemap, size = _draw_basemap(regions, searched)
    figure, charts = _make_figure(regions, graticule=False)
    groups = []
    bytes_left, possible_count = _BUDGET, 0
    for entry, mode in plan:
        views: list[MapView] = []
        for landform in results.landforms:
            scene = _make_scene(entry, landform, mode)
            if scene is None:
                continue
            possible_count += 1
            marks = _draw_marks(figure, charts, scene) if bytes_left > 0 else ""
            bytes_left -= len(marks)
            if bytes_left > 0:
                views.append(MapView(scene, marks))
        bar.advance()
        if views:
            groups.append(MapGroup(entry, mode, views))
    notes = [f"the best {MODELS} of {len(entries)} models"] if len(entries) > MODELS else []
    map_count = sum(len(group.views) for group in groups)
    if map_count < possible_count:
        notes.append(f"{map_count} of {possible_count} maps")
    return Maps(groups, basemap, size, notes=notes)


def _best_modes(entry: ResultEntry, results: ResultSet) -> list[str]:
    """Kinds of query in descending order of their mean strict average precision."""

    def mean(mode: str) -> float:
        groups = (entry.metrics.get(f"{name}/{mode}") or {} for name in results.landforms)
        values = [metric_value(group, METRICS["average_precision"], "strict") for group in groups]
        finite_values = [value.value for value in values if value.value is not None]
        return float(np.mean(finite_values)) if finite_values else -1.0

    modes = [mode for mode in results.modes if mean(mode) >= 0]
    return sorted(modes, key=lambda mode: -mean(mode))


def _make_scene(entry: ResultEntry, landform: str, mode: str) -> Scene | None:
    import pyarrow.compute as pc

    group = f"{landform}/{mode}"
    best = (entry.metrics.get(group) or {}).get("strict", {}).get("best")
    hits, points = entry.file.hits, entry.file.queries
    if not best or hits is None or points is None:
        return None
    if not {"lon", "lat", "found_at"} <= set(points.column_names):
        return None
    group_hits = hits.filter(pc.equal(hits.column("group"), group))
    truth = points.filter(pc.equal(points.column("group"), group))
    tiles, point_positions = _read_positions(group_hits), _read_positions(truth)
    first = group_hits.column("rank").to_numpy() <= best["k"]
    relevant = group_hits.column("relevant").to_numpy(zero_copy_only=False).astype(bool)
    found_at = truth.column("found_at").to_numpy()
    is_found = (found_at > 0) & (found_at <= best["k"])
    return Scene(
        landform=landform,
        k=int(best["k"]),
        f1=float(best["f1"]),
        hits=tiles[first & relevant],
        alarms=tiles[first & ~relevant],
        missed=point_positions[~is_found],
        found=point_positions[is_found],
    )


def _read_positions(table: pa.Table | None) -> Floats:
    """Positions of shape (n, 2) in degrees; empty if the table has none."""
    if table is None or not {"lon", "lat"} <= set(table.column_names):
        return np.empty((0, 2))
    columns = [table.column(name).to_numpy(zero_copy_only=False) for name in ("lon", "lat")]
    return np.column_stack(columns).astype(np.float64).reshape(-1, 2)


def _make_figure(regions: Sequence[geo.Box], *, graticule: bool) -> tuple[Figure, list[PlanetMap]]:
    """Create a map of the planet above maps of the regions; transparent without graticule."""
    from matplotlib.figure import Figure

    columns, row_height = (2, 2.6) if len(regions) <= 2 else (4, 1.75)
    height = _PLANET_HEIGHT + row_height * -(-len(regions) // columns)
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="none")
    charts = []
    for number, box in enumerate([PLANET, *regions], start=-1):
        row, column = divmod(number, columns)
        x_inch, y_inch, width_inch, height_inch = 0.4, 0.05, 6.55, _PLANET_HEIGHT - 0.35
        if number >= 0:
            x_inch, y_inch = 0.4 + column * 6.7 / columns, _PLANET_HEIGHT + 0.05 + row * row_height
            width_inch, height_inch = 6.7 / columns - 0.45, row_height - 0.35
        axes = figure.add_axes(
            (
                x_inch / _WIDTH,
                1 - (y_inch + height_inch) / height,
                width_inch / _WIDTH,
                height_inch / height,
            )
        )
        chart = planet_map(box, style=_STYLE, axes=axes, graticule=graticule)
        if not graticule:
            chart.axes.set_axis_off()
        charts.append(chart)
    return figure, charts


def _draw_basemap(regions: Sequence[geo.Box], searched: Floats) -> tuple[str, tuple[float, float]]:
    figure, (planet, *close) = _make_figure(regions, graticule=True)
    planet.features(at_most=_MAX_NAMES)
    for chart in close:
        chart.points(*searched.T, colour=_TILE, marker="s", size=_tile_size(chart), edge=0.0)
    return _data_uri(figure), tuple(figure.get_size_inches().tolist())


def _draw_marks(figure: Figure, charts: Sequence[PlanetMap], scene: Scene) -> str:
    many = len(scene.hits) + len(scene.alarms)
    planet_size = 12.0 if many <= 400 else 6.0 if many <= 3000 else 3.0
    for number, chart in enumerate(charts):
        size = _tile_size(chart) if number else planet_size
        for lonlat, colour, share in ((scene.alarms, ALARM, 0.7), (scene.hits, HIT, 1.0)):
            chart.points(*lonlat.T, colour=colour, marker="s", size=size * share, edge=0.0)
        chart.points(*scene.missed.T, colour=_STYLE.ink, marker="x", size=14.0)
        if number:
            chart.points(*scene.found.T, colour=_STYLE.ink, size=9.0, hollow=True)
    uri = _data_uri(figure)
    for chart in charts:
        for mark in list(chart.axes.collections):
            mark.remove()
    return uri


def _tile_size(chart: PlanetMap) -> float:
    """Area of a tile's mark, square points."""
    middle = (chart.box.south + chart.box.north) / 2
    stretch = max(float(np.cos(np.radians(middle))), 0.2)
    side = geo.TILE_DEG * chart.pixels_per_degree(middle) * 0.72 / stretch
    return float(max(side, 1.2) ** 2)


def _data_uri(figure: Figure) -> str:
    """Encode the figure as lossless WebP with few colours."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    webp = io.BytesIO()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba()))
    few = image.quantize(48, Image.Quantize.FASTOCTREE)
    few.convert("RGBA").save(webp, "webp", lossless=True)
    return f"data:image/webp;base64,{base64.b64encode(webp.getvalue()).decode()}"
