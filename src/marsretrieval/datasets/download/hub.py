"""List, download and verify the files of a dataset repository on the Hugging Face hub.

The token is read from the environment only (HF_TOKEN) and never shown or written.
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
from marsretrieval.datasets.download.report import Report, common_fields
from marsretrieval.datasets.download.sources import Source
from marsretrieval.datasets.ground_truth import read_ground_truth, read_image_queries
from marsretrieval.datasets.listing import check_space, only_one
from marsretrieval.datasets.open import open_images
from marsretrieval.datasets.records import (
    CACHE,
    RECORD,
    DownloadRecord,
    FileRecord,
    begin_record,
    check_folder,
    end_record,
)
from marsretrieval.errors import DataError, DatasetNotFoundError, OutputError
from marsretrieval.io import atomic_path, make_folder, sha256_file
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.text import confined, pluralize

_SKIPPED_NAMES = (".gitattributes", ".gitignore")
_MAX_WORKERS = 4


@dataclass(frozen=True, slots=True)
class HubFile:
    """File of a repository.

    Attributes:
        path: Path in the repository.
        size: Size in bytes.
        sha256: SHA-256; the hub has it for large files.
        git_sha1: Git's hash; the hub has it for small files.
    """

    path: str
    size: int
    sha256: str | None
    git_sha1: str | None = None

    def checksums(self, path: Path) -> tuple[str, str]:
        """Compute the checksum of a local copy.

        Args:
            path: The local copy.

        Returns:
            Expected and actual checksum; sizes if the sizes differ or no checksum is known.
        """
        size = path.stat().st_size
        if size != self.size or self.sha256 == self.git_sha1:
            return f"{self.size:,} bytes", f"{size:,} bytes"
        if self.sha256 is not None:
            return self.sha256, sha256_file(path)
        content = path.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % size + content, usedforsecurity=False)
        return str(self.git_sha1), git.hexdigest()

    def is_intact(self, folder: Path) -> bool:
        """Check whether a folder has the file with the expected size and checksum.

        Args:
            folder: Folder of the local copy.

        Returns:
            Whether it does.
        """
        path = folder / self.path
        return path.is_file() and len(set(self.checksums(path))) == 1


@dataclass(frozen=True, slots=True)
class Listing:
    """Files of a repository at a commit.

    Attributes:
        repository: Name of the repository.
        revision: Commit hash.
        files: The files.
    """

    repository: str
    revision: str
    files: tuple[HubFile, ...]

    def missing(self, folder: Path) -> list[HubFile]:
        """List files that a folder lacks, or that are damaged.

        Args:
            folder: Folder of the local copy.

        Returns:
            The files.
        """
        return [file for file in self.files if not file.is_intact(folder)]


def download_from_hub(
    source: Source,
    folder: Path,
    *,
    revision: str | None,
    offline: bool,
    progress: Progress = NO_PROGRESS,
) -> Report:
    """Download a repository that contains its images, and count its rows with the readers.

    Args:
        source: The dataset.
        folder: Folder of the dataset.
        revision: Commit, branch or tag; None for the default.
        offline: Use only the files in the folder and in the hub's cache.
        progress: Progress display.

    Returns:
        Numbers of files and rows.

    Raises:
        UsageError: If the folder holds something else.
        DatasetNotFoundError: If there is no such dataset or revision.
        DataError: If the network fails or a file is damaged.
        OutputError: If the disk is full or not writable.
    """
    record = check_folder(folder, source)
    listing, fetched = sync_files(
        source, folder, record, record.files if record else (),
        target=folder, revision=revision, offline=offline, progress=progress,
    )  # fmt: skip
    counts = _counts(source, listing, folder)
    files = tuple(file_record(folder, file.path) for file in listing.files)
    end_record(folder, source, listing.revision, counts=counts, files=files)
    return Report(
        **common_fields(source, folder, listing.revision),
        files=len(listing.files),
        fetched_bytes=fetched,
        counts=counts,
    )


def sync_files(
    source: Source,
    folder: Path,
    record: DownloadRecord | None,
    recorded: Sequence[FileRecord],
    *,
    target: Path,
    revision: str | None,
    offline: bool,
    progress: Progress = NO_PROGRESS,
) -> tuple[Listing, int]:
    """Make a folder match the files of a repository.

    Files recorded by an earlier download that the repository no longer has are deleted.

    Args:
        source: The dataset.
        folder: Folder of the dataset, for the record.
        record: Record of an earlier download, or None.
        recorded: Files of that download that belong to the repository.
        target: Folder for the files.
        revision: Commit, branch or tag; None for the default.
        offline: Use only the recorded files or the hub's cache.
        progress: Progress display.

    Returns:
        The files of the repository, and the number of bytes downloaded.

    Raises:
        DatasetNotFoundError: If there is no such dataset or revision.
        DataError: If the network fails or a file is damaged.
        OutputError: If the disk is full or not writable.
    """
    if offline:
        if record and record.complete and revision in (None, record.revision):
            return _check_recorded(target, record, recorded), 0
        listing, snapshot = find_cached(source.repository, revision or source.revision)
    else:
        listing = list_repository(source.repository, resolve_revision(source, record, revision))
    missing = listing.missing(target)
    check_space(folder, sum(file.size for file in missing))
    begin_record(folder, source, listing.revision, [file.path for file in listing.files])
    if offline:
        for file in listing.files:
            with atomic_path(confined(target, file.path)) as temporary:
                shutil.copyfile(snapshot / file.path, temporary)
        return listing, 0
    if missing:
        _download(listing, missing, target, progress)
    earlier = {file.path for file in recorded} | set(record.begun if record else ())
    for name in earlier - {file.path for file in listing.files}:
        confined(target, name, source=folder / RECORD).unlink(missing_ok=True)
    return listing, sum(file.size for file in missing)


def resolve_revision(
    source: Source, record: DownloadRecord | None, revision: str | None
) -> str | None:
    """Choose the revision to download.

    Args:
        source: The dataset.
        record: Record of an earlier download, or None.
        revision: Requested revision, or None.

    Returns:
        The requested revision, else that of the earlier download, else the pinned one; None for
        the head.
    """
    return revision or (record.revision if record is not None else source.revision)


def file_record(folder: Path, name: str) -> FileRecord:
    """Record size and SHA-256 of a file.

    Args:
        folder: Folder of the dataset.
        name: Path relative to it.

    Returns:
        The record.
    """
    path = folder / name
    return FileRecord(name, path.stat().st_size, sha256_file(path))


def list_repository(repository: str, revision: str | None) -> Listing:
    """List the files of a dataset repository on the hub.

    Args:
        repository: Name of the repository.
        revision: Commit, branch or tag; None for the head.

    Returns:
        The files and the commit.

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
        if Path(entry.rfilename).name not in _SKIPPED_NAMES
    )
    if not files:
        raise DataError(f"{repository} at {info.sha}: an empty repository")
    for file in files:
        confined(Path(), file.path, source=f"{repository} at {info.sha}")
    return Listing(repository, str(info.sha), files)


def find_cached(repository: str, revision: str | None) -> tuple[Listing, Path]:
    """Find a snapshot in the hub's own cache (HF_HOME).

    Args:
        repository: Name of the repository.
        revision: Commit, branch or tag; None for the head.

    Returns:
        The files, and the folder of the snapshot.

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
    except OSError as error:  # such as the hub's LocalEntryNotFoundError
        raise DatasetNotFoundError(
            f"{repository}: not in the cache of the Hugging Face hub",
            remedy="Run once without --offline, or copy the folder from another machine.",
        ) from error
    files = tuple(
        HubFile(path.relative_to(snapshot).as_posix(), path.stat().st_size, None)
        for path in sorted(snapshot.rglob("*"))
        if path.is_file() and path.name not in _SKIPPED_NAMES
    )
    return Listing(repository, snapshot.name, files), snapshot


def _check_recorded(
    target: Path, record: DownloadRecord, recorded: Sequence[FileRecord]
) -> Listing:
    """Return the files of a finished download.

    Raises:
        DataError: If one is missing or altered.
    """
    files = tuple(HubFile(file.path, file.size, file.sha256) for file in recorded)
    listing = Listing(record.repository, record.revision, files)
    altered = [file.path for file in listing.missing(target)]
    if altered:
        raise DataError(
            f"{target}: {len(altered)} files are missing or altered: {', '.join(altered[:3])}",
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
        """Cancel transfers after Ctrl-C; called before requests and when bytes arrive."""
        if stop.is_set():
            raise KeyboardInterrupt

    with (
        only_one(folder, "choose another folder with --out"),
        progress.start("fetch", -(-sum(file.size for file in missing) // MEGABYTE), "MB") as bar,
        _hub_errors(listing.repository, listing.revision),
        ThreadPoolExecutor(1) as thread,
    ):
        # Remnants of a killed run would be taken for complete files.
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
                max_workers=_MAX_WORKERS,
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


def _progress_class(counter: ByteCounter, check: Callable[[], None]) -> Any:
    """Create a silent tqdm class that calls `check` and reports bytes to `counter`."""
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
                counter.file("files")(self._count, None)

    return Bytes


def _counts(source: Source, listing: Listing, folder: Path) -> dict[str, Any]:
    """Count rows with the readers, so that an unknown layout is an error immediately."""
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
        raise DataError(
            f"{folder}: {pluralize(rows, 'row')}, {source.rows:,} expected at this revision"
        )
    return {"rows": rows}


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _token() -> str | bool:
    """Return HF_TOKEN, or False, which stops the library from using a token file."""
    return os.environ.get("HF_TOKEN") or False


@contextmanager
def _hub_errors(repository: str, revision: str | None) -> Iterator[None]:
    """Convert errors of the hub's library to those of this package, with remedies."""
    import httpx2
    from huggingface_hub import errors

    snapshot_name = f"{repository} at {revision or 'its latest commit'}"
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
            remedy="If it is private, set HF_TOKEN to a token that may read it. An expired token "
            "is rejected for public datasets too: unset it.",
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise DataError(
            f"{snapshot_name}: the hub cannot be queried ({_first_line(error)})",
            remedy="Unset HF_HUB_OFFLINE, or use --offline with the local files.",
        ) from error
    except OSError as error:
        if error.errno is not None and not isinstance(error, errors.HfHubHTTPError):
            raise OutputError(
                f"{snapshot_name}: cannot be stored ({error.strerror or error})",
                remedy="Check that the folder is yours and has free space, or choose another.",
            ) from error
        raise _unexpected_answer(snapshot_name, error) from error
    except httpx2.TransportError as error:
        raise DataError(
            f"{snapshot_name}: the hub is not reachable ({_first_line(error)})",
            remedy="Check the network and HF_ENDPOINT, then run the same command again: complete "
            "files are kept.",
        ) from error
    except (httpx2.HTTPError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unexpected_answer(snapshot_name, error) from error  # such as HTML in place of JSON


def _unexpected_answer(snapshot_name: str, error: Exception) -> DataError:
    return DataError(
        f"{snapshot_name}: unexpected response from the hub ({_first_line(error)})",
        remedy="Check the network (a login page may intercept requests), HF_ENDPOINT "
        "and HF_TOKEN, then run the same command again: complete files are kept.",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
