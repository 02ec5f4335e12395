"""Ground truth: catalogues of points, one file per landform, and example images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets.base import ImageSource, Skipped
from marsretrieval.datasets.listing import list_visible
from marsretrieval.datasets.open import open_images
from marsretrieval.datasets.positions import (
    PositionColumns,
    Positions,
    TileCoverage,
    on_other_bodies,
    read_names,
    read_positions,
    suspicions,
)
from marsretrieval.datasets.tables import read_table
from marsretrieval.errors import DatasetNotFoundError, TableError, as_path
from marsretrieval.text import list_some, pluralize

# Catalogue formats. If several files have the same stem, the first format is read.
_SUFFIXES = (
    ".csv", ".tsv", ".gpkg", ".geojson", ".shp", ".parquet", ".geoparquet", ".fgb", ".shp.zip",
    ".kml",
)  # fmt: skip
_LAYERED = (".gpkg", ".shp.zip", ".kml")
_SIDECARS = (".shx", ".dbf", ".prj", ".cpg", ".qpj", ".qix", ".qmd", ".sbn", ".sbx", ".shp.xml")


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Points of a catalogue.

    Attributes:
        lon: Planetocentric degrees, east positive, in -180..180 unless read as written; (n,).
        lat: Degrees, (n,).
        duplicates: Number of points at the position of an earlier one.
        source: The file.
        skipped: Rows without a position, by their names in the file: "line 3".
        notes: Sentences about what was left out or assumed while reading.
        positions: Columns and values the points were read from; None if not read from a file.
        names: Name or id of each point, or its row ("line 3").
    """

    lon: npt.NDArray[np.float64]
    lat: npt.NDArray[np.float64]
    duplicates: int = 0
    source: Path | None = None
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    positions: Positions | None = None
    names: tuple[str, ...] = ()

    def suspicions(self, coverage: TileCoverage) -> list[str]:
        """Detect west-positive longitudes, swapped columns or radians.

        Args:
            coverage: The tiles that the points are compared with.

        Returns:
            Warnings that name the file.
        """
        if self.positions is None:
            return []
        return suspicions(self.source, self.positions, coverage)

    def take(self, mask: npt.NDArray[np.bool_]) -> Points:
        """Select points.

        Args:
            mask: Boolean mask, shape (n,).

        Returns:
            The selected points; other fields are unchanged.
        """
        names = tuple(name for name, is_chosen in zip(self.names, mask, strict=False) if is_chosen)
        return replace(self, lon=self.lon[mask], lat=self.lat[mask], names=names)

    def to_dict(self) -> dict[str, Any]:
        """Return how the file was read, as plain data for results."""
        return {
            "file": self.source.name if self.source else None,
            "points": len(self.lon),
            "skipped": len(self.skipped),
            "columns": list(self.positions.columns) if self.positions else [],
            "west": self.positions.west if self.positions else False,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class CatalogueFiles:
    """Files of a folder of catalogues.

    Attributes:
        tables: Catalogues to read, one per landform.
        ignored: All other entries, with the reason.
    """

    tables: list[Path]
    ignored: list[Skipped]


def read_points(
    path: str | Path, *, as_written: bool = False, columns: PositionColumns | None = None
) -> Points:
    """Read a catalogue of points: text with delimiters, GIS file or Parquet.

    Args:
        path: The file; its extension selects the format (`tables.read_table`).
        as_written: Leave longitudes above 180 unchanged.
        columns: Columns and layer; None: detect them by their names.

    Returns:
        The points; rows without a position, with one out of range or of another body than Mars
        are left out, counted in `notes` and listed in `skipped`.

    Raises:
        DatasetNotFoundError: If the file is missing.
        TableError: If columns are missing, a value is not a number, most positions are out of
            range, there are no points, or the file is not of Mars.
        MissingDependencyError: If a GIS format needs the extra `gis`.
    """
    path = as_path(path, "path")
    columns = columns or PositionColumns()
    table = read_table(path, layer=columns.layer)
    if not any(table.header) and table.geometry is None:
        raise TableError(
            f"{path}: no points, an empty file",
            remedy="Give one row per point, with longitude and latitude in degrees.",
        )
    positions = read_positions(table, columns, skip_invalid=True)
    is_located = np.isfinite(positions.lon) & np.isfinite(positions.lat)
    is_invalid = np.isin(positions.rows, positions.invalid)
    is_elsewhere = on_other_bodies(table, positions.rows)
    reasons = (
        ("without a position", ~is_located & ~is_invalid),
        ("with a position out of range", is_invalid),
        ("of other bodies than Mars", is_elsewhere & is_located),
    )
    is_valid = is_located & ~is_elsewhere
    if not is_valid.any():
        rows = len(positions.rows)
        if not rows:
            raise TableError(
                f"{path}: no points, only a header",
                remedy="Give one row per point, with longitude and latitude in degrees.",
            )
        if is_elsewhere.any():
            raise TableError(
                f"{path}: no points, none of {pluralize(rows, 'row')} is on Mars",
                remedy="Give a catalogue of Mars.",
            )
        raise TableError(
            f"{path}: no points, none of {pluralize(rows, 'row')} has a position",
            remedy="Name the columns of the positions with --lon-column and --lat-column.",
        )
    notes = (*table.notes, *positions.notes)
    for reason, mask in reasons:
        if mask.any():
            labels = [table.labels[row] for row in positions.rows[mask]]
            omitted = f"{pluralize(len(labels), 'row')} {reason} left out"
            notes = (*notes, f"{path}: {omitted} ({list_some(labels)})")
    lon, lat = positions.lon[is_valid], positions.lat[is_valid]
    wrapped = geo.wrap_lon(lon)
    unique = len(np.unique(np.column_stack([wrapped, lat]), axis=0))
    return Points(
        # 180.0 is unchanged: the published distance is planar, so that -180 is far from it.
        lon if as_written else np.where(lon > 180, wrapped, lon),
        lat,
        len(lon) - unique,
        source=path,
        skipped=tuple(table.labels[row] for row in positions.rows[~is_valid]),
        notes=notes,
        positions=positions,
        names=tuple(read_names(table, positions.rows[is_valid], columns.name)),
    )


def read_ground_truth(
    folder: str | Path, *, columns: PositionColumns | None = None
) -> dict[str, Points]:
    """Read every catalogue of a folder.

    Args:
        folder: The folder `ground_truth`.
        columns: Columns of the positions; None: detect them by their names.

    Returns:
        Landform (file name without extension) to points.

    Raises:
        DatasetNotFoundError: If there is no catalogue.
        TableError: If one cannot be read.
        MissingDependencyError: If a GIS format needs the extra `gis`.
    """
    folder = Path(folder)
    return read_catalogues(catalogue_files(folder), columns=columns)


def read_catalogues(
    files: CatalogueFiles, *, columns: PositionColumns | None = None
) -> dict[str, Points]:
    """Read the catalogues that `catalogue_files` lists.

    Args:
        files: Catalogues of a folder.
        columns: Columns of the positions; None: detect them by their names.

    Returns:
        Landform (file name without extension) to points.

    Raises:
        TableError: If one cannot be read.
        MissingDependencyError: If a GIS format needs the extra `gis`.
    """
    return {
        landform_name(path): read_points(path, columns=choice)
        for path, choice in choose_columns(files.tables, columns).items()
    }


def choose_columns(
    tables: Sequence[Path], columns: PositionColumns | None
) -> dict[Path, PositionColumns]:
    """Apply a layer only to the catalogues that may have several.

    Args:
        tables: Catalogues of a folder.
        columns: Columns of the positions and layer; None: detect them by their names.

    Returns:
        Columns of each catalogue.

    Raises:
        TableError: If a layer is given, and no catalogue may have several.
    """
    columns = columns or PositionColumns()
    if columns.layer is not None and not any(_suffix(path) in _LAYERED for path in tables):
        names = list_some([path.name for path in tables])
        raise TableError(
            f"layer {columns.layer}: no file of several layers ({names})",
            remedy="Leave --layer out.",
        )
    other = replace(columns, layer=None)
    return {path: columns if _suffix(path) in _LAYERED else other for path in tables}


def landform_name(path: Path) -> str:
    """Return the landform of a catalogue: the file's name without its extension.

    Args:
        path: The file.

    Returns:
        The name.
    """
    return path.name[: -len(_suffix(path))] if _suffix(path) else path.stem


def _suffix(path: Path) -> str:
    """Return the catalogue format of a file, empty if it has none."""
    name = path.name.lower()
    return next((suffix for suffix in reversed(_SUFFIXES) if name.endswith(suffix)), "")


def catalogue_files(folder: str | Path) -> CatalogueFiles:
    """List the catalogues of a folder, and the entries that are not read.

    Args:
        folder: The folder `ground_truth`.

    Returns:
        One file per landform, sorted by name, and the other entries with the reason.

    Raises:
        DatasetNotFoundError: If there is no catalogue.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetNotFoundError(
            f"{folder}: no such folder; it must contain one <landform>.csv with lon and lat per "
            "landform",
            remedy="Name the folder of the ground-truth files.",
        )
    entries = list_visible(folder)
    candidates = [path for path in entries if _suffix(path) and path.is_file()]
    catalogues: dict[str, Path] = {}
    for path in sorted(candidates, key=lambda path: _SUFFIXES.index(_suffix(path))):
        catalogues.setdefault(landform_name(path), path)
    if not catalogues:
        names = ", ".join(path.name for path in entries[:5]) or "nothing"
        raise DatasetNotFoundError(
            f"{folder}: no .csv of points (contents: {names})",
            remedy=f"Catalogues end in {', '.join(_SUFFIXES)}.",
        )
    tables = [path for path in candidates if catalogues[landform_name(path)] == path]
    shapefiles = {path.stem for path in candidates if path.suffix.lower() == ".shp"}
    ignored = []
    for path in entries:
        if path in tables or _is_sidecar(path, shapefiles):
            continue
        reason = f"not read: catalogues end in {', '.join(_SUFFIXES)}"
        if path in candidates:
            chosen = catalogues[landform_name(path)].name
            reason = f"not read: {chosen} is the catalogue of this landform"
        elif path.is_dir():
            reason = "not read: a folder, catalogues are files"
        ignored.append(Skipped(path.name, str(path), reason))
    return CatalogueFiles(tables, ignored)


def read_image_queries(folder: str | Path) -> dict[str, ImageSource]:
    """Open the example images of each subfolder.

    Args:
        folder: Folder with one subfolder per landform.

    Returns:
        Name of the subfolder to its images; empty if `folder` is missing.

    Raises:
        DatasetNotFoundError: If a subfolder has no images.
        DataError: If a subfolder has an unknown layout.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return {}
    return {path.name: open_images(path) for path in list_visible(folder) if path.is_dir()}


def _is_sidecar(path: Path, shapefiles: set[str]) -> bool:
    return any(
        path.name.lower().endswith(end) and path.name[: -len(end)] in shapefiles
        for end in _SIDECARS
    )
