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
_RETRIED = frozenset({408, 416, 425, 429})  # and all from 500 on
# Without a handler, logging would print retries between the lines of progress.
logging.getLogger("stamina").addHandler(logging.NullHandler())

OnProgress = Callable[[int, int | None], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a server is tried. Times in seconds."""

    attempts: int = 8  # failed requests in a row without a new byte
    first_attempts: int = 3  # the same, as long as no server has answered
    timeout_s: float = 20.0  # longest silence while connecting or reading
    backoff_s: float = 2.0  # before the second attempt; doubled before every further one
    max_pause_s: float = 120.0  # also of the pauses that a server asks for
    head_s: float = 60.0  # for redirects and headers, however slowly they come
    slow_s: float = 60.0  # a body must bring `slow_bytes` within any such time
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


class AttemptError(Exception):
    """Failure of one request; `retry`: another attempt may succeed; `reached`: a server answered.

    `pause_s`: seconds that the server asks to wait. `status`: HTTP status, where that is the
    failure. `slow`: the server answers, but too slowly to be worth another hour.
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
    """Raise MissingDependencyError unless the libraries of the extra `download` are installed."""
    for package in ("huggingface_hub", "httpx2", "stamina"):
        if find_spec(package) is None:
            raise MissingDependencyError(package, "download", needed_for=needed_for)


async def with_retries(
    attempt: Callable[[], Awaitable[T]], *, attempts: int, backoff_s: float, max_pause_s: float
) -> T:
    """Await `attempt()` until it succeeds, or raise its last AttemptError."""
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
    """Client of one event loop; use it as an asynchronous context manager.

    Args:
        timeout_s: Longest silence while connecting or reading.
        head_s: Time limit for redirects and headers, however slowly they come (default: none).
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
        same_security: bool = True,
        verify: ssl.SSLContext | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        import httpx2

        self._head_s = head_s
        self._same_security = same_security
        self._answered = False
        # The bytes as they are on the server, so that sizes and ranges are those of the file.
        fixed = {"User-Agent": f"marsretrieval/{__version__}", "Accept-Encoding": "identity"}
        self._client = httpx2.AsyncClient(
            transport=transport,
            verify=verify or ssl.create_default_context(),
            timeout=timeout_s,
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
        """Yield the response after all redirects; its body is read within the context.

        Whatever goes wrong until the end of the context, a status that means failure too, is
        raised as AttemptError.
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
                        retry=status in _RETRIED or status >= 500,
                        pause_s=float(after) if after.isdecimal() else None,
                        status=status,
                    )
                yield response
            finally:
                await response.aclose()

    async def _open(self, url: str, headers: Mapping[str, str] | None) -> httpx2.Response:
        """The client's own way to follow redirects would read their bodies to the end."""
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
        """One request for the rest of a file."""
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
            if error.status == 416:  # another file by now
                part.discard()
            raise
        if part.total not in (None, size):
            raise AttemptError(f"{size:,} of {part.total:,} bytes came")


async def read_body(response: httpx2.Response, max_bytes: int) -> bytes:
    """Read a body into memory. Raises AttemptError if it is empty or longer than the limit."""
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


@dataclass(frozen=True, slots=True)
class _PartialRecord:
    url: str
    total: Int64 | None
    validator: str | None  # of the version of the file, for If-Range


class PartialDownload:
    """The bytes at `path`, and beside them `<path>.json`: address, length, version.

    Without a record of the same address and with a length, the bytes are discarded: nothing
    says what they belong to.
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
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def total(self) -> int | None:
        """Bytes in all."""
        return self._record.total

    def headers(self) -> dict[str, str]:
        """Headers that ask for the rest, if the file is still the same."""
        if not self.size:
            return {}
        validator = self._record.validator
        return {"Range": f"bytes={self.size}-", **({"If-Range": validator} if validator else {})}

    def begin(self, response: httpx2.Response) -> None:
        """Read from a response whether it continues the file or starts it anew."""
        headers, start = response.headers, "0"
        total = headers.get("content-length", "")
        if response.status_code == 206:
            span, _, total = headers.get("content-range", "").partition("/")
            start = span.removeprefix("bytes ").partition("-")[0]
            if not (start.isdecimal() and total.isdecimal()):
                raise AttemptError("a partial response without a valid Content-Range")
        length = int(total) if total.isdecimal() else None
        if int(start) != self.size or (self.size and length != self.total):
            self.discard()
            if int(start):
                raise AttemptError("the file on the server has changed")
        tag = headers.get("etag", "W/")  # weak tags are not valid in If-Range
        validator = headers.get("last-modified") if tag.startswith("W/") else tag or None
        self._record = _PartialRecord(self.url, length, validator)
        write_json(self._json, asdict(self._record))

    def discard(self) -> None:
        """Delete what was downloaded."""
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


@contextmanager
def _attempt_errors() -> Iterator[None]:
    """Raise AttemptError in place of the errors of httpx2."""
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
    """The error of the ssl module behind one of httpx2, if any."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error
