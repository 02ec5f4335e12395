"""Well-known features of Mars by their IAU names."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import UnknownNameError
from marsretrieval.geo import Box

if TYPE_CHECKING:
    from marsretrieval.plotting.projection import MapFrame
    from marsretrieval.plotting.style import Style

_WIDE = {"Planitia", "Planum", "Terra", "Vastitas", "Undae", "Montes"}
_LONG = {"Fossae", "Mensae", "Montes", "Vallis", "Colles"}


class Chart(Protocol):
    """The map that names of features are written on."""

    axes: Any
    frame: MapFrame
    style: Style

    def halo(self) -> list[Any]:
        """Return the path effects of texts."""

    def shows(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return which of n positions are on the map, shape (n,)."""


@dataclass(frozen=True, slots=True)
class Feature:
    """A named feature. lon -180..180, lat: its centre, planetocentric degrees, east positive."""

    name: str
    type: str  # Crater, Mons, Planitia, ...
    lon: float
    lat: float
    diameter_km: float

    @property
    def weight(self) -> float:
        """Which names come first on a map: the size, counted fourfold for volcanoes and craters,
        which readers look for, and by a third for what is long and thin."""
        if self.is_round:
            return 4.0 * self.diameter_km
        return self.diameter_km / (3.0 if self.type in _LONG else 1.0)

    @property
    def is_wide(self) -> bool:
        """A landscape without an edge: its name stands across it."""
        return self.type in _WIDE

    @property
    def is_round(self) -> bool:
        return self.type in ("Crater", "Mons", "Tholus", "Patera")


@cache
def features() -> tuple[Feature, ...]:
    """All that come with the package, largest first."""
    text = resources.files("marsretrieval.plotting").joinpath("features.csv").read_text("utf-8")
    rows = csv.DictReader(text.splitlines())
    found = [
        Feature(
            row["name"],
            row["type"],
            float(row["lon"]),
            float(row["lat"]),
            float(row["diameter_km"]),
        )
        for row in rows
    ]
    return tuple(sorted(found, key=lambda each: (-each.diameter_km, each.name)))


def features_in(box: Box) -> Sequence[Feature]:
    """Those whose centre lies in `box`, largest first."""
    found = features()
    inside = box.contains([each.lon for each in found], [each.lat for each in found])
    return [each for each, there in zip(found, inside.tolist(), strict=True) if there]


def feature(name: str) -> Feature:
    """One by its name, in any case. Raises UnknownNameError with the nearest names."""
    by_name = {each.name.lower(): each for each in features()}
    found = by_name.get(name.strip().lower())
    if found is None:
        raise UnknownNameError("feature", name, [each.name for each in features()])
    return found


_GAP = 3.0  # pixels around a label
_DOT = 9.0  # pixels: a smaller circle is drawn as a dot
_WIDE_CIRCLE = 60.0  # pixels: names may stand within a larger circle
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


def lon_label(lon: float, domain: int = 180) -> str:
    """Format a longitude: `30°W` for `domain` 180, `330°E` for 360."""
    turned = lon % 360
    if domain == 180 and turned > 180:
        return f"{_number(360 - turned)}°W"
    return f"{_number(turned)}°" + ("E" if turned % 180 or domain == 360 else "")


def lat_label(lat: float) -> str:
    """Format a latitude: `30°N`, `0°`, `30°S`."""
    return f"{_number(abs(lat))}°" + ("N" if lat > 0 else "S" if lat < 0 else "")


def _number(value: float) -> str:
    return f"{round(value, 6):g}"


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Rect) -> bool:
        """Whether the two share an area."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def within(self, other: Rect) -> bool:
        """Whether this one lies inside the other."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.bottom >= other.bottom
            and self.top <= other.top
        )

    @classmethod
    def around(cls, x: float, y: float, width: float, height: float) -> Rect:
        """Make the rectangle with this centre and size."""
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


@dataclass(frozen=True, slots=True)
class LabelCandidate:
    """A label to be placed.

    Attributes:
        positions: Where the label may stand, in order of preference.
        mark: What the label belongs to, if other labels must keep clear of it.
    """

    positions: Sequence[Rect]
    mark: Rect | None = None


def place_labels(
    candidates: Iterable[LabelCandidate], frame: Rect, occupied: Iterable[Rect] = ()
) -> list[int | None]:
    """Place labels greedily, in the given order.

    Args:
        candidates: The labels.
        frame: Every label stands inside this rectangle.
        occupied: Rectangles that no label may touch.

    Returns:
        Per candidate the number of its position, or None if there is no room for it. A label
        touches no other label and no mark of another; a mark touches no earlier label.
    """
    used = list(occupied)
    labels: list[Rect] = []
    chosen: list[int | None] = []
    for candidate in candidates:
        mark = candidate.mark
        if mark is not None and any(mark.overlaps(label) for label in labels):
            chosen.append(None)
            continue
        number = next(
            (
                index
                for index, rect in enumerate(candidate.positions)
                if rect.within(frame) and not any(rect.overlaps(other) for other in used)
            ),
            None,
        )
        chosen.append(number)
        if number is not None:
            labels.append(candidate.positions[number])
            used.append(candidate.positions[number])
            if mark is not None:
                used.append(mark)
    return chosen


def draw_feature_names(
    chart: Chart, occupied: Sequence[Rect], limit: int, smallest_km: float
) -> list[Rect]:
    """Draw names of features where there is room.

    Args:
        chart: The map.
        occupied: Rectangles that no name may touch.
        limit: Largest number of names.
        smallest_km: Smallest diameter of a named feature.

    Returns:
        The rectangles of the names.
    """
    known = [feature for feature in features() if feature.diameter_km >= smallest_km]
    if not known:
        return []
    shown = chart.shows([f.lon for f in known], [f.lat for f in known])
    named = [feature for feature, inside in zip(known, shown, strict=True) if inside]
    named.sort(key=lambda feature: -feature.weight)
    texts = [_write_name(chart, feature) for feature in named]
    candidates = [_candidate(chart, *pair) for pair in zip(named, texts, strict=True)]
    extent = chart.axes.get_window_extent()
    frame = Rect(extent.x0 + 2, extent.y0 + 2, extent.x1 - 2, extent.y1 - 2)
    chosen = place_labels(candidates, frame, occupied)
    rects: list[Rect] = []
    for feature, text, candidate, number in zip(named, texts, candidates, chosen, strict=True):
        if number is None or len(rects) >= limit:
            text.remove()
            continue
        rect = candidate.positions[number]
        middle = ((rect.left + rect.right) / 2, (rect.bottom + rect.top) / 2)
        text.set_position(chart.axes.transData.inverted().transform(middle))
        rects.append(rect)
        if feature.is_round:
            _draw_outline(chart, feature)
    return rects


def _write_name(chart: Chart, feature: Feature) -> Any:
    style, wide = chart.style, feature.is_wide
    x, y = chart.frame.project(feature.lon, feature.lat)
    return chart.axes.text(
        float(x),
        float(y),
        feature.name,
        ha="center",
        va="center",
        fontsize=style.font - (0.5 if wide else 1.0),
        fontstyle="italic" if wide else "normal",
        color=style.landscape if wide else style.ink,
        zorder=6,
        clip_on=True,
        path_effects=chart.halo(),
        parse_math=False,
    )


def _candidate(chart: Chart, feature: Feature, text: Any) -> LabelCandidate:
    point = np.array(chart.frame.project(feature.lon, feature.lat), dtype=float).ravel()
    x, y = chart.axes.transData.transform(point)
    extent = text.get_window_extent()
    width, height = extent.width + 2 * _GAP, extent.height + _GAP
    if not feature.is_round:
        steps = (0.0, 1.0, -1.0, 2.0, -2.0)
        return LabelCandidate(
            [Rect.around(x, y + step * height * 0.8, width, height) for step in steps]
        )
    across, upward = _circle_pixels(chart, feature)
    reach = (max(across / 2, 3.0), max(upward / 2, 3.0))
    centres = [
        (x + right * (reach[0] + width / 2), y + up * (reach[1] + height / 2))
        for right, up in _SIDES
    ]
    if across > 1.2 * width and upward > 2 * height:
        centres.insert(0, (x, y))
    positions = [Rect.around(*centre, width, height) for centre in centres]
    if max(across, upward) > _WIDE_CIRCLE:
        return LabelCandidate(positions)
    return LabelCandidate(positions, mark=Rect.around(x, y, max(across, 6.0), max(upward, 6.0)))


def _circle(chart: Chart, feature: Feature) -> Any:
    """Outline of a feature as a circle on the sphere, in the plane of the map, (n, 2)."""
    from cartopy.geodesic import Geodesic

    from marsretrieval.geo import MARS_RADIUS_M

    sphere = Geodesic(radius=MARS_RADIUS_M, flattening=0.0)
    ring = np.asarray(
        sphere.circle(feature.lon, feature.lat, feature.diameter_km * 500.0, n_samples=72)
    )
    x, y = chart.frame.project(ring[:, 0], ring[:, 1])
    if not chart.frame.polar:  # continuous across the edge of the map
        middle = float(chart.frame.project(feature.lon, feature.lat)[0])
        x = middle + (x - middle + 180.0) % 360.0 - 180.0
    return np.column_stack([x, y])


def _circle_pixels(chart: Chart, feature: Feature) -> tuple[float, float]:
    """Width and height in pixels of a feature's outline."""
    pixels = chart.axes.transData.transform(_circle(chart, feature))
    across, upward = np.ptp(pixels, axis=0)
    return float(across), float(upward)


def _draw_outline(chart: Chart, feature: Feature) -> None:
    """Draw a circle, or a dot where the circle would be too small."""
    from matplotlib.patches import Polygon

    style = chart.style
    if min(_circle_pixels(chart, feature)) < _DOT:
        x, y = chart.frame.project(feature.lon, feature.lat)
        chart.axes.plot(
            [float(x)], [float(y)], marker=".", markersize=2.6, color=style.ink, zorder=6
        )
        return
    chart.axes.add_patch(
        Polygon(
            _circle(chart, feature),
            closed=True,
            fill=False,
            edgecolor=style.ink,
            alpha=0.55,
            linewidth=0.7,
            zorder=4,
        )
    )


def round_step(span_deg: float, at_most: int) -> float:
    """Smallest round step that divides `span_deg` into at most `at_most` parts."""
    steps = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 45.0, 60.0, 90.0)
    return next((step for step in steps if span_deg / step <= at_most), steps[-1])


def multiples(start: float, end: float, step: float) -> list[float]:
    """Multiples of `step` within start..end."""
    first, last = math.ceil(start / step - 1e-9), math.floor(end / step + 1e-9)
    return [round(number * step, 9) for number in range(first, last + 1)]
