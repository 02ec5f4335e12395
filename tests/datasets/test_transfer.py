"""Large files from a server on 127.0.0.1 that behaves, breaks off, or lies."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from marsretrieval.datasets import _disk
from marsretrieval.datasets._partial import Partial
from marsretrieval.datasets._transfer import Patience, RefusedError, ServerError, Transfer
from marsretrieval.errors import DataError, OutputError
from tests.datasets.download.servers import Handler, serve

BODY = bytes(range(256)) * 20_000  # 5 MB
FAST = Patience(backoff_s=0.01, timeout_s=5)


class Server:
    """Serves BODY, with ranges; breaks off after `cut_after` bytes as long as `cuts` last."""

    def __init__(self) -> None:
        self.body, self.tag = BODY, '"one"'
        self.cut_after, self.cuts = 0, 0
        self.ranges = True
        self.length = True
        self.statuses: list[int] = []
        self.asked: list[str | None] = []

    def __call__(self, request: Handler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append(wanted)
        if self.statuses:
            status = self.statuses.pop(0)
            request.send(status, b"", {"Location": "/other"} if status == 302 else None)
            return
        start = 0
        if wanted and self.ranges and request.headers.get("If-Range") in (None, self.tag):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
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


def fetch(url: str, folder: Path, patience: Patience = FAST, **options: Any) -> Path:
    Transfer(patience).fetch(url, folder / "a.zip", **options)
    return folder / "a.zip"


def test_a_whole_file_comes_once(server: Server, url: str, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    path = fetch(url, tmp_path, told=lambda *sizes: told.append(sizes))
    assert path.read_bytes() == BODY
    assert told[-1] == (len(BODY), len(BODY))
    assert server.asked == [None]
    assert [each.name for each in tmp_path.iterdir()] == ["a.zip"]


def test_a_connection_that_breaks_is_gone_on_with(server: Server, url: str, tmp_path: Path):
    server.cuts, server.cut_after = 3, 1_000_000
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert server.asked == [None, *(f"bytes={n}000000-" for n in (1, 2, 3))]


def test_a_killed_run_is_gone_on_with(server: Server, url: str, tmp_path: Path) -> None:
    server.cuts, server.cut_after = 1, 2_000_000
    with pytest.raises(ServerError, match="of 5,120,000 bytes"):
        fetch(url, tmp_path, Patience(attempts=1))
    assert (tmp_path / "a.zip.part").stat().st_size == 2_000_000
    assert not (tmp_path / "a.zip").exists()
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert server.asked[-1] == "bytes=2000000-"


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: Server, url: str, tmp_path: Path):
    server.cuts, server.cut_after = 1, 2_000_000
    with pytest.raises(ServerError):
        fetch(url, tmp_path, Patience(attempts=1))
    server.body, server.tag = BODY[::-1] + b"more", '"two"'
    assert fetch(url, tmp_path).read_bytes() == server.body


@pytest.mark.parametrize("longer", [1000, -3_500_000])
def test_another_length_without_a_tag_is_noticed(
    server: Server, url: str, tmp_path: Path, longer: int
) -> None:
    server.cuts, server.cut_after, server.tag = 1, 2_000_000, ""
    with pytest.raises(ServerError):
        fetch(url, tmp_path, Patience(attempts=1))
    server.body = (BODY[::-1] + bytes(2000))[: len(BODY) + longer]
    assert fetch(url, tmp_path).read_bytes() == server.body


def test_a_server_without_ranges_starts_over(server: Server, url: str, tmp_path: Path) -> None:
    server.cuts, server.cut_after, server.ranges = 1, 2_000_000, False
    assert fetch(url, tmp_path).read_bytes() == BODY


def test_a_server_without_lengths(server: Server, url: str, tmp_path: Path) -> None:
    server.length = False
    assert fetch(url, tmp_path).read_bytes() == BODY


def test_a_part_of_unknown_origin_is_not_trusted(server: Server, url: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
    assert fetch(url, tmp_path).read_bytes() == BODY
    (tmp_path / "a.zip").unlink()
    (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
    (tmp_path / "a.zip.part.json").write_text('{"url": "http://elsewhere/a.zip", "total": 5}')
    assert fetch(url, tmp_path).read_bytes() == BODY


def test_a_part_that_was_whole_already(server: Server, url: str, tmp_path: Path) -> None:
    server.cuts, server.cut_after = 1, len(BODY) - 1
    with pytest.raises(ServerError):
        fetch(url, tmp_path, Patience(attempts=1))
    with (tmp_path / "a.zip.part").open("ab") as file:
        file.write(BODY[-1:])
    assert fetch(url, tmp_path).read_bytes() == BODY


def test_busy_servers_are_asked_again(server: Server, url: str, tmp_path: Path) -> None:
    server.statuses = [503, 429, 500]
    assert fetch(url, tmp_path).read_bytes() == BODY


def test_what_is_not_there_is_said_at_once(server: Server, url: str, tmp_path: Path) -> None:
    server.statuses = [404]
    with pytest.raises(RefusedError, match="404") as caught:
        fetch(url, tmp_path)
    assert caught.value.status == 404
    assert len(server.asked) == 1


def test_a_server_that_gives_nothing_is_given_up(server: Server, url: str, tmp_path: Path) -> None:
    server.statuses = [503] * 10
    with pytest.raises(ServerError, match="503"):
        fetch(url, tmp_path, Patience(attempts=3, backoff_s=0.01))
    assert len(server.asked) == 3


@pytest.mark.parametrize("call", ["read1", "begin"])
def test_a_network_that_goes_away_meanwhile(
    server: Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """No route, network down: the operating system's errors, of no class of their own."""
    real = getattr(HTTPResponse, call)
    errors = [OSError(errno.EHOSTUNREACH, "No route to host"), OSError(errno.ENETDOWN, "Down")]

    def broken(*arguments: Any) -> Any:
        if errors:
            raise errors.pop(0)
        return real(*arguments)

    monkeypatch.setattr(HTTPResponse, call, broken)
    assert fetch(url, tmp_path).read_bytes() == BODY


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="cannot connect"):
        fetch("http://127.0.0.1:9/a.zip", tmp_path, Patience(attempts=2, backoff_s=0.01))


def test_a_stop_ends_a_pause_and_a_transfer(server: Server, url: str, tmp_path: Path) -> None:
    transfer = Transfer(Patience(backoff_s=60))
    server.statuses = [503]
    threading.Timer(0.2, transfer.stop).start()
    with pytest.raises(ServerError, match="stopped"):
        transfer.fetch(url, tmp_path / "a.zip")
    with pytest.raises(ServerError, match="stopped"):
        transfer.fetch(url, tmp_path / "a.zip")


def test_a_stop_does_not_wait_for_a_server_that_fell_silent(tmp_path: Path) -> None:
    over = threading.Event()

    def stalls(request: Handler) -> None:
        request.send(200, BODY[:1000], {"Content-Length": str(len(BODY))})
        over.wait(60)

    transfer = Transfer(Patience(timeout_s=60))
    with serve(stalls) as address, ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(transfer.fetch, address, tmp_path / "a.zip")
        while not (part := tmp_path / "a.zip.part").exists() or part.stat().st_size < 1000:
            assert not fetching.done()
            time.sleep(0.01)
        transfer.stop()
        with pytest.raises(ServerError, match="stopped"):
            fetching.result(timeout=30)
        over.set()
    assert part.read_bytes() == BODY[:1000]


def test_no_room_is_said_before_the_first_byte(url: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(_disk, "free_bytes", lambda folder: 1_000_000)
    with pytest.raises(OutputError, match="free"):
        fetch(url, tmp_path)
    assert not (tmp_path / "a.zip").exists()


def test_a_disk_that_fills_up(url: str, tmp_path: Path, monkeypatch) -> None:
    real = Partial.write

    def write(self, file, chunk):
        class Full:
            def write(self, data):
                raise OSError(28, "No space left on device")

        real(self, Full() if self.size > 2_000_000 else file, chunk)

    monkeypatch.setattr(Partial, "write", write)
    with pytest.raises(OutputError, match="No space left"):
        fetch(url, tmp_path)


def test_bytes_that_are_not_those_expected_are_thrown_away(server: Server, url: str, tmp_path):
    """Left by a killed run, and damaged meanwhile: fetched anew, once."""
    server.cuts, server.cut_after = 1, 2_000_000
    with pytest.raises(ServerError):
        fetch(url, tmp_path, Patience(attempts=1))
    part = tmp_path / "a.zip.part"
    part.write_bytes(bytes(2_000_000))
    server.asked.clear()

    def sound(path: Path) -> bool:
        return path.read_bytes() == BODY

    assert fetch(url, tmp_path, sound=sound).read_bytes() == BODY
    assert server.asked == ["bytes=2000000-", None]
    (tmp_path / "a.zip").unlink()
    server.asked.clear()
    with pytest.raises(DataError, match="not the hash"):
        fetch(url, tmp_path, sound=lambda path: False)
    assert server.asked == [None]
    assert list(tmp_path.iterdir()) == []


def test_where_the_hash_is_known_a_servers_tag_decides_nothing(server: Server, url: str, tmp_path):
    """Mirrors behind one name may each have tags of their own."""
    server.cuts, server.cut_after = 1, 2_000_000
    with pytest.raises(ServerError):
        fetch(url, tmp_path, Patience(attempts=1))
    server.tag = '"another mirror"'
    path = fetch(url, tmp_path, sound=lambda path: path.stat().st_size == len(BODY))
    assert path.read_bytes() == BODY
    assert server.asked[-1] == "bytes=2000000-"


def test_who_never_answers_is_given_up_sooner(server: Server, url: str, tmp_path: Path) -> None:
    patience = Patience(attempts=5, first_attempts=2, backoff_s=0.01)
    with pytest.raises(ServerError, match="cannot connect") as caught:
        fetch("http://127.0.0.1:9/a.zip", tmp_path, patience)
    assert "Check the network" in str(caught.value)
    server.statuses = [503] * 10
    with pytest.raises(ServerError, match="503") as caught:
        fetch(url, tmp_path, patience)
    assert "goes on from there" in str(caught.value)
    assert len(server.asked) == 5
