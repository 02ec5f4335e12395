"""Files of a dataset repository on the Hugging Face hub: listed, downloaded, verified.

The token is taken from the environment alone (HF_TOKEN) and never shown or written.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marsretrieval.datasets.download.http import MEGABYTE, ByteCounter
from marsretrieval.datasets.download.record import (
    CACHE,
    RECORD,
    DownloadRecord,
    FileRecord,
    begin_record,
    check_folder,
    end_record,
)
from marsretrieval.datasets.download.report import Report, described
from marsretrieval.datasets.download.sources import Source
from marsretrieval.datasets.ground_truth import read_ground_truth, read_image_queries
from marsretrieval.datasets.listing import check_space, only_one
from marsretrieval.datasets.open import open_images
from marsretrieval.errors import DataError, DatasetNotFoundError, OutputError
from marsretrieval.io import atomic_path, confined, make_folder, sha256_file
from marsretrieval.progress import NO_PROGRESS, Progress

_SKIPPED = (".gitattributes", ".gitignore")
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository; the hub has the SHA-256 of large files, Git's hash of small ones."""

    path: str
    size: int
    sha256: str | None
    git_sha1: str | None = None

    def checksums(self, path: Path) -> tuple[str, str]:
        """(expected, actual) checksum of the file at `path`; its size, where none is known."""
        size = path.stat().st_size
        if size != self.size or self.sha256 == self.git_sha1:
            return f"{self.size:,} bytes", f"{size:,} bytes"
        if self.sha256 is not None:
            return self.sha256, sha256_file(path)
        content = path.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % size + content, usedforsecurity=False)
        return str(self.git_sha1), git.hexdigest()

    def is_whole(self, folder: Path) -> bool:
        """Whether the file is in `folder`, with the expected size and checksum."""
        path = folder / self.path
        return path.is_file() and len(set(self.checksums(path))) == 1


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a repository at a commit."""

    repository: str
    revision: str
    files: tuple[HubFile, ...]

    def missing(self, folder: Path) -> list[HubFile]:
        """Files that are not in `folder`, or are damaged there."""
        return [file for file in self.files if not file.is_whole(folder)]


def download_hosted(
    source: Source,
    folder: Path,
    *,
    revision: str | None,
    offline: bool,
    progress: Progress = NO_PROGRESS,
) -> Report:
    """Download a repository that holds its images, and count what the readers read of it."""
    record = check_folder(folder, source)
    listing, fetched = bring(
        source, folder, record, record.files if record else (),
        place=folder, revision=revision, offline=offline, progress=progress,
    )  # fmt: skip
    counts = _counts(source, listing, folder)
    files = tuple(file_record(folder, file.path) for file in listing.files)
    end_record(folder, source, listing.revision, counts=counts, files=files)
    return Report(
        **described(source, folder, listing.revision),
        files=len(listing.files),
        fetched_bytes=fetched,
        counts=counts,
    )


def bring(
    source: Source,
    folder: Path,
    record: DownloadRecord | None,
    recorded: Sequence[FileRecord],
    *,
    place: Path,
    revision: str | None,
    offline: bool,
    progress: Progress = NO_PROGRESS,
) -> tuple[Listing, int]:
    """Complete the files of a repository in `place`; return it and the bytes downloaded.

    `recorded` are its files that the `record` of an earlier download lists; those that it no
    longer has are removed. `offline`: use what is recorded, or the hub's own cache.
    """
    if offline:
        if record and record.complete and revision in (None, record.revision):
            return _check_recorded(place, record, recorded), 0
        listing, snapshot = find_cached(source.repository, revision or source.revision)
    else:
        listing = list_repository(source.repository, wanted_revision(source, record, revision))
    missing = listing.missing(place)
    check_space(folder, sum(file.size for file in missing))
    begin_record(folder, source, listing.revision, [file.path for file in listing.files])
    if offline:
        for file in listing.files:
            with atomic_path(confined(place, file.path)) as temporary:
                shutil.copyfile(snapshot / file.path, temporary)
        return listing, 0
    if missing:
        _download(listing, missing, place, progress)
    earlier = {file.path for file in recorded} | set(record.begun if record else ())
    for name in earlier - {file.path for file in listing.files}:
        confined(place, name, source=folder / RECORD).unlink(missing_ok=True)
    return listing, sum(file.size for file in missing)


def wanted_revision(
    source: Source, record: DownloadRecord | None, revision: str | None
) -> str | None:
    """The revision given, else that of an earlier download, else the pinned one, else the head."""
    return revision or (record.revision if record is not None else source.revision)


def file_record(folder: Path, name: str) -> FileRecord:
    """Size and SHA-256 of a file."""
    path = folder / name
    return FileRecord(name, path.stat().st_size, sha256_file(path))


def list_repository(repository: str, revision: str | None) -> Listing:
    """Ask the hub for the files of a dataset's repository, at the head if `revision` is None.

    Raises:
        DatasetNotFoundError: If there is no such dataset or revision.
        DataError: If the hub cannot be reached, or lists no files or unsafe names.
    """
    import huggingface_hub as hub

    with _hub_errors(repository, revision):
        info = hub.HfApi(endpoint=_endpoint(), token=_token()).dataset_info(
            repository, revision=revision, files_metadata=True
        )
    files = tuple(
        HubFile(
            entry.rfilename,
            int(entry.size or 0),
            entry.lfs.sha256 if entry.lfs else None,
            None if entry.lfs else entry.blob_id,
        )
        for entry in info.siblings or ()
        if Path(entry.rfilename).name not in _SKIPPED
    )
    if not files:
        raise DataError(f"{repository} at {info.sha}: an empty repository")
    for file in files:
        confined(Path(), file.path, source=f"{repository} at {info.sha}")
    return Listing(repository, str(info.sha), files)


def find_cached(repository: str, revision: str | None) -> tuple[Listing, Path]:
    """Find a snapshot in the hub's own cache (HF_HOME): its files, and the folder of them.

    Raises:
        DatasetNotFoundError: If there is none.
    """
    import huggingface_hub as hub

    try:
        snapshot = Path(
            hub.snapshot_download(
                repository, repo_type="dataset", revision=revision, local_files_only=True
            )
        )
    except OSError as error:  # the hub's LocalEntryNotFoundError and its kin
        raise DatasetNotFoundError(
            f"{repository}: not in the cache of the Hugging Face hub",
            remedy="Run once without --offline, or copy the folder from where it is.",
        ) from error
    files = tuple(
        HubFile(path.relative_to(snapshot).as_posix(), path.stat().st_size, None)
        for path in sorted(snapshot.rglob("*"))
        if path.is_file() and path.name not in _SKIPPED
    )
    return Listing(repository, snapshot.name, files), snapshot


def _check_recorded(place: Path, record: DownloadRecord, recorded: Sequence[FileRecord]) -> Listing:
    """The files of a finished download. Raises DataError where one is missing or altered."""
    files = tuple(HubFile(file.path, file.size, file.sha256) for file in recorded)
    listing = Listing(record.repository, record.revision, files)
    altered = [file.path for file in listing.missing(place)]
    if altered:
        raise DataError(
            f"{place}: {len(altered)} files are missing or altered: {', '.join(altered[:3])}",
            remedy="Run without --offline: they are downloaded again.",
        )
    return listing


def _download(
    listing: Listing, missing: Sequence[HubFile], folder: Path, progress: Progress
) -> None:
    """Download files and verify their checksums."""
    import huggingface_hub as hub

    state = make_folder(folder / CACHE) / "huggingface"  # of snapshot_download
    stop = threading.Event()

    def check(*_: object) -> None:
        """Called before requests and with bytes: after Ctrl-C, it ends the transfers under way."""
        if stop.is_set():
            raise KeyboardInterrupt

    with (
        only_one(folder, "choose another folder with --out"),
        progress.start("fetch", -(-sum(file.size for file in missing) // MEGABYTE), "MB") as bar,
        _hub_errors(listing.repository, listing.revision),
        ThreadPoolExecutor(1) as thread,
    ):
        # Left by a run that was killed, or altered since: it would be taken for whole.
        shutil.rmtree(state, ignore_errors=True)
        for file in missing:
            confined(folder, file.path).unlink(missing_ok=True)
        requests = hub.get_session().event_hooks["request"]
        requests.append(check)
        try:
            thread.submit(
                hub.snapshot_download,
                listing.repository,
                repo_type="dataset",
                revision=listing.revision,
                local_dir=folder,
                allow_patterns=[glob.escape(file.path) for file in missing],
                endpoint=_endpoint(),
                token=_token(),
                max_workers=_AT_ONCE,
                tqdm_class=_progress_class(ByteCounter(bar), check),
            ).result()
        finally:
            stop.set()
            thread.shutdown()
            requests.remove(check)
    shutil.rmtree(state, ignore_errors=True)
    for file in missing:
        path = folder / file.path
        if not path.is_file():
            raise DataError(
                f"{path}: missing after the download", remedy="Run the same command again."
            )
        expected, actual = file.checksums(path)
        if expected != actual:
            path.unlink()
            raise DataError(
                f"checksum mismatch: {path} (expected {expected}, got {actual})",
                remedy="Run the same command again: only this file is downloaded.",
            )


def _progress_class(count: ByteCounter, check: Callable[[], None]) -> Any:
    """A silent tqdm class that reports bytes to `count`, after calling `check`."""
    from huggingface_hub.utils import tqdm

    class Bytes(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            self._of_files = options.get("name") == "huggingface_hub.snapshot_download"
            self._count = 0
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            check()
            if self._of_files:
                self._count += int(n or 0)
                count.file("files")(self._count, None)

    return Bytes


def _counts(source: Source, listing: Listing, folder: Path) -> dict[str, Any]:
    """Through the readers, so that an unknown layout is an error at once."""
    if source.dataset == "geolocalization":
        points = read_ground_truth(folder / "ground_truth")
        examples = read_image_queries(folder / "image_queries")
        return {
            "points": {name: len(table.lon) for name, table in points.items()},
            "examples": {
                name: sum(shard.rows or 0 for shard in images.shards())
                for name, images in examples.items()
            },
        }
    rows = sum(shard.rows or 0 for shard in open_images(folder).shards())
    if source.rows not in (None, rows) and listing.revision == source.revision:
        raise DataError(f"{folder}: {rows:,} rows, {source.rows:,} expected at this revision")
    return {"rows": rows}


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _token() -> str | bool:
    """False keeps the library from using a token file."""
    return os.environ.get("HF_TOKEN") or False


@contextmanager
def _hub_errors(repository: str, revision: str | None) -> Iterator[None]:
    """Raise the package's errors, with remedies, in place of the hub's."""
    import httpx2
    from huggingface_hub import errors

    place = f"{repository} at {revision or 'its head'}"
    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise DatasetNotFoundError(
            f"{repository}: no revision {revision}", remedy="Name a commit, branch or tag."
        ) from error
    except errors.GatedRepoError as error:
        raise DataError(
            f"{repository}: access must be requested",
            remedy=f"Accept its terms at https://huggingface.co/datasets/{repository}, "
            "then set HF_TOKEN.",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DatasetNotFoundError(
            f"{repository}: no such dataset on the hub, or it is private",
            remedy="If it is private, set HF_TOKEN to a token that may read it. A token that has "
            "expired is refused for public ones too: unset it.",
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise DataError(
            f"{place}: the hub cannot be asked ({_first_line(error)})",
            remedy="Unset HF_HUB_OFFLINE, or use --offline with what is there.",
        ) from error
    except OSError as error:
        if error.errno is not None and not isinstance(error, errors.HfHubHTTPError):
            raise OutputError(
                f"{place}: cannot be stored ({error.strerror or error})",
                remedy="Check that the folder is yours and has free space, or choose another.",
            ) from error
        raise _unexpected_answer(place, error) from error
    except (httpx2.HTTPError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unexpected_answer(place, error) from error  # such as HTML in place of JSON


def _unexpected_answer(place: str, error: Exception) -> DataError:
    return DataError(
        f"{place}: the hub does not answer as it should ({_first_line(error)})",
        remedy="Check the network (the login page of a network may have answered), HF_ENDPOINT "
        "and HF_TOKEN, then run the same command again: the files that are whole are kept.",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
