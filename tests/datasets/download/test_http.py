"""Large files from servers on 127.0.0.1 that are correct, break off, send wrong headers or never
end."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from marsretrieval.datasets import listing
from marsretrieval.datasets.download.http import (
    AttemptError,
    ByteCounter,
    HttpClient,
    HTTPStatusError,
    PartialDownload,
    RetryPolicy,
    ServerError,
)
from marsretrieval.errors import OutputError
from tests.datasets.download.servers import Handler, serve

BODY = bytes(range(256)) * 20_000  # 5 MB
FAST = RetryPolicy(backoff_s=0.01, timeout_s=5)
ONCE = RetryPolicy(attempts=1)


class Server:
    """Serve BODY with range requests; break off after `cut_after` bytes, `cuts` times."""

    def __init__(self) -> None:
        self.body, self.tag = BODY, '"one"'
        self.cut_after, self.cuts = 0, 0
        self.ranges = True
        self.length = True
        self.statuses: list[int] = []
        self.requests: list[str | None] = []

    def __call__(self, request: Handler) -> None:
        span = request.headers.get("Range")
        self.requests.append(span)
        if self.statuses:
            request.send(self.statuses.pop(0), b"", {"Retry-After": "0"})
            return
        start = 0
        if span and self.ranges and request.headers.get("If-Range") in (None, self.tag):
            start = int(span.removeprefix("bytes=").rstrip("-"))
        if start >= len(self.body):
            request.send(416)
            return
        part = self.body[start:]
        headers = {"ETag": self.tag, "Connection": "close"}
        if self.length:
            headers["Content-Length"] = str(len(part))
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"
        request.send_response(206 if start else 200)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        if self.cuts:
            self.cuts -= 1
            part = part[: self.cut_after]
        request.wfile.write(part)
        request.close_connection = True


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    with serve(server) as address:
        yield f"{address}/tiles/a.zip"


def download(url: str, folder: Path, policy: RetryPolicy = FAST, *more: Any) -> Path:
    async def run() -> None:
        async with HttpClient(timeout_s=policy.timeout_s, head_s=policy.head_s) as client:
            await client.download(url, folder / "a.zip", policy, *more)

    asyncio.run(run())
    return folder / "a.zip"


def begin(server: Server, url: str, folder: Path) -> Path:
    """Write a partial file of 2,000,000 bytes, as a killed run does."""
    server.cuts, server.cut_after = 1, 2_000_000
    with pytest.raises(ServerError, match=r"RemoteProtocolError|of 5,120,000 bytes"):
        download(url, folder, ONCE)
    part = folder / "a.zip.part"
    assert part.stat().st_size == 2_000_000
    assert not (folder / "a.zip").exists()
    return part


def test_complete_file_is_downloaded_once(server: Server, url: str, tmp_path: Path) -> None:
    sizes: list[tuple[int, int | None]] = []
    path = download(url, tmp_path, FAST, lambda *size: sizes.append(size))
    assert path.read_bytes() == BODY
    assert sizes[-1] == (len(BODY), len(BODY))
    assert server.requests == [None]
    assert list(tmp_path.iterdir()) == [path]


def test_broken_connection_is_resumed(server: Server, url: str, tmp_path: Path) -> None:
    """Retries continue as long as new bytes arrive."""
    server.cuts, server.cut_after = 3, 1_000_000
    policy = RetryPolicy(attempts=2, backoff_s=0.01)
    assert download(url, tmp_path, policy).read_bytes() == BODY
    assert server.requests == [None, *(f"bytes={n}000000-" for n in (1, 2, 3))]


def test_a_killed_run_is_resumed(server: Server, url: str, tmp_path: Path) -> None:
    begin(server, url, tmp_path)
    assert download(url, tmp_path).read_bytes() == BODY
    assert server.requests[-1] == "bytes=2000000-"


def test_file_changed_on_the_server_is_downloaded_again(server: Server, url: str, tmp_path: Path):
    begin(server, url, tmp_path)
    server.body, server.tag = BODY[::-1] + b"more", '"two"'
    assert download(url, tmp_path).read_bytes() == server.body


@pytest.mark.parametrize("longer", [1000, -3_500_000])
def test_changed_length_without_etag_is_detected(
    server: Server, url: str, tmp_path: Path, longer: int
) -> None:
    server.tag = ""
    begin(server, url, tmp_path)
    server.body = (BODY[::-1] + bytes(2000))[: len(BODY) + longer]
    assert download(url, tmp_path).read_bytes() == server.body


@pytest.mark.parametrize("lacks", ["ranges", "length"])
def test_servers_without_range_support(
    server: Server, url: str, tmp_path: Path, lacks: str
) -> None:
    server.cuts, server.cut_after = int(lacks == "ranges"), 2_000_000
    setattr(server, lacks, False)
    assert download(url, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("record", [None, '{"url": "http://x/a.zip", "total": 5}', "{"])
def test_partial_file_of_unknown_source_is_not_used(url: str, tmp_path: Path, record) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
    if record is not None:
        (tmp_path / "a.zip.part.json").write_text(record)
    assert download(url, tmp_path).read_bytes() == BODY


def test_complete_partial_file(server: Server, url: str, tmp_path: Path) -> None:
    part = begin(server, url, tmp_path)
    part.write_bytes(BODY)
    assert download(url, tmp_path).read_bytes() == BODY


def test_busy_servers_are_retried(server: Server, url: str, tmp_path: Path) -> None:
    server.statuses = [503, 429, 500]
    assert download(url, tmp_path).read_bytes() == BODY


def test_retry_after_is_honoured(tmp_path: Path) -> None:
    times: list[float] = []

    def busy(request: Handler) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            request.send(429, b"", {"Retry-After": "1"})
        else:
            request.send(200, BODY)

    with serve(busy) as address:
        download(address, tmp_path)
    assert times[1] - times[0] >= 1


def test_missing_file_is_not_retried(server: Server, url: str, tmp_path: Path) -> None:
    server.statuses = [404]
    with pytest.raises(HTTPStatusError, match="HTTP 404"):
        download(url, tmp_path)
    assert len(server.requests) == 1


def test_silent_server_times_out_sooner(server: Server, url: str, tmp_path: Path) -> None:
    policy = RetryPolicy(attempts=5, first_attempts=2, backoff_s=0.01)
    with pytest.raises(ServerError, match="cannot connect") as caught:
        download("http://127.0.0.1:9/a.zip", tmp_path, policy)
    assert "Check the network" in str(caught.value)
    server.statuses = [503] * 10
    with pytest.raises(ServerError, match="503") as caught:
        download(url, tmp_path, policy)
    assert "it resumes" in str(caught.value)
    assert len(server.requests) == 2 + 5


def test_lack_of_disk_space_is_reported_before_the_download(
    url: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(listing, "free_bytes", lambda folder: 1_000_000)
    with pytest.raises(OutputError, match="free"):
        download(url, tmp_path)
    assert not (tmp_path / "a.zip").exists()


def test_a_disk_that_fills_up(url: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").symlink_to("/dev/full")
    record = {"url": url, "total": len(BODY), "validator": '"one"'}
    (tmp_path / "a.zip.part.json").write_text(json.dumps(record))
    with pytest.raises(OutputError, match=r"cannot be written \(No space left"):
        download(url, tmp_path)


class Bar:
    def __init__(self) -> None:
        self.shown, self.text = 0, ""

    def advance(self, count: int = 1) -> None:
        self.shown += count

    def note(self, text: str) -> None:
        self.text = text


def test_progress_adds_up_over_files_and_never_decreases() -> None:
    bar = Bar()
    count = ByteCounter(bar)  # type: ignore[arg-type]
    first, second = count.file("a"), count.file("b")
    first(1_700_000, 10_000_000)
    second(800_000, None)
    assert bar.shown == 2
    assert bar.text == "b: 0 MB"
    first(100_000, 10_000_000)  # begun anew
    assert bar.shown == 2
    first(10_000_000, 10_000_000)
    assert bar.shown == 10
    assert bar.text == "a: 10 of 10 MB"


OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS = {
    "headers": (OK, b"X-A: b\r\n"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n", b"x"),
    "body": (OK + b"Content-Length: 1000000\r\n\r\n", b"x"),
    "unknown length": (OK + b"\r\n", b"x"),
    "silence": (OK + b"Content-Length: 1000000\r\n\r\n", b""),
}


@pytest.fixture
def endless() -> Iterator[Callable[[str], str]]:
    """Start a server whose response never ends, and return its address."""
    over = threading.Event()
    listeners: list[socket.socket] = []

    def answer(connection: socket.socket, mode: str) -> None:
        first, again = ENDLESS[mode]
        with connection, suppress(OSError):
            connection.recv(4096)
            connection.sendall(first)
            while not over.wait(0.02):
                connection.sendall(again)

    def listen(listener: socket.socket, mode: str) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=answer, args=(connection, mode), daemon=True).start()

    def start(mode: str) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=listen, args=(listener, mode), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/file"

    yield start
    over.set()
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize("mode", ENDLESS)
def test_time_limits_stop_the_download(
    endless: Callable[[str], str], tmp_path: Path, mode: str
) -> None:
    policy = RetryPolicy(
        attempts=2, first_attempts=2, timeout_s=0.3, backoff_s=0.01, head_s=0.4, slow_s=0.3
    )
    began = time.monotonic()
    with pytest.raises(ServerError):
        download(endless(mode), tmp_path, policy)
    assert time.monotonic() - began < 5
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.parametrize("mode", ENDLESS)
def test_cancelling_stops_the_download(
    endless: Callable[[str], str], tmp_path: Path, mode: str
) -> None:
    async def run() -> None:
        async with HttpClient(timeout_s=60, head_s=60) as client:
            await asyncio.wait_for(client.download(url, tmp_path / "a.zip", RetryPolicy()), 0.3)

    url = endless(mode)
    began = time.monotonic()
    with pytest.raises((TimeoutError, ServerError)):  # the latter for too many redirects
        asyncio.run(run())
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("span", ["x-1/9", "0-1/x", f"0-1/{'9' * 5000}", f"{'9' * 5000}-1/9", ""])
def test_a_content_range_that_is_not_valid_is_refused(span: str, tmp_path: Path) -> None:
    partial = PartialDownload(tmp_path / "part", "https://a/b")
    response = httpx2.Response(206, headers={"Content-Range": f"bytes {span}"})
    with pytest.raises(AttemptError, match="valid Content-Range"):
        partial.begin(response)
