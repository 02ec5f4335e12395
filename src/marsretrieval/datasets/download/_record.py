"""``download.json``: what a folder holds, where it came from, and whether it is all there."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from marsretrieval import __version__
from marsretrieval.datasets.download._sources import Source
from marsretrieval.errors import DataError, UsageError
from marsretrieval.files import check_fields, confined, make_folder, read_json, write_json

RECORD = "download.json"
BEGUN = "begun"  # files of downloads that did not come to their end
CACHE = ".cache"  # hidden, so that no reader takes it for data
_OURS = (CACHE, "tiles")  # tiles may be cut before the rest is fetched
_SCHEMA = 1
_ALWAYS = ("dataset", "repository", "revision", "variant", "complete", "created")
_IN_THE_END = ("files", "counts")
_FILE = {"path": str, "size": int, "sha256": str}
_KINDS = {
    **dict.fromkeys(("dataset", "repository", "revision", "created"), str),
    "variant": str | None,
    "complete": bool,
    "counts": dict[str, Any],
    "files": list[dict[str, Any]],
    "table": list[dict[str, Any]],
    "missing": list[str],
    BEGUN: list[str],
}


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
    absent = [key for key in _ALWAYS if key not in value]
    absent += [key for key in _IN_THE_END if value.get("complete") and key not in value]
    if absent:
        raise DataError(
            f"{path}: has no '{absent[0]}'",
            remedy="Move the folder away and download again.",
        )
    check_fields(value, _KINDS, source=path, optional=True)
    # Files are removed by these names when the dataset no longer has them.
    for key, place in (("files", folder), ("table", folder / CACHE / "hub")):
        for number, file in enumerate(value.get(key, ())):
            check_fields(file, _FILE, source=path, at=f"{key}[{number}]")
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
