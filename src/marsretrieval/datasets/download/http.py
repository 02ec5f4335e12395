"""Asynchronous HTTP client with retries, time limits and downloads that resume.

The libraries of the extra `download` are imported only when a client is made.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from marsretrieval import __version__
from marsretrieval.datasets._disk import check_space
from marsretrieval.errors import DataError, MissingDependencyError, OutputError
from marsretrieval.files import from_json, read_json, write_json
from marsretrieval.progress import ProgressTask

if TYPE_CHECKING:
    import httpx2

MEGABYTE = 10**6
_RETRIED = frozenset({408, 416, 425, 429})  # and all from 500 on

OnProgress = Callable[[int, int | None], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a server is tried. Times in seconds.

    Attributes:
        attempts: Failed requests in a row without a new byte.
        first_attempts: The same, as long as no server has answered.
        timeout_s: Longest silence while connecting or reading.
        backoff_s: Pause before the second attempt; doubled before every further one.
        max_pause_s: Longest pause, also of those that a server asks for.
        head_s: Time for redirects and headers.
        slow_s: Time within which a body must bring `slow_bytes`.
        slow_bytes: See `slow_s`.
    """

    attempts: int = 8
    first_attempts: int = 3
    timeout_s: float = 20.0
    backoff_s: float = 2.0
    max_pause_s: float = 120.0
    head_s: float = 60.0
    slow_s: float = 60.0
    slow_bytes: int = 2**14


class ServerError(DataError):
    """No file can be downloaded; `reached`: the server answered, so that another file may work."""

    def __init__(self, message: str, *, remedy: str | None = None, reached: bool = False) -> None:
        super().__init__(message, remedy=remedy)
        self.reached = reached


class CertificateError(ServerError):
    """The server's certificate cannot be verified."""


class HTTPStatusError(DataError):
    """The server refuses this file."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class AttemptError(Exception):
    """Failure of one request.

    Attributes:
        reason: What is wrong.
        retry: Whether another attempt may succeed.
        reached: Whether a server answered.
        pause_s: Seconds that the server asks to wait.
        status: HTTP status, where that is what is wrong.
        slow: Whether the server answers, but too slowly to be worth another hour.
    """

    def __init__(
        self,
        reason: str,
        *,
        retry: bool = True,
        reached: bool = True,
        pause_s: float | None = None,
        status: int | None = None,
        slow: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry = retry
        self.reached = reached
        self.pause_s = pause_s
        self.status = status
        self.slow = slow


def check_libraries(needed_for: str) -> None:
    """Raise MissingDependencyError unless the libraries of the extra `download` are installed."""
    for package in ("httpx2", "stamina"):
        if find_spec(package) is None:
            raise MissingDependencyError(package, "download", needed_for=needed_for)


async def with_retries(
    attempt: Callable[[], Awaitable[T]],
    pause: Callable[[AttemptError], float | bool],
) -> T:
    """Call `attempt` until it succeeds.

    Args:
        attempt: Makes one attempt.
        pause: Seconds until the next attempt after this failure, or False to give up.

    Returns:
        What `attempt` returned.

    Raises:
        AttemptError: The last failure.
    """
    import stamina

    # Retries are shown by the callers; without a handler logging would print them, too.
    logging.getLogger("stamina").addHandler(logging.NullHandler())

    def decide(error: Exception) -> float | bool:
        return isinstance(error, AttemptError) and error.retry and pause(error)

    async for context in stamina.retry_context(on=decide, attempts=None, timeout=None):
        with context:
            return await attempt()
    raise AssertionError("stamina re-raises the last error")


class HttpClient:
    """Client of one event loop; use it as an asynchronous context manager.

    Args:
        timeout_s: Longest silence while reading.
        head_s: Time limit for redirects and headers, however slowly they come (default: none).
        connect_s: Longest time for a connection (default: `timeout_s`).
        max_redirects: Redirects that are followed; their bodies are not read.
        same_security: Refuse redirects from https to anything else.
        verify: Trusted certificates.
        transport: Sends the requests (default: connections to any address, or by a proxy).
        headers: Sent with every request.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        head_s: float | None = None,
        connect_s: float | None = None,
        max_redirects: int = 8,
        same_security: bool = True,
        verify: ssl.SSLContext | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        import httpx2

        self._head_s = head_s
        self._max_redirects = max_redirects
        self._same_security = same_security
        self._answered = False
        # The bytes as they are on the server, so that sizes and ranges are those of the file.
        fixed = {"User-Agent": f"marsretrieval/{__version__}", "Accept-Encoding": "identity"}
        self._client = httpx2.AsyncClient(
            transport=transport,
            verify=verify or ssl.create_default_context(),
            timeout=httpx2.Timeout(timeout_s, connect=connect_s or timeout_s),
            headers={**fixed, **(headers or {})},
        )

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def get(
        self, url: str, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[httpx2.Response]:
        """Send a request; the body is read within the context.

        Args:
            url: Address.
            headers: Sent with this request.

        Yields:
            The response after all redirects, of a status that means success.

        Raises:
            AttemptError: For whatever goes wrong until the end of the context.
        """
        with _attempt_errors():
            try:
                async with asyncio.timeout(self._head_s):
                    response = await self._open(url, headers)
            except TimeoutError as error:
                raise AttemptError(f"no answer within {self._head_s} s", slow=True) from error
            self._answered = True
            try:
                _check_status(response)
                yield response
            finally:
                await response.aclose()

    async def _open(self, url: str, headers: Mapping[str, str] | None) -> httpx2.Response:
        """The client's own way to follow redirects would read their bodies to the end."""
        request = self._client.build_request("GET", url, headers=headers)
        if request.url.scheme not in ("http", "https") or not request.url.host:
            raise AttemptError("not a web address", retry=False)
        for _ in range(self._max_redirects + 1):
            response = await self._client.send(request, stream=True)
            if response.next_request is None:
                return response
            await response.aclose()
            secure, request = request.url.scheme == "https", response.next_request
            if self._same_security and secure and request.url.scheme != "https":
                raise AttemptError(f"redirected to {request.url}, which is not https", retry=False)
        raise AttemptError("too many redirects", retry=False)

    async def download(
        self, url: str, path: Path, policy: RetryPolicy, on_progress: OnProgress | None = None
    ) -> None:
        """Download a file; what an earlier call left in `<path>.part` is resumed.

        Args:
            url: Address of the file.
            path: Where the whole file appears.
            policy: Attempts and time limits.
            on_progress: Called with the bytes so far and the bytes in all.

        Raises:
            HTTPStatusError: If the server refuses the file.
            ServerError: If the server cannot be reached or trusted, or gives up.
            OutputError: If the disk is full or not writable.
        """
        part = PartialDownload(path.with_name(f"{path.name}.part"), url)
        failures, size = 0, part.size

        def pause(error: AttemptError) -> float | bool:
            nonlocal failures, size
            failures = 1 if part.size > size and not error.slow else failures + 1
            size = part.size
            attempts = policy.attempts
            if not self._answered:
                attempts = min(attempts, policy.first_attempts)
            if failures >= attempts:
                return False
            seconds = error.pause_s or policy.backoff_s * 2 ** (failures - 1)
            return min(seconds, policy.max_pause_s)

        try:
            await with_retries(lambda: self._resume(part, policy, on_progress), pause)
        except AttemptError as error:
            if isinstance(_cause(error), ssl.SSLCertVerificationError):
                raise CertificateError(f"{url}: {error}") from error
            if error.status is not None and not error.retry:
                raise HTTPStatusError(f"{url}: {error}", error.status) from error
            remedy = "Check the network, HTTPS_PROXY and the address."
            if self._answered:
                remedy = "Run the same command again: it resumes from what was downloaded."
            raise ServerError(f"{url}: {error}", remedy=remedy, reached=error.reached) from error
        part.commit(path)

    async def _resume(
        self, part: PartialDownload, policy: RetryPolicy, on_progress: OnProgress | None
    ) -> None:
        """One request for the rest of a file."""
        if part.size and part.size == part.total:
            return
        try:
            async with self.get(part.url, part.headers()) as response:
                part.begin(response)
                if part.total is not None:
                    check_space(part.path.parent, part.total - part.size)
                await _receive(response, part, policy, on_progress)
        except AttemptError as error:
            if error.status == 416:
                part.discard()
            raise
        if part.total is not None and part.size != part.total:
            raise AttemptError(f"{part.size:,} of {part.total:,} bytes came")


async def read_body(response: httpx2.Response, max_bytes: int) -> bytes:
    """Read a body into memory.

    Args:
        response: Of `HttpClient.get`, within its context.
        max_bytes: Limit.

    Returns:
        The body.

    Raises:
        AttemptError: If it is empty or longer than the limit.
    """
    length = response.headers.get("content-length", "")
    body = bytearray()
    if not (length.isdecimal() and int(length) > max_bytes):
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > max_bytes:
                break
        else:
            if not body:
                raise AttemptError("empty answer")
            return bytes(body)
    raise AttemptError(f"too large (over {max_bytes:,} bytes)", retry=False)


async def _receive(
    response: httpx2.Response,
    part: PartialDownload,
    policy: RetryPolicy,
    on_progress: OnProgress | None,
) -> None:
    clock = asyncio.get_running_loop()
    began, before = clock.time(), part.size
    with part.open() as write:
        async for chunk in response.aiter_raw():
            write(chunk)
            if on_progress is not None:
                on_progress(part.size, part.total)
            if part.total is not None and part.size > part.total:
                part.discard()
                raise AttemptError("more bytes than announced")
            if clock.time() - began > policy.slow_s:
                if part.size - before < policy.slow_bytes:
                    limit = f"{policy.slow_bytes:,} bytes in {policy.slow_s:g} s"
                    raise AttemptError(f"less than {limit}", slow=True)
                began, before = clock.time(), part.size


@dataclass(frozen=True, slots=True)
class _PartialRecord:
    url: str
    total: int | None
    validator: str | None


class PartialDownload:
    """The bytes at `path`, and beside them `<path>.json`: address, length, version.

    Without a record of the same address and with a length, the bytes are discarded: nothing
    says what they belong to.
    """

    def __init__(self, path: Path, url: str) -> None:
        self.url = url
        self.path = path
        self.size = 0
        self.total: int | None = None
        self._record = path.with_name(f"{path.name}.json")
        self._validator: str | None = None
        with suppress(DataError, OSError):
            record = from_json(_PartialRecord, read_json(self._record), source=self._record)
            size = path.stat().st_size
            if record.url == url and record.total is not None and size <= record.total:
                self.size, self.total, self._validator = size, record.total, record.validator
        if self.total is None:
            self.discard()

    def headers(self) -> dict[str, str]:
        """Headers that ask for the rest, if the file is still the same."""
        if not self.size:
            return {}
        headers = {"Range": f"bytes={self.size}-"}
        if self._validator:
            headers["If-Range"] = self._validator
        return headers

    def begin(self, response: httpx2.Response) -> None:
        """Read from a response whether it continues the file or starts it anew."""
        total, start = _extent(response)
        if start != self.size or (self.size and total != self.total):
            self.discard()
            if start:
                raise AttemptError("the file on the server has changed")
        self.total, self._validator = total, _validator(response)
        write_json(self._record, asdict(_PartialRecord(self.url, total, self._validator)))

    @contextmanager
    def open(self) -> Iterator[Callable[[bytes], None]]:
        """Yield a function that appends bytes."""
        with self._writable():
            file = self.path.open("ab", buffering=0)

        def write(chunk: bytes) -> None:
            with self._writable():
                count = file.write(chunk)
                self.size += count
                if count != len(chunk):
                    raise OSError("disk full")

        with file:
            yield write

    def discard(self) -> None:
        """Delete what was downloaded."""
        with self._writable():
            self.path.unlink(missing_ok=True)
            self._record.unlink(missing_ok=True)
        self.size, self.total, self._validator = 0, None, None

    def commit(self, path: Path) -> None:
        """Move the whole file to `path`."""
        with self._writable():
            self.path.replace(path)
            self._record.unlink(missing_ok=True)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot be written ({error.strerror or error})",
                remedy="Free some space, or choose a folder on another disk with --out "
                "(or --scratch).",
            ) from error


class ByteCounter:
    """Several files on one progress bar that counts megabytes."""

    def __init__(self, bar: ProgressTask) -> None:
        self._bar = bar
        self._sizes: dict[str, int] = {}
        self._shown = 0
        self._lock = threading.Lock()

    def file(self, name: str) -> OnProgress:
        """The `on_progress` function of a file."""

        def report(size: int, total: int | None) -> None:
            with self._lock:
                self._sizes[name] = size
                whole = sum(self._sizes.values()) // MEGABYTE
                if whole > self._shown:
                    self._bar.advance(whole - self._shown)
                    self._shown = whole
                    of = f" of {total // MEGABYTE:,}" if total else ""
                    self._bar.note(f"{name}: {size // MEGABYTE:,}{of} MB")

        return report


def _check_status(response: httpx2.Response) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    after = response.headers.get("retry-after", "")
    raise AttemptError(
        f"HTTP {status}",
        retry=status in _RETRIED or status >= 500,
        pause_s=float(after) if after.isdecimal() else None,
        status=status,
    )


@contextmanager
def _attempt_errors() -> Iterator[None]:
    """Raise AttemptError in place of the errors of httpx2."""
    import httpx2

    try:
        yield
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise AttemptError(f"not a web address ({error})", retry=False) from error
    except httpx2.UnsupportedProtocol as error:
        raise AttemptError("redirected to no web address", retry=False) from error
    except httpx2.ConnectTimeout as error:
        raise AttemptError("timeout (connecting)", reached=False) from error
    except httpx2.TimeoutException as error:
        raise AttemptError("timeout") from error
    except httpx2.ConnectError as error:
        cause = _cause(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = f"the server's certificate cannot be verified ({cause.verify_message})"
            raise AttemptError(reason, retry=False) from error
        if isinstance(cause, ssl.SSLError) or "SSL" in str(error):
            raise AttemptError(f"no secure connection ({error})", retry=False) from error
        raise AttemptError(f"cannot connect ({error})", reached=False) from error
    except httpx2.RemoteProtocolError as error:
        raise AttemptError(f"cut short ({error})") from error
    except httpx2.HTTPError as error:
        raise AttemptError(f"connection failed ({type(error).__name__}: {error})") from error


def _cause(error: BaseException) -> BaseException | None:
    """The error of the ssl module behind one of httpx2, else the first cause."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _extent(response: httpx2.Response) -> tuple[int | None, int]:
    """(length of the whole file, offset of the first byte that comes)."""
    if response.status_code == 206:
        unit, _, rest = response.headers.get("content-range", "").partition(" ")
        span, _, total = rest.partition("/")
        start = span.partition("-")[0]
        if unit == "bytes" and start.isdecimal() and total.isdecimal():
            return int(total), int(start)
        raise AttemptError("a partial response without a valid Content-Range")
    length = response.headers.get("content-length", "")
    return (int(length) if length.isdecimal() else None), 0


def _validator(response: httpx2.Response) -> str | None:
    """The version of the file; weak tags are not valid in If-Range."""
    tag: Any = response.headers.get("etag")
    if tag and not tag.startswith("W/"):
        return str(tag)
    modified: str | None = response.headers.get("last-modified")
    return modified
