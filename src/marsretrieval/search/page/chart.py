"""Map of hits as SVG shapes, from the whole planet down to a single scene.

Drawn without cartopy, so that the page needs no extra: equirectangular with the true aspect of
its middle latitude, polar stereographic where `plotting.is_polar` says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval.geo import MARS_RADIUS_M, Box, Shape, wrap_lon
from marsretrieval.plotting import PLANET, features_in, lat_label, lon_label, regions_of, window
from marsretrieval.plotting.features import (
    LabelCandidate,
    Rect,
    multiples,
    place_labels,
    round_step,
)
from marsretrieval.plotting.projection import is_polar

if TYPE_CHECKING:
    from marsretrieval.search.hits import Hits

Floats = npt.NDArray[np.float64]

_WIDTH, _MAX_HEIGHT = 600.0, 560.0  # largest map area, units of the viewBox
_CLOSE_WIDTH, _CLOSE_HEIGHT = 300.0, 300.0  # of a close-up
_LEFT, _RIGHT, _TOP, _BOTTOM = 54.0, 14.0, 10.0, 26.0
_LOCATOR = (150.0, 75.0)
_LOCAL_DEG = 120.0  # narrower maps have a locator and a scale bar
_TILES_ACROSS = 8.0  # least height of a local map in tiles
_LETTERS = "ABCDEFGH"
_MIN_CLOSE_DEG = 30.0  # narrower maps have no close-ups
_LEAST_DEG = 1e-4
_SMALLEST_OUTLINE = 5.0  # units; smaller tiles are drawn as dots
_CELLS = 150  # cells of the searched area across the map
_MAX_NAMES = 26
_FEW_MARKS = 60  # more, spread over a map, would leave no space for names
_FINE_STEPS = tuple(factor * 10.0**power for power in (-6, -5, -4, -3) for factor in (1, 2, 5))


@dataclass(frozen=True, slots=True)
class ChartMark:
    """One hit on the map.

    Attributes:
        index: Index of the hit.
        x: Horizontal position.
        y: Vertical position.
        radius: Radius of a dot.
        outline: Path data of the tile; empty for a dot.
    """

    index: int
    x: float
    y: float
    radius: float
    outline: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """A text on the map.

    Attributes:
        x: Horizontal position.
        y: Baseline.
        text: The text.
        anchor: SVG text anchor.
        kind: CSS class.
    """

    x: float
    y: float
    text: str
    anchor: str = "middle"
    kind: str = "tick"


@dataclass(frozen=True, slots=True)
class ScaleBar:
    """Scale bar.

    Attributes:
        x: Left end.
        length: Length in units.
        text: Length on the ground.
    """

    x: float
    length: float
    text: str


@dataclass(frozen=True, slots=True)
class Inset:
    """Area of a close-up on the main map.

    Attributes:
        path: Path data of its outline.
        x: Horizontal position of its letter.
        y: Baseline of its letter.
        letter: The letter.
    """

    path: str
    x: float
    y: float
    letter: str


@dataclass(frozen=True, slots=True)
class HitMap:
    """Shapes of the map, in units of its viewBox.

    Attributes:
        size: Width and height of the viewBox.
        area: Left, top, width and height of the map area.
        circular: Whether the area is a disk.
        marks: Hits, the best last.
        labels: Coordinates and names.
        graticule: Path data of the coordinate lines.
        circles: Path data of the named craters and mountains.
        searched: Path data of the searched area; empty if unknown.
        scale: Position, length and text of the scale bar; None on maps of the planet.
        insets: Areas of the close-ups with their letters.
        letter: Letter of a close-up; empty for the main map.
        locator: Rectangle (x, y, width, height) on a map of the planet of 360 x 180; None if the
            map shows the planet.
        description: Text for readers who do not see the map.
    """

    size: tuple[float, float]
    area: tuple[float, float, float, float]
    circular: bool
    marks: Sequence[ChartMark]
    labels: Sequence[Label]
    graticule: str
    circles: str
    searched: str
    scale: ScaleBar | None
    locator: tuple[float, float, float, float] | None
    description: str
    insets: Sequence[Inset] = ()
    letter: str = ""


@dataclass(frozen=True)
class _Plane:
    """Projection of a box to units of the viewBox, at most `max_width` x `max_height`."""

    box: Box
    max_width: float = _WIDTH
    max_height: float = _MAX_HEIGHT
    polar: bool = field(init=False)
    centre_lon: float = field(init=False)
    scale: float = field(init=False)
    left: float = field(init=False)
    top: float = field(init=False)
    width: float = field(init=False)
    height: float = field(init=False)

    def __post_init__(self) -> None:
        box = self.box
        set_ = object.__setattr__
        set_(self, "polar", is_polar(box))
        is_global = box.width >= 360
        set_(self, "centre_lon", 0.0 if is_global else float(wrap_lon(box.west + box.width / 2)))
        t = np.linspace(0, 1, 181)
        lon = box.west + t * min(box.width, 360.0)
        x, y = self._plane(
            np.concatenate([lon, lon, np.full(181, box.west), np.full(181, box.west + box.width)]),
            np.concatenate(
                [np.full(181, box.south), np.full(181, box.north)]
                + [box.south + t * (box.north - box.south)] * 2
            ),
        )
        if not self.polar:
            half = self.aspect * min(box.width, 360.0) / 2
            x = np.array([-half, half])
        set_(self, "scale", min(self.max_width / np.ptp(x), self.max_height / np.ptp(y)))
        set_(self, "left", float(x.min()))
        set_(self, "top", float(y.max()))
        set_(self, "width", float(np.ptp(x) * self.scale))
        set_(self, "height", float(np.ptp(y) * self.scale))

    @property
    def circular(self) -> bool:
        return self.polar and self.box.width >= 360

    @property
    def aspect(self) -> float:
        """Width of a degree of longitude in degrees of latitude."""
        if self.box.width > _LOCAL_DEG:
            return 1.0
        return float(np.cos(np.radians((self.box.south + self.box.north) / 2)))

    def _plane(
        self, lon: npt.ArrayLike, lat: npt.ArrayLike, middle: float | None = None
    ) -> tuple[Floats, Floats]:
        """Plane coordinates, y upward, in degrees."""
        x, y = np.asarray(lon, np.float64), np.asarray(lat, np.float64)
        if not self.polar:
            east = wrap_lon(x - self.centre_lon)
            if middle is not None:
                east = wrap_lon(middle - self.centre_lon) + (x - middle)
            return np.asarray(east) * self.aspect, y
        north = self.box.north > -self.box.south
        radius = np.degrees(2 * np.tan(np.radians(90 - (y if north else -y)) / 2))
        angle = np.radians(x - self.centre_lon)
        return radius * np.sin(angle), radius * np.cos(angle) * (-1 if north else 1)

    def project(
        self, lon: npt.ArrayLike, lat: npt.ArrayLike, middle: float | None = None
    ) -> tuple[Floats, Floats]:
        """Convert degrees to units of the viewBox.

        Args:
            lon: Longitudes.
            lat: Latitudes.
            middle: Longitude around which the others are continuous, so that an outline at the
                edge of the map stays whole; None: each is wrapped into the map.
        """
        x, y = self._plane(lon, lat, middle)
        return _LEFT + (x - self.left) * self.scale, _TOP + (self.top - y) * self.scale

    def contains(self, x: Floats, y: Floats) -> npt.NDArray[np.bool_]:
        """Return which points of the viewBox lie in the map area."""
        slack = 0.01
        inside = (x >= _LEFT - slack) & (x <= _LEFT + self.width + slack)
        inside &= (y >= _TOP - slack) & (y <= _TOP + self.height + slack)
        if self.circular:
            middle = _LEFT + self.width / 2, _TOP + self.height / 2
            inside &= np.hypot(x - middle[0], y - middle[1]) <= self.width / 2 + slack
        return np.asarray(inside)

    @property
    def units_per_degree(self) -> float:
        """Units per degree of latitude in the middle of the map."""
        middle = (self.box.south + self.box.north) / 2
        step = (self.box.north - self.box.south) / 100
        lon = self.box.west + min(self.box.width, 360.0) / 2
        x, y = self.project([lon, lon], [middle - step / 2, middle + step / 2])
        return float(np.hypot(x[1] - x[0], y[1] - y[0]) / step)


def draw_maps(
    hits: Hits, *, searched: Floats | None = None, tile_deg: float | None = None
) -> list[HitMap]:
    """Lay out a map of all hits, and close-ups if they lie in a few regions of a wide map.

    Args:
        hits: The hits.
        searched: Positions of all searched tiles, shape (m, 2).
        tile_deg: Height of a tile in degrees; None if unknown.

    Returns:
        The map and its close-ups; nothing if no hit has a position.
    """
    lon, lat = (
        np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        for values in (hits.lon, hits.lat)
    )
    if not (np.isfinite(lon) & np.isfinite(lat)).any():
        return []
    least = max(_TILES_ACROSS * (tile_deg or 0.25), _LEAST_DEG)
    box = window(lon, lat, least_deg=least)
    planes = [_Plane(box)]
    if box.width > _MIN_CLOSE_DEG or box.north - box.south > _MIN_CLOSE_DEG:
        for region in regions_of(np.column_stack([lon, lat])):
            inside = region.contains(lon, lat)
            close = window(lon[inside], lat[inside], least_deg=least)
            planes.append(_Plane(close, _CLOSE_WIDTH, _CLOSE_HEIGHT))
    maps = [
        _draw(
            plane,
            hits,
            (lon, lat),
            searched,
            tile_deg,
            names_avoid=_FEW_MARKS if len(planes) == 1 else len(hits),
        )
        for plane in planes
    ]
    insets = [
        _inset(planes[0], plane.box, letter)
        for plane, letter in zip(planes[1:], _LETTERS, strict=False)
    ]
    closeups = [
        replace(part, letter=letter) for part, letter in zip(maps[1:], _LETTERS, strict=False)
    ]
    return [replace(maps[0], insets=insets), *closeups]


def _inset(plane: _Plane, box: Box, letter: str) -> Inset:
    """Outline of a close-up, at least a few units large."""
    t = np.linspace(0, 1, 19)
    east = box.west + box.width
    x, y = plane.project(
        np.concatenate([box.west + t * box.width, np.full(19, east), east - t * box.width,
                        np.full(19, box.west)]),
        np.concatenate([np.full(19, box.south), box.south + t * (box.north - box.south),
                        np.full(19, box.north), box.north - t * (box.north - box.south)]),
    )  # fmt: skip
    if not plane.polar:
        first, _ = plane.project(box.west, box.south)
        half = box.width * plane.scale * plane.aspect
        x = np.where(x < first - 0.01, first + half, x)
    at = float(x.max()) + 3
    side = at if at < _LEFT + plane.width - 10 else float(x.min()) - 10
    return Inset(_path(x, y) + "z", round(side, 1), round(float(y.min()) + 8, 1), letter)


def _draw(
    plane: _Plane,
    hits: Hits,
    positions: tuple[Floats, Floats],
    searched: Floats | None,
    tile_deg: float | None,
    *,
    names_avoid: int,
) -> HitMap:
    """Draw one map; names avoid the marks if there are at most `names_avoid`."""
    box = plane.box
    is_local = box.width <= _LOCAL_DEG or plane.polar
    marks = list(_marks(plane, *positions, hits.shapes))
    scale = _scale_bar(plane, marks) if is_local else None
    graticule, ticks = _graticule(plane, hits.domain)
    names, circles = _names(plane, marks if len(marks) <= names_avoid else [], scale)
    return HitMap(
        size=(_LEFT + plane.width + _RIGHT, _TOP + plane.height + _BOTTOM),
        area=(_LEFT, _TOP, plane.width, plane.height),
        circular=plane.circular,
        marks=marks,
        labels=[*ticks, *names],
        graticule=graticule,
        circles=circles,
        searched="" if searched is None else _searched_path(plane, searched, tile_deg),
        scale=scale,
        locator=_locator(box) if is_local else None,
        description=_describe(box, hits.domain),
    )


def planet_outline() -> Iterator[tuple[float, float, float, float]]:
    """Yield the graticule of the locator, a map of 360 x 180: x1, y1, x2, y2."""
    for lon in range(60, 360, 60):
        yield lon, 0, lon, 180
    for lat in range(30, 180, 30):
        yield 0, lat, 360, lat


def _marks(
    plane: _Plane, lon: Floats, lat: Floats, shapes: Sequence[Shape | None]
) -> Iterator[ChartMark]:
    x, y = plane.project(lon, lat)
    inside = np.isfinite(x) & np.isfinite(y)
    inside[inside] = plane.contains(x[inside], y[inside])
    count = int(inside.sum())
    radius = 6.0 if count <= 30 else 4.5 if count <= 200 else 3.2
    for index in range(len(lon) - 1, -1, -1):  # the best on top
        if not inside[index]:
            continue
        outline = ""
        shape = shapes[index]
        if isinstance(shape, list):
            rings = [np.array(ring, dtype=np.float64) for ring in shape]
            height = float(np.ptp(rings[0][:, 1])) * plane.units_per_degree
            if height >= _SMALLEST_OUTLINE:
                outline = "".join(_ring_path(plane, ring) for ring in rings)
        yield ChartMark(
            index, round(float(x[index]), 2), round(float(y[index]), 2), radius, outline
        )


def _ring_path(plane: _Plane, ring: Floats) -> str:
    middle = float(ring[:, 0].min() + ring[:, 0].max()) / 2
    return _path(*plane.project(ring[:, 0], ring[:, 1], middle)) + "z"


def _path(x: Floats, y: Floats) -> str:
    return "M" + "L".join(f"{a:.2f} {b:.2f}" for a, b in zip(x, y, strict=True))


def _step(span_deg: float, at_most: int) -> float:
    """Return a round step, also below the smallest of `round_step`."""
    fine = next((step for step in _FINE_STEPS if span_deg / step <= at_most), None)
    return fine or round_step(span_deg, at_most)


def _graticule(plane: _Plane, domain: int) -> tuple[str, list[Label]]:
    box = plane.box
    width = min(box.width, 360.0)
    lon_step = _step(width, 12 if plane.polar or width >= 180 else 6)
    lat_step = _step(box.north - box.south, max(3, round(8 * plane.height / plane.max_width)))
    if width >= 180 and not plane.polar:
        lon_step = lat_step = max(lon_step, lat_step)
    longitudes = multiples(box.west, box.west + width, lon_step)
    if plane.circular:
        longitudes = [float(value) for value in range(-180, 180, 30)]
    latitudes = multiples(box.south, box.north, lat_step)
    t = np.linspace(0, 1, 61 if plane.polar else 2)
    paths, labels = [], []
    south, north = box.south, box.north
    for lon in longitudes:
        x, y = plane.project(np.full(len(t), lon), south + t * (north - south))
        if not plane.polar and lon == longitudes[-1] and width >= 360:
            x = np.full(len(t), _LEFT + plane.width)
        paths.append(_path(x, y))
        text = lon_label(lon, domain)
        if plane.circular:
            middle = _LEFT + plane.width / 2, _TOP + plane.height / 2
            edge = 0 if box.north > -box.south else -1
            out = (x[edge] - middle[0], y[edge] - middle[1])
            labels.append(Label(middle[0] + out[0] * 0.93, middle[1] + out[1] * 0.93 + 3, text))
        elif not plane.polar:
            labels.append(Label(float(x[0]), _TOP + plane.height + 16, text))
        else:
            _edge_label(plane, x, y, text, labels)
    for lat in latitudes:
        x, y = plane.project(box.west + t * width, np.full(len(t), lat))
        if not plane.polar:
            x = np.array([_LEFT, _LEFT + plane.width])
            labels.append(Label(_LEFT - 5, float(y[0]) + 3, lat_label(lat), "end"))
        elif plane.circular:
            at, up = plane.project(15.0, lat)
            if not box.south < lat < box.north:
                continue
            labels.append(Label(float(at), float(up) + 3, lat_label(lat)))
        else:
            _edge_label(plane, x, y, lat_label(lat), labels)
        paths.append(_path(x, y))
    return "".join(paths), [_rounded(label) for label in labels]


def _edge_label(plane: _Plane, x: Floats, y: Floats, text: str, labels: list[Label]) -> None:
    """Label a curve of a polar map where it comes nearest to the left or lower edge."""
    inside = np.flatnonzero(plane.contains(x, y))
    if not len(inside):
        return
    low = inside[np.argmax(y[inside])]
    leftmost = inside[np.argmin(x[inside])]
    if _TOP + plane.height - y[low] <= x[leftmost] - _LEFT:
        labels.append(Label(float(x[low]), _TOP + plane.height + 16, text))
    else:
        labels.append(Label(_LEFT - 5, float(y[leftmost]) + 3, text, "end"))


def _rounded(label: Label) -> Label:
    return Label(round(label.x, 1), round(label.y, 1), label.text, label.anchor, label.kind)


def _names(
    plane: _Plane, marks: Sequence[ChartMark], scale: ScaleBar | None
) -> tuple[list[Label], str]:
    """Names of features that fit beside the marks, and circles of the round ones."""
    entries = sorted(features_in(plane.box), key=lambda entry: -entry.weight)[:_MAX_NAMES]
    per_km = plane.units_per_degree / (np.pi / 180 * MARS_RADIUS_M / 1000)
    candidates, options, circles = [], [], []
    for entry in entries:
        x, y = (float(value) for value in plane.project(entry.lon, entry.lat))
        if not plane.contains(np.array([x]), np.array([y]))[0]:
            continue
        radius = entry.diameter_km / 2 * per_km
        wide, high = 6.1 * len(entry.name) + 8, 14.0
        mark = None
        positions = [Rect.around(x, y, wide, high)]
        if entry.is_round and radius >= 3:
            a = np.radians(np.linspace(0, 360, 49))
            stretch = 1.0
            if not plane.polar and plane.box.width > _LOCAL_DEG:
                stretch = 1 / max(float(np.cos(np.radians(entry.lat))), 0.2)
            outline = x + stretch * radius * np.cos(a), y + radius * np.sin(a)
            if plane.contains(*outline).all():
                circles.append(_path(*outline) + "z")
            if radius < 30:
                gap = radius + 9
                positions = [Rect.around(x, y + side * gap, wide, high) for side in (1, -1)]
                mark = Rect.around(x, y, 2 * radius * stretch, 2 * radius)
        candidates.append(LabelCandidate(positions, mark))
        options.append((entry, positions))
    frame = Rect(_LEFT, _TOP, _LEFT + plane.width, _TOP + plane.height)
    labels = []
    occupied = [Rect.around(mark.x, mark.y, 2 * mark.radius, 2 * mark.radius) for mark in marks]
    if scale is not None:
        low = _TOP + plane.height
        occupied.append(Rect(scale.x - 10, low - 28, scale.x + scale.length + 10, low))
    chosen = place_labels(candidates, frame, occupied)
    for (entry, positions), number in zip(options, chosen, strict=True):
        if number is not None:
            rect = positions[number]
            kind = "land" if entry.is_wide else "name"
            middle = (rect.left + rect.right) / 2
            labels.append(Label(round(middle, 1), round(rect.top - 4, 1), entry.name, kind=kind))
    return labels, "".join(circles)


def _searched_path(plane: _Plane, positions: Floats, tile_deg: float | None) -> str:
    """Merge the cells that hold searched tiles into one path of horizontal strips."""
    x, y = plane.project(positions[:, 0], positions[:, 1])
    inside = np.isfinite(x) & np.isfinite(y)
    inside[inside] = plane.contains(x[inside], y[inside])
    if not inside.any():
        return ""
    tile = (tile_deg or 0.0) * plane.units_per_degree
    cell = max(tile * 1.02, plane.width / _CELLS, 2.0)
    columns = int(np.ceil(plane.width / cell)) + 1
    rows = int(np.ceil(plane.height / cell)) + 1
    grid = np.zeros((rows, columns + 2), dtype=np.int8)
    # The grid starts at a tile, so that a regular tiling fills it without gaps.
    start = (float(x[inside].min()) - cell / 2, float(y[inside].min()) - cell / 2)
    column = np.clip(((x[inside] - start[0]) / cell).astype(int), 0, columns - 1)
    row = np.clip(((y[inside] - start[1]) / cell).astype(int), 0, rows - 1)
    grid[row, column + 1] = 1
    parts = []
    right, bottom = _LEFT + plane.width, _TOP + plane.height
    for number in np.flatnonzero(grid.any(axis=1)).tolist():
        edges = np.flatnonzero(np.diff(grid[number])).reshape(-1, 2)
        top = max(start[1] + number * cell, _TOP)
        low = min(start[1] + (number + 1) * cell, bottom)
        for first, last in edges.tolist():
            west = max(start[0] + first * cell, _LEFT)
            east = min(start[0] + last * cell, right)
            parts.append(f"M{west:.1f} {top:.1f}H{east:.1f}V{low:.1f}H{west:.1f}z")
    return "".join(parts)


def _scale_bar(plane: _Plane, marks: Sequence[ChartMark]) -> ScaleBar:
    """Scale bar in the lower corner that covers fewer hits."""
    metres_per_unit = np.pi / 180 * MARS_RADIUS_M / plane.units_per_degree
    longest = metres_per_unit * plane.width * 0.3
    power = 10.0 ** np.floor(np.log10(longest))
    length = next(factor * power for factor in (5, 2, 1) if factor * power <= longest)
    units = float(length / metres_per_unit)
    text = f"{length / 1000:,.0f} km" if length >= 1000 else f"{length:,.0f} m"
    low = _TOP + plane.height

    def covered_marks(x: Any) -> int:
        area = Rect(x - 12, low - 34, x + units + 12, low)
        return sum(Rect.around(mark.x, mark.y, 8, 8).overlaps(area) for mark in marks)

    corners = (_LEFT + 10, _LEFT + plane.width - units - 10)
    return ScaleBar(round(min(corners, key=covered_marks), 1), round(units, 1), text)


def _locator(box: Box) -> tuple[float, float, float, float]:
    """Rectangle on a planet of 360 x 180, at least 6 units large; from its western edge on."""
    width = min(box.width, 360.0)
    height = box.north - box.south
    x = float(wrap_lon(box.west)) + 180 + width / 2
    y = 90 - (box.south + box.north) / 2
    wide, high = max(width, 8.0), max(height, 8.0)
    west = 0.0 if width >= 360 else x % 360 - wide / 2
    return round(west, 1), round(y - high / 2, 1), round(wide, 1), round(high, 1)


def _describe(box: Box, domain: int) -> str:
    if box.width >= 360 and box.north - box.south >= 180:
        return "Map of Mars"
    if box == PLANET or box.width >= 360:
        pole = "north" if box.north > -box.south else "south"
        return f"Map of the {pole} polar region of Mars"
    east = float(wrap_lon(box.west + box.width))
    decimals = max(0, min(6, int(np.ceil(1 - np.log10(max(box.width, 1e-6))))))
    edges = [round(value, decimals) for value in (box.west, east, box.south, box.north)]
    return (
        f"Map of Mars from {lon_label(edges[0], domain)} to {lon_label(edges[1], domain)} and "
        f"from {lat_label(edges[2])} to {lat_label(edges[3])}"
    )
