"""Asynchronous HTTP client with retries, time limits and resumable downloads.

The libraries of the extra `download` are imported when a client is created.
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
from typing import TYPE_CHECKING, TypeVar

from marsretrieval import __version__
from marsretrieval.datasets.listing import check_space
from marsretrieval.errors import DataError, MissingDependencyError, OutputError
from marsretrieval.io import Int64, from_json, read_json, write_json
from marsretrieval.progress import ProgressTask

if TYPE_CHECKING:
    import httpx2

MEGABYTE = 10**6
_MAX_REDIRECTS = 8
_RETRIED_STATUSES = frozenset({408, 416, 425, 429})  # in addition to 500 and above
# Without a handler, logging would print retries into the progress display.
logging.getLogger("stamina").addHandler(logging.NullHandler())

OnProgress = Callable[[int, int | None], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retries and time limits of requests. Times are in seconds.

    Attributes:
        attempts: Consecutive failed requests without a new byte before a download fails.
        first_attempts: The same, until a server has answered for the first time.
        timeout_s: Maximum silence while connecting or reading.
        backoff_s: Pause before the second attempt; doubled before each further one.
        max_pause_s: Maximum pause, including pauses that a server requests.
        head_s: Time limit for redirects and headers.
        slow_s: A body must deliver `slow_bytes` within any period of this length.
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
    """No file can be downloaded.

    Attributes:
        reached: Whether the server answered, so that another file may work.
    """

    def __init__(self, message: str, *, remedy: str | None = None, reached: bool = False) -> None:
        super().__init__(message, remedy=remedy)
        self.reached = reached


class CertificateError(ServerError):
    """The server's certificate cannot be verified."""


class HTTPStatusError(DataError):
    """The server refuses this file."""


class AttemptError(Exception):
    """Failure of one request.

    Attributes:
        retry: Whether another attempt may succeed.
        reached: Whether a server answered.
        pause_s: Seconds that the server asks to wait.
        status: HTTP status, if that is the failure.
        slow: Whether the server answers too slowly to be tried for another hour.
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
        self.retry, self.reached, self.slow = retry, reached, slow
        self.pause_s, self.status = pause_s, status


def check_libraries(needed_for: str) -> None:
    """Check that the libraries of the extra `download` are installed.

    Args:
        needed_for: Purpose, for the error message.

    Raises:
        MissingDependencyError: If one of them is missing.
    """
    for package in ("huggingface_hub", "httpx2", "stamina"):
        if find_spec(package) is None:
            raise MissingDependencyError(package, "download", needed_for=needed_for)


async def with_retries(
    attempt: Callable[[], Awaitable[T]], *, attempts: int, backoff_s: float, max_pause_s: float
) -> T:
    """Await an attempt, repeatedly, until it succeeds.

    Args:
        attempt: Function that starts one attempt.
        attempts: Maximum number of attempts.
        backoff_s: Pause before the second attempt; doubled before each further one.
        max_pause_s: Maximum pause.

    Returns:
        Result of the first attempt that succeeds.

    Raises:
        AttemptError: Error of the last attempt.
    """
    import stamina

    def pause(error: Exception) -> float | bool:
        if not (isinstance(error, AttemptError) and error.retry):
            return False
        return True if error.pause_s is None else min(error.pause_s, max_pause_s)

    async for context in stamina.retry_context(
        on=pause, attempts=attempts, timeout=None, wait_initial=backoff_s, wait_max=max_pause_s,
        wait_jitter=backoff_s / 2,
    ):  # fmt: skip
        with context:
            return await attempt()
    raise AssertionError("stamina re-raises the last error")


class HttpClient:
    """HTTP client of one event loop; use it as an asynchronous context manager.

    Args:
        timeout_s: Maximum silence while connecting or reading.
        head_s: Time limit for redirects and headers (default: none).
        same_security: Refuse redirects from https to anything else.
        verify: Trusted certificates.
        transport: Transport for the requests (default: direct connections or the proxy).
        headers: Headers of every request.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        head_s: float | None = None,
        same_security: bool = True,
        verify: ssl.SSLContext | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        import httpx2

        self._head_s = head_s
        self._same_security = same_security
        self._answered = False
        # No compression, so that sizes and ranges are those of the file.
        defaults = {"User-Agent": f"marsretrieval/{__version__}", "Accept-Encoding": "identity"}
        self._client = httpx2.AsyncClient(
            transport=transport,
            verify=verify or ssl.create_default_context(),
            timeout=timeout_s,
            headers={**defaults, **(headers or {})},
        )

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def get(
        self, url: str, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[httpx2.Response]:
        """Request a URL, following redirects.

        Args:
            url: The URL.
            headers: Additional headers.

        Yields:
            The final response; its body must be read within the context.

        Raises:
            AttemptError: If the request fails, the status is an error, or reading the body
                within the context fails.
        """
        with _attempt_errors():
            try:
                async with asyncio.timeout(self._head_s):
                    response = await self._open(url, headers)
            except TimeoutError as error:
                raise AttemptError(f"no answer within {self._head_s} s", slow=True) from error
            self._answered = True
            try:
                status, after = response.status_code, response.headers.get("retry-after", "")
                if status not in (200, 206):
                    raise AttemptError(
                        f"HTTP {status}",
                        retry=status in _RETRIED_STATUSES or status >= 500,
                        pause_s=float(after) if after.isdecimal() else None,
                        status=status,
                    )
                yield response
            finally:
                await response.aclose()

    async def _open(self, url: str, headers: Mapping[str, str] | None) -> httpx2.Response:
        """Follow redirects without reading their bodies, unlike the HTTP library."""
        request = self._client.build_request("GET", url, headers=headers)
        if request.url.scheme not in ("http", "https") or not request.url.host:
            raise AttemptError("not a web address", retry=False)
        for _ in range(_MAX_REDIRECTS + 1):
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
        """Download a file; resume from `<path>.part` of an earlier call.

        Args:
            url: URL of the file.
            path: Path of the complete file.
            policy: Attempts and time limits.
            on_progress: Called with the bytes so far and the total size, if known.

        Raises:
            HTTPStatusError: If the server refuses the file.
            ServerError: If the server cannot be reached or trusted, or all attempts fail.
            OutputError: If the disk is full or not writable.
        """
        part = PartialDownload(path.with_name(f"{path.name}.part"), url)
        while True:
            size, answered = part.size, self._answered
            attempts = policy.attempts if answered else policy.first_attempts
            try:
                await with_retries(
                    lambda: self._resume(part, policy, on_progress),
                    attempts=min(attempts, policy.attempts),
                    backoff_s=policy.backoff_s,
                    max_pause_s=policy.max_pause_s,
                )
                break
            except AttemptError as error:
                progress = part.size > size or answered != self._answered
                if policy.attempts == 1 or not (progress and error.retry) or error.slow:
                    raise self._final_error(url, error) from error
        with _writable(path):
            part.path.replace(path)
            part.discard()

    def _final_error(self, url: str, error: AttemptError) -> DataError:
        if isinstance(_ssl_cause(error), ssl.SSLCertVerificationError):
            return CertificateError(f"{url}: {error}")
        if error.status is not None and not error.retry:
            return HTTPStatusError(f"{url}: {error}")
        remedy = "Check the network, HTTPS_PROXY and the address."
        if self._answered:
            remedy = "Run the same command again: it resumes from what was downloaded."
        return ServerError(f"{url}: {error}", remedy=remedy, reached=error.reached)

    async def _resume(
        self, part: PartialDownload, policy: RetryPolicy, on_progress: OnProgress | None
    ) -> None:
        """Request the rest of a file once."""
        if part.size and part.size == part.total:
            return
        clock = asyncio.get_running_loop()
        try:
            async with self.get(part.url, part.headers()) as response:
                part.begin(response)
                if part.total is not None:
                    check_space(part.path.parent, part.total - part.size)
                began, size_before, size = clock.time(), part.size, part.size
                with _writable(part.path), part.path.open("ab", buffering=0) as file:
                    async for chunk in response.aiter_raw():
                        if file.write(chunk) != len(chunk):
                            raise OSError("disk full")
                        size += len(chunk)
                        if on_progress is not None:
                            on_progress(size, part.total)
                        if clock.time() - began > policy.slow_s:
                            if size - size_before < policy.slow_bytes:
                                limit = f"{policy.slow_bytes:,} bytes in {policy.slow_s:g} s"
                                raise AttemptError(f"less than {limit}", slow=True)
                            began, size_before = clock.time(), size
        except AttemptError as error:
            if error.status == 416:  # the file on the server has changed
                part.discard()
            raise
        if part.total not in (None, size):
            raise AttemptError(f"{size:,} of {part.total:,} bytes received")


async def read_body(response: httpx2.Response, max_bytes: int) -> bytes:
    """Read a body into memory.

    Args:
        response: The response.
        max_bytes: Size limit.

    Returns:
        The body.

    Raises:
        AttemptError: If it is empty or exceeds the limit.
    """
    length = _parse_size(response.headers.get("content-length", ""))
    body = bytearray()
    if length is None or length <= max_bytes:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > max_bytes:
                break
        else:
            if not body:
                raise AttemptError("empty answer")
            return bytes(body)
    raise AttemptError(f"too large (over {max_bytes:,} bytes)", retry=False)


def _parse_size(text: str) -> int | None:
    """Parse a number of bytes from a header; None if it is not one, or of more than 18 digits."""
    return int(text) if text.isdecimal() and len(text) <= 18 else None


@dataclass(frozen=True, slots=True)
class _PartialRecord:
    url: str
    total: Int64 | None
    validator: str | None  # of the version of the file, for If-Range


class PartialDownload:
    """Partial file at `path`, and `<path>.json` with its URL, length and version.

    The bytes are discarded unless the JSON has the same URL and a length.

    Args:
        path: Path of the partial file.
        url: URL of the file.
    """

    def __init__(self, path: Path, url: str) -> None:
        self.url = url
        self.path = path
        self._json = path.with_name(f"{path.name}.json")
        self._record = _PartialRecord(url, None, None)
        with suppress(DataError):
            self._record = from_json(_PartialRecord, read_json(self._json), source=self._json)
        if self._record.url != url or self.total is None or self.size > self.total:
            self.discard()

    @property
    def size(self) -> int:
        """Bytes downloaded so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def total(self) -> int | None:
        """Size of the complete file, if known."""
        return self._record.total

    def headers(self) -> dict[str, str]:
        """Return headers that request the rest of the file.

        Returns:
            Range and If-Range headers; empty if nothing has been downloaded.
        """
        if not self.size:
            return {}
        validator = self._record.validator
        return {"Range": f"bytes={self.size}-", **({"If-Range": validator} if validator else {})}

    def begin(self, response: httpx2.Response) -> None:
        """Prepare to append a response's body, or to restart from its first byte.

        Args:
            response: Response to a request with `headers()`.

        Raises:
            AttemptError: If the range is invalid or belongs to another version of the file.
        """
        headers, start = response.headers, "0"
        total = headers.get("content-length", "")
        if response.status_code == 206:
            span, _, total = headers.get("content-range", "").partition("/")
            start = span.removeprefix("bytes ").partition("-")[0]
        first, length = _parse_size(start), _parse_size(total)
        if first is None or (response.status_code == 206 and length is None):
            raise AttemptError("a partial response without a valid Content-Range")
        if first != self.size or (self.size and length != self.total):
            self.discard()
            if first:
                raise AttemptError("the file on the server has changed")
        tag = headers.get("etag", "W/")  # weak tags are not valid in If-Range
        validator = headers.get("last-modified") if tag.startswith("W/") else tag or None
        self._record = _PartialRecord(self.url, length, validator)
        write_json(self._json, asdict(self._record))

    def discard(self) -> None:
        """Delete the partial file and its record."""
        with _writable(self.path):
            self.path.unlink(missing_ok=True)
            self._json.unlink(missing_ok=True)
        self._record = _PartialRecord(self.url, None, None)


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error})",
            remedy="Free some space, or choose a folder on another disk with --out (or --scratch).",
        ) from error


class ByteCounter:
    """Progress of several files on one bar that counts megabytes.

    Args:
        bar: The progress bar.
    """

    def __init__(self, bar: ProgressTask) -> None:
        self._bar = bar
        self._sizes: dict[str, int] = {}
        self._megabytes_shown = 0
        self._lock = threading.Lock()

    def file(self, name: str) -> OnProgress:
        """Create the progress function of a file.

        Args:
            name: Name of the file.

        Returns:
            Function for `on_progress`.
        """

        def report(size: int, total: int | None) -> None:
            with self._lock:
                self._sizes[name] = size
                megabytes = sum(self._sizes.values()) // MEGABYTE
                if megabytes > self._megabytes_shown:
                    self._bar.advance(megabytes - self._megabytes_shown)
                    self._megabytes_shown = megabytes
                    of = f" of {total // MEGABYTE:,}" if total else ""
                    self._bar.note(f"{name}: {size // MEGABYTE:,}{of} MB")

        return report


@contextmanager
def _attempt_errors() -> Iterator[None]:
    """Convert errors of httpx2 to AttemptError."""
    import httpx2

    try:
        yield
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, UnicodeError) as error:
        raise AttemptError(f"not a web address ({error})", retry=False) from error
    except httpx2.TimeoutException as error:
        reached = not isinstance(error, httpx2.ConnectTimeout)
        raise AttemptError(f"timeout ({type(error).__name__})", reached=reached) from error
    except httpx2.ConnectError as error:
        cause = _ssl_cause(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = f"the server's certificate cannot be verified ({cause.verify_message})"
            raise AttemptError(reason, retry=False) from error
        if cause is not None:
            raise AttemptError(f"no secure connection ({error})", retry=False) from error
        raise AttemptError(f"cannot connect ({error})", reached=False) from error
    except httpx2.HTTPError as error:
        raise AttemptError(f"connection failed ({type(error).__name__}: {error})") from error


def _ssl_cause(error: BaseException | None) -> ssl.SSLError | None:
    """Return the error of the ssl module that caused an error of httpx2, if any."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error
