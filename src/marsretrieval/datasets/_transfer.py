"""Large files over HTTP: whole or not there, resumed where a run that was killed left them.

The standard library's client does it: one file at a time to a thread needs no pool of
connections, and cutting tiles should ask for no more than rasterio.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from threading import Event, Timer
from typing import Any
from urllib.parse import urlsplit

from marsretrieval import __version__
from marsretrieval.datasets._disk import check_space
from marsretrieval.datasets._partial import Partial, Retry
from marsretrieval.errors import DataError

_CHUNK = 2**20
_LONGEST = 2**40  # of a file whose length the server does not say
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
    head_s: float = 60.0  # for redirects and headers, however slowly or often they come
    slow_s: float = 60.0  # a body must bring `slow_bytes` within any such time
    slow_bytes: int = 2**14


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
        self._sockets: set[socket.socket] = set()  # of all requests under way
        self._patience = patience
        self._token = token
        self._answered = False
        trusted = context or ssl.create_default_context()
        self._opener = urllib.request.build_opener(*_handlers(self, trusted), _Redirects())
        self._opener.addheaders = [("User-Agent", f"marsretrieval/{__version__}")]

    def stop(self) -> None:
        """End what is under way, at once where bytes are waited for; begin nothing more."""
        self._stopped.set()
        for connection in tuple(self._sockets):
            shut_down(connection)

    def opened(self, connection: socket.socket) -> None:
        """Remember a connection of this thread, which `stop` and time limits shut."""
        self._sockets.add(connection)
        _of_thread.sockets.append(connection)
        if self._stopped.is_set():
            shut_down(connection)

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
                failures = 1 if part.size > before and not error.slow else failures + 1
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
        connections: list[socket.socket] = []
        _of_thread.sockets = connections
        late = Event()
        timer = Timer(self._patience.head_s, _end_late, (connections, late))
        timer.daemon = True
        timer.start()
        try:
            with self._opener.open(request, timeout=self._patience.timeout_s) as response:
                timer.cancel()
                if late.is_set():  # what was cut off reads as headers that are complete
                    raise HTTPException("headers cut off")
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
            if late.is_set():
                raise Retry(f"no answer within {self._patience.head_s:g} s", slow=True) from error
            raise Retry(f"the connection broke ({error})") from error
        finally:
            timer.cancel()
            self._sockets.difference_update(connections)
        if part.total is not None and part.size != part.total:
            raise Retry(f"{part.size:,} of {part.total:,} bytes came")

    def _receive(self, response: HTTPResponse, part: Partial, told: Told | None) -> None:
        began, before = time.monotonic(), part.size
        with part.open() as file:
            while not self._stopped.is_set() and (chunk := response.read1(_CHUNK)):
                part.write(file, chunk)
                if told is not None:
                    told(part.size, part.total)
                if part.total is not None and part.size > part.total:
                    raise Retry(f"more than the {part.total:,} bytes announced")
                if part.total is None and part.size > _LONGEST:
                    raise DataError(f"{part.url}: over {_LONGEST:,} bytes of unknown length")
                if time.monotonic() - began > self._patience.slow_s:
                    if part.size - before < self._patience.slow_bytes:
                        raise Retry(
                            f"less than {self._patience.slow_bytes:,} bytes in "
                            f"{self._patience.slow_s:g} s",
                            slow=True,
                        )
                    began, before = time.monotonic(), part.size
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


class _Connections(threading.local):
    """Those that this thread has opened for one request."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []


_of_thread = _Connections()


def _end_late(connections: list[socket.socket], late: Event) -> None:
    late.set()
    for connection in tuple(connections):
        shut_down(connection)


def shut_down(connection: socket.socket) -> None:
    """Another thread reads it: shut, it gives that thread no more; closed, it might be another
    file's by then."""
    with (
        suppress(OSError, ValueError),
        socket.fromfd(connection.fileno(), connection.family, connection.type) as same,
    ):
        same.shutdown(socket.SHUT_RDWR)


def _handlers(transfer: Transfer, context: ssl.SSLContext) -> list[urllib.request.BaseHandler]:
    """Of http and https, whose connections `transfer` knows from the moment that they are open."""

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            transfer.opened(self.sock)

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            transfer.opened(self.sock)

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> HTTPResponse:
            return self.do_open(Plain, req)

    class SecureHandler(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> HTTPResponse:
            return self.do_open(Secure, req, context=context)

    return [PlainHandler(), SecureHandler(context=context)]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Followed, but not from https to a place that anyone on the way could forge; the token goes
    along to the same server only."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise ServerError(f"{req.full_url}: redirected to {newurl}, which is not https")
        fp.close()  # its body may have no end, and would be read to it
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
