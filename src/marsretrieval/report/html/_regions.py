"""The parts of the planet that hold any tile, where these are few: to be drawn close up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from marsretrieval import geo

Floats = npt.NDArray[np.float64]
Cell = tuple[int, int]

_MOST = 8  # regions: with more, the planet is seen better as a whole
_WIDEST = 24.0  # degrees
_FRAME = (260.0, 180.0)  # user units that a region is fitted into
_COLUMNS = 360 // geo.QUAD_DEG


@dataclass(frozen=True, slots=True)
class Region:
    """A box, and the scale it is drawn at. west is in -180..180, the box may cross 180."""

    name: str
    west: float
    south: float
    span_lon: float
    span_lat: float
    x_scale: float  # user units a degree
    y_scale: float

    @classmethod
    def planet(cls, width: float, height: float) -> Region:
        return cls("planet", -180.0, -90.0, 360.0, 180.0, width / 360, height / 180)

    @property
    def width(self) -> float:
        return round(self.span_lon * self.x_scale, 1)

    @property
    def height(self) -> float:
        return round(self.span_lat * self.y_scale, 1)

    @property
    def tile(self) -> float:
        """Side of a tile of the benchmark, user units; the smaller where it is no square."""
        return round(min(self.x_scale, self.y_scale) * geo.TILE_DEG, 2)

    def place(self, lonlat: Floats) -> Floats:
        """(m, 2) user units, y down, of those of (n, 2) degrees that lie inside."""
        x = np.mod(lonlat[:, 0] - self.west, 360.0)
        x = np.where((x == 0) & (lonlat[:, 0] > self.west), 360.0, x)
        y = self.south + self.span_lat - lonlat[:, 1]
        inside = (x <= self.span_lon) & (y >= 0) & (y <= self.span_lat)
        placed: Floats = np.column_stack([x * self.x_scale, y * self.y_scale])[inside]
        return placed


def regions_of(lonlat: Floats) -> list[Region]:
    """Groups of neighbouring quads that hold any of (n, 2) positions in degrees, from north to
    south; none where they are many or wide, so that the planet shows them well enough."""
    known = lonlat[np.isfinite(lonlat).all(axis=1)]
    column = np.floor((geo.wrap_lon(known[:, 0]) + 180) / geo.QUAD_DEG).astype(int) % _COLUMNS
    row = np.floor(known[:, 1] / geo.QUAD_DEG).astype(int)
    groups = _neighbours(set(zip(column.tolist(), row.tolist(), strict=True)))
    if not 0 < len(groups) <= _MOST:
        return []
    regions = [_region(group) for group in groups]
    if any(max(each.span_lon, each.span_lat) > _WIDEST for each in regions):
        return []
    return sorted(regions, key=lambda each: (-each.south, each.west))


def _neighbours(cells: set[Cell]) -> list[set[Cell]]:
    """Cells that touch, corners included; column 0 touches the last."""
    groups = []
    while cells:
        group, edge = set(), [cells.pop()]
        while edge:
            x, y = edge.pop()
            group.add((x, y))
            around = {((x + dx) % _COLUMNS, y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)}
            edge += around & cells
            cells -= around
        groups.append(group)
    return groups


def _region(cells: Iterable[Cell]) -> Region:
    cells = list(cells)
    rows = [row for _, row in cells]
    columns = sorted({column for column, _ in cells})
    # The box begins behind the widest gap, which may be anywhere around the planet.
    gaps = np.diff([*columns, columns[0] + _COLUMNS])
    first = columns[(int(np.argmax(gaps)) + 1) % len(columns)]
    span_lon = float((_COLUMNS - int(gaps.max()) + 1) * geo.QUAD_DEG)
    south = float(min(rows) * geo.QUAD_DEG)
    span_lat = float((max(rows) - min(rows) + 1) * geo.QUAD_DEG)
    west = float(first * geo.QUAD_DEG - 180)
    squeeze = max(float(np.cos(np.radians(south + span_lat / 2))), 0.2)
    scale = min(_FRAME[0] / (span_lon * squeeze), _FRAME[1] / span_lat)
    name = _named(west, south, span_lon, span_lat)
    return Region(name, west, south, span_lon, span_lat, scale * squeeze, scale)


def _named(west: float, south: float, span_lon: float, span_lat: float) -> str:
    east = float(geo.wrap_lon(west + span_lon))
    return f"{_lon(west)} to {_lon(east)}, {_lat(south)} to {_lat(south + span_lat)}"


def _lon(degrees: float) -> str:
    degrees = 180.0 if abs(degrees) == 180 else degrees
    return f"{abs(degrees):g}°" + ("" if degrees in (0, 180) else "E" if degrees > 0 else "W")


def _lat(degrees: float) -> str:
    return f"{abs(degrees):g}°" + ("" if degrees == 0 else "N" if degrees > 0 else "S")
