"""Where a folder's data came from, and whether its files are still those that came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from marsretrieval.datasets._inventory import DatasetInventory
from marsretrieval.datasets.download import MAX_MISSING, read_record
from marsretrieval.errors import DataError
from marsretrieval.files import read_json, sha256_file

__all__ = ["check_provenance"]

_KEPT = ("repository", "revision", "variant", "created")
_PLANET = ("version", "seed", "size")


def check_provenance(folder: Path, told: DatasetInventory) -> None:
    """By ``download.json`` of a download or ``planet.json`` of a synthetic planet, if any."""
    try:
        record = read_record(folder)
        if record is not None:
            told.origin = {key: record.get(key) for key in _KEPT}
            _check_download(folder, record, told)
            return
        for path in (folder / "planet.json", folder.parent / "planet.json"):
            if path.is_file():
                planet = read_json(path)
                facts = planet if isinstance(planet, dict) else {}
                told.origin = {"synthetic": True, **{key: facts.get(key) for key in _PLANET}}
                return
    except DataError as error:
        told.error("damaged-record", [error.message])


def _check_download(folder: Path, record: dict[str, Any], told: DatasetInventory) -> None:
    if not record.get("complete"):
        again = f"marsretrieval data download {record['dataset']} --out {folder.parent}"
        told.error("unfinished-download", [f"{folder}: run it again: {again}"])
        return
    missing, altered = [], []
    for file in record["files"]:
        path = folder / file["path"]
        if not path.is_file():
            missing.append(file["path"])
        elif path.stat().st_size != file["size"] or sha256_file(path) != file["sha256"]:
            altered.append(file["path"])
    told.error("missing-file", missing)
    told.error("altered-file", altered)
    gone = record.get("missing") or []
    rows = record["counts"].get("rows")
    if rows is not None:
        told.counts["rows_published"] = rows
    add = told.error if len(gone) > MAX_MISSING * (rows or 0) else told.note
    add("image-not-had", gone)
