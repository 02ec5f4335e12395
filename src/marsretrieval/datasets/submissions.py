"""Files of people who bring their own embeddings or predictions."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.errors import DataError, DatasetNotFoundError, TableError
from marsretrieval.files import read_json

__all__ = ["Labels", "Predictions", "read_labels", "read_predictions", "read_vectors"]

_COLUMNS = ("image_name", "similarity", "lon", "lat")


@dataclass(frozen=True, slots=True)
class Labels:
    labels: list[str]
    image_ids: list[str]
    query_names: list[str]

    @property
    def unmatched(self) -> list[str]:
        """A line about queries without an image, and one about labels without a query."""
        queries = sorted(set(self.query_names) - set(self.labels))
        labels = sorted(set(self.labels) - set(self.query_names))
        told = (
            ("queries have no image and no figure", queries),
            ("labels have no query, their images are distractors", labels),
        )
        return [f"{len(names)} {what}: {', '.join(names[:5])}" for what, names in told if names]


@dataclass(frozen=True, slots=True)
class Predictions:
    """scores: (n,); published: (n, 2) positions as written, NaN where there is none; centres:
    (n, 2) of the tiles."""

    ids: list[str]
    scores: npt.NDArray[np.float64]
    published: npt.NDArray[np.float64]
    centres: npt.NDArray[np.float64]


def read_vectors(path: Path) -> npt.NDArray[Any]:
    """A .npy of (n, d) finite floating-point numbers; never one that holds pickled objects.

    Raises DataError naming the file.
    """
    remedy = "Write it with numpy.save: a floating-point array of shape (n, d)."
    try:
        vectors = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not readable as .npy ({error})", remedy=remedy) from error
    if not isinstance(vectors, np.ndarray):
        vectors.close()
        raise DataError(f"{path}: an archive of several arrays", remedy=remedy)
    if vectors.ndim != 2 or not vectors.size or not np.issubdtype(vectors.dtype, np.floating):
        raise DataError(
            f"{path}: an array of shape {vectors.shape} and type {vectors.dtype}", remedy=remedy
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if bad.size:
        raise DataError(f"{path}: {bad.size} rows hold NaN or infinity (first: row {bad[0]})")
    return vectors


def read_labels(path: Path) -> Labels:
    """JSON with lists of texts: labels and image_ids (one per image), query_names."""
    value = read_json(path)
    found = {}
    for key in ("labels", "image_ids", "query_names"):
        entries = value.get(key) if isinstance(value, dict) else None
        if not isinstance(entries, list) or not all(isinstance(each, str) for each in entries):
            raise DataError(
                f"{path}: '{key}' is not a list of texts",
                remedy="It holds labels and image_ids, one per image, and query_names.",
            )
        found[key] = entries
    return Labels(**found)


def read_predictions(path: Path, *, tile_deg: float = geo.TILE_DEG) -> Predictions:
    """CSV with columns image_name, similarity, lon, lat.

    Where image_name is a tile name (`E137_2_N_4_6.png`), it tells the south-west corner, and the
    centre lies half a tile further; lon and lat may then be empty. Elsewhere the position as
    written is taken as the centre. Raises TableError naming the column, or the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            lacking = [name for name in _COLUMNS if name not in (table.fieldnames or [])]
            if lacking:
                raise TableError(
                    f"{path}: no column {', '.join(lacking)} "
                    f"(there are: {', '.join(table.fieldnames or []) or 'none'})",
                    remedy=f"The columns are {', '.join(_COLUMNS)}.",
                )
            rows = [_row(path, table.line_num, row, tile_deg) for row in table]
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: not readable as CSV ({error})") from error
    if not rows:
        raise TableError(f"{path}: no predictions, only a header")
    ids = [name for name, _ in rows]
    numbers = np.array([values for _, values in rows], dtype=np.float64)
    return Predictions(ids, numbers[:, 0], numbers[:, 1:3], numbers[:, 3:5])


def _row(
    path: Path, line: int, row: dict[str, Any], tile_deg: float
) -> tuple[str, tuple[float, ...]]:
    """The name; similarity, position as written, centre."""
    name = str(row["image_name"])
    try:
        similarity = float(row["similarity"])
        lon, lat = (float((row[key] or "").strip() or "nan") for key in ("lon", "lat"))
    except (TypeError, ValueError) as error:
        raise TableError(f"{path}: line {line}: similarity, lon and lat must be numbers") from error
    corner = geo.tile_corner(name)
    unknown = math.isnan(lon) and math.isnan(lat) and corner is not None
    within = -180 <= lon <= 360 and -90 <= lat <= 90
    if not (math.isfinite(similarity) and (within or unknown)):
        raise TableError(
            f"{path}: line {line}: similarity {similarity}, longitude {lon}, latitude {lat}",
            remedy="Finite similarities; longitudes in -180..360, latitudes in -90..90. Only "
            "where image_name is a tile name may both be empty.",
        )
    centre = geo.tile_centre(name, tile_deg) or (lon, lat)
    return name, (similarity, lon, lat, *centre)
