"""One address to its bytes: limits on size and time, retries with growing pauses."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import httpx2

from marsretrieval.datasets._transfer import shut_down
from marsretrieval.datasets.download._guard import (
    GuardedTransport,
    HostNotFoundError,
    RefusedAddressError,
)
from marsretrieval.datasets.download._settings import FetchSettings

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})

_LOOK_S = 0.2  # how often a watched connection is looked at

T = TypeVar("T")


class FetchError(Exception):
    """Why an address gave nothing. `final`: trying again would not help. `reached`: somebody
    answered, so that the network itself works."""

    def __init__(
        self, reason: str, *, final: bool, reached: bool = True, pause_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = final
        self.reached = reached
        self.pause_s = pause_s


@dataclass(frozen=True, slots=True)
class Got(Generic[T]):
    body: bytes
    url: str  # after redirects
    value: T  # what `parse` made of the body


class Fetcher:
    """A client for many threads. After `stop` is set, all requests end soon."""

    def __init__(self, settings: FetchSettings) -> None:
        self.settings = settings
        self.stop = threading.Event()
        self._hosts: dict[str, threading.BoundedSemaphore] = defaultdict(
            lambda: threading.BoundedSemaphore(settings.per_host)
        )
        self._lock = threading.Lock()
        self._client = httpx2.Client(
            transport=GuardedTransport(settings.allowed_addresses),
            timeout=httpx2.Timeout(settings.read_s, connect=settings.connect_s),
            headers={
                "User-Agent": settings.user_agent,
                # Nothing that the readers cannot decode, and the bytes as they lie on the server.
                "Accept": "image/jpeg,image/png,image/*;q=0.8,*/*;q=0.5",
                "Accept-Encoding": "identity",
            },
        )

    def get(self, url: str, parse: Callable[[bytes], T]) -> Got[T]:
        """Fetch and parse, trying again where that may help. `parse` raises FetchError for a body
        that will not do. Raises FetchError."""
        for attempt in range(1, self.settings.attempts + 1):
            try:
                return self._once(url, parse)
            except FetchError as error:
                if error.final or attempt == self.settings.attempts:
                    raise
                pause = error.pause_s or self.settings.backoff_s * 2 ** (attempt - 1)
                pause *= random.uniform(1.0, 1.5)  # so that threads do not come back all at once
                if self.stop.wait(min(pause, self.settings.max_pause_s)):
                    raise _interrupted() from error
        raise AssertionError("attempts is at least 1")

    def _once(self, url: str, parse: Callable[[bytes], T]) -> Got[T]:
        try:
            address = httpx2.URL(url)
            if address.scheme not in ("http", "https") or not address.host:
                raise FetchError("not a web address", final=True)
            with self._turn(address.host):
                body, final_url = self._body(address)
        except httpx2.InvalidURL as error:
            raise FetchError(f"not a web address ({error})", final=True) from error
        except RefusedAddressError as error:
            raise FetchError(f"refused: no public address ({error})", final=True) from error
        except HostNotFoundError as error:
            raise FetchError("host not found", final=False, reached=False) from error
        except httpx2.UnsupportedProtocol as error:
            raise FetchError("redirected to no web address", final=True) from error
        except httpx2.ConnectTimeout as error:
            raise FetchError("timeout (connecting)", final=False, reached=False) from error
        except httpx2.TimeoutException as error:
            raise FetchError("timeout", final=False) from error
        except httpx2.ConnectError as error:
            insecure = "SSL" in str(error)  # its certificate or its protocol; both stay as they are
            reason = f"no secure connection ({error})" if insecure else f"cannot connect ({error})"
            raise FetchError(reason, final=insecure, reached=insecure) from error
        except httpx2.RemoteProtocolError as error:
            raise FetchError(f"cut short ({error})", final=False) from error
        except httpx2.HTTPError as error:
            reason = f"connection failed ({type(error).__name__}: {error})"
            raise FetchError(reason, final=False) from error
        return Got(body, final_url, parse(body))

    def _body(self, url: httpx2.URL) -> tuple[bytes, str]:
        limit = self.settings.max_bytes
        too_large = FetchError(f"too large (over {limit:,} bytes)", final=True)
        deadline = time.monotonic() + self.settings.total_s
        with self._watched(deadline) as watch, self._answer(url, deadline, watch) as response:
            if response.status_code != 200:
                raise FetchError(
                    f"HTTP {response.status_code}",
                    final=response.status_code not in _RETRIED,
                    pause_s=_retry_after(response.headers.get("retry-after")),
                )
            declared = response.headers.get("content-length", "")
            if declared.isdecimal() and int(declared) > limit:
                raise too_large
            chunks, size = [], 0
            for chunk in response.iter_bytes():
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise too_large
                self._check_time(deadline)
            if not size:
                raise FetchError("empty answer", final=False)
            return b"".join(chunks), str(response.url)

    @contextmanager
    def _answer(
        self, url: httpx2.URL, deadline: float, watch: Callable[[str, dict[str, Any]], None]
    ) -> Iterator[httpx2.Response]:
        """The answer behind all redirects. Not by the client's own following: it reads the body
        of each redirect to its end, however long that is and lasts."""
        request = self._client.build_request("GET", url, extensions={"trace": watch})
        for _ in range(self.settings.max_redirects + 1):
            with closing(self._client.send(request, stream=True)) as response:
                if response.next_request is None:
                    yield response
                    return
                request = response.next_request
            self._check_time(deadline)
        raise FetchError("too many redirects", final=True)

    @contextmanager
    def _watched(self, deadline: float) -> Iterator[Callable[[str, dict[str, Any]], None]]:
        """Shut the connections of one try when its time is over or all is stopped: headers that
        drip, or answers that say 100 Continue for ever, never run into a time limit for reading.

        Yields what the client calls with the name of each of its events.
        """
        sockets: list[socket.socket] = []
        done = threading.Event()

        def watch(event: str, info: dict[str, Any]) -> None:
            if event.endswith(("connect_tcp.complete", "start_tls.complete")):
                sockets.append(info["return_value"].get_extra_info("socket"))

        def guard() -> None:
            while not done.wait(_LOOK_S):
                if self.stop.is_set() or time.monotonic() > deadline:
                    for connection in sockets:
                        shut_down(connection)

        threading.Thread(target=guard, daemon=True).start()
        try:
            yield watch
        except httpx2.HTTPError:
            self._check_time(deadline)
            raise
        finally:
            done.set()

    def _check_time(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise FetchError(f"slower than {self.settings.total_s:g} s", final=True)
        if self.stop.is_set():
            raise _interrupted()

    def _turn(self, host: str) -> threading.BoundedSemaphore:
        """At most `per_host` requests at once: politeness, and fewer refusals."""
        with self._lock:
            return self._hosts[host]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()


def _retry_after(value: str | None) -> float | None:
    return float(value) if value and value.isdecimal() else None


def _interrupted() -> FetchError:
    return FetchError("interrupted", final=True)
