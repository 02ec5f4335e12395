"""Figures of the page: precision-recall curves, rank histograms, and maps at the best F1."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

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
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure


# Dash pattern per hue, so that lines differ without colour; 0: models without a hue.
DASHES = ("", "", "5 2", "1.5 1.5", "7 2 1.5 2", "3 1.5", "9 3")
_MAX_CHARTS, _MAX_CURVES = 60, 480  # limits per protocol
_TOLERANCE = (1.4, 0.4)  # simplification tolerance in chart units: grey, coloured
_BINS = (1, 2, 4, 11, 31, 101, 301, 1001, 3001, 10_001)  # first rank of each bin
_LEFT, _BOTTOM, _WIDTH, _HEIGHT = 34, 146, 200, 140  # axes in a chart of 240 x 180 units

Floats = npt.NDArray[np.float64]
Point = tuple[float, float]

HIT, ALARM = "#0067a8", "#cb6a10"  # the style sheet inverts the maps in dark mode
_TILE_COLOUR = "#d9c5b3"  # searched tiles
_MAP_STYLE = replace(LIGHT, font=7.0)
_MAX_NAMES = 24  # named features; more would hide the marks
_MAP_WIDTH, _PLANET_HEIGHT = 7.0, 3.65  # inches
_MAP_DPI = 144
_MARKS_BUDGET = 1_000_000  # bytes of all marks of a result set


@dataclass(frozen=True, slots=True)
class Line:
    """A polyline of a chart.

    Attributes:
        points: Vertices in chart units.
        title: Tooltip.
        hue: Number of the model's colour; 0 for none.
        kind: Class of the style sheet, for lines without a hue.
    """

    points: Sequence[Point]
    title: str
    hue: int = 0
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar that stands on the horizontal axis, in chart units.

    Attributes:
        x: Left edge.
        y: Top.
        width: Width.
        height: Height.
        hue: Number of the colour.
        title: Tooltip.
    """

    x: float
    y: float
    width: float
    height: float
    hue: int
    title: str


@dataclass(frozen=True, slots=True)
class SvgChart:
    """A chart of 240 x 180 units.

    Attributes:
        title: Heading.
        label: Description for screen readers.
        axis: Titles of the x and y axes.
        ticks: Position and text of the ticks along x.
        lines: Lines.
        bars: Bars.
        note: Remark beside the heading.
    """

    title: str
    label: str
    axis: tuple[str, str]
    ticks: Sequence[tuple[float, str]]
    lines: Sequence[Line]
    bars: Sequence[Bar] = ()
    note: str = ""

    @property
    def levels(self) -> list[tuple[float, str]]:
        """Position and text of the ticks along y."""
        return [(_to_y(share), f"{share:g}") for share in (0, 0.25, 0.5, 0.75, 1)]


@dataclass(frozen=True, slots=True)
class ChartGroup:
    """Charts of one protocol and kind of query.

    Attributes:
        title: Heading.
        charts: The charts.
        open: Whether the group is expanded at first.
        left_out: Number of charts beyond the limit.
    """

    title: str
    charts: Sequence[SvgChart]
    open: bool = True
    left_out: int = 0


def curve_groups(result_set: ResultSet) -> list[ChartGroup]:
    """Build the precision-recall charts of every landform.

    Args:
        result_set: Results of geo-localization.

    Returns:
        A group per protocol and kind of query, strict first.
    """
    groups = []
    for protocol in ("strict", "published"):
        remaining = min(_MAX_CHARTS, _MAX_CURVES // len(result_set.entries))
        for mode in result_set.modes:
            curves = {
                n: _sorted_curves(result_set, f"{n}/{mode}", protocol) for n in result_set.landforms
            }
            names = [name for name, model_curves in curves.items() if model_curves]
            charts = [
                _curve_chart(result_set, name, mode, protocol, curves[name])
                for name in names[:remaining]
            ]
            remaining -= len(charts)
            if names:
                is_open = protocol == "strict" and mode == result_set.modes[0]
                title = f"{mode} queries, {protocol}"
                groups.append(ChartGroup(title, charts, is_open, len(names) - len(charts)))
    return groups


def rank_charts(result_set: ResultSet) -> list[SvgChart]:
    """Build histograms of the rank of the correct answer.

    Args:
        result_set: Results of paired retrieval.

    Returns:
        A chart per model whose table of queries is present.
    """
    charts = (_rank_chart(entry) for entry in result_set.entries)
    return [chart for chart in charts if chart is not None]


def _sorted_curves(
    result_set: ResultSet, group: str, protocol: str
) -> list[tuple[ResultEntry, Any]]:
    """Curves in drawing order: models without a colour first, the best model last."""
    curves = [
        (entry, entry.metrics[group][protocol]["curve"])
        for entry in reversed(result_set.entries)
        if (entry.metrics.get(group) or {}).get(protocol, {}).get("curve")
    ]
    return sorted(curves, key=lambda pair: pair[0].hue > 0)


def _curve_chart(
    result_set: ResultSet,
    landform: str,
    mode: str,
    protocol: str,
    curves: list[tuple[ResultEntry, Any]],
) -> SvgChart:
    group = f"{landform}/{mode}"
    strict = curves[-1][0].metrics[group]["strict"]
    ceiling = (strict.get("ceiling") or {}).get("average_precision")
    chance = strict.get("chance_precision")
    lines = []
    if protocol == "strict" and ceiling is not None:
        corners = [(_to_x(0), _to_y(1)), (_to_x(ceiling), _to_y(1)), (_to_x(ceiling), _to_y(0))]
        lines.append(Line(corners, f"ceiling {100 * ceiling:.1f} %", kind="ceiling"))
    if protocol == "strict" and chance is not None:
        ends = [(_to_x(0), _to_y(chance)), (_to_x(1), _to_y(chance))]
        lines.append(Line(ends, f"chance {100 * chance:.1f} %", kind="chance"))
    titles = []
    for entry, curve in curves:
        recall, precision = (
            np.array([point[name] for point in curve], dtype=np.float64)
            for name in ("recall", "precision")
        )
        if protocol == "strict":
            # Extend the curve to recall 0 at constant precision, as for its area.
            recall, precision = np.r_[0, recall], np.r_[precision[:1], precision]
        titles.append(f"{entry.label} {_format_area(entry, group, protocol)}")
        points = _simplify(_to_x(recall), _to_y(precision), _TOLERANCE[entry.hue > 0])
        lines.append(Line(points, titles[-1], entry.hue))
        if len(curve) == 1 and points:
            lines.append(Line([points[-1]] * 2, titles[-1], entry.hue, kind="dot"))
    return SvgChart(
        title=landform,
        label=f"Precision over recall for {landform}, {mode} queries, {protocol}: "
        + ", ".join(reversed(titles)),
        axis=("recall", "precision"),
        ticks=[(_to_x(share), f"{share:g}") for share in (0, 0.25, 0.5, 0.75, 1)],
        lines=lines,
        note="" if ceiling is None else f"ceiling {100 * ceiling:.1f}",
    )


def _format_area(entry: ResultEntry, group: str, protocol: str) -> str:
    metrics = entry.metrics[group][protocol]
    value = metrics.get("average_precision" if protocol == "strict" else "auprc")
    return "" if value is None else f"{100 * value:.1f} %"


def _rank_chart(entry: ResultEntry) -> SvgChart | None:
    table = entry.file.queries
    if table is None or not {"t2i_rank", "i2t_rank"} <= set(table.column_names):
        return None
    ranks = {key: table.column(f"{key}_rank").to_numpy() for key in ("t2i", "i2t")}
    count = len(ranks["t2i"])
    if not count:
        return None
    edges = np.array([*(first for first in _BINS if first <= count), count + 1])
    step = _WIDTH / (len(edges) - 1)
    centres = _LEFT + step * (np.arange(len(edges) - 1) + 0.5)
    bars = []
    for offset, key, hue, name in (
        (-0.4, "t2i", 1, "text to image"),
        (0.0, "i2t", 2, "image to text"),
    ):
        shares = np.histogram(ranks[key], edges)[0] / count
        for x, share, first, end in zip(centres, shares, edges, edges[1:], strict=False):
            span = f"rank {first:,}" + (f" to {end - 1:,}" if end - 1 > first else "")
            title = f"{name}, {span}: {100 * share:.1f} %"
            bars.append(Bar(float(x + offset * step), float(_to_y(share)), 0.38 * step,
                            float(share * _HEIGHT), hue, title))  # fmt: skip
    lines = [
        Line([(x - 0.42 * step, _to_y(share)), (x + 0.42 * step, _to_y(share))],
             f"chance {100 * share:.1f} %", kind="level")
        for x, share in zip(centres.tolist(), (np.diff(edges) / count).tolist(), strict=True)
    ]  # fmt: skip
    medians = {key: f"{np.median(of_key):g}" for key, of_key in ranks.items()}
    note = f"median rank {medians['t2i']} text to image, {medians['i2t']} image to text"
    texts = (f"{rank // 1000}k" if rank > 1000 else f"{rank}" for rank in edges[:-1].tolist())
    return SvgChart(
        title=entry.label,
        label=f"Ranks of the right answer by {entry.label}: {note}",
        axis=("rank, from", "share of queries"),
        ticks=list(zip(centres.tolist(), texts, strict=True)),
        lines=lines,
        bars=bars,
        note=note,
    )


def _to_x(share: Any) -> Any:
    return _LEFT + _WIDTH * share


def _to_y(share: Any) -> Any:
    return _BOTTOM - _HEIGHT * share


def _simplify(x: Floats, y: Floats, tolerance: float) -> list[Point]:
    """Simplify a curve; no point is further than `tolerance` from the result."""
    import shapely

    points = np.column_stack([x, y])
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) > 2:
        line = shapely.simplify(shapely.linestrings(points), tolerance, preserve_topology=False)
        points = shapely.get_coordinates(line)
    return [(a, b) for a, b in points.tolist()]


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
            f"first {pluralize(self.k, 'tile')}: {pluralize(len(self.hits), 'hit')}, "
            f"{pluralize(len(self.alarms), 'false alarm')}; "
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
    bytes_left, possible_count = _MARKS_BUDGET, 0
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
    figure = Figure(figsize=(_MAP_WIDTH, height), dpi=_MAP_DPI, facecolor="none")
    charts = []
    for number, box in enumerate([PLANET, *regions], start=-1):
        row, column = divmod(number, columns)
        x_inch, y_inch, width_inch, height_inch = 0.4, 0.05, 6.55, _PLANET_HEIGHT - 0.35
        if number >= 0:
            x_inch, y_inch = 0.4 + column * 6.7 / columns, _PLANET_HEIGHT + 0.05 + row * row_height
            width_inch, height_inch = 6.7 / columns - 0.45, row_height - 0.35
        axes = figure.add_axes(
            (
                x_inch / _MAP_WIDTH,
                1 - (y_inch + height_inch) / height,
                width_inch / _MAP_WIDTH,
                height_inch / height,
            )
        )
        chart = planet_map(box, style=_MAP_STYLE, axes=axes, graticule=graticule)
        if not graticule:
            chart.axes.set_axis_off()
        charts.append(chart)
    return figure, charts


def _draw_basemap(regions: Sequence[geo.Box], searched: Floats) -> tuple[str, tuple[float, float]]:
    figure, (planet, *close) = _make_figure(regions, graticule=True)
    planet.features(at_most=_MAX_NAMES)
    for chart in close:
        chart.points(*searched.T, colour=_TILE_COLOUR, marker="s", size=_tile_size(chart), edge=0.0)
    return _data_uri(figure), tuple(figure.get_size_inches().tolist())


def _draw_marks(figure: Figure, charts: Sequence[PlanetMap], scene: Scene) -> str:
    many = len(scene.hits) + len(scene.alarms)
    planet_size = 12.0 if many <= 400 else 6.0 if many <= 3000 else 3.0
    for number, chart in enumerate(charts):
        size = _tile_size(chart) if number else planet_size
        for lonlat, colour, share in ((scene.alarms, ALARM, 0.7), (scene.hits, HIT, 1.0)):
            chart.points(*lonlat.T, colour=colour, marker="s", size=size * share, edge=0.0)
        chart.points(*scene.missed.T, colour=_MAP_STYLE.ink, marker="x", size=14.0)
        if number:
            chart.points(*scene.found.T, colour=_MAP_STYLE.ink, size=9.0, hollow=True)
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
