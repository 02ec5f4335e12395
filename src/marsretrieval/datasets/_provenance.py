"""Where a folder's data came from, and whether its files are still those that came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from marsretrieval.datasets._inventory import DatasetInventory
from marsretrieval.datasets.download import MAX_MISSING, DownloadRecord, read_record
from marsretrieval.errors import DataError
from marsretrieval.files import check_fields, confined, read_json, sha256_file

_KEPT = ("repository", "revision", "variant", "created")
_PLANET = ("version", "seed", "size")
_PLANET_KINDS = {"files": dict[str, dict[str, Any]], "counts": dict[str, int]}
_FILE_KINDS = {"bytes": int, "sha256": str}


def check_provenance(folder: Path, told: DatasetInventory) -> None:
    """By ``download.json`` of a download or ``planet.json`` of a synthetic planet, if any."""
    try:
        record = read_record(folder)
        if record is not None:
            told.origin = {key: getattr(record, key) for key in _KEPT}
            _check_download(folder, record, told)
            return
        folder = folder.absolute()  # the working directory has a parent too
        for path in (folder / "planet.json", folder.parent / "planet.json"):
            if path.is_file():
                facts = read_json(path)
                check_fields(facts, _PLANET_KINDS, source=path, optional=True)
                told.origin = {"synthetic": True, **{key: facts.get(key) for key in _PLANET}}
                _check_planet(path, folder, facts, told)
                return
    except DataError as error:
        told.error("damaged-record", [error.message])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        told.error("damaged-record", [f"{folder}: its record is not complete ({error!r})"])


def _check_planet(path: Path, folder: Path, facts: dict[str, Any], told: DatasetInventory) -> None:
    """The files of `folder`, which may be one dataset of the planet."""
    files = {}
    for name, file in facts.get("files", {}).items():
        place = confined(path.parent, name, source=path)
        if place.is_relative_to(folder):
            check_fields(file, _FILE_KINDS, source=path, at=f"files.{name}")
            files[place] = file
    _check_files(
        folder,
        [
            (place.relative_to(folder).as_posix(), int(file["bytes"]), str(file["sha256"]))
            for place, file in files.items()
        ],
        told,
    )


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


def _check_download(folder: Path, record: DownloadRecord, told: DatasetInventory) -> None:
    if not record.complete:
        again = f"marsretrieval data download {record.dataset} --out {folder.parent}"
        told.error("unfinished-download", [f"{folder}: run it again: {again}"])
        return
    files = [(file.path, file.size, file.sha256) for file in record.files]
    _check_files(folder, files, told)
    gone = record.missing
    rows = record.counts.get("rows")
    if rows is not None:
        told.counts["rows_published"] = rows
    add = told.error if len(gone) > MAX_MISSING * (rows or 0) else told.note
    add("image-not-had", gone)
