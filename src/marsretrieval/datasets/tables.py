"""Reader of tables of text: catalogues of points, and predictions.

The delimiter, the encoding and the decimal sign are found in the file. Comment lines, a units row
and rows of another width are named. GIS files and Parquet come through `vector_files`.
"""

from __future__ import annotations

import csv
import io
import re
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DatasetNotFoundError, TableError

_MAX_BYTES = 1 << 30
_DELIMITERS = ",;\t|"
_MISSING = {"", "-", "--", "---", "na", "n/a", "nan", "null", "none", "?", "nodata"}
_DEGREE_UNITS = {
    "deg", "degs", "degree", "degrees", "decdeg", "decimal degrees", "decimal degree", "dd",
    "dege", "degn", "deg e", "deg n", "degree e", "degree n", "degrees e", "degrees n",
    "degrees east", "degrees north", "deg east", "deg north", "degrees_east", "degrees_north",
    "e", "n", "east", "north",
}  # fmt: skip
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?:°|deg)?\s*([NSEWnsew]?)")


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows of a file, all as wide as the header.

    Attributes:
        path: The file.
        header: Names of the columns as written.
        rows: Values as written; texts, or numbers where the format has types.
        labels: Name of each row in messages: "line 3", "feature 5".
        notes: Sentences about what was left out or assumed while reading.
        comments: Comment lines of a text file, without their sign.
        geometry: Positions from the geometries, degrees, shape (n, 2), NaN where there is none.
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

    def index(self, known: Sequence[str]) -> int | None:
        """Number of the first column that has one of the `known` names.

        Args:
            known: Normalized names (`normalize_name`), the preferred one first.

        Returns:
            The column's number, or None.

        Raises:
            TableError: If two columns have that name.
        """
        for name in known:
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
        """Number of a column that an option names: as written, else in any case and spelling.

        Raises:
            TableError: If there is no such column.
        """
        if self.header.count(name) == 1:
            return self.header.index(name)
        number = self.index([normalize_name(name)])
        if number is None:
            raise TableError(
                f"{self.path}: no column '{name}' (there are: {self.columns()})",
                remedy=f"Name one of these columns with {option}.",
            )
        return number

    def normalized(self, number: int) -> str:
        """The normalized name of a column."""
        return self._names[number]

    def columns(self) -> str:
        """Names of the columns, for messages."""
        return listed([name.strip() for name in self.header], 40) or "none"


def read_table(path: Path) -> Table:
    """Read a table of text, a GIS file or a Parquet file, by the extension of its name.

    Args:
        path: .gpkg, .fgb or .shp (extra `gis`), .geojson or .json, .parquet or .geoparquet; any
            other file is text with delimiters.

    Returns:
        The table; without rows if the file has only a header.

    Raises:
        DatasetNotFoundError: If there is no such file.
        TableError: If it cannot be read.
        MissingDependencyError: If a GIS format needs the extra `gis`.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: not readable ({error})") from error
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        raise TableError(
            f"{path}: not readable as a table (not a file)", remedy="Name a file of this folder."
        )
    from marsretrieval.datasets import vector_files

    reader = vector_files.READERS.get(path.suffix.lower())
    return reader(path) if reader else _read_text(path)


def normalize_name(name: str) -> str:
    """Reduce a column's name to lower-case words joined by `_`, without units of degrees.

    `Lon (°E)`, `LON_E` and `lon e [deg]` become `lon_e`.
    """
    plain = unicodedata.normalize("NFKD", name).casefold()
    words = re.sub(r"[^a-z0-9]+", " ", plain).split()
    units = {"deg", "degs", "degree", "degrees", "dd", "decimal", "planetocentric", "ocentric"}
    return "_".join(word for word in words if word not in units) or "_".join(words)


def parse_number(value: Any) -> float | None:
    """Read a number as people write it.

    Args:
        value: A number, or text: decimal point or comma, `137.4 E`, `4.6°S` (negative).

    Returns:
        The number, or None for what stands for a missing value (empty, `-`, `nan`, `N/A`).

    Raises:
        ValueError: If it is neither.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        number = float(value)
        return None if np.isnan(number) else number
    text = value.strip().replace("\N{MINUS SIGN}", "-")
    if text.lower() in _MISSING:
        return None
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    match = _NUMBER.fullmatch(text)
    if match is None:
        if text.lower().lstrip("+-") in ("inf", "infinity"):
            return float(text)
        raise ValueError(f"not a number: {text!r}")
    number = float(match[1])
    return -number if match[2].upper() in ("S", "W") and match[2] else number


def listed(names: Sequence[str], limit: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def is_units_row(values: Sequence[Any]) -> bool:
    """Whether texts in the columns of a position are units of degrees, or a ruled line."""
    texts = [re.sub(r"[\[\]()°]", " ", str(value)).strip().lower() for value in values]
    degree_signs = any("°" in str(value) for value in values)
    return all(
        text in _DEGREE_UNITS or (degree_signs and not text) or re.fullmatch(r"[-=]{4,}", text)
        for text in texts
    )


def _read_text(path: Path) -> Table:
    text, notes = _decode(path)
    lines = io.StringIO(text, newline="").readlines()
    start, comments, delimiter = _preamble(lines)
    if start < len(lines) or not comments:
        header, delimiter = _header(lines[start] if start < len(lines) else "", delimiter)
    else:
        header = []
    if comments and _is_numeric(header):
        # The names stand in the last comment line: "# lon lat".
        names, of_names = _header(comments[-1], None)
        if len(names) == len(header):
            header, comments, start = names, comments[:-1], start - 1
            delimiter = delimiter or of_names
    rows: list[list[Any]] = []
    labels: list[str] = []
    dropped: list[str] = []
    body = io.StringIO("".join(lines[start + 1 :]), newline="")
    previous = csv.field_size_limit(_MAX_BYTES)
    try:
        reader = csv.reader(body, delimiter=delimiter or ",", skipinitialspace=True)
        for row in reader:
            label = f"line {start + 1 + reader.line_num}"
            if not any(map(str.strip, row)):
                continue
            if row[0].lstrip().startswith("#") and len(row) != len(header):
                dropped.append(label)
                continue
            rows.append(_fit(path, label, row, header))
            labels.append(label)
    except csv.Error as error:
        raise TableError(f"{path}: not readable as CSV ({error})") from error
    finally:
        csv.field_size_limit(previous)
    if dropped:
        notes.append(f"{path}: comments between the rows left out: {listed(dropped)}")
    return Table(path, header, rows, labels, tuple(notes), tuple(comments))


def _decode(path: Path) -> tuple[str, list[str]]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise TableError(f"{path}: not readable as CSV ({error})") from error
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
            raise TableError(f"{path}: not readable as CSV ({error})") from error
        text = data.decode("latin-1")
        notes.append(f"{path}: not UTF-8, read as Latin-1")
    if "\0" in text:
        raise TableError(
            f"{path}: not readable as CSV (binary data)",
            remedy="Export it as CSV, GeoJSON or GeoPackage, with the extension of its format.",
        )
    return text, notes


def _preamble(lines: list[str]) -> tuple[int, list[str], str | None]:
    """Number of lines before the header, the comments among them, and what `sep=` says."""
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


def _header(line: str, delimiter: str | None) -> tuple[list[str], str | None]:
    """Names of the columns, and the delimiter that gives the most of them."""
    if delimiter is None:
        counts = {sign: len(_split(line, sign)) for sign in _DELIMITERS}
        delimiter = max(_DELIMITERS, key=counts.__getitem__)
        if counts[delimiter] == 1:
            delimiter = " " if len(line.split()) > 1 else None
    names = _split(line.strip() if delimiter == " " else line, delimiter or ",")
    return [name.strip() for name in names], delimiter


def _split(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])


def _is_numeric(header: list[str]) -> bool:
    numbers = 0
    for name in header:
        try:
            numbers += parse_number(name) is not None
        except ValueError:
            continue
    return numbers >= 2


def _fit(path: Path, label: str, row: list[str], header: list[str]) -> list[Any]:
    """The row with as many values as the header: empty ones are added or cut."""
    width = len(header)
    if any(map(str.strip, row[width:])):
        raise TableError(
            f"{path}: {label} has {len(row)} values, the header {width}: {', '.join(row)[:80]}",
            remedy="Quote values that hold the delimiter; separate the columns by ; where "
            "numbers have decimal commas.",
        )
    return [*row[:width], *[""] * (width - len(row))]
