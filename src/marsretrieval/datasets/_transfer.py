"""Large files over HTTP: whole or not there, resumed where a run that was killed left them.

The standard library's client does it: one file at a time to a thread needs no pool of
connections, and cutting tiles should ask for no more than rasterio.
"""

from __future__ import annotations

import socket
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
from marsretrieval.datasets._partial import Partial, Retry
from marsretrieval.errors import DataError

__all__ = ["Patience", "RefusedError", "ServerError", "Transfer", "UntrustedError"]

_CHUNK = 2**20
_FINAL = frozenset({400, 401, 403, 404, 405, 410, 451})

Told = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long a server is tried. Times in seconds."""

    attempts: int = 8  # in a row without a byte: four minutes by the pauses below, seven by silence
    first_attempts: int = 3  # as long as nobody has ever answered
    timeout_s: float = 20.0
    backoff_s: float = 2.0  # before the second attempt; doubled before each further one
    max_pause_s: float = 120.0


class ServerError(DataError):
    """The server gave nothing. `reached`: it answered, so that another file may be worth a try;
    otherwise it cannot be found or trusted at all."""

    def __init__(self, message: str, *, remedy: str | None = None, reached: bool = False) -> None:
        super().__init__(message, remedy=remedy)
        self.reached = reached


class UntrustedError(ServerError):
    """Its certificate cannot be verified."""


class RefusedError(DataError):
    """The server answers that this file is not to be had."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Transfer:
    """Fetches files, for several threads too, until `stop` is called.

    context: what is trusted; certificates are always verified. token: sent as a bearer, to the
    servers asked themselves, never to another that they redirect to.
    """

    def __init__(
        self,
        patience: Patience,
        *,
        context: ssl.SSLContext | None = None,
        token: str | None = None,
    ) -> None:
        self._stopped = Event()
        self._open: set[HTTPResponse] = set()
        self._patience = patience
        self._token = token
        self._answered = False
        handler = urllib.request.HTTPSHandler(context=context or ssl.create_default_context())
        self._opener = urllib.request.build_opener(handler, _Redirects())
        self._opener.addheaders = [("User-Agent", f"marsretrieval/{__version__}")]

    def stop(self) -> None:
        """End what is under way, at once where bytes are waited for; begin nothing more."""
        self._stopped.set()
        for response in tuple(self._open):
            # Another thread reads it: shut, it gives that thread no more; closed, it might be
            # another file's by then.
            # AttributeError and ValueError: it was read to its end just now.
            with (
                suppress(OSError, ValueError, AttributeError),
                socket.fromfd(response.fileno(), socket.AF_INET, socket.SOCK_STREAM) as connection,
            ):
                connection.shutdown(socket.SHUT_RDWR)

    def fetch(
        self,
        url: str,
        final: Path,
        *,
        part: Path | None = None,
        sound: Callable[[Path], bool] | None = None,
        told: Told | None = None,
    ) -> None:
        """Put the whole file at `final`; what an earlier call left in `part` is gone on with.

        part: where it grows (default: `<final>.part`), on the same disk.
        sound: whether the bytes are those expected; then no other mark is asked of the server.
        told: called with the bytes there are and the bytes there will be.

        Raises RefusedError for what is not to be had, DataError for what is damaged, ServerError
        when the server gives nothing, OutputError when there is no room.
        """
        part = part or final.with_name(f"{final.name}.part")
        growing = Partial(part, url, checked=sound is not None)
        anew = False
        while True:
            resumed = self._grow(growing, told)
            if sound is None or sound(part):
                growing.become(final)
                return
            growing.forget()
            if anew or not resumed:
                raise DataError(
                    f"{url}: what came has not the hash that is published for it",
                    remedy="Run the same command again: only this file is fetched.",
                )
            anew = True

    def _grow(self, part: Partial, told: Told | None) -> bool:
        """Until it is as long as it should be; whether it began with earlier bytes."""
        resumed, failures = part.size > 0, 0
        while True:
            if self._stopped.is_set():
                raise _stopped(part.url)
            before = part.size
            try:
                self._go_on(part, told)
                return resumed
            except Retry as error:
                failures = 1 if part.size > before else failures + 1
                self._answered = self._answered or error.reached
                if failures >= self._attempts():
                    raise ServerError(
                        f"{part.url}: {error}",
                        remedy="What came is kept: the same command goes on from there."
                        if self._answered
                        else "Check the network, HTTPS_PROXY and the address.",
                        reached=error.reached,
                    ) from error
                pause = error.pause_s or self._patience.backoff_s * 2 ** (failures - 1)
                if self._stopped.wait(min(pause, self._patience.max_pause_s)):
                    raise _stopped(part.url) from error

    def _attempts(self) -> int:
        most = self._patience.attempts
        return most if self._answered else min(most, self._patience.first_attempts)

    def _go_on(self, part: Partial, told: Told | None) -> None:
        """One request. Returns when the file is whole; raises Retry when it is not."""
        request = urllib.request.Request(part.url, headers=part.headers())
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=self._patience.timeout_s) as response:
                self._answered = True
                part.begin(response)
                if part.total is not None:
                    check_space(part.path.parent, part.total - part.size)
                self._receive(response, part, told)
        except urllib.error.HTTPError as error:
            _refused(part, error)
        except urllib.error.URLError as error:
            reason = error.reason
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise UntrustedError(
                    f"{part.url}: the server's certificate cannot be verified "
                    f"({reason.verify_message})"
                ) from error
            raise Retry(f"cannot connect ({reason})", reached=False) from error
        except (HTTPException, OSError) as error:  # those of the disk come as ours
            raise Retry(f"the connection broke ({error})") from error
        if part.total is not None and part.size != part.total:
            raise Retry(f"{part.size:,} of {part.total:,} bytes came")

    def _receive(self, response: HTTPResponse, part: Partial, told: Told | None) -> None:
        self._open.add(response)
        try:
            with part.open() as file:
                while not self._stopped.is_set() and (chunk := response.read1(_CHUNK)):
                    part.write(file, chunk)
                    if told is not None:
                        told(part.size, part.total)
        finally:
            self._open.discard(response)
        if self._stopped.is_set():
            raise _stopped(part.url)


def _refused(part: Partial, error: urllib.error.HTTPError) -> None:
    if error.code == 416:  # nothing from there on: whole already, or another file by now
        if part.total is not None and part.size == part.total:
            return
        part.forget()
        raise Retry("the file on the server has changed") from error
    if error.code in _FINAL:
        message = f"{part.url}: the server answers {error.code} ({error.reason})"
        raise RefusedError(message, error.code) from error
    after = error.headers.get("Retry-After", "")
    raise Retry(
        f"the server answers {error.code} ({error.reason})",
        pause_s=float(after) if after.isdecimal() else None,
    ) from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Followed, but not from https to a place that anyone on the way could forge; the token goes
    along to the same server only."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise ServerError(f"{req.full_url}: redirected to {newurl}, which is not https")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if request is not None and token and _server(newurl) == _server(req.full_url):
            request.add_unredirected_header("Authorization", token)
        return request


def _server(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _stopped(url: str) -> ServerError:
    return ServerError(f"{url}: stopped")
