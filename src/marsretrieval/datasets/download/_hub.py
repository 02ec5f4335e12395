"""Files of a dataset repository on the Hugging Face hub: listed, fetched, checked.

The token is taken from the environment alone (HF_TOKEN) and never shown or written.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marsretrieval.errors import DataError, DatasetNotFoundError, OutputError
from marsretrieval.files import sha256_file
from marsretrieval.progress import NO_PROGRESS, Progress

__all__ = ["HubFile", "Listing", "cached_snapshot", "fetch_snapshot", "list_repository"]

_SKIPPED = (".gitattributes", ".gitignore")
_PARTS = ".cache/huggingface/download"  # where the library keeps a file until it is whole
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class HubFile:
    path: str
    size: int
    sha256: str | None  # None: the hub knows the hash of large files only

    def whole(self, folder: Path) -> bool:
        """Is it there, of the right size and, where the hash is known, content."""
        path = folder / self.path
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        return self.sha256 is None or sha256_file(path) == self.sha256


@dataclass(frozen=True, slots=True)
class Listing:
    repository: str
    revision: str  # always a commit
    files: tuple[HubFile, ...]


def list_repository(repository: str, revision: str | None) -> Listing:
    """Files at a revision (None: the head). Raises DatasetNotFoundError or DataError."""
    import huggingface_hub as hub

    with _told(repository, revision):
        info = hub.HfApi(endpoint=_endpoint(), token=_token()).dataset_info(
            repository, revision=revision, files_metadata=True
        )
    files = tuple(
        HubFile(entry.rfilename, int(entry.size or 0), entry.lfs.sha256 if entry.lfs else None)
        for entry in info.siblings or ()
        if Path(entry.rfilename).name not in _SKIPPED
    )
    if not files:
        raise DataError(f"{repository} at {info.sha}: an empty repository")
    return Listing(repository, str(info.sha), files)


def fetch_snapshot(listing: Listing, folder: Path, progress: Progress = NO_PROGRESS) -> int:
    """Bring every file of `listing` into `folder`; those whole already are kept.

    The library resumes a file that breaks off; after a kill, a rerun fetches the files that are
    not whole from their start. Returns the bytes fetched. Raises DataError when a file does not
    have the hub's hash (it is removed, so that a rerun fetches it again).
    """
    wanted = [file for file in listing.files if not file.whole(folder)]
    if not wanted:
        return 0
    for file in wanted:
        (folder / file.path).unlink(missing_ok=True)
    for leftover in (folder / _PARTS).rglob("*.incomplete"):
        leftover.unlink()
    import huggingface_hub as hub

    with _told(listing.repository, listing.revision), _watched(folder, wanted, progress):
        hub.snapshot_download(
            listing.repository,
            repo_type="dataset",
            revision=listing.revision,
            local_dir=folder,
            allow_patterns=[_literal(file.path) for file in wanted],
            endpoint=_endpoint(),
            token=_token(),
            tqdm_class=_no_bar(),
        )
    damaged = [file.path for file in wanted if not file.whole(folder)]
    if damaged:
        for name in damaged:
            (folder / name).unlink(missing_ok=True)
        raise DataError(
            f"{folder}: {len(damaged)} files did not arrive whole: {', '.join(damaged[:3])}",
            remedy="Run the same command again: only these are fetched.",
        )
    return sum(file.size for file in wanted)


def cached_snapshot(repository: str, revision: str | None, folder: Path) -> Listing:
    """Offline: copy what the hub's own cache holds (HF_HOME) into `folder`.

    Raises DatasetNotFoundError when the snapshot is not there.
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
            f"{repository}: neither in {folder} nor in the cache of the Hugging Face hub",
            remedy="Run once without --offline, or copy the folder from where it is.",
        ) from error
    files = []
    for path in sorted(snapshot.rglob("*")):
        name = path.relative_to(snapshot).as_posix()
        if path.is_file() and path.name not in _SKIPPED:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
            files.append(HubFile(name, path.stat().st_size, None))
    return Listing(repository, snapshot.name, tuple(files))


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _token() -> str | bool:
    """False keeps the library from using a token file that lies about."""
    return os.environ.get("HF_TOKEN") or False


def _literal(path: str) -> str:
    """`path` as a pattern that matches nothing else."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in path)


def _no_bar() -> Any:
    """Our own bar shows the bytes; the library's would be a second one."""
    from huggingface_hub.utils import tqdm

    class Silent(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"disable": True})

    return Silent


@contextmanager
def _watched(folder: Path, files: list[HubFile], progress: Progress) -> Iterator[None]:
    """Show bytes as they arrive on disk: true whichever transport the library chooses."""
    total = sum(file.size for file in files)
    done = threading.Event()

    def arrived() -> int:
        found = [folder / file.path for file in files]
        found += (folder / _PARTS).rglob("*.incomplete")
        sizes = 0
        for path in found:
            try:
                sizes += path.stat().st_size
            except OSError:  # not there yet, or just renamed
                continue
        return min(sizes, total)

    with progress.start("fetch", total, "B") as bar:
        shown = 0

        def watch() -> None:
            nonlocal shown
            while not done.wait(_POLL_S):
                now = arrived()
                if now > shown:
                    bar.advance(now - shown)
                    shown = now

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        bar.advance(total - shown)


@contextmanager
def _told(repository: str, revision: str | None) -> Iterator[None]:
    """The hub's errors as ours, each with its remedy."""
    import httpx2
    from huggingface_hub import errors

    place = f"{repository} at {revision or 'its head'}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise DataError(
            f"{repository}: access must be asked for",
            remedy=f"Accept its terms at https://huggingface.co/datasets/{repository}, "
            "then set HF_TOKEN.",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DatasetNotFoundError(
            f"{repository}: no such dataset on the hub, or it is private",
            remedy="If it is private, set HF_TOKEN to a token that may read it.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DatasetNotFoundError(
            f"{repository}: no revision {revision}", remedy="Name a commit, branch or tag."
        ) from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise DataError(
            f"{place}: the hub cannot be asked ({_first_line(error)})",
            remedy="Unset HF_HUB_OFFLINE, or use --offline with what is there.",
        ) from error
    except (errors.HfHubHTTPError, httpx2.HTTPError) as error:
        raise DataError(
            f"{place}: the hub does not answer as it should ({_first_line(error)})",
            remedy="Check the network and HF_ENDPOINT, then run the same command again: "
            "the files that are whole are kept.",
        ) from error
    except OSError as error:
        raise OutputError(
            f"{place}: cannot be stored ({error.strerror or error})",
            remedy="Check that the folder is yours and has free space, or choose another.",
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
