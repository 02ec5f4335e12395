"""Zips of the mosaic from its server: whole files, resumed where they were left."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from marsretrieval.datasets._transfer import (
    Patience,
    RefusedError,
    ServerError,
    Transfer,
    UntrustedError,
)
from marsretrieval.errors import DataError, UsageError


@dataclass(frozen=True, slots=True)
class FetchSettings(Patience):
    """`ca_file`: certificates (PEM) trusted beside those of the system."""

    ca_file: Path | None = None


class Fetcher:
    """Fetches one zip at a time into `folder`."""

    def __init__(self, folder: Path, settings: FetchSettings) -> None:
        self._folder = folder
        self._transfer = Transfer(settings, context=_trust(settings.ca_file))

    def stop(self) -> None:
        self._transfer.stop()

    def fetch(self, url: str, *, told: Callable[[int, int | None], None] | None = None) -> Path:
        """The path of the whole file, not fetched again if it is there.

        `told` is called with the bytes there are and the bytes there will be. Raises DataError
        for what this file has wrong, ServerError when no file can be fetched, OutputError when
        there is no room.
        """
        final = self._folder / urlsplit(url).path.rpartition("/")[2]
        if final.is_file():
            return final
        try:
            self._transfer.fetch(url, final, told=told)
        except RefusedError as error:
            raise DataError(
                error.message,
                remedy="Look whether the mosaic has moved; --server names another place.",
            ) from error
        except UntrustedError as error:
            raise ServerError(
                error.message,
                remedy="The server is known to leave out an intermediate certificate. Save that "
                "certificate as PEM (a browser shows it, under the padlock) and pass it with "
                "--ca-file, or set SSL_CERT_FILE to a bundle that has it. Verification is never "
                "switched off.",
            ) from error
        return final


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
