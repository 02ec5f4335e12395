"""Files of people who bring their own embeddings or predictions."""

from __future__ import annotations

import csv
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


@dataclass(frozen=True, slots=True)
class Predictions:
    """scores (n,); published: (n, 2) positions as written; centres: (n, 2) of the tiles."""

    ids: list[str]
    scores: npt.NDArray[np.float64]
    published: npt.NDArray[np.float64]
    centres: npt.NDArray[np.float64]


def read_vectors(path: Path) -> npt.NDArray[Any]:
    """A .npy of (n, d) numbers; never one that holds pickled objects. Raises DataError."""
    try:
        vectors: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path}: not readable as .npy ({error})",
            remedy="Write it with numpy.save: a float array of shape (n, d).",
        ) from error
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

    Where image_name is a published tile name, the position is the tile's south-west corner and
    the centre lies half a tile further; elsewhere the position is taken as the centre. Raises
    TableError naming the column, or the line.
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
            rows = [_row(path, table.line_num, row) for row in table]
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: not readable as CSV ({error})") from error
    if not rows:
        raise TableError(f"{path}: no predictions, only a header")
    ids = [name for name, _ in rows]
    values = np.array([numbers for _, numbers in rows], dtype=np.float64)
    positions = values[:, 1:]
    named = np.array([geo.tile_corner(Path(name).stem) is not None for name in ids])
    centres = positions + np.where(named, tile_deg / 2, 0.0)[:, None]
    return Predictions(ids, values[:, 0], positions, centres)


def _row(path: Path, line: int, row: dict[str, Any]) -> tuple[str, tuple[float, float, float]]:
    try:
        similarity, lon, lat = (float(row[name]) for name in _COLUMNS[1:])
    except (TypeError, ValueError) as error:
        raise TableError(f"{path}: line {line}: similarity, lon and lat must be numbers") from error
    if not (np.isfinite(similarity) and -180 <= lon <= 360 and -90 <= lat <= 90):
        raise TableError(
            f"{path}: line {line}: similarity {similarity}, longitude {lon}, latitude {lat}",
            remedy="Finite similarities; longitudes in -180..360, latitudes in -90..90.",
        )
    return str(row["image_name"]), (similarity, lon, lat)
