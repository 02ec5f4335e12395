"""Ground truth: catalogues of points, one CSV a landform; and its example images."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets._listing import visible
from marsretrieval.datasets._open import open_images
from marsretrieval.datasets._protocol import ImageSource
from marsretrieval.errors import DatasetNotFoundError, TableError

__all__ = [
    "Points",
    "ground_truth_tables",
    "read_ground_truth",
    "read_image_queries",
    "read_points",
]

_NAMES = {"lon": ("lon", "longitude"), "lat": ("lat", "latitude")}


@dataclass(frozen=True, slots=True)
class Points:
    """Planetocentric degrees, longitude in -180..180 unless read as written; (n,) each.
    `duplicates` of them stand at the place of an earlier one."""

    lon: npt.NDArray[np.float64]
    lat: npt.NDArray[np.float64]
    duplicates: int = 0


def read_points(path: Path, *, as_written: bool = False) -> Points:
    """Read a CSV with columns lon and lat (or longitude, latitude), separated by , or ; or tab.

    Longitudes above 180 are wrapped, unless wanted `as_written`. Raises TableError naming the
    column, or the line and value.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            table = csv.reader(file, delimiter=max(",;\t", key=head.count))
            header = [name.strip().lower() for name in next(table, [])]
            columns = [_column(path, header, name) for name in ("lon", "lat")]
            rows = [
                _row(path, table.line_num, row, columns)
                for row in table
                if any(map(str.strip, row))
            ]
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: not readable as CSV ({error})") from error
    if not rows:
        raise TableError(f"{path}: no points, only a header")
    values = np.array(rows, dtype=np.float64)
    lon, lat = values.T
    wrapped = geo.wrap_lon(lon)
    places = len(np.unique(np.column_stack([wrapped, lat]), axis=0))
    # 180.0 itself stays: in the plane of the published distance, -180 is far from it.
    return Points(lon if as_written else np.where(lon > 180, wrapped, lon), lat, len(lon) - places)


def read_ground_truth(folder: Path) -> dict[str, Points]:
    """``<name>.csv`` in `folder`, by name. Raises DatasetNotFoundError or TableError."""
    return {path.stem: read_points(path) for path in ground_truth_tables(folder)}


def ground_truth_tables(folder: Path) -> list[Path]:
    """Every ``<name>.csv`` in `folder`. Raises DatasetNotFoundError where there is none."""
    if not folder.is_dir():
        raise DatasetNotFoundError(
            f"{folder}: no such folder; it holds one <landform>.csv with lon and lat each"
        )
    entries = visible(folder)
    tables = [path for path in entries if path.suffix.lower() == ".csv"]
    if not tables:
        names = ", ".join(path.name for path in entries[:5]) or "nothing"
        raise DatasetNotFoundError(f"{folder}: no .csv of points here (found: {names})")
    return tables


def read_image_queries(folder: Path) -> dict[str, ImageSource]:
    """Example images in ``<name>/`` below `folder`, by name; none where there is no folder."""
    if not folder.is_dir():
        return {}
    return {path.name: open_images(path) for path in visible(folder) if path.is_dir()}


def _column(path: Path, header: list[str], name: str) -> int:
    for known in _NAMES[name]:
        if known in header:
            return header.index(known)
    raise TableError(
        f"{path}: no column '{name}' (there are: {', '.join(header) or 'none'})",
        remedy="The first line names the columns; lon and lat are needed, in degrees.",
    )


def _row(path: Path, line: int, row: list[str], columns: list[int]) -> tuple[float, float]:
    try:
        lon, lat = (float(row[column]) for column in columns)
    except (ValueError, IndexError) as error:
        raise TableError(f"{path}: line {line}: no numbers in lon and lat: {row}") from error
    if not (math.isfinite(lon) and -180 <= lon <= 360):
        raise TableError(f"{path}: line {line}: longitude {lon} is not within -180..360")
    if not (math.isfinite(lat) and -90 <= lat <= 90):
        raise TableError(f"{path}: line {line}: latitude {lat} is not within -90..90")
    return lon, lat
