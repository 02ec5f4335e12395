"""Zips of the mosaic from its server: whole files, resumed where they were left, never unchecked.

The standard library's client does it: one large file at a time needs neither a pool nor retries
within a request, and cutting tiles should ask for no more than rasterio.
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

from marsretrieval import __version__
from marsretrieval.datasets._disk import check_space
from marsretrieval.errors import DataError, OutputError, UsageError
from marsretrieval.files import write_json

__all__ = ["FetchSettings", "Fetcher", "ServerError"]

_CHUNK = 2**20
_FINAL = frozenset({400, 401, 403, 404, 405, 410, 451})


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """`ca_file`: certificates (PEM) trusted beside those of the system. Times in seconds."""

    ca_file: Path | None = None
    attempts: int = 6  # in a row without a byte
    timeout_s: float = 60.0
    backoff_s: float = 2.0  # before the second attempt; doubled before each further one
    max_pause_s: float = 120.0


class ServerError(DataError):
    """The server gave nothing. `reached`: it answered, so that another quad may be worth a try;
    otherwise it cannot be found or trusted at all."""

    def __init__(self, message: str, *, remedy: str | None = None, reached: bool = False) -> None:
        super().__init__(message, remedy=remedy)
        self.reached = reached


class _RetryableError(Exception):
    def __init__(self, reason: str, *, pause_s: float | None = None, reached: bool = True) -> None:
        super().__init__(reason)
        self.pause_s = pause_s
        self.reached = reached


class Fetcher:
    """Fetches one file at a time into `folder`. `stop`, once set, ends it soon."""

    def __init__(self, folder: Path, settings: FetchSettings) -> None:
        self._folder = folder
        self._settings = settings
        self.stop = Event()
        handler = urllib.request.HTTPSHandler(context=_trust(settings.ca_file))
        self._opener = urllib.request.build_opener(handler, _OnlyOverTls())
        self._opener.addheaders = [("User-Agent", f"marsretrieval/{__version__}")]

    def fetch(self, url: str, *, told: Callable[[int, int | None], None] | None = None) -> Path:
        """The path of the whole file; what an earlier call left is gone on with.

        `told` is called with the bytes there are and the bytes there will be. Raises DataError
        for what this file has wrong, ServerError when no file can be fetched, OutputError when
        there is no room.
        """
        name = urlsplit(url).path.rpartition("/")[2]
        final = self._folder / name
        if final.is_file():
            return final
        part = _Part(self._folder / f"{name}.part", url)
        failures = 0
        while True:
            if self.stop.is_set():
                raise _stopped(url)
            before = part.size
            try:
                self._go_on(part, told)
                break
            except _RetryableError as error:
                failures = 1 if part.size > before else failures + 1
                if failures >= self._settings.attempts:
                    raise ServerError(
                        f"{url}: {error}",
                        remedy="What came is kept: the same command goes on from there.",
                        reached=error.reached,
                    ) from error
                pause = error.pause_s or self._settings.backoff_s * 2 ** (failures - 1)
                if self.stop.wait(min(pause, self._settings.max_pause_s)):
                    raise _stopped(url) from error
        part.become(final)
        return final

    def _go_on(self, part: _Part, told: Callable[[int, int | None], None] | None) -> None:
        """One request. Returns when the file is whole; raises _RetryableError when it is not."""
        try:
            with self._opener.open(
                urllib.request.Request(part.url, headers=part.headers()),
                timeout=self._settings.timeout_s,
            ) as response:
                part.begin(response)
                if part.total is not None:
                    check_space(self._folder, part.total - part.size)
                self._receive(response, part, told)
        except urllib.error.HTTPError as error:
            self._refused(part, error)
        except urllib.error.URLError as error:
            reason = error.reason
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise _untrusted(part.url, reason) from error
            raise _RetryableError(f"cannot connect ({reason})", reached=False) from error
        except (HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
            raise _RetryableError(f"the connection broke ({error})") from error
        if part.total is not None and part.size != part.total:
            raise _RetryableError(f"{part.size:,} of {part.total:,} bytes came")

    def _receive(
        self,
        response: HTTPResponse,
        part: _Part,
        told: Callable[[int, int | None], None] | None,
    ) -> None:
        with part.open() as file:
            while chunk := response.read1(_CHUNK):
                if self.stop.is_set():
                    raise _stopped(part.url)
                part.write(file, chunk)
                if told is not None:
                    told(part.size, part.total)

    def _refused(self, part: _Part, error: urllib.error.HTTPError) -> None:
        if error.code == 416:  # nothing from there on: whole already, or another file by now
            if part.total is not None and part.size == part.total:
                return
            part.forget()
            raise _RetryableError("the file on the server has changed") from error
        if error.code in _FINAL:
            raise DataError(
                f"{part.url}: the server answers {error.code} ({error.reason})",
                remedy="Look whether the mosaic has moved; --server names another place.",
            ) from error
        after = error.headers.get("Retry-After", "")
        raise _RetryableError(
            f"the server answers {error.code} ({error.reason})",
            pause_s=float(after) if after.isdecimal() else None,
        ) from error


class _Part:
    """A file on its way, `<name>.part`, and what the server said of it, `<name>.part.json`."""

    def __init__(self, path: Path, url: str) -> None:
        self.url = url
        self._path = path
        self._facts = path.with_name(f"{path.name}.json")
        self.total: int | None = None
        self._validator: str | None = None
        with suppress(OSError, ValueError, TypeError, KeyError):
            facts = json.loads(self._facts.read_text(encoding="utf-8"))
            if facts["url"] == url:
                self.total, self._validator = facts["total"], facts["validator"]
        if self.total is None:
            self.forget()  # without a length nothing tells whether the rest belongs to it

    @property
    def size(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    def headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        if self.size:
            headers["Range"] = f"bytes={self.size}-"
            if self._validator:
                headers["If-Range"] = self._validator
        return headers

    def begin(self, response: HTTPResponse) -> None:
        """Learn from the answer's headers whether it goes on from here or starts anew."""
        total, start = _extent(response)
        validator = _validator(response)
        if start != self.size or (self.size and total != self.total):
            self.forget()
            if start:
                raise _RetryableError("the file on the server has changed")
        self.total, self._validator = total, validator
        facts: dict[str, Any] = {"url": self.url, "total": total, "validator": validator}
        write_json(self._facts, facts)

    def open(self) -> Any:
        try:
            return self._path.open("ab", buffering=0)
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, file: Any, chunk: bytes) -> None:
        try:
            if file.write(chunk) != len(chunk):
                raise OSError("disk full")
        except OSError as error:
            raise self._unwritable(error) from error

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)
        self._facts.unlink(missing_ok=True)
        self.total = self._validator = None

    def become(self, final: Path) -> None:
        self._path.replace(final)
        self._facts.unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self._path}: cannot be written ({error.strerror or error})",
            remedy="Free some space, or name another folder with --scratch.",
        )


class _OnlyOverTls(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from https to a place that anyone on the way could forge."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise ServerError(f"{req.full_url}: redirected to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _extent(response: HTTPResponse) -> tuple[int | None, int]:
    """(length of the whole file, offset of the first byte that comes)."""
    if response.status == 206:
        unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
        span, _, total = rest.partition("/")
        start = span.partition("-")[0]
        if unit == "bytes" and start.isdecimal() and total.isdecimal():
            return int(total), int(start)
        raise _RetryableError("an answer in parts that does not say which")
    length = response.headers.get("Content-Length", "")
    return (int(length) if length.isdecimal() else None), 0


def _validator(response: HTTPResponse) -> str | None:
    """What tells one version of the file from another; weak tags may not be asked with."""
    tag: str | None = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return tag
    modified: str | None = response.headers.get("Last-Modified")
    return modified


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


def _untrusted(url: str, error: ssl.SSLCertVerificationError) -> ServerError:
    return ServerError(
        f"{url}: the server's certificate cannot be verified ({error.verify_message})",
        remedy="The server is known to leave out an intermediate certificate. Save that "
        "certificate as PEM (a browser shows it, under the padlock) and pass it with --ca-file, "
        "or set SSL_CERT_FILE to a bundle that has it. Verification is never switched off.",
    )


def _stopped(url: str) -> ServerError:
    return ServerError(f"{url}: stopped")
