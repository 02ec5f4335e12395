"""Draws the names of features on a map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from marsretrieval.maps._features import Feature, features_in
from marsretrieval.maps._labels import Candidate, Rect, place

if TYPE_CHECKING:
    from marsretrieval.maps._planet import PlanetMap

__all__ = ["draw_features"]

_GAP = 3.0  # pixels around a label
_VISIBLE = 9.0  # pixels: a smaller circle is drawn as a dot
_ROOMY = 60.0  # pixels: names may stand within a larger circle
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


def draw_features(
    chart: PlanetMap, taken: Sequence[Rect], at_most: int, smallest_km: float
) -> list[Rect]:
    """Names of the weightiest features that find room beside `taken`; what they occupy."""
    found = [each for each in features_in(chart.box) if each.diameter_km >= smallest_km]
    found.sort(key=lambda each: -each.weight)
    if not found:
        return []
    written = [_write(chart, each) for each in found]
    candidates = [_candidate(chart, *each) for each in zip(found, written, strict=True)]
    extent = chart.axes.get_window_extent()
    frame = Rect(extent.x0 + 2, extent.y0 + 2, extent.x1 - 2, extent.y1 - 2)
    chosen = place(candidates, frame, taken)
    occupied: list[Rect] = []
    for feature, text, candidate, number in zip(found, written, candidates, chosen, strict=True):
        if number is None or len(occupied) >= at_most:
            text.remove()
            continue
        rect = candidate.places[number]
        middle = ((rect.left + rect.right) / 2, (rect.bottom + rect.top) / 2)
        text.set_position(chart.axes.transData.inverted().transform(middle))
        occupied.append(rect)
        if feature.is_round:
            _mark(chart, feature)
    return occupied


def _write(chart: PlanetMap, feature: Feature) -> Any:
    style = chart.style
    wide = feature.is_wide
    return chart.axes.text(
        float(chart.x(feature.lon)),
        feature.lat,
        feature.name,
        ha="center",
        va="center",
        fontsize=style.font - (0.5 if wide else 1.0),
        fontstyle="italic" if wide else "normal",
        color=style.landscape if wide else style.ink,
        zorder=6,
        clip_on=True,
        path_effects=chart.halo(),
    )


def _candidate(chart: PlanetMap, feature: Feature, text: Any) -> Candidate:
    x, y = chart.axes.transData.transform((float(chart.x(feature.lon)), feature.lat))
    extent = text.get_window_extent()
    width, height = extent.width + 2 * _GAP, extent.height + _GAP
    if not feature.is_round:
        steps = (0.0, 1.0, -1.0, 2.0, -2.0)
        places = [Rect.around(x, y + step * height * 0.8, width, height) for step in steps]
        return Candidate(places)
    across, upward = _size(chart, feature)
    reach = (max(across / 2, 3.0), max(upward / 2, 3.0))
    centres = [
        (x + right * (reach[0] + width / 2), y + up * (reach[1] + height / 2))
        for right, up in _SIDES
    ]
    if across > 1.2 * width and upward > 2 * height:
        centres.insert(0, (x, y))
    places = [Rect.around(*centre, width, height) for centre in centres]
    if max(across, upward) > _ROOMY:
        return Candidate(places)
    return Candidate(places, mark=Rect.around(x, y, max(across, 6.0), max(upward, 6.0)))


def _size(chart: PlanetMap, feature: Feature) -> tuple[float, float]:
    """Width and height in pixels of a circle on the sphere, as the map shows it."""
    extent = chart.axes.get_window_extent()
    upward = feature.diameter_deg * extent.height / chart.box.height
    a_degree = extent.width / chart.box.width
    across = feature.diameter_deg * a_degree / math.cos(math.radians(min(abs(feature.lat), 85.0)))
    return across, upward


def _mark(chart: PlanetMap, feature: Feature) -> None:
    """Its outline as a circle on the sphere, or a dot where that would be too small."""
    from matplotlib.patches import Ellipse

    x, style = float(chart.x(feature.lon)), chart.style
    if _size(chart, feature)[0] < _VISIBLE:
        chart.axes.plot([x], [feature.lat], marker=".", markersize=2.6, color=style.ink, zorder=6)
        return
    wide = feature.diameter_deg / math.cos(math.radians(min(abs(feature.lat), 85.0)))
    chart.axes.add_patch(
        Ellipse(
            (x, feature.lat),
            wide,
            feature.diameter_deg,
            fill=False,
            edgecolor=style.ink,
            alpha=0.55,
            linewidth=0.7,
            zorder=4,
        )
    )
