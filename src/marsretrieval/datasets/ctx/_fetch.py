"""Zips of the mosaic from its server, downloaded in the background."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from marsretrieval.datasets.download.http import (
    CertificateError,
    HttpClient,
    HTTPStatusError,
    OnProgress,
    RetryPolicy,
    ServerError,
    check_libraries,
)
from marsretrieval.errors import DataError, UsageError

_MOVED = "Check whether the mosaic has moved; --server names another address."
_CERTIFICATE = (
    "The server is known to leave out an intermediate certificate. Save that certificate as PEM "
    "(a browser shows it, under the padlock) and pass it with --ca-file, or set SSL_CERT_FILE to "
    "a bundle that has it. Verification is never switched off."
)
Fetch = Callable[[str, OnProgress | None], "Future[Path]"]


@dataclass(frozen=True, slots=True)
class FetchSettings(RetryPolicy):
    """Time limits, and `ca_file`: certificates (PEM) trusted beside those of the system."""

    ca_file: Path | None = None


@contextmanager
def background_fetch(folder: Path, settings: FetchSettings) -> Iterator[Fetch]:
    """Download zips into a folder, one at a time, beside other work.

    Args:
        folder: Where they appear, each under its name when it is whole.
        settings: Time limits and trusted certificates.

    Yields:
        A function that takes an address and a progress function and returns the future path; a
        file that exists is not downloaded again. Its errors are DataError for this file,
        ServerError if no file can be downloaded, and OutputError. What is under way when the
        context ends is cancelled at once; the same call resumes it.

    Raises:
        UsageError: If `settings.ca_file` holds no certificates.
        MissingDependencyError: If the extra `download` is not installed.
    """
    check_libraries("downloading the mosaic")
    from anyio.from_thread import start_blocking_portal

    client = HttpClient(
        head_s=settings.head_s, timeout_s=settings.timeout_s, verify=_trust(settings.ca_file)
    )
    turn = asyncio.Lock()
    futures: list[Future[Path]] = []

    async def download(url: str, on_progress: OnProgress | None) -> Path:
        path = folder / urlsplit(url).path.rpartition("/")[2]
        async with turn:
            if not path.is_file():
                try:
                    await client.download(url, path, settings, on_progress)
                except HTTPStatusError as error:
                    raise DataError(error.message, remedy=_MOVED) from error
                except CertificateError as error:
                    raise ServerError(error.message, remedy=_CERTIFICATE) from error
        return path

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(client):

        def start(url: str, on_progress: OnProgress | None = None) -> Future[Path]:
            futures.append(portal.start_task_soon(download, url, on_progress))
            return futures[-1]

        try:
            yield start
        finally:
            for future in futures:
                future.cancel()


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"--ca-file {ca_file}: no certificates in PEM ({error})") from error
        # The certificates named are trusted themselves, as far as they go.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
