"""Where hits, false alarms and missed points lie on Mars, at the depth of the best F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.report._columns import METRICS
from marsretrieval.report.grouping import Entry, ResultSet
from marsretrieval.report.html._gallery import MODELS
from marsretrieval.report.html._regions import Region, regions_of
from marsretrieval.report.tables import metric_value

if TYPE_CHECKING:
    import pyarrow as pa

Floats = npt.NDArray[np.float64]

PLANET = (720, 360)  # user units of the whole planet: two a degree
_BUDGET = 1_300_000  # bytes of all marks on a page
_MANY = 3000  # marks of a kind, which are rounded to twice the step
_STEP = 0.5  # user units that positions are rounded to: marks at one place are drawn once


@dataclass(frozen=True, slots=True)
class Scene:
    """What one ranking found of one landform, down to its best depth. (n, 2) degrees each."""

    landform: str
    k: int
    f1: float
    hits: Floats  # tiles near a point
    alarms: Floats  # tiles that are not
    missed: Floats  # points
    found: Floats

    @property
    def mark(self) -> float:
        """Size of a mark on the planet: the smaller the more there are."""
        count = len(self.hits) + len(self.alarms)
        return 5.0 if count <= 400 else 3.6 if count <= _MANY else 2.4

    @property
    def told(self) -> str:
        points = len(self.missed) + len(self.found)
        return (
            f"first {self.k:,} tiles: {len(self.hits):,} hits, {len(self.alarms):,} false alarms; "
            f"{len(self.missed):,} of {points:,} points missed"
        )


@dataclass(frozen=True, slots=True)
class PlacedMarks:
    """Path data of the marks of a region, in its units. number: 0 for the whole planet."""

    region: Region
    number: int
    hits: str
    alarms: str
    missed: str
    found: str

    @property
    def size(self) -> int:
        return sum(map(len, (self.hits, self.alarms, self.missed, self.found)))


@dataclass(frozen=True, slots=True)
class MapView:
    scene: Scene
    planet: PlacedMarks
    regions: Sequence[PlacedMarks]


@dataclass(frozen=True, slots=True)
class MapGroup:
    """The maps of one model and kind of query."""

    entry: Entry
    mode: str
    views: Sequence[MapView]


@dataclass(frozen=True, slots=True)
class Maps:
    """The maps of a set. ground: what is below the marks of each region, drawn once: its name,
    size and the tiles that were searched. notes: what there was no room for, in words."""

    groups: Sequence[MapGroup] = ()
    ground: Sequence[tuple[Region, str]] = ()
    notes: Sequence[str] = ()


def maps_of(found: ResultSet, *, progress: Progress = NO_PROGRESS) -> Maps:
    """Maps of the best models: all kinds of query of the first, the best kind of the others."""
    having = [e for e in found.entries if e.file.has("hits") and e.file.has("queries")]
    plan = [
        (entry, mode)
        for number, entry in enumerate(having[:MODELS])
        for mode in _best_modes(entry, found)[: None if number == 0 else 1]
    ]
    notes = []
    if len(having) > MODELS:
        notes.append(f"the best {MODELS} of {len(having)} models")
    if not plan:
        return Maps()
    groups: list[MapGroup] = []
    left = _BUDGET
    searched, points = _places(having[0].file.hits), _places(having[0].file.queries)
    regions = regions_of(np.concatenate([searched, points]))
    with progress.start("draw maps", len(plan) * len(found.landforms), "maps") as bar:
        for entry, mode in plan:
            views: list[MapView] = []
            for landform in found.landforms:
                scene = _scene(entry, landform, mode)
                bar.advance()
                if scene is None:
                    continue
                view = _view(scene, regions)
                size = view.planet.size + sum(each.size for each in view.regions)
                if size > left:
                    continue
                left -= size
                views.append(view)
            if views:
                groups.append(MapGroup(entry, mode, views))
    wanted = sum(f"{name}/{mode}" in e.metrics for e, mode in plan for name in found.landforms)
    drawn = sum(len(group.views) for group in groups)
    if drawn < wanted:
        notes.append(f"{drawn} of {wanted} maps")
    ground = [(region, _dots(region.place(searched))) for region in regions]
    return Maps(groups, ground, notes)


def _best_modes(entry: Entry, found: ResultSet) -> list[str]:
    """Kinds of query by the mean of the strict average precision, the best first."""

    def mean(mode: str) -> float:
        groups = (entry.metrics.get(f"{name}/{mode}") or {} for name in found.landforms)
        values = [metric_value(each, METRICS["average_precision"], "strict") for each in groups]
        there = [each.value for each in values if each.value is not None]
        return float(np.mean(there)) if there else -1.0

    modes = [mode for mode in found.modes if mean(mode) >= 0]
    return sorted(modes, key=lambda mode: -mean(mode))


def _scene(entry: Entry, landform: str, mode: str) -> Scene | None:
    import pyarrow.compute as pc

    group = f"{landform}/{mode}"
    best = (entry.metrics.get(group) or {}).get("strict", {}).get("best")
    hits, points = entry.file.hits, entry.file.queries
    if not best or hits is None or points is None:
        return None
    if not {"lon", "lat", "found_at"} <= set(points.column_names):
        return None
    ours = hits.filter(pc.equal(hits.column("group"), group))
    truth = points.filter(pc.equal(points.column("group"), group))
    tiles = _places(ours)
    first = ours.column("rank").to_numpy() <= best["k"]
    relevant = ours.column("relevant").to_numpy(zero_copy_only=False).astype(bool)
    found_at = truth.column("found_at").to_numpy()
    seen = (found_at > 0) & (found_at <= best["k"])
    places = _places(truth)
    return Scene(
        landform=landform,
        k=int(best["k"]),
        f1=float(best["f1"]),
        hits=tiles[first & relevant],
        alarms=tiles[first & ~relevant],
        missed=places[~seen],
        found=places[seen],
    )


def _places(table: pa.Table | None) -> Floats:
    """(n, 2) degrees, where the table has them."""
    if table is None or not {"lon", "lat"} <= set(table.column_names):
        return np.empty((0, 2))
    columns = [table.column(name).to_numpy(zero_copy_only=False) for name in ("lon", "lat")]
    return np.column_stack(columns).astype(np.float64).reshape(-1, 2)


def _view(scene: Scene, regions: Sequence[Region]) -> MapView:
    planet = _placed(scene, Region.planet(*PLANET))
    placed = [_placed(scene, each, number) for number, each in enumerate(regions, 1)]
    return MapView(scene, planet, [each for each in placed if each.size])


def _placed(scene: Scene, region: Region, number: int = 0) -> PlacedMarks:
    """In a region (number from 1) there is room for the points that were found, too."""
    close = number > 0
    return PlacedMarks(
        region,
        number,
        _dots(region.place(scene.hits)),
        _dots(region.place(scene.alarms)),
        _crosses(region.place(scene.missed), 5 if close or len(scene.missed) > 400 else 6),
        _rings(region.place(scene.found), 2.5) if close else "",
    )


def _dots(places: Floats) -> str:
    """A line of no length at each place: its cap is the mark. Neighbours in a row are one line."""
    step = _STEP if len(places) <= _MANY else 2 * _STEP
    cells = np.unique(np.round(places[:, ::-1] / step).astype(np.int64), axis=0)  # row, column
    if not len(cells):
        return ""
    row, column = cells.T
    starts = np.flatnonzero((np.diff(row, prepend=-1) != 0) | (np.diff(column, prepend=-9) != 1))
    lengths = column[np.append(starts[1:], len(cells)) - 1] - column[starts]
    parts = []
    x = y = 0
    for place, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        across, down = int(column[place]) - x, int(row[place]) - y
        parts.append(f"m{across * step:g} {down * step:g}h{length * step:g}")
        x, y = int(column[place]) + length, int(row[place])
    return "".join(parts)


def _crosses(places: Floats, size: int) -> str:
    arms = f"l{size} {size}m0-{size}l-{size} {size}"
    parts = []
    x, y = size / 2, size / 2  # where the pen is, from the corner of the cross to come
    for right, down in _distinct(places).tolist():
        parts.append(f"m{right - x:g} {down - y:g}{arms}")
        x, y = right, down + size
    return "".join(parts)


def _rings(places: Floats, radius: float) -> str:
    arc = f"a{radius:g} {radius:g} 0 1 0 "
    turn = f"{arc}{2 * radius:g} 0{arc}-{2 * radius:g} 0"
    return "".join(f"M{x - radius:g} {y:g}{turn}" for x, y in _distinct(places))


def _distinct(places: Floats) -> Floats:
    rounded: Floats = np.unique(np.round(places / _STEP), axis=0) * _STEP
    return rounded
