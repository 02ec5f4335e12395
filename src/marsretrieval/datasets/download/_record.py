"""``download.json``: what a folder holds, where it came from, and whether it is all there."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Required

from marsretrieval import __version__
from marsretrieval.datasets.download._sources import Source
from marsretrieval.errors import DataError, UsageError
from marsretrieval.files import (
    Int64,
    JsonObject,
    confined,
    from_json,
    make_folder,
    read_json,
    write_json,
)

RECORD = "download.json"
BEGUN = "begun"  # files of downloads that did not come to their end
CACHE = ".cache"  # hidden, so that no reader takes it for data
_OURS = (CACHE, "tiles")  # tiles may be cut before the rest is fetched
_SCHEMA = 1
_IN_THE_END = ("files", "counts")


class DownloadedFile(JsonObject):
    """A file of a download."""

    path: str
    size: Int64
    sha256: str


class DownloadCounts(JsonObject, total=False):
    """How much a download holds."""

    rows: Int64 | None


class DownloadRecord(JsonObject, total=False):
    """``download.json``."""

    dataset: Required[str]
    repository: Required[str]
    revision: Required[str]
    variant: Required[str | None]
    complete: Required[bool]
    created: Required[str]
    counts: DownloadCounts
    files: list[DownloadedFile]
    table: list[DownloadedFile]
    missing: list[str]
    begun: list[str]


def read_record(folder: Path) -> dict[str, Any] | None:
    """What an earlier download wrote there, or None. Raises DataError when it is damaged."""
    path = folder / RECORD
    if not path.exists():
        return None
    value = read_json(path)
    if not isinstance(value, dict) or value.get("schema_version") != _SCHEMA:
        raise DataError(
            f"{path}: not a record of this version",
            remedy="Download into another folder, or delete this one.",
        )
    remedy = "Move the folder away and download again."
    from_json(DownloadRecord, value, source=path, remedy=remedy)
    absent = [key for key in _IN_THE_END if value["complete"] and key not in value]
    if absent:
        raise DataError(f"{path}: missing field '{absent[0]}'", remedy=remedy)
    # Files are removed by these names when the dataset no longer has them.
    for key, place in (("files", folder), ("table", folder / CACHE / "hub")):
        for file in value.get(key, ()):
            confined(place, file["path"], source=path)
    for name in value.get(BEGUN, ()):
        confined(folder, name, source=path)
    return value


def check_folder(folder: Path, source: Source) -> dict[str, Any] | None:
    """The earlier record where `folder` holds the same dataset and variant.

    Raises UsageError where it holds anything else: two sets must not mix.
    """
    record = read_record(folder)
    remedy = "Choose another folder with --out, or delete this one."
    if record is None:
        if folder.is_dir() and any(path.name not in _OURS for path in folder.iterdir()):
            raise UsageError(f"{folder}: holds files of another origin", remedy=remedy)
        return None
    for key in ("repository", "variant"):
        if record.get(key) != getattr(source, key):
            raise UsageError(
                f"{folder}: holds {key} {record.get(key)}, not {getattr(source, key)}",
                remedy=remedy,
            )
    return record


def begin_record(folder: Path, source: Source, revision: str, files: list[str]) -> None:
    """Say, before the first file, what is being fetched: `complete` is false until the end."""
    make_folder(folder)
    earlier = read_record(folder) or {}
    begun = sorted({*earlier.get(BEGUN, ()), *files})
    told = {**_head(source, revision), **earlier, "revision": revision}
    write_json(folder / RECORD, {**told, "complete": False, BEGUN: begun})


def end_record(folder: Path, source: Source, revision: str, body: dict[str, Any]) -> None:
    """Write the whole record; `body` holds files, counts, missing and the like.

    Where the files are those of an earlier record, its time stands.
    """
    told = {**_head(source, revision), "complete": True, **body}
    earlier = read_record(folder) or {}
    if earlier.get("files") == body["files"]:
        told["created"] = earlier["created"]
    write_json(folder / RECORD, told)


def _head(source: Source, revision: str) -> dict[str, Any]:
    told = asdict(source)
    return {
        "schema_version": _SCHEMA,
        **{key: told[key] for key in ("dataset", "repository")},
        "revision": revision,
        **{key: told[key] for key in ("variant", "licence")},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "marsretrieval": __version__,
    }
