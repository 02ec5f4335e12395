"""Positions of a table's rows: known names of columns, west longitudes, rows without a position."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets.position_fields import LAT_NAMES, LON_NAMES
from marsretrieval.datasets.tables import Table, is_units_row, listed, parse_number
from marsretrieval.errors import TableError

# Normalized names (tables.normalize_name), the preferred ones first. Robbins (2012):
# LON_CIRC_IMG, LONGITUDE_CIRCLE_IMAGE. IAU gazetteer: Center_Longitude. JMARS: Lon_E, Lon_W.
_EAST = (
    *LON_NAMES, "long", "lon_e", "lon_east", "longitude_e", "longitude_east",
    "east_longitude", "longitude_east_positive", "positive_east_longitude", "e_lon", "elon",
    "lone", "center_longitude", "centre_longitude", "central_longitude", "center_lon",
    "centre_lon", "center_long", "centre_long", "clon", "lon_center", "lon_centre",
    "longitude_center", "longitude_centre", "center_lon_e", "center_longitude_e", "mean_lon",
    "lon_mean", "lon_180", "lon180", "lon_360", "lon360", "lon_e_180", "lon_e_360", "lone180",
    "lone360", "lon_e180", "lon_e360", "longitude_180", "longitude_360", "lon_domain_180",
    "lon_domain_360", "lon_circ_img", "longitude_circle_image", "lon_elli_img",
    "longitude_ellipse_image", "lon_circ", "lon_coord", "centroid_lon", "lon_centroid",
    "tile_lon", "lon_c",
)  # fmt: skip
_WEST = (
    "lon_w", "lon_west", "longitude_w", "longitude_west", "west_longitude", "w_lon", "wlon",
    "lonw", "w_long", "w_longitude", "longitude_west_positive", "positive_west_longitude",
    "lon_positive_west", "center_lon_w", "center_longitude_w",
)  # fmt: skip
_LAT = (
    *LAT_NAMES, "lat_n", "lat_north", "latitude_n", "latitude_north", "north_latitude",
    "n_lat", "nlat", "latn", "center_latitude", "centre_latitude", "central_latitude",
    "center_lat", "centre_lat", "clat", "lat_center", "lat_centre", "latitude_center",
    "latitude_centre", "mean_lat", "lat_mean", "lat_circ_img", "latitude_circle_image",
    "lat_elli_img", "latitude_ellipse_image", "lat_circ", "lat_coord", "centroid_lat",
    "lat_centroid", "tile_lat", "lat_c",
)  # fmt: skip
_PLANE = (("x", "point_x", "xcoord", "x_coord"), ("y", "point_y", "ycoord", "y_coord"))
# Where both stand in one table, they are the edges of a box and not its centre.
_EDGES = (("lat_s", "latitude_s", "lat_south"), ("lat_n", "latitude_n", "lat_north"))
_NO_DATA = {-999.0, -9999.0, -99999.0}


@dataclass(frozen=True, slots=True)
class PositionColumns:
    """Columns that hold positions, chosen by the user; None: found by their names.

    Attributes:
        lon: Name of the column of longitudes.
        lat: Name of the column of latitudes.
        west: Whether longitudes are positive to the west; None: as the name of the column says.
    """

    lon: str | None = None
    lat: str | None = None
    west: bool | None = None

    @property
    def is_default(self) -> bool:
        """Whether nothing is chosen."""
        return self == PositionColumns()


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """Positions of the rows of a table.

    Attributes:
        lon: East-positive degrees as written, or wrapped to -180..180 where the file counts to
            the west; shape (n,), NaN where there is none.
        lat: Degrees, shape (n,), NaN where there is none.
        rows: Numbers of the table's rows, without its units row; shape (n,).
        columns: Names of the columns, or ("geometry",).
        west: Whether the file's longitudes are positive to the west.
        decimals: Digits after the decimal point, the median over the values.
        notes: Sentences about what was assumed.
    """

    lon: npt.NDArray[np.float64]
    lat: npt.NDArray[np.float64]
    rows: npt.NDArray[np.int64]
    columns: tuple[str, ...]
    west: bool
    decimals: float
    notes: tuple[str, ...]


def read_positions(table: Table, choice: PositionColumns | None = None) -> Positions:
    """Find the positions of a table's rows.

    Args:
        table: Rows of a file.
        choice: Columns that the user named.

    Returns:
        Positions; NaN in the rows without one.

    Raises:
        TableError: If there are no such columns, or a value is not a position.
    """
    choice = choice or PositionColumns()
    west_name = False
    chosen = choice.lon is not None or choice.lat is not None
    if chosen:
        lon = None if choice.lon is None else table.require(choice.lon, "--lon-column")
        lat = None if choice.lat is None else table.require(choice.lat, "--lat-column")
        if lon is None:
            lon, west_name = _lon_column(table)
        lat = _lat_column(table) if lat is None else lat
        west_name = west_name or table.normalized(lon) in _WEST
    elif table.geometry is not None and not has_positions(table):
        return _from_geometry(table, choice)
    else:
        lon, west_name = _lon_column(table)
        lat = _lat_column(table)
    if lon == lat:
        raise TableError(
            f"{table.path}: longitude and latitude are both from '{table.header[lon]}'",
            remedy="Name two columns with --lon-column and --lat-column.",
        )
    first = 0
    while first < len(table.rows) and is_units_row(
        [table.rows[first][lon], table.rows[first][lat]]
    ):
        first += 1
    names = (table.header[lon].strip(), table.header[lat].strip())
    notes = []
    if first:
        notes.append(f"{table.path}: {listed(table.labels[:first])} holds units, left out")
    comment_west = any(
        re.search(r"longitudes?\s*[=:]\s*(positive\s*)?west", comment, re.IGNORECASE)
        for comment in table.comments
    )
    west = choice.west if choice.west is not None else west_name or comment_west
    if west:
        notes.append(f"{table.path}: longitudes of '{names[0]}' are taken as positive to the west")
    elif {table.normalized(lon), table.normalized(lat)} - {*LON_NAMES, *LAT_NAMES}:
        notes.append(f"{table.path}: positions are read from {names[0]} and {names[1]}")
    values = [
        _position(table, row, lon, lat, planar=table.normalized(lon) in _PLANE[0])
        for row in range(first, len(table.rows))
    ]
    array = np.array(values, np.float64).reshape(-1, 2)
    written = [table.rows[row][lon] for row in range(first, len(table.rows))]
    positions = Positions(
        lon=np.round(geo.wrap_lon(-array[:, 0]), 9) if west else array[:, 0],
        lat=array[:, 1],
        rows=np.arange(first, len(table.rows)),
        columns=names,
        west=west,
        decimals=_decimals(written),
        notes=tuple(notes),
    )
    if table.geometry is not None:
        positions = _against_geometry(table, positions)
    return positions


class TileCoverage:
    """The part of the planet in which a point has a tile near it."""

    def __init__(self, tiles: npt.NDArray[np.float64], radius_deg: float) -> None:
        """Index the tiles.

        Args:
            tiles: Centres, shape (n, 2), degrees; rows of NaN are passed over.
            radius_deg: Largest distance of a point from a tile's centre, an arc in degrees.
        """
        from scipy.spatial import cKDTree

        self.radius_deg = radius_deg
        known = tiles[np.isfinite(tiles).all(axis=1)]
        self._chord = 2 * np.sin(np.radians(radius_deg) / 2)
        self._tree = cKDTree(geo.unit_vectors(known[:, 0], known[:, 1])) if len(known) else None

    def contains(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which of n points have a tile within the radius, shape (n,)."""
        points = geo.unit_vectors(lon, lat)
        if self._tree is None or not len(points):
            return np.zeros(len(points), np.bool_)
        distance, _ = self._tree.query(points)
        near: npt.NDArray[np.bool_] = np.asarray(distance) <= self._chord
        return near


def suspicions(path: object, positions: Positions, coverage: TileCoverage) -> list[str]:
    """Warnings about positions that are probably not what they are taken for.

    Args:
        path: The file, for the messages.
        positions: Positions of a catalogue.
        coverage: The tiles that the points are compared with.

    Returns:
        Sentences about west-positive longitudes, swapped columns or radians; none for positions
        of which most lie near a tile.
    """
    known = np.isfinite(positions.lon) & np.isfinite(positions.lat)
    lon, lat = positions.lon[known], positions.lat[known]
    total = len(lon)
    now = int(coverage.contains(lon, lat).sum())
    if not total or now > total / 2:
        return []
    warnings = []

    def suspect(what: str, count: int, remedy: str) -> None:
        warnings.append(
            f"{path}: {what}: {count:,} of {total:,} points would then lie within the tiles' "
            f"coverage, {now:,} do as read. {remedy}"
        )

    mirrored = int(coverage.contains(-lon, lat).sum())
    if mirrored > max(2 * now, total / 2):
        suspect(
            "longitudes may be positive to the " + ("east" if positions.west else "west"),
            mirrored,
            "Use --lon-east." if positions.west else "Use --lon-west.",
        )
    if np.abs(lon).max() <= 90:
        swapped = int(coverage.contains(lat, lon).sum())
        if swapped > max(2 * now, total / 2):
            suspect(
                "longitude and latitude may be swapped",
                swapped,
                "Name the columns with --lon-column and --lat-column.",
            )
    small = np.abs(lon).max() <= 2 * np.pi + 1e-6 and np.abs(lat).max() <= np.pi / 2 + 1e-6
    if small and positions.decimals >= 4:
        warnings.append(
            f"{path}: longitudes and latitudes may be radians: none exceeds 2 pi and pi / 2. "
            "Convert them to degrees."
        )
    return warnings


def coverage_line(name: object, covered: int, points: int, radius_deg: float) -> str:
    """The sentence about a catalogue's points and the tiles' coverage."""
    return (
        f"{name}: {covered:,} of {points:,} points lie within the tiles' coverage "
        f"({radius_deg:g} degrees of a tile's centre)"
    )


def _lon_column(table: Table) -> tuple[int, bool]:
    """Number of the column, and whether its name says that it counts to the west."""
    edges = all(table.index(names) is not None for names in _EDGES)
    east = [name for name in _EAST if not (edges and name in ("lon_e", "lon_east", "longitude_e"))]
    number = table.index(east)
    if number is not None:
        return number, False
    number = None if edges else table.index(_WEST)
    if number is not None:
        return number, True
    number = table.index(_PLANE[0])
    if number is None:
        raise _no_column(table, "lon")
    return number, False


def _lat_column(table: Table) -> int:
    edges = all(table.index(names) is not None for names in _EDGES)
    number = table.index([name for name in _LAT if not (edges and name in _EDGES[1])])
    if number is None:
        number = table.index(_PLANE[1])
    if number is None:
        raise _no_column(table, "lat")
    return number


def has_positions(table: Table) -> bool:
    """Whether columns of degrees are known by their names."""
    try:
        return table.index(_EAST) is not None and table.index(_LAT) is not None
    except TableError:
        return False


def _no_column(table: Table, name: str) -> TableError:
    return TableError(
        f"{table.path}: no column '{name}' (there are: {table.columns()})",
        remedy="The first line names the columns; lon and lat are needed, in degrees. Name "
        "others with --lon-column and --lat-column.",
    )


def _position(
    table: Table, row: int, lon_column: int, lat_column: int, *, planar: bool
) -> tuple[float, float]:
    cells = (table.rows[row][lon_column], table.rows[row][lat_column])
    where = f"{table.path}: {table.labels[row]}"
    try:
        lon, lat = map(parse_number, cells)
    except (TypeError, ValueError) as error:
        shown = ", ".join(str(value)[:60] for value in cells)
        raise TableError(
            f"{where}: no numbers in lon and lat: {shown}",
            remedy="Positions are decimal degrees. Correct the row or take it out.",
        ) from error
    lon, lat = (np.nan if value is None or value in _NO_DATA else value for value in (lon, lat))
    if not (np.isnan(lon) or -180 <= lon <= 360):
        remedy = "Longitudes are degrees, -180..180 or 0..360, or 0..360 west with --lon-west."
        if -360 <= lon < -180:
            remedy = "Add 360 to longitudes below -180."
        elif planar or abs(lon) > 1000:
            remedy = "Are they metres? Convert them to degrees, or name columns with --lon-column."
        raise TableError(f"{where}: longitude {lon} is not within -180..360", remedy=remedy)
    if not (np.isnan(lat) or -90 <= lat <= 90):
        remedy = "Latitudes are degrees north."
        if abs(lon) <= 90 and abs(lat) <= 360:
            remedy = "Are the columns swapped? Name them with --lon-column and --lat-column."
        raise TableError(f"{where}: latitude {lat} is not within -90..90", remedy=remedy)
    return lon, lat


def _decimals(values: list[Any]) -> float:
    digits = [
        len(re.sub(r"[eE].*", "", str(value).strip()).replace(",", ".").partition(".")[2])
        for value in values
        if value not in (None, "")
    ]
    return float(np.median(digits)) if digits else 0.0


def _from_geometry(table: Table, choice: PositionColumns) -> Positions:
    assert table.geometry is not None
    lon, lat = table.geometry.T
    wrong = np.flatnonzero((lon < -180) | (lon > 360) | (np.abs(lat) > 90))
    if wrong.size:
        row = int(wrong[0])
        raise TableError(
            f"{table.path}: {table.labels[row]} lies at {lon[row]:g}, {lat[row]:g}, which are no "
            "degrees",
            remedy="Export it in longitude and latitude (IAU_2015:49900), not in metres.",
        )
    west = bool(choice.west)
    return Positions(
        lon=np.round(geo.wrap_lon(-lon), 9) if west else lon,
        lat=lat,
        rows=np.arange(len(lon)),
        columns=("geometry",),
        west=west,
        decimals=_decimals(lon[np.isfinite(lon)].tolist()),
        notes=(),
    )


def _against_geometry(table: Table, positions: Positions) -> Positions:
    """Name a contradiction between the columns and the geometries."""
    assert table.geometry is not None
    shapes = table.geometry[positions.rows]
    known = np.isfinite(shapes).all(axis=1) & np.isfinite(positions.lon)
    if not known.any():
        return positions
    distance = geo.great_circle_deg(
        positions.lon[known], positions.lat[known], shapes[known, 0], shapes[known, 1]
    )
    apart = int((distance > 0.1).sum())
    if not apart:
        return positions
    note = (
        f"{table.path}: {apart:,} of {int(known.sum()):,} positions in "
        f"{' and '.join(positions.columns)} differ from the geometries "
        f"(by up to {float(distance.max()):.1f} degrees); the columns count"
    )
    return replace(positions, notes=(*positions.notes, note))
