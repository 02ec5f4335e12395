"""Curves and histograms, one small chart for each landform or model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.report.grouping import Entry, ResultSet
from marsretrieval.report.html._svg import COLOURS, INK, MUTED, drawing, inline_svg, panel
from marsretrieval.report.html._thin import thinned

# Beside the colour, so that lines are told apart without it; 0: models without their own.
DASHES = ("", "", "5 2", "1.5 1.5", "7 2 1.5 2", "3 1.5", "9 3")
_PANELS, _LINES = 60, 480  # charts for each protocol, and curves in all of them
_TOLERANCE = (0.01, 0.003)  # of curves: grey, coloured
_BINS = (1, 2, 4, 11, 31, 101, 301, 1001, 3001, 10_001)  # first rank of each bin


@dataclass(frozen=True, slots=True)
class Chart:
    """svg: markup that this package made; notes: what the chart shows, in words."""

    title: str
    svg: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class ChartGroup:
    """open: shown at once. left_out: charts that there was no room for."""

    title: str
    charts: Sequence[Chart]
    open: bool = True
    left_out: int = 0


def curve_groups(found: ResultSet, *, progress: Progress = NO_PROGRESS) -> list[ChartGroup]:
    """Precision over recall of every landform: a group for each protocol and kind of query."""
    plan = [
        (protocol, mode, [n for n in found.landforms if _curves(found, f"{n}/{mode}", protocol)])
        for protocol in ("strict", "published")
        for mode in found.modes
    ]
    groups = []
    most = min(_PANELS, _LINES // len(found.entries))
    room = {"strict": most, "published": most}
    total = sum(len(names) for *_, names in plan)
    with drawing(), progress.start("draw curves", total, "charts") as bar:
        for protocol, mode, landforms in plan:
            drawn = landforms[: room[protocol]]
            room[protocol] -= len(drawn)
            charts: list[Chart] = []
            for landform in drawn:
                charts.append(_curve_chart(found, landform, mode, protocol))
                bar.advance()
            if landforms:
                title = f"{mode} queries, {protocol}"
                open_ = protocol == "strict" and mode == found.modes[0]
                groups.append(ChartGroup(title, charts, open_, len(landforms) - len(drawn)))
    return groups


def rank_charts(found: ResultSet, *, progress: Progress = NO_PROGRESS) -> list[Chart]:
    """How many queries have their answer at which rank: a chart for each model that has them."""
    having = [entry for entry in found.entries if entry.file.has("queries")]
    charts: list[Chart] = []
    with drawing(), progress.start("draw ranks", len(having), "charts") as bar:
        for entry in having:
            chart = _rank_chart(entry, f"{found.key}-ranks-{len(charts)}")
            bar.advance()
            if chart is not None:
                charts.append(chart)
    return charts


def _curves(found: ResultSet, group: str, protocol: str) -> list[tuple[Entry, Any]]:
    """Models without a colour first, so that the others lie above them, the best on top."""
    having = [
        (entry, entry.metrics[group][protocol]["curve"])
        for entry in found.entries
        if (entry.metrics.get(group) or {}).get(protocol, {}).get("curve")
    ]
    having.reverse()
    return sorted(having, key=lambda each: each[0].hue > 0)


def _curve_chart(found: ResultSet, landform: str, mode: str, protocol: str) -> Chart:
    group = f"{landform}/{mode}"
    curves = _curves(found, group, protocol)
    strict = curves[-1][0].metrics[group]["strict"]
    ceiling = (strict.get("ceiling") or {}).get("average_precision")
    chance = strict.get("chance_precision")
    figure, axes = panel()
    if protocol == "strict" and ceiling is not None:
        axes.plot([0, ceiling, ceiling], [1, 1, 0], color=INK, linewidth=0.9, dashes=(1, 2))
    if protocol == "strict" and chance is not None:
        axes.axhline(chance, color=MUTED, linewidth=0.9, dashes=(4, 3))
    for entry, curve in curves:
        recall, precision = _columns(curve, "recall", "precision")
        if protocol == "strict":
            # The curve holds its value back to recall 0: as its area is summed.
            recall, precision = np.r_[0, recall], np.r_[precision[:1], precision]
        style = _line(entry)
        axes.plot(*thinned(recall, precision, _TOLERANCE[entry.hue > 0]), **style)
        if len(curve) == 1:
            axes.plot(recall[-1:], precision[-1:], "o", markersize=3, color=style["color"])
    axes.set(xlim=(0, 1.012), ylim=(0, 1.03), xlabel="recall", ylabel="precision")
    axes.set(xticks=np.linspace(0, 1, 5), yticks=np.linspace(0, 1, 5))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    told = ", ".join(f"{entry.label} {_area(entry, group, protocol)}" for entry, _ in
                     curves[::-1])  # fmt: skip
    label = f"Precision over recall for {landform}, {mode} queries, {protocol}: {told}"
    prefix = f"{found.key}-{protocol}-{mode}-{found.landforms.index(landform)}"
    svg = inline_svg(figure, prefix, label)
    return Chart(landform, svg, "" if ceiling is None else f"ceiling {100 * ceiling:.1f}")


def _area(entry: Entry, group: str, protocol: str) -> str:
    figures = entry.metrics[group][protocol]
    value = figures.get("average_precision" if protocol == "strict" else "auprc")
    return "" if value is None else f"{100 * value:.1f} %"


def _line(entry: Entry) -> Mapping[str, Any]:
    dashes = [float(length) for length in DASHES[entry.hue].split()]
    return {
        "color": COLOURS[entry.hue],
        "linewidth": 1.6 if entry.hue else 0.7,
        "linestyle": (0, tuple(dashes)) if dashes else "-",
        "solid_capstyle": "butt",
    }


def _columns(
    curve: Sequence[Mapping[str, float]], *names: str
) -> Iterator[npt.NDArray[np.float64]]:
    return (np.array([point[name] for point in curve], dtype=np.float64) for name in names)


def _rank_chart(entry: Entry, prefix: str) -> Chart | None:
    table = entry.file.queries
    if table is None or not {"t2i_rank", "i2t_rank"} <= set(table.column_names):
        return None
    ranks = {key: table.column(f"{key}_rank").to_numpy() for key in ("t2i", "i2t")}
    count = len(ranks["t2i"])
    if not count:
        return None
    firsts = np.array([first for first in _BINS if first <= count])
    ends = np.append(firsts[1:], count + 1)
    chance = (ends - firsts) / count
    figure, axes = panel()
    for offset, key, colour in ((-0.2, "t2i", COLOURS[1]), (0.2, "i2t", COLOURS[2])):
        shares = np.histogram(ranks[key], np.append(firsts, count + 1))[0] / count
        axes.bar(np.arange(len(firsts)) + offset, shares, width=0.38, color=colour)
    for place, share in enumerate(chance):
        axes.plot([place - 0.42, place + 0.42], [share, share], color=INK, linewidth=1)
    axes.set(ylim=(0, 1.03), yticks=np.linspace(0, 1, 5), xlabel="rank, from")
    axes.set_xticks(range(len(firsts)), [_short(first) for first in firsts])
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    medians = {key: f"{np.median(each):g}" for key, each in ranks.items()}
    note = f"median rank {medians['t2i']} text to image, {medians['i2t']} image to text"
    svg = inline_svg(figure, prefix, f"Ranks of the right answer by {entry.label}: {note}")
    return Chart(entry.label, svg, note)


def _short(rank: int) -> str:
    return f"{rank // 1000}k" if rank > 1000 else f"{rank}"
