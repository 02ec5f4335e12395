"""Annotation of maps: named features of Mars (IAU), their labels, and the graticule."""

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
from marsretrieval.geo import Box, wrap_lon

if TYPE_CHECKING:
    from marsretrieval.plotting.projection import MapFrame
    from marsretrieval.plotting.style import Style

_WIDE = {"Planitia", "Planum", "Terra", "Vastitas", "Undae", "Montes"}
_LONG = {"Fossae", "Mensae", "Montes", "Vallis", "Colles"}

_GAP = 3.0  # pixels around a label
_DOT = 9.0  # pixels; smaller circles are drawn as dots
_WIDE_CIRCLE = 60.0  # pixels; labels may overlap larger circles
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


class Chart(Protocol):
    """A map on which feature names are drawn.

    Attributes:
        axes: Cartopy axes.
        frame: Projection and extent.
        style: Colours and sizes.
    """

    axes: Any
    frame: MapFrame
    style: Style

    def halo(self) -> list[Any]:
        """Return the path effects of texts."""

    def shows(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return which positions are on the map.

        Args:
            lon: Longitudes in degrees, shape (n,).
            lat: Latitudes in degrees, shape (n,).

        Returns:
            Booleans of shape (n,).
        """


@dataclass(frozen=True, slots=True)
class Feature:
    """A named feature.

    Attributes:
        name: IAU name.
        type: Descriptor term such as Crater, Mons or Planitia.
        lon: Longitude of the centre, -180..180 degrees, east positive.
        lat: Planetocentric latitude of the centre, degrees.
        diameter_km: Diameter in kilometres.
    """

    name: str
    type: str  # Crater, Mons, Planitia, ...
    lon: float
    lat: float
    diameter_km: float

    @property
    def weight(self) -> float:
        """Priority of the name on a map.

        The diameter, times 4 for volcanoes and craters, divided by 3 for long, thin features.
        """
        if self.is_round:
            return 4.0 * self.diameter_km
        return self.diameter_km / (3.0 if self.type in _LONG else 1.0)

    @property
    def is_wide(self) -> bool:
        """Whether the feature is a landscape without a clear edge, labelled across its area."""
        return self.type in _WIDE

    @property
    def is_round(self) -> bool:
        """Whether the feature is drawn as a circle."""
        return self.type in ("Crater", "Mons", "Tholus", "Patera")


@cache
def features() -> tuple[Feature, ...]:
    """Return all features of the package, largest first."""
    text = resources.files("marsretrieval.plotting").joinpath("features.csv").read_text("utf-8")
    rows = csv.DictReader(text.splitlines())
    entries = [
        Feature(
            row["name"],
            row["type"],
            float(row["lon"]),
            float(row["lat"]),
            float(row["diameter_km"]),
        )
        for row in rows
    ]
    return tuple(sorted(entries, key=lambda entry: (-entry.diameter_km, entry.name)))


def features_in(box: Box) -> Sequence[Feature]:
    """Return the features whose centre lies in a box.

    Args:
        box: The box.

    Returns:
        Features, largest first.
    """
    entries = features()
    inside = box.contains([entry.lon for entry in entries], [entry.lat for entry in entries])
    return [entry for entry, is_inside in zip(entries, inside.tolist(), strict=True) if is_inside]


def feature(name: str) -> Feature:
    """Return a feature by name.

    Args:
        name: IAU name in any case.

    Returns:
        The feature.

    Raises:
        UnknownNameError: If there is none; the message suggests the nearest names.
    """
    by_name = {entry.name.lower(): entry for entry in features()}
    match = by_name.get(name.strip().lower())
    if match is None:
        raise UnknownNameError("feature", name, [entry.name for entry in features()])
    return match


def lon_label(lon: float, domain: int = 180) -> str:
    """Format a longitude: `30°W` for `domain` 180, `330°E` for 360.

    Args:
        lon: Longitude in degrees.
        domain: 180 or 360.

    Returns:
        The label.
    """
    turned = lon % 360
    if domain == 180 and turned > 180:
        return f"{_number(360 - turned)}°W"
    return f"{_number(turned)}°" + ("E" if turned % 180 or domain == 360 else "")


def lat_label(lat: float) -> str:
    """Format a latitude: `30°N`, `0°`, `30°S`.

    Args:
        lat: Latitude in degrees.

    Returns:
        The label.
    """
    return f"{_number(abs(lat))}°" + ("N" if lat > 0 else "S" if lat < 0 else "")


def _number(value: float) -> str:
    return f"{round(value, 6):g}"


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle in pixels.

    Attributes:
        left: Left edge.
        bottom: Bottom edge.
        right: Right edge.
        top: Top edge.
    """

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Rect) -> bool:
        """Whether two rectangles share an area.

        Args:
            other: The other rectangle.

        Returns:
            True if they overlap.
        """
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def within(self, other: Rect) -> bool:
        """Whether this rectangle lies inside another.

        Args:
            other: The other rectangle.

        Returns:
            True if it lies inside.
        """
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.bottom >= other.bottom
            and self.top <= other.top
        )

    @classmethod
    def around(cls, x: float, y: float, width: float, height: float) -> Rect:
        """Make a rectangle from its centre and size.

        Args:
            x: Horizontal centre.
            y: Vertical centre.
            width: Width.
            height: Height.

        Returns:
            The rectangle.
        """
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


@dataclass(frozen=True, slots=True)
class LabelCandidate:
    """A label to be placed.

    Attributes:
        positions: Possible positions of the label, in order of preference.
        mark: Mark of the labelled feature that other labels must not cover, if any.
    """

    positions: Sequence[Rect]
    mark: Rect | None = None


def place_labels(
    candidates: Iterable[LabelCandidate], frame: Rect, occupied: Iterable[Rect] = ()
) -> list[int | None]:
    """Place labels greedily, in the given order.

    Args:
        candidates: The labels.
        frame: Rectangle that contains all labels.
        occupied: Rectangles that labels must not overlap.

    Returns:
        The index of the chosen position per candidate, or None if all overlap. A label
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
    """Draw the names of features that do not overlap.

    Args:
        chart: The map.
        occupied: Rectangles that names must not overlap.
        limit: Largest number of names.
        smallest_km: Smallest diameter of a named feature.

    Returns:
        The rectangles of the names.
    """
    large = [feature for feature in features() if feature.diameter_km >= smallest_km]
    if not large:
        return []
    visible = chart.shows([f.lon for f in large], [f.lat for f in large])
    named = [feature for feature, inside in zip(large, visible, strict=True) if inside]
    named.sort(key=lambda feature: -feature.weight)
    texts = [_write_name(chart, feature) for feature in named]
    candidates = [_label_candidate(chart, *pair) for pair in zip(named, texts, strict=True)]
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


def _label_candidate(chart: Chart, feature: Feature, text: Any) -> LabelCandidate:
    point = np.array(chart.frame.project(feature.lon, feature.lat), dtype=float).ravel()
    x, y = chart.axes.transData.transform(point)
    extent = text.get_window_extent()
    width, height = extent.width + 2 * _GAP, extent.height + _GAP
    if not feature.is_round:
        steps = (0.0, 1.0, -1.0, 2.0, -2.0)
        return LabelCandidate(
            [Rect.around(x, y + step * height * 0.8, width, height) for step in steps]
        )
    circle_width, circle_height = _circle_pixels(chart, feature)
    reach = (max(circle_width / 2, 3.0), max(circle_height / 2, 3.0))
    centres = [
        (x + right * (reach[0] + width / 2), y + up * (reach[1] + height / 2))
        for right, up in _SIDES
    ]
    if circle_width > 1.2 * width and circle_height > 2 * height:
        centres.insert(0, (x, y))
    positions = [Rect.around(*centre, width, height) for centre in centres]
    if max(circle_width, circle_height) > _WIDE_CIRCLE:
        return LabelCandidate(positions)
    return LabelCandidate(
        positions, mark=Rect.around(x, y, max(circle_width, 6.0), max(circle_height, 6.0))
    )


def _circle(chart: Chart, feature: Feature) -> Any:
    """Return the circle of a feature in map coordinates, shape (n, 2)."""
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
    """Return width and height of a feature's circle in pixels."""
    pixels = chart.axes.transData.transform(_circle(chart, feature))
    circle_width, circle_height = np.ptp(pixels, axis=0)
    return float(circle_width), float(circle_height)


def _draw_outline(chart: Chart, feature: Feature) -> None:
    """Draw the circle of a feature, or a dot if it would be too small."""
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
    """Return the smallest round step with at most `at_most` parts.

    Args:
        span_deg: Length to divide, degrees.
        at_most: Largest number of parts.

    Returns:
        The step in degrees.
    """
    steps = (
        0.0001,
        0.0002,
        0.0005,
        0.001,
        0.002,
        0.005,
        0.01,
        0.02,
        0.05,
        0.1,
        0.2,
        0.5,
        1.0,
        2.0,
        5.0,
        10.0,
        15.0,
        30.0,
        45.0,
        60.0,
        90.0,
    )
    return next((step for step in steps if span_deg / step <= at_most), steps[-1])


def multiples(start: float, end: float, step: float) -> list[float]:
    """Return the multiples of a step in a range.

    Args:
        start: Start of the range.
        end: End of the range, included.
        step: The step.

    Returns:
        The multiples in ascending order.
    """
    first, last = math.ceil(start / step - 1e-9), math.floor(end / step + 1e-9)
    return [round(number * step, 9) for number in range(first, last + 1)]


def draw_graticule(chart: Chart, box: Box, domain: int, stretch: float) -> None:
    """Draw lines of longitude and latitude with their labels at the edges.

    Args:
        chart: The map.
        box: Area of the map.
        domain: Longitude range of the labels, 180 or 360.
        stretch: Height of a unit of the plane divided by its width.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter

    frame, style = chart.frame, chart.style
    lon_step = round_step(box.width, 12)
    inches = float(chart.axes.get_window_extent().width) / float(chart.axes.figure.dpi)
    while not frame.polar:  # until the labels fit side by side
        labels = map(lon_label, multiples(box.west, box.west + box.width, lon_step))
        longest = max(map(len, labels), default=0)
        most = max(2, int(inches / (0.0083 * style.font * longest + 0.2)))
        if box.width / lon_step <= max(most, 3) or lon_step >= 90:
            break
        lon_step = round_step(box.width, math.ceil(box.width / lon_step) - 1)
    ratio = frame.height * stretch / frame.width
    lat_step = round_step(box.height, max(4, min(12, round(12 * ratio))))
    if box.width >= 180 and not frame.polar:
        lon_step = lat_step = max(lon_step, lat_step)
    west = frame.centre_lon - box.width / 2
    longitudes = multiples(west, west + box.width, lon_step)
    latitudes = multiples(box.south, box.north, lat_step)
    if box.width >= 360.0:
        longitudes = longitudes[:-1]
    lines = chart.axes.gridlines(
        draw_labels=True,
        xlocs=FixedLocator(sorted({float(wrap_lon(lon)) for lon in longitudes})),
        ylocs=FixedLocator(latitudes),
        xformatter=FuncFormatter(lambda lon, _: lon_label(float(lon), domain)),
        yformatter=FuncFormatter(lambda lat, _: lat_label(float(lat))),
        color=style.grid,
        linewidth=0.5,
        zorder=1.5,  # above rasters, below tiles and points
        xlabel_style={"color": style.muted, "fontsize": style.font - 0.5},
        ylabel_style={"color": style.muted, "fontsize": style.font - 0.5},
        x_inline=False,
        y_inline=frame.circular,
    )
    if not frame.polar:
        lines.top_labels = lines.right_labels = False
        lines.xpadding = lines.ypadding = 4
    elif frame.circular:
        _clip_to_disk(chart.axes)
    elif box.north > -box.south:
        lines.top_labels = False
    else:
        lines.bottom_labels = False
    for spine in chart.axes.spines.values():
        spine.set_edgecolor(style.muted)
        spine.set_linewidth(0.7)


def _clip_to_disk(axes: Any) -> None:
    from matplotlib.path import Path as Outline

    angle = np.linspace(0, 2 * np.pi, 361)
    disk = Outline(0.5 + 0.5 * np.column_stack([np.sin(angle), np.cos(angle)]))
    axes.set_boundary(disk, transform=axes.transAxes)


def draw_scale_bar(chart: Chart) -> Rect:
    """Draw a scale bar at the lower right, true at the middle of the map.

    Args:
        chart: The map.

    Returns:
        The rectangle of the bar and its text.
    """
    frame, axes, style = chart.frame, chart.axes, chart.style
    left, right, bottom, top = frame.extent
    km_per_unit = frame.kilometres_per_unit((left + right) / 2, (bottom + top) / 2)
    max_km = frame.width * km_per_unit / 4
    power = 10.0 ** math.floor(math.log10(max_km))
    length = max(factor * power for factor in (1, 2, 5) if factor * power <= max_km)
    span = length / km_per_unit / frame.width
    inches_high = float(axes.get_window_extent().height) / float(axes.figure.dpi)
    start, low = 0.985 - span, 0.14 / inches_high
    for colour, width, order in ((style.ground, 4.2, 6.9), (style.ink, 2.0, 7)):
        axes.plot(
            [start, start + span], [low, low], color=colour, lw=width, transform=axes.transAxes,
            zorder=order, solid_capstyle="butt", clip_on=False, alpha=0.85 if order < 7 else 1.0,
        )  # fmt: skip
    text = f"{length:g} km" if length >= 1 else f"{1000 * length:g} m"
    written = axes.text(
        start + span / 2, low + 0.05 / inches_high, text, color=style.ink, ha="center",
        va="bottom", fontsize=style.font, transform=axes.transAxes, zorder=7,
        path_effects=chart.halo(),
    )  # fmt: skip
    edges = axes.transAxes.transform([[start - 0.01, 0], [start + span + 0.01, low]])
    return Rect(edges[0][0], edges[0][1], edges[1][0], written.get_window_extent().y1)
