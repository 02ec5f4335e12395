"""Read tables: catalogues of points, and predictions.

The delimiter, encoding and decimal sign of text files are detected. Comment lines, units rows and
rows of another width are reported. `vector_files` reads GIS files and Parquet.
"""

from __future__ import annotations

import csv
import io
import math
import re
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError, DatasetNotFoundError, TableError
from marsretrieval.geo import MARS_RADIUS_M, vector_files
from marsretrieval.geo.crs import coordinate_system
from marsretrieval.io import read_json
from marsretrieval.text import list_some, pluralize, suggest_path

_EXPORT_REMEDY = "Export it again as GeoPackage, GeoJSON or CSV."
_MAX_BYTES = 1 << 30
_DECIMALS = 10  # of converted degrees; 1e-10 degrees are 6 micrometres
_DELIMITERS = ",;\t|"
_MISSING_VALUES = {"", "-", "--", "---", "na", "n/a", "nan", "null", "none", "?", "nodata"}
_DEGREE_UNITS = {
    "deg", "degs", "degree", "degrees", "decdeg", "decimal degrees", "decimal degree", "dd",
    "dege", "degn", "deg e", "deg n", "degree e", "degree n", "degrees e", "degrees n",
    "degrees east", "degrees north", "deg east", "deg north", "degrees_east", "degrees_north",
    "e", "n", "east", "north",
}  # fmt: skip
# JMARS writes types behind names: "Lon:real".
_FIELD_TYPE = re.compile(r":\s*(?:real|string|integer|int|float|double|boolean)\s*$", re.IGNORECASE)
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?:°|deg)?\s*([NSEWnsew]?)")


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows of a file, all as wide as the header.

    Attributes:
        path: The file.
        header: Names of the columns as written.
        rows: Values as written; text, or typed values if the format has types.
        labels: Name of each row in messages: "line 3", "feature 5".
        notes: Sentences about what was left out or assumed while reading.
        comments: Comment lines of a text file, without the comment sign.
        geometry: Positions from the geometries in degrees on the sphere of Mars, shape (n, 2),
            NaN if missing.
    """

    path: Path
    header: list[str]
    rows: list[list[Any]]
    labels: Sequence[str]
    notes: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()
    geometry: npt.NDArray[np.float64] | None = None
    _names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_names", [normalize_name(name) for name in self.header])

    def index(self, names: Sequence[str]) -> int | None:
        """Return the number of the first column that has one of the names.

        Args:
            names: Normalized names (`normalize_name`), the preferred one first.

        Returns:
            The column's number, or None.

        Raises:
            TableError: If two columns have that name.
        """
        for name in names:
            count = self._names.count(name)
            if count > 1:
                raise TableError(
                    f"{self.path}: {count} columns are named '{name}'",
                    remedy="Rename all but one of them.",
                )
            if count:
                return self._names.index(name)
        return None

    def require(self, name: str, option: str) -> int:
        """Return the number of a column that the user named.

        Args:
            name: Name as written, or in any case and spelling that normalizes to the same name.
            option: Option with which to choose another column, for the message.

        Returns:
            The column's number.

        Raises:
            TableError: If there is no such column.
        """
        if self.header.count(name) == 1:
            return self.header.index(name)
        number = self.index([normalize_name(name)])
        if number is None:
            raise TableError(
                f"{self.path}: no column '{name}' (columns: {self.columns()})",
                remedy=f"Name one of these columns with {option}.",
            )
        return number

    def normalized(self, number: int) -> str:
        """Return the normalized name of a column.

        Args:
            number: Number of the column.

        Returns:
            The name.
        """
        return self._names[number]

    def columns(self) -> str:
        """List the names of the columns, for messages."""
        names = [name.strip() for name in self.header]
        return list_some([n if len(n) <= 60 else n[:57] + "..." for n in names], 40) or "none"


def read_table(
    path: str | Path, *, layer: str | None = None, layer_option: str = "--layer"
) -> Table:
    """Read a text table, GIS file or Parquet file; the extension selects the format.

    Args:
        path: .gpkg, .fgb, .shp, .zip (of Shapefiles) or .kml (extra `gis`), .geojson or .json,
            .parquet or .geoparquet; any other file is text with delimiters.
        layer: Name of the layer; needed only if the file has several.
        layer_option: Option that chooses the layer, for messages; empty: there is none.

    Returns:
        The table; without rows if the file has only a header.

    Raises:
        DatasetNotFoundError: If the file is missing.
        TableError: If it cannot be read, or it has several layers or not the named one.
        MissingDependencyError: If a GIS format needs the extra `gis`.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path}: no such file", remedy=suggest_path(path)) from error
    except (OSError, ValueError) as error:
        raise TableError(
            f"{path}: not readable ({error})",
            remedy="Check the path and the permissions of the file.",
        ) from error
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        raise TableError(
            f"{path}: not readable as a table (not a file)", remedy="Name a file of this folder."
        )

    suffix = path.suffix.lower()
    if suffix in vector_files.VECTOR_SUFFIXES:
        return _read_vector(path, layer, layer_option)
    if layer is not None:
        raise _as_table_error(vector_files.no_layers_error(path))
    return _read_geojson(path) if suffix in (".geojson", ".json") else _read_text(path)


def normalize_name(name: str) -> str:
    """Reduce a column's name to lower-case words joined by `_`, without units of degrees.

    Args:
        name: Name as written.

    Returns:
        The normalized name: `lon_e` for `Lon (°E)`, `LON_E` and `lon e [deg]`.
    """
    plain = unicodedata.normalize("NFKD", _FIELD_TYPE.sub("", name)).casefold()
    words = re.sub(r"[^a-z0-9]+", " ", plain).split()
    units = {"deg", "degs", "degree", "degrees", "dd", "decimal", "planetocentric", "ocentric"}
    return "_".join(word for word in words if word not in units) or "_".join(words)


def parse_number(value: Any) -> float | None:
    """Parse a number in one of the notations common in catalogues.

    Args:
        value: A number, or text: decimal point or comma, `137.4 E`, `4.6°S` (negative).

    Returns:
        The number, or None for a missing value (empty, `-`, `nan`, `N/A`).

    Raises:
        ValueError: If it is neither.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        number = float(value)
        return None if np.isnan(number) else number
    if "_" not in value:  # Python's digit separator
        try:
            number = float(value)
        except ValueError:
            pass
        else:
            return None if math.isnan(number) else number
    text = value.strip().replace("\N{MINUS SIGN}", "-")
    if text.lower() in _MISSING_VALUES:
        return None
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"not a number: {text!r}")
    number = float(match[1])
    return -number if match[2].upper() in ("S", "W") and match[2] else number


def is_units_row(values: Sequence[Any]) -> bool:
    """Check for a row of units ("deg", "°E") or a ruled line below the header.

    Args:
        values: Values in the position columns.

    Returns:
        True if all values are units of degrees or ruled lines.
    """
    texts = [re.sub(r"[\[\]()°]", " ", str(value)).strip().lower() for value in values]
    degree_signs = any("°" in str(value) for value in values)
    return all(
        text in _DEGREE_UNITS or (degree_signs and not text) or re.fullmatch(r"[-=]{4,}", text)
        for text in texts
    )


def _read_text(path: Path) -> Table:
    text, notes = _decode(path)
    previous = csv.field_size_limit(_MAX_BYTES)
    try:
        return _parse_text(path, text, notes)
    except csv.Error as error:
        raise TableError(
            f"{path}: not readable as CSV ({error})",
            remedy="Export the table again as CSV in UTF-8.",
        ) from error
    finally:
        csv.field_size_limit(previous)


def _parse_text(path: Path, text: str, notes: list[str]) -> Table:
    lines = io.StringIO(text, newline="").readlines()
    start, comments, delimiter = _parse_preamble(lines)
    if start < len(lines) or not comments:
        header, delimiter = _parse_header(lines[start] if start < len(lines) else "", delimiter)
    else:
        header = []
    if comments and _is_numeric(header):
        # The last comment line holds the names: "# lon lat".
        names, names_delimiter = _parse_header(comments[-1], None)
        if len(names) == len(header):
            header, comments, start = names, comments[:-1], start - 1
            delimiter = delimiter or names_delimiter
    rows: list[list[Any]] = []
    labels: list[str] = []
    comment_rows: list[str] = []
    body = io.StringIO("".join(lines[start + 1 :]), newline="")
    reader = csv.reader(body, delimiter=delimiter or ",", skipinitialspace=True)
    first_line = 0
    for row in reader:
        label = f"line {start + 1 + reader.line_num}"
        row_lines = lines[start + 1 + first_line : start + 1 + reader.line_num]
        first_line += len(row_lines)
        if first_line == len(lines) - start - 1 and _is_unclosed(row_lines, delimiter or ","):
            number = start + 2 + first_line - len(row_lines)
            raise TableError(
                f"{path}: line {number}: a quoted value is not closed, so the rest of the file "
                "would belong to it",
                remedy='Close the quote; write "" for a quote inside a quoted value.',
            )
        if not any(map(str.strip, row)):
            continue
        if row[0].lstrip().startswith("#") and len(row) != len(header):
            comment_rows.append(label)
            continue
        rows.append(_pad_row(path, label, row, header))
        labels.append(label)
    if comment_rows:
        notes.append(f"{path}: comments between the rows left out: {list_some(comment_rows)}")
    return Table(path, header, rows, labels, tuple(notes), tuple(comments))


def _is_unclosed(row_lines: list[str], delimiter: str) -> bool:
    """Check for a row of several lines whose last value lacks the closing quote."""
    if len(row_lines) < 2:
        return False
    try:
        list(csv.reader(row_lines, delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        return "unexpected end of data" in str(error)
    return False


def _decode(path: Path) -> tuple[str, list[str]]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise TableError(
            f"{path}: not readable as CSV ({error})",
            remedy="Export the table again as CSV in UTF-8.",
        ) from error
    if len(data) > _MAX_BYTES:
        raise TableError(
            f"{path}: larger than {_MAX_BYTES >> 20:,} MiB",
            remedy="Keep only the columns of names, positions and scores.",
        )
    head = data[:400]
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif head[1::2].count(0) > len(head) // 4 and not head[0::2].count(0):
        encoding = "utf-16-le"
    elif head[0::2].count(0) > len(head) // 4 and not head[1::2].count(0):
        encoding = "utf-16-be"
    else:
        encoding = "utf-8-sig"
    notes: list[str] = []
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig":
            raise TableError(
                f"{path}: not readable as CSV ({error})",
                remedy="Export the table again as CSV in UTF-8.",
            ) from error
        text = data.decode("latin-1")
        notes.append(f"{path}: not UTF-8, read as Latin-1")
    if "\0" in text:
        raise TableError(
            f"{path}: not readable as CSV (binary data)",
            remedy="Export it as CSV, GeoJSON or GeoPackage, with the extension of its format.",
        )
    return text, notes


def _parse_preamble(lines: list[str]) -> tuple[int, list[str], str | None]:
    """Return the number of lines before the header, their comments, and the `sep=` delimiter."""
    comments: list[str] = []
    delimiter = None
    for number, line in enumerate(lines):
        plain = line.strip()
        separator = re.fullmatch(r'"?sep=(.)"?', line.rstrip("\r\n"))
        if separator:
            delimiter = separator[1]
        elif plain.startswith("#"):
            comments.append(plain.lstrip("#").strip())
        elif plain:
            return number, comments, delimiter
    return len(lines), comments, delimiter


def _parse_header(line: str, delimiter: str | None) -> tuple[list[str], str | None]:
    """Return the names of the columns, and the delimiter that splits most of them."""
    if delimiter is None:
        counts = {sign: len(_split_line(line, sign)) for sign in _DELIMITERS}
        delimiter = max(_DELIMITERS, key=counts.__getitem__)
        if counts[delimiter] == 1:
            delimiter = " " if len(line.split()) > 1 else None
    names = _split_line(line.strip() if delimiter == " " else line, delimiter or ",")
    return [name.strip() for name in names], delimiter


def _split_line(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])


def _is_numeric(header: list[str]) -> bool:
    numbers = 0
    for name in header:
        try:
            numbers += parse_number(name) is not None
        except ValueError:
            continue
    return numbers >= 2


def _pad_row(path: Path, label: str, row: list[str], header: list[str]) -> list[Any]:
    """Pad or cut a row with empty values to the width of the header."""
    width = len(header)
    if len(row) == width:
        return row
    if any(map(str.strip, row[width:])):
        raise TableError(
            f"{path}: {label} has {pluralize(len(row), 'value')}, the header {width}: "
            f"{', '.join(row)[:80]}",
            remedy="Quote values that hold the delimiter; separate columns by ; if numbers "
            "have decimal commas.",
        )
    return [*row[:width], *[""] * (width - len(row))]


def _read_geojson(path: Path) -> Table:
    try:
        value = read_json(path)
    except TableError:
        raise
    except DataError as error:
        raise TableError(error.message, remedy=error.remedy or _EXPORT_REMEDY) from error
    features = value.get("features") if isinstance(value, dict) else None
    if not isinstance(features, list) or not all(isinstance(item, dict) for item in features):
        raise TableError(f"{path}: not a GeoJSON FeatureCollection", remedy=_EXPORT_REMEDY)
    records: list[dict[str, Any]] = []
    shapes = np.full(len(features), None, dtype=object)
    for number, feature in enumerate(features):
        properties = feature.get("properties")
        record = dict(properties) if isinstance(properties, dict) else {}
        if "id" in feature:
            record.setdefault("id", feature["id"])
        records.append(record)
        geometry = feature.get("geometry")
        if isinstance(geometry, dict):
            shapes[number] = _parse_geometry(path, number, geometry)
    header = list(dict.fromkeys(str(name) for record in records for name in record))
    rows = [[record.get(name) for name in header] for record in records]
    # RFC 7946 has degrees only; a member `crs` names another system.
    table = _make_table(path, header, rows, "feature")
    return _with_shapes(table, shapes, value.get("crs"), allow_earth=True)


def _parse_geometry(path: Path, number: int, geometry: dict[str, Any]) -> Any:
    import shapely
    import shapely.geometry

    is_point = geometry.get("type") == "Point"
    try:
        if is_point:
            x, y = geometry["coordinates"][:2]
            return shapely.Point(float(x), float(y))
        return shapely.geometry.shape(geometry)
    except Exception as error:  # shapely raises many classes of errors for invalid values
        problem = "invalid coordinates of a point" if is_point else f"invalid geometry ({error})"
        raise TableError(
            f"{path}: feature {number + 1}: {problem}", remedy=_EXPORT_REMEDY
        ) from error


def _read_vector(path: Path, layer_name: str | None, layer_option: str) -> Table:
    try:
        layer = vector_files.read_vector(path, layer=layer_name, layer_option=layer_option)
        shapes = None if layer.shapes is None else vector_files.parse_wkb(path, layer.shapes)
    except DataError as error:
        raise _as_table_error(error) from error
    suffix = path.suffix.lower()
    is_parquet = suffix in vector_files.PARQUET_SUFFIXES
    table = _make_table(path, layer.names, _layer_rows(layer), "row" if is_parquet else "feature")
    if shapes is None or (is_parquet and layer.crs is None and _positions_in_columns(table)):
        return table
    if layer.crs is None and len(shapes):
        note = f"{path}: no reference system; its coordinates are read as degrees of Mars"
        table = replace(table, notes=(*table.notes, note))
    return _with_shapes(table, shapes, layer.crs, allow_earth=suffix == ".kml")


def _with_shapes(
    table: Table, shapes: npt.NDArray[np.object_], crs: Any, *, allow_earth: bool
) -> Table:
    """Add the shapes' centroids to a table, converted to degrees on the sphere of Mars."""
    import shapely

    try:
        system = coordinate_system(crs, name=str(table.path), allow_earth=allow_earth)
    except DataError as error:
        raise _as_table_error(error) from error
    if system is None:
        return replace(table, geometry=_compute_centroids(shapes))

    def convert(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            degrees = np.column_stack(system.to_degrees(xy[:, 0], xy[:, 1]))
        degrees[~np.isfinite(degrees).all(axis=1)] = np.nan
        return np.round(degrees, _DECIMALS)  # degrees of another definition differ in the last bit

    if not system.is_projected:
        return replace(table, geometry=convert(_compute_centroids(shapes)))
    # Centroids of metres are right at the poles, those of degrees across the antimeridian.
    bounds = shapely.bounds(shapes)
    is_wide = bounds[:, 2] - bounds[:, 0] > np.pi * MARS_RADIUS_M
    centroids = shapely.centroid(shapes)
    points = convert(np.column_stack([shapely.get_x(centroids), shapely.get_y(centroids)]))
    points[is_wide] = _compute_centroids(shapely.transform(shapes[is_wide], convert))
    return replace(table, geometry=points)


def _as_table_error(error: DataError) -> TableError:
    return TableError(error.message, remedy=error.remedy)


def _layer_rows(layer: vector_files.Layer) -> list[list[Any]]:
    if not layer.columns:
        return [[] for _ in range(layer.count)]
    return [list(row) for row in zip(*layer.columns, strict=True)]


def _make_table(path: Path, header: list[str], rows: list[list[Any]], row_name: str) -> Table:
    return Table(path, header, rows, [f"{row_name} {number + 1}" for number in range(len(rows))])


def _positions_in_columns(table: Table) -> bool:
    return table.index(["lon", "longitude"]) is not None and (
        table.index(["lat", "latitude"]) is not None
    )


def _compute_centroids(shapes: npt.NDArray[np.object_]) -> npt.NDArray[np.float64]:
    """Compute centroids in degrees, shape (n, 2), also of shapes across the antimeridian."""
    import shapely

    bounds = shapely.bounds(shapes)
    is_crossing = bounds[:, 2] - bounds[:, 0] > 180
    shifted = shapes.copy()
    shifted[is_crossing] = shapely.transform(
        shapes[is_crossing], lambda xy: np.column_stack([xy[:, 0] % 360.0, xy[:, 1]])
    )
    centroids = shapely.centroid(shifted)
    points = np.column_stack([shapely.get_x(centroids), shapely.get_y(centroids)])
    points[is_crossing, 0] = (points[is_crossing, 0] + 180) % 360 - 180
    return points
