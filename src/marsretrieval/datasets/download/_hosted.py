"""Datasets whose files all lie in the repository: fetched as they are, then counted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from marsretrieval.datasets._disk import check_space
from marsretrieval.datasets._open import open_images
from marsretrieval.datasets._points import read_ground_truth, read_image_queries
from marsretrieval.datasets.download._hub import (
    HubFile,
    Listing,
    copy_cached,
    fetch_snapshot,
    find_cached,
    list_repository,
    missing_bytes,
)
from marsretrieval.datasets.download._record import (
    BEGUN,
    RECORD,
    begin_record,
    check_folder,
    end_record,
)
from marsretrieval.datasets.download._report import Report, described
from marsretrieval.datasets.download._sources import Source
from marsretrieval.errors import DataError
from marsretrieval.files import confined, sha256_file
from marsretrieval.progress import NO_PROGRESS, Progress


def download_hosted(
    source: Source,
    folder: Path,
    *,
    revision: str | None,
    offline: bool,
    progress: Progress = NO_PROGRESS,
) -> Report:
    """Bring the repository into `folder`; check hashes; count what the readers find."""
    record = check_folder(folder, source)
    listing, fetched = bring(
        source, folder, record, "files", revision=revision, offline=offline, progress=progress
    )
    counts = _counts(source, listing, folder)
    body = {"counts": counts, "files": file_records(folder, listing.files)}
    end_record(folder, source, listing.revision, body)
    return Report(
        **described(source, folder, listing.revision),
        files=len(listing.files),
        fetched_bytes=fetched,
        counts=counts,
    )


def bring(
    source: Source,
    folder: Path,
    record: dict[str, Any] | None,
    key: str,
    *,
    place: Path | None = None,
    revision: str | None,
    offline: bool,
    progress: Progress = NO_PROGRESS,
) -> tuple[Listing, int]:
    """The files of the repository, whole, in `place` (default: `folder`); the bytes fetched.

    What an earlier `record` lists under `key`, or began to fetch, and is no longer wanted is
    removed. Offline, what is recorded or in the hub's own cache must do.
    """
    place = place or folder
    if offline:
        recorded = _recorded(place, record, key, revision)
        if recorded is not None:
            return recorded, 0
        listing, snapshot = find_cached(source.repository, revision or source.revision)
        check_space(folder, missing_bytes(listing, place))
        begin_record(folder, source, listing.revision, [file.path for file in listing.files])
        copy_cached(listing, snapshot, place)
        return listing, 0
    listing = list_repository(source.repository, wanted_revision(source, record, revision))
    check_space(folder, missing_bytes(listing, place))
    begin_record(folder, source, listing.revision, [file.path for file in listing.files])
    fetched = fetch_snapshot(listing, place, progress)
    earlier = {each["path"] for each in (record or {}).get(key, ())}
    earlier |= set((record or {}).get(BEGUN, ()))
    for name in earlier - {file.path for file in listing.files}:
        confined(place, name, source=folder / RECORD).unlink(missing_ok=True)
    return listing, fetched


def wanted_revision(
    source: Source, record: dict[str, Any] | None, revision: str | None
) -> str | None:
    """What was asked for, else what lies there already, else the pinned one, else the head."""
    if revision is not None:
        return revision
    return str(record["revision"]) if record is not None else source.revision


def file_records(folder: Path, files: Iterable[HubFile]) -> list[dict[str, Any]]:
    return [
        {
            "path": file.path,
            "size": file.size,
            "sha256": file.sha256 or sha256_file(folder / file.path),
        }
        for file in files
    ]


def _recorded(
    place: Path, record: dict[str, Any] | None, key: str, revision: str | None
) -> Listing | None:
    """The files of a finished download. Raises DataError where one is gone or altered."""
    if record is None or not record.get("complete"):
        return None
    if revision is not None and revision != record["revision"]:
        return None
    files = tuple(HubFile(each["path"], each["size"], each["sha256"]) for each in record[key])
    altered = [file.path for file in files if not file.whole(place)]
    if altered:
        raise DataError(
            f"{place}: {len(altered)} files are gone or altered: {', '.join(altered[:3])}",
            remedy="Run without --offline: they are fetched again.",
        )
    return Listing(record["repository"], record["revision"], files)


def _counts(source: Source, listing: Listing, folder: Path) -> dict[str, Any]:
    """Through the readers, so that a layout which they do not know is told at once."""
    if source.dataset == "geolocalization":
        points = read_ground_truth(folder / "ground_truth")
        examples = read_image_queries(folder / "image_queries")
        return {
            "points": {name: len(each.lon) for name, each in points.items()},
            "examples": {
                name: sum(shard.rows or 0 for shard in each.shards())
                for name, each in examples.items()
            },
        }
    rows = sum(shard.rows or 0 for shard in open_images(folder).shards())
    if source.rows not in (None, rows) and listing.revision == source.revision:
        raise DataError(f"{folder}: {rows:,} rows, {source.rows:,} expected at this revision")
    return {"rows": rows}
