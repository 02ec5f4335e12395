"""Servers that never come to an end: a time limit or one Ctrl-C does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from marsretrieval.datasets._transfer import Patience, ServerError, Transfer

OK = b"HTTP/1.1 200 OK\r\n"
MODES = {
    "headers": (OK, b"X-A: b\r\n"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n", b"x"),
    "body": (OK + b"Content-Length: 1000000\r\n\r\n", b"x"),
    "endless": (OK + b"\r\n", b"x"),
}

Serve = Callable[[str], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server of a mode; its address."""
    over = threading.Event()
    listeners: list[socket.socket] = []

    def answer(connection: socket.socket, mode: str) -> None:
        first, again = MODES[mode]
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


PATIENCE = Patience(
    attempts=2, first_attempts=2, timeout_s=5, backoff_s=0.01, head_s=0.4, slow_s=0.3
)


@pytest.mark.parametrize("mode", MODES)
def test_time_limits_end_it(serve: Serve, tmp_path: Path, mode: str) -> None:
    began = time.monotonic()
    with pytest.raises((ServerError, OSError)):
        Transfer(PATIENCE).fetch(serve(mode), tmp_path / "file")
    assert time.monotonic() - began < 5
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("mode", MODES)
def test_stopping_ends_it(serve: Serve, tmp_path: Path, mode: str) -> None:
    transfer = Transfer(Patience())
    errors: list[BaseException] = []
    url = serve(mode)

    def fetch() -> None:
        try:
            transfer.fetch(url, tmp_path / "file")
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    time.sleep(0.3)
    transfer.stop()
    thread.join(3)
    assert not thread.is_alive() and len(errors) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stopped", [False, True])
def test_links_end_too(serve: Serve, mode: str, stopped: bool) -> None:
    pytest.importorskip("httpx2")
    from marsretrieval.datasets.download._fetch import Fetcher, FetchError
    from marsretrieval.datasets.download._settings import FetchSettings

    settings = FetchSettings(
        total_s=60 if stopped else 0.5,
        attempts=1,
        max_redirects=2,
        allowed_addresses=frozenset({"127.0.0.1"}),
    )
    began = time.monotonic()
    with Fetcher(settings) as fetcher:
        timer = threading.Timer(0.3, fetcher.stop.set)
        if stopped:
            timer.start()
        with pytest.raises(
            FetchError, match="interrupted|redirects" if stopped else "slower|redirects"
        ):
            fetcher.get(serve(mode), lambda body: body)
        timer.cancel()
    assert time.monotonic() - began < 4
