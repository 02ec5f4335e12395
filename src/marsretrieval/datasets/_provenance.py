"""Where a folder's data came from, and whether its files are still those that came."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from marsretrieval.datasets._inventory import DatasetInventory
from marsretrieval.datasets.download import MAX_MISSING, read_record
from marsretrieval.datasets.synthetic import PlanetRecord, find_planet
from marsretrieval.errors import DataError
from marsretrieval.files import confined, sha256_file

_PLANET: tuple[Literal["version", "seed", "size"], ...] = ("version", "seed", "size")
_KEPT = ("repository", "revision", "variant", "created")


def check_provenance(folder: Path, told: DatasetInventory) -> None:
    """By ``download.json`` of a download or ``planet.json`` of a synthetic planet, if any."""
    try:
        record = read_record(folder)
        if record is not None:
            told.origin = {key: record.get(key) for key in _KEPT}
            _check_download(folder, record, told)
            return
        planet = find_planet(folder)
        if planet is not None:
            told.origin = {"synthetic": True, **{key: planet[1][key] for key in _PLANET}}
            _check_planet(*planet, folder.absolute(), told)
    except DataError as error:
        told.error("damaged-record", [error.message])


def _check_planet(path: Path, planet: PlanetRecord, folder: Path, told: DatasetInventory) -> None:
    """The files of `folder`, which may be one dataset of the planet."""
    files = []
    for name, file in planet["files"].items():
        full = confined(path.parent, name, source=path)
        if full.is_relative_to(folder):
            files.append((full.relative_to(folder).as_posix(), file["bytes"], file["sha256"]))
    _check_files(folder, files, told)


def _check_files(folder: Path, files: list[tuple[str, int, str]], told: DatasetInventory) -> None:
    """Each by name, size and SHA-256."""
    missing, altered = [], []
    for name, size, sha256 in files:
        path = folder / name
        if not path.is_file():
            missing.append(name)
        elif path.stat().st_size != size or sha256_file(path) != sha256:
            altered.append(name)
    told.error("missing-file", missing)
    told.error("altered-file", altered)


def _check_download(folder: Path, record: dict[str, Any], told: DatasetInventory) -> None:
    if not record.get("complete"):
        again = f"marsretrieval data download {record['dataset']} --out {folder.parent}"
        told.error("unfinished-download", [f"{folder}: run it again: {again}"])
        return
    files = [(str(file["path"]), file["size"], file["sha256"]) for file in record["files"]]
    _check_files(folder, files, told)
    gone = record.get("missing") or []
    rows = record["counts"].get("rows")
    if rows is not None:
        told.counts["rows_published"] = rows
    add = told.error if len(gone) > MAX_MISSING * (rows or 0) else told.note
    add("image-not-had", gone)
