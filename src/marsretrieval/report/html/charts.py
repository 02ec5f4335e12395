"""Chart coordinates for the page: precision-recall curves and rank histograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.report.grouping import ResultEntry, ResultSet

# Dash pattern per hue, so that lines differ without colour; 0: models without a hue.
DASHES = ("", "", "5 2", "1.5 1.5", "7 2 1.5 2", "3 1.5", "9 3")
_MAX_CHARTS, _MAX_CURVES = 60, 480  # limits per protocol
_TOLERANCE = (1.4, 0.4)  # simplification tolerance in chart units: grey, coloured
_BINS = (1, 2, 4, 11, 31, 101, 301, 1001, 3001, 10_001)  # first rank of each bin
_LEFT, _BOTTOM, _WIDTH, _HEIGHT = 34, 146, 200, 140  # axes in a chart of 240 x 180 units

Floats = npt.NDArray[np.float64]
Point = tuple[float, float]


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
