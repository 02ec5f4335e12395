"""Positions of table rows: column names, west longitudes and rows without a position."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets.position_fields import LAT_NAMES, LON_NAMES
from marsretrieval.datasets.tables import Table, is_units_row, parse_number
from marsretrieval.errors import TableError
from marsretrieval.text import format_degrees, list_some, pluralize, verb

# Normalized names (tables.normalize_name), in order of preference. Robbins (2012):
# LON_CIRC_IMG, LONGITUDE_CIRCLE_IMAGE. IAU gazetteer: Center_Longitude. JMARS: Lon_E, Lon_W.
_EAST_NAMES = (
    *LON_NAMES, "long", "lon_e", "lon_east", "longitude_e", "longitude_east",
    "east_longitude", "longitude_east_positive", "positive_east_longitude", "e_lon", "elon",
    "lone", "center_longitude", "centre_longitude", "central_longitude", "center_lon",
    "centre_lon", "center_long", "centre_long", "clon", "lon_center", "lon_centre",
    "longitude_center", "longitude_centre", "center_lon_e", "center_longitude_e", "mean_lon",
    "lon_mean", "lon_180", "lon180", "lon_360", "lon360", "lon_e_180", "lon_e_360", "lone180",
    "lone360", "lon_e180", "lon_e360", "longitude_180", "longitude_360", "lon_domain_180",
    "lon_domain_360", "lon_circ_img", "longitude_circle_image", "lon_elli_img",
    "longitude_ellipse_image", "lon_circ", "lon_coord", "centroid_lon", "lon_centroid",
    "tile_lon", "lon_c", "image_center_longitude", "scene_center_longitude", "elong", "east_lon",
    "e_longitude", "lon_planetocentric_east", "lon_crater", "crater_lon", "lon_mid", "mid_lon",
    "lon_dec", "dec_lon", "longitude_dec", "decimallongitude", "lond", "lon_deg_e", "gcs_lon",
)  # fmt: skip
_WEST_NAMES = (
    "lon_w", "lon_west", "longitude_w", "longitude_west", "west_longitude", "w_lon", "wlon",
    "lonw", "w_long", "w_longitude", "longitude_west_positive", "positive_west_longitude",
    "lon_positive_west", "center_lon_w", "center_longitude_w",
)  # fmt: skip
_LAT_COLUMN_NAMES = (
    *LAT_NAMES, "lat_n", "lat_north", "latitude_n", "latitude_north", "north_latitude",
    "n_lat", "nlat", "latn", "center_latitude", "centre_latitude", "central_latitude",
    "center_lat", "centre_lat", "clat", "lat_center", "lat_centre", "latitude_center",
    "latitude_centre", "mean_lat", "lat_mean", "lat_circ_img", "latitude_circle_image",
    "lat_elli_img", "latitude_ellipse_image", "lat_circ", "lat_coord", "centroid_lat",
    "lat_centroid", "tile_lat", "lat_c", "image_center_latitude", "scene_center_latitude",
    "north_lat", "n_latitude", "lat_crater", "crater_lat", "lat_mid", "mid_lat", "lat_dec",
    "dec_lat", "latitude_dec", "decimallatitude", "latd", "gcs_lat",
)  # fmt: skip
_PLANAR_NAMES = (("x", "point_x", "xcoord", "x_coord"), ("y", "point_y", "ycoord", "y_coord"))
# If a table has both, they are the edges of a box, not its centre.
_EDGE_NAMES = (("lat_s", "latitude_s", "lat_south"), ("lat_n", "latitude_n", "lat_north"))
# Feature names in order of preference, then ids.
_NAME_NAMES = (
    "name", "feature_name", "clean_feature_name", "clean_name", "crater_name", "landform_name",
    "title", "label", "crater_id", "feature_id", "object_id", "id", "code", "identifier", "fid",
    "patch_id", "image_name", "image_id", "tile_id", "observation_id", "product_id",
)  # fmt: skip
_BODY_NAMES = ("target", "target_name", "body", "planet")
_OTHER_BODIES = {
    "earth", "moon", "mercury", "venus", "phobos", "deimos", "jupiter", "io", "europa", "ganymede",
    "callisto", "saturn", "titan", "enceladus", "ceres", "vesta", "pluto", "charon",
}  # fmt: skip
_MAX_SAMPLED = 10_000  # values whose decimals are counted
_MAX_INVALID_SHARE = 0.5
_MAX_SWAPPED_SHARE = 0.25  # of swapped positions all over the planet, half are out of range
_NODATA_VALUES = {-999.0, -9999.0, -99999.0}


@dataclass(frozen=True, slots=True)
class PositionColumns:
    """Columns and layer that the user selects; None: detect them by their names.

    Attributes:
        lon: Name of the column of longitudes.
        lat: Name of the column of latitudes.
        west: Longitudes are positive to the west; None: derive it from the column's name.
        name: Name of the column of feature names.
        layer: Name of the layer of a file that has several.
    """

    lon: str | None = None
    lat: str | None = None
    west: bool | None = None
    name: str | None = None
    layer: str | None = None

    @property
    def is_default(self) -> bool:
        """True if nothing is selected."""
        return self == PositionColumns()


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """Positions of the rows of a table.

    Attributes:
        lon: Degrees, east positive: as written, or wrapped to -180..180 if the file has
            west-positive longitudes; shape (n,), NaN if missing.
        lat: Degrees, shape (n,), NaN if missing.
        rows: Numbers of the table's rows, without its units row; shape (n,).
        columns: Names of the columns, or ("geometry",).
        west: The file has west-positive longitudes.
        decimals: Digits after the decimal point, the median over the longitudes.
        notes: Sentences about what was assumed.
        invalid: Numbers of the table's rows that are out of range, and so have no position here.
    """

    lon: npt.NDArray[np.float64]
    lat: npt.NDArray[np.float64]
    rows: npt.NDArray[np.int64]
    columns: tuple[str, ...]
    west: bool
    decimals: float
    notes: tuple[str, ...]
    invalid: tuple[int, ...] = ()


def read_positions(
    table: Table, choice: PositionColumns | None = None, *, skip_invalid: bool = False
) -> Positions:
    """Read the positions of a table's rows.

    Args:
        table: Rows of a file.
        choice: Columns that the user selected.
        skip_invalid: Give a minority of rows out of range no position instead of an error.

    Returns:
        Positions; NaN in rows without one.

    Raises:
        TableError: If the columns are missing, a value is not a number, or a position (with
            `skip_invalid`: most positions) is out of range.
    """
    choice = choice or PositionColumns()
    west_name = False
    is_chosen = choice.lon is not None or choice.lat is not None
    if is_chosen:
        lon = None if choice.lon is None else table.require(choice.lon, "--lon-column")
        lat = None if choice.lat is None else table.require(choice.lat, "--lat-column")
        if lon is None:
            lon, west_name = _lon_column(table)
        lat = _lat_column(table) if lat is None else lat
        west_name = west_name or table.normalized(lon) in _WEST_NAMES
    elif table.geometry is not None and not has_positions(table):
        return _positions_from_geometry(table, choice, skip_invalid)
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
        notes.append(f"{table.path}: {list_some(table.labels[:first])} holds units, left out")
    comment_west = any(
        re.search(r"longitudes?\s*[=:]\s*(positive\s*)?west", comment, re.IGNORECASE)
        for comment in table.comments
    )
    west = choice.west if choice.west is not None else west_name or comment_west
    if west:
        notes.append(f"{table.path}: longitudes of '{names[0]}' are read as positive to the west")
    elif {table.normalized(lon), table.normalized(lat)} - {*LON_NAMES, *LAT_NAMES}:
        notes.append(f"{table.path}: positions are read from {names[0]} and {names[1]}")
    values = [_parse_row(table, row, lon, lat) for row in range(first, len(table.rows))]
    array = np.array(values, np.float64).reshape(-1, 2)
    is_outside = (array[:, 0] < -180) | (array[:, 0] > 360) | (np.abs(array[:, 1]) > 90)
    invalid = np.flatnonzero(is_outside)
    if invalid.size:
        planar = table.normalized(lon) in _PLANAR_NAMES[0]
        error = _range_error(table, first + int(invalid[0]), *array[invalid[0]], planar=planar)
        if not skip_invalid:
            raise error
        _check_invalid(table, array, len(invalid), error)
        array[invalid] = np.nan
    lon_values = [table.rows[row][lon] for row in range(first, len(table.rows))]
    positions = Positions(
        lon=np.round(geo.wrap_lon(-array[:, 0]), 9) if west else array[:, 0],
        lat=array[:, 1],
        rows=np.arange(first, len(table.rows)),
        columns=names,
        west=west,
        decimals=_median_decimals(lon_values),
        notes=tuple(notes),
        invalid=tuple((invalid + first).tolist()),
    )
    if table.geometry is not None:
        positions = _compare_with_geometry(table, positions)
    return positions


def read_names(table: Table, rows: npt.NDArray[np.int64], column: str | None) -> list[str]:
    """Read the names of features.

    Args:
        table: Rows of a file.
        rows: Numbers of rows.
        column: Name of the column; None: detect columns of names and ids by their names.

    Returns:
        One name per row: the first value that is not empty, or the row's label ("line 3").

    Raises:
        TableError: If there is no column `column`.
    """
    if column is not None:
        columns = [table.require(column, "--name-column")]
    else:
        names = [table.normalized(number) for number in range(len(table.header))]
        columns = [names.index(name) for name in _NAME_NAMES if name in names]
    return [
        next(
            (
                text
                for number in columns
                if (text := " ".join(str(table.rows[row][number] or "").split()))
            ),
            table.labels[row],
        )
        for row in rows.tolist()
    ]


def on_other_bodies(table: Table, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Check which rows name another body than Mars, as gazetteers of all planets do.

    Args:
        table: Rows of a file.
        rows: Numbers of rows.

    Returns:
        Booleans, one per row; False without a column of bodies.
    """
    names = [table.normalized(number) for number in range(len(table.header))]
    number = next((names.index(name) for name in _BODY_NAMES if name in names), None)
    if number is None:
        return np.zeros(len(rows), np.bool_)
    return np.array(
        [str(table.rows[row][number]).strip().lower() in _OTHER_BODIES for row in rows.tolist()],
        np.bool_,
    )


def has_positions(table: Table) -> bool:
    """Check for longitude and latitude columns with known names.

    Args:
        table: Rows of a file.

    Returns:
        True if both exist and neither name occurs twice.
    """
    try:
        return table.index(_EAST_NAMES) is not None and table.index(_LAT_COLUMN_NAMES) is not None
    except TableError:
        return False


class TileCoverage:
    """The area within a given distance of the tiles' centres.

    Attributes:
        radius_deg: Largest distance from a tile's centre, an arc in degrees.
    """

    def __init__(self, tiles: npt.NDArray[np.float64], radius_deg: float) -> None:
        """Index the tiles.

        Args:
            tiles: Centres, shape (n, 2), degrees; rows of NaN are ignored.
            radius_deg: Largest distance of a point from a tile's centre, an arc in degrees.
        """
        from scipy.spatial import cKDTree

        self.radius_deg = radius_deg
        centres = tiles[np.isfinite(tiles).all(axis=1)]
        self._chord = 2 * np.sin(np.radians(radius_deg) / 2)
        self._tree = (
            cKDTree(geo.unit_vectors(centres[:, 0], centres[:, 1])) if len(centres) else None
        )

    def contains(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Check which points have a tile within the radius.

        Args:
            lon: Longitudes in degrees, shape (n,).
            lat: Latitudes in degrees, shape (n,).

        Returns:
            Booleans of shape (n,).
        """
        points = geo.unit_vectors(lon, lat)
        if self._tree is None or not len(points):
            return np.zeros(len(points), np.bool_)
        distance, _ = self._tree.query(points)
        near: npt.NDArray[np.bool_] = np.asarray(distance) <= self._chord
        return near


def suspicions(path: object, positions: Positions, coverage: TileCoverage) -> list[str]:
    """Detect positions that are probably misread.

    Args:
        path: The file, for the messages.
        positions: Positions of a catalogue.
        coverage: The tiles that the points are compared with.

    Returns:
        Warnings about west-positive longitudes, swapped columns or radians; empty if most
        positions lie near a tile.
    """
    is_valid = np.isfinite(positions.lon) & np.isfinite(positions.lat)
    lon, lat = positions.lon[is_valid], positions.lat[is_valid]
    total = len(lon)
    covered = int(coverage.contains(lon, lat).sum())
    if not total or covered > total / 2:
        return []
    warnings = []

    def suspect(what: str, count: int, remedy: str) -> None:
        warnings.append(
            f"{path}: {what}: {count:,} of {pluralize(total, 'point')} would then lie within the "
            f"tiles' coverage, {covered:,} do as read. {remedy}"
        )

    mirrored_count = int(coverage.contains(-lon, lat).sum())
    if mirrored_count > max(2 * covered, total / 2):
        suspect(
            "longitudes may be positive to the " + ("east" if positions.west else "west"),
            mirrored_count,
            "Use --lon-east." if positions.west else "Use --lon-west.",
        )
    if np.abs(lon).max() <= 90:
        swapped_count = int(coverage.contains(lat, lon).sum())
        if swapped_count > max(2 * covered, total / 2):
            suspect(
                "longitude and latitude may be swapped",
                swapped_count,
                "Name the columns with --lon-column and --lat-column.",
            )
    may_be_radians = np.abs(lon).max() <= 2 * np.pi + 1e-6 and np.abs(lat).max() <= np.pi / 2 + 1e-6
    if may_be_radians and positions.decimals >= 4:
        warnings.append(
            f"{path}: longitudes and latitudes may be radians: none exceeds 2 pi and pi / 2. "
            "Convert them to degrees."
        )
    return warnings


def coverage_line(name: object, covered: int, points: int, radius_deg: float) -> str:
    """Format how many points of a catalogue lie within the tiles' coverage.

    Args:
        name: Name of the catalogue.
        covered: Points within the coverage.
        points: All points.
        radius_deg: Radius of the coverage in degrees.

    Returns:
        One line.
    """
    return (
        f"{name}: {covered:,} of {pluralize(points, 'point')} {verb(covered, 'lies', 'lie')} "
        f"within the tiles' coverage ({format_degrees(radius_deg)} of a tile's centre)"
    )


def _lon_column(table: Table) -> tuple[int, bool]:
    """Return the number of the column, and whether its name says it is west-positive."""
    edges = all(table.index(names) is not None for names in _EDGE_NAMES)
    east = [
        name for name in _EAST_NAMES if not (edges and name in ("lon_e", "lon_east", "longitude_e"))
    ]
    number = table.index(east)
    if number is not None:
        return number, False
    number = None if edges else table.index(_WEST_NAMES)
    if number is not None:
        return number, True
    number = table.index(_PLANAR_NAMES[0])
    if number is None:
        raise _missing_column_error(table, "lon")
    return number, False


def _lat_column(table: Table) -> int:
    edges = all(table.index(names) is not None for names in _EDGE_NAMES)
    number = table.index(
        [name for name in _LAT_COLUMN_NAMES if not (edges and name in _EDGE_NAMES[1])]
    )
    if number is None:
        number = table.index(_PLANAR_NAMES[1])
    if number is None:
        raise _missing_column_error(table, "lat")
    return number


def _missing_column_error(table: Table, name: str) -> TableError:
    return TableError(
        f"{table.path}: no column '{name}' (columns: {table.columns()})",
        remedy="The first line names the columns; lon and lat are needed, in degrees. Name "
        "others with --lon-column and --lat-column.",
    )


def _parse_row(table: Table, row: int, lon_column: int, lat_column: int) -> tuple[float, float]:
    cells = (table.rows[row][lon_column], table.rows[row][lat_column])
    try:
        lon, lat = map(parse_number, cells)
    except (TypeError, ValueError) as error:
        cell_text = ", ".join(str(value)[:60] for value in cells)
        raise TableError(
            f"{table.path}: {table.labels[row]}: no numbers in lon and lat: {cell_text}",
            remedy="Positions are decimal degrees. Correct or remove the row.",
        ) from error
    return (
        math.nan if lon is None or lon in _NODATA_VALUES else lon,
        math.nan if lat is None or lat in _NODATA_VALUES else lat,
    )


def _range_error(table: Table, row: int, lon: float, lat: float, *, planar: bool) -> TableError:
    """Make the error for a position out of range."""
    where = f"{table.path}: {table.labels[row]}"
    if not (np.isnan(lon) or -180 <= lon <= 360):
        remedy = "Longitudes are degrees, -180..180 or 0..360, or 0..360 west with --lon-west."
        if -360 <= lon < -180:
            remedy = "Add 360 to longitudes below -180."
        elif planar or abs(lon) > 1000:
            remedy = (
                "If they are metres, convert them to degrees, or name other columns with "
                "--lon-column."
            )
        return TableError(f"{where}: longitude {lon} is not within -180..360", remedy=remedy)
    remedy = "Latitudes are degrees north."
    if abs(lon) <= 90 and abs(lat) <= 360:
        remedy = "If the columns are swapped, name them with --lon-column and --lat-column."
    return TableError(f"{where}: latitude {lat} is not within -90..90", remedy=remedy)


def _check_invalid(
    table: Table, positions: npt.NDArray[np.float64], count: int, first: TableError
) -> None:
    """Raise TableError if so many rows are out of range that the file is misread."""
    lon, lat = positions[~np.isnan(positions).any(axis=1)].T
    total = len(lon)
    swaps_fit = bool((np.abs(lon) <= 90).all() and (lat >= -180).all() and (lat <= 360).all())
    limit = _MAX_SWAPPED_SHARE if swaps_fit and count > 1 else _MAX_INVALID_SHARE
    if count < limit * total:
        return
    if count == 1:
        raise first
    message = first.message.removeprefix(f"{table.path}: ")
    raise TableError(
        f"{table.path}: {count:,} of {total:,} positions are out of range: {message}",
        remedy=first.remedy,
    )


def _median_decimals(values: list[Any]) -> float:
    digits = [
        len(re.sub(r"[eE].*", "", str(value).strip()).replace(",", ".").partition(".")[2])
        for value in values[:: len(values) // _MAX_SAMPLED + 1]
        if value not in (None, "")
    ]
    return float(np.median(digits)) if digits else 0.0


def _positions_from_geometry(
    table: Table, choice: PositionColumns, skip_invalid: bool
) -> Positions:
    assert table.geometry is not None
    lon, lat = table.geometry.T.copy()
    invalid = np.flatnonzero((lon < -180) | (lon > 360) | (np.abs(lat) > 90))
    total = int(np.isfinite(lon).sum())
    if invalid.size and (not skip_invalid or invalid.size >= total * _MAX_INVALID_SHARE):
        row = int(invalid[0])
        raise TableError(
            f"{table.path}: {table.labels[row]} lies at {lon[row]:g}, {lat[row]:g}, not degrees",
            remedy="Assign the reference system that its coordinates are in, or export it in "
            "longitude and latitude (IAU_2015:49900).",
        )
    lon[invalid], lat[invalid] = np.nan, np.nan
    west = bool(choice.west)
    return Positions(
        lon=np.round(geo.wrap_lon(-lon), 9) if west else lon,
        lat=lat,
        rows=np.arange(len(lon)),
        columns=("geometry",),
        west=west,
        decimals=_median_decimals(lon[np.isfinite(lon)].tolist()),
        notes=(),
        invalid=tuple(invalid.tolist()),
    )


def _compare_with_geometry(table: Table, positions: Positions) -> Positions:
    """Add a note if the columns and the geometries differ."""
    assert table.geometry is not None
    shapes = table.geometry[positions.rows]
    comparable = np.isfinite(shapes).all(axis=1) & np.isfinite(positions.lon)
    if not comparable.any():
        return positions
    distance = geo.great_circle_deg(
        positions.lon[comparable],
        positions.lat[comparable],
        shapes[comparable, 0],
        shapes[comparable, 1],
    )
    differing = int((distance > 0.1).sum())
    if not differing:
        return positions
    note = (
        f"{table.path}: {differing:,} of {int(comparable.sum()):,} positions in "
        f"{' and '.join(positions.columns)} differ from the geometries "
        f"(by up to {float(distance.max()):.1f} degrees); the columns are used"
    )
    return replace(positions, notes=(*positions.notes, note))
