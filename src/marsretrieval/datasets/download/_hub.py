"""Files of a dataset repository on the Hugging Face hub: listed, fetched, checked.

The token is taken from the environment alone (HF_TOKEN) and never shown or written.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from marsretrieval.datasets._disk import only_one
from marsretrieval.datasets._megabytes import MEGABYTE, Megabytes
from marsretrieval.datasets._transfer import Patience, RefusedError, Transfer, UntrustedError
from marsretrieval.errors import DataError, DatasetNotFoundError, OutputError
from marsretrieval.files import atomic_path, confined, make_folder, sha256_file
from marsretrieval.progress import NO_PROGRESS, Progress

_SKIPPED = (".gitattributes", ".gitignore")
_PARTS = ".cache/parts"  # files on their way
_PATIENCE = Patience()
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class HubFile:
    path: str
    size: int
    sha256: str | None  # None: the hub knows that of large files only
    git_sha1: str | None = None  # of small files: the hash under which Git keeps them

    def whole(self, folder: Path) -> bool:
        """Is it there, of the right size and content."""
        return (folder / self.path).is_file() and self.matches(folder / self.path)

    def matches(self, path: Path) -> bool:
        """Has the file at `path` the right size and, where a hash is known, content."""
        if path.stat().st_size != self.size:
            return False
        if self.sha256 is not None:
            return sha256_file(path) == self.sha256
        return self.git_sha1 is None or _git_sha1(path) == self.git_sha1


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


def missing_bytes(listing: Listing, folder: Path) -> int:
    """What is still to come of files that are not there; parts of them that are count."""
    absent = [file for file in listing.files if not (folder / file.path).exists()]
    there = (_part(folder, file) for file in absent)
    return sum(file.size for file in absent) - sum(
        part.stat().st_size for part in there if part.exists()
    )


def fetch_snapshot(listing: Listing, folder: Path, progress: Progress = NO_PROGRESS) -> int:
    """Bring every file of `listing` into `folder`; those whole already are kept, and a file that
    broke off is gone on with, after a kill too. Returns the bytes of the files fetched.

    Not by the hub's library: since its version 2 it drops what it has of a file when it ends.
    Each file is compared with the hub's hash. Raises DataError when one has another, or cannot
    be had; UsageError when another run fetches into `folder`.
    """
    wanted = [file for file in listing.files if not file.whole(folder)]
    if not wanted:
        return 0
    import httpx2  # for its context: the listing and the files should trust the same

    parts = make_folder(folder / _PARTS)
    transfer = Transfer(
        _PATIENCE, context=httpx2.create_ssl_context(), token=os.environ.get("HF_TOKEN")
    )
    total = sum(file.size for file in wanted)
    with (
        only_one(parts, "choose another folder with --out"),
        progress.start("fetch", -(-total // MEGABYTE), "MB") as bar,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        count = Megabytes(bar)
        futures = [pool.submit(_fetch, listing, file, folder, transfer, count) for file in wanted]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            transfer.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    shutil.rmtree(parts, ignore_errors=True)
    return total


def _fetch(
    listing: Listing, file: HubFile, folder: Path, transfer: Transfer, count: Megabytes
) -> None:
    try:
        transfer.fetch(
            _address(listing, file),
            confined(folder, file.path),
            part=_part(folder, file),
            sound=file.matches,
            told=count.of(file.path),
        )
    except RefusedError as error:
        terms = f"https://huggingface.co/datasets/{listing.repository}"
        raise DataError(
            error.message,
            remedy=f"Accept its terms at {terms}, then set HF_TOKEN."
            if error.status in (401, 403)
            else "Look whether the repository has changed, or name a --revision that has it.",
        ) from error
    except UntrustedError as error:
        raise DataError(
            error.message,
            remedy="Set SSL_CERT_FILE to the certificates that your network needs. "
            "Verification is never switched off.",
        ) from error


def _address(listing: Listing, file: HubFile) -> str:
    import huggingface_hub as hub

    url = hub.hf_hub_url(
        listing.repository,
        file.path,
        repo_type="dataset",
        revision=listing.revision,
        endpoint=_endpoint(),
    )
    return str(url)


def _part(folder: Path, file: HubFile) -> Path:
    """Named by path and content: what is there of a file serves any revision that has it."""
    content = file.sha256 or file.git_sha1 or "unknown"
    place = hashlib.sha256(file.path.encode()).hexdigest()
    return folder / _PARTS / f"{place[:16]}-{content[:40]}.part"


def find_cached(repository: str, revision: str | None) -> tuple[Listing, Path]:
    """Offline: a snapshot in the hub's own cache (HF_HOME), and where it lies.

    Raises DatasetNotFoundError when there is none.
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


def copy_cached(listing: Listing, snapshot: Path, folder: Path) -> None:
    """Bring the files of a snapshot into `folder`, each whole or not at all."""
    for file in listing.files:
        with atomic_path(confined(folder, file.path)) as temporary:
            shutil.copyfile(snapshot / file.path, temporary)


def _git_sha1(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _token() -> str | bool:
    """False keeps the library from using a token file that lies about."""
    return os.environ.get("HF_TOKEN") or False


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
            remedy="If it is private, set HF_TOKEN to a token that may read it. A token that has "
            "expired is refused for public ones too: unset it.",
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
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # HTML in place of JSON
        if isinstance(error, (errors.HfHubHTTPError, httpx2.HTTPError)):
            raise _unexpected_answer(place, error) from error
        raise DataError(
            f"{place}: the hub's answer cannot be read ({_first_line(error)})",
            remedy="Something else may have answered, such as the login page of a network: open "
            "a web page, log in, then run the same command again.",
        ) from error
    except (errors.HfHubHTTPError, httpx2.HTTPError) as error:
        raise _unexpected_answer(place, error) from error
    except OSError as error:
        raise OutputError(
            f"{place}: cannot be stored ({error.strerror or error})",
            remedy="Check that the folder is yours and has free space, or choose another.",
        ) from error


def _unexpected_answer(place: str, error: Exception) -> DataError:
    return DataError(
        f"{place}: the hub does not answer as it should ({_first_line(error)})",
        remedy="Check the network and HF_ENDPOINT, then run the same command again: "
        "the files that are whole are kept.",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
