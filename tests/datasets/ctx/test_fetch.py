"""Fetching from a server on 127.0.0.1 that behaves, breaks off, lies or cannot be trusted."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from marsretrieval.datasets import _disk
from marsretrieval.datasets.ctx._fetch import Fetcher, FetchSettings, ServerError
from marsretrieval.errors import DataError, OutputError, UsageError
from tests.datasets.download.servers import Handler, serve

BODY = bytes(range(256)) * 20_000  # 5 MB
FAST = FetchSettings(backoff_s=0.01, timeout_s=5)


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


def fetch(url: str, folder: Path, settings: FetchSettings = FAST) -> Path:
    return Fetcher(folder, settings).fetch(url)


def test_a_whole_file_comes_once(server: Server, url: str, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    path = Fetcher(tmp_path, FAST).fetch(url, told=lambda *sizes: told.append(sizes))
    assert path.read_bytes() == BODY
    assert told[-1] == (len(BODY), len(BODY))
    assert fetch(url, tmp_path) == path
    assert server.asked == [None]
    assert [each.name for each in tmp_path.iterdir()] == ["a.zip"]


def test_a_connection_that_breaks_is_gone_on_with(server: Server, url: str, tmp_path: Path):
    server.cuts, server.cut_after = 3, 1_000_000
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert server.asked == [None, *(f"bytes={n}000000-" for n in (1, 2, 3))]


def test_a_killed_run_is_gone_on_with(server: Server, url: str, tmp_path: Path) -> None:
    server.cuts, server.cut_after = 1, 2_000_000
    with pytest.raises(ServerError, match="of 5,120,000 bytes"):
        fetch(url, tmp_path, FetchSettings(attempts=1))
    assert (tmp_path / "a.zip.part").stat().st_size == 2_000_000
    assert not (tmp_path / "a.zip").exists()
    assert fetch(url, tmp_path).read_bytes() == BODY
    assert server.asked[-1] == "bytes=2000000-"


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: Server, url: str, tmp_path: Path):
    server.cuts, server.cut_after = 1, 2_000_000
    with pytest.raises(ServerError):
        fetch(url, tmp_path, FetchSettings(attempts=1))
    server.body, server.tag = BODY[::-1] + b"more", '"two"'
    assert fetch(url, tmp_path).read_bytes() == server.body


@pytest.mark.parametrize("longer", [1000, -3_500_000])
def test_another_length_without_a_tag_is_noticed(
    server: Server, url: str, tmp_path: Path, longer: int
) -> None:
    server.cuts, server.cut_after, server.tag = 1, 2_000_000, ""
    with pytest.raises(ServerError):
        fetch(url, tmp_path, FetchSettings(attempts=1))
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
        fetch(url, tmp_path, FetchSettings(attempts=1))
    with (tmp_path / "a.zip.part").open("ab") as file:
        file.write(BODY[-1:])
    assert fetch(url, tmp_path).read_bytes() == BODY


def test_busy_servers_are_asked_again(server: Server, url: str, tmp_path: Path) -> None:
    server.statuses = [503, 429, 500]
    assert fetch(url, tmp_path).read_bytes() == BODY


def test_what_is_not_there_is_said_at_once(server: Server, url: str, tmp_path: Path) -> None:
    server.statuses = [404]
    with pytest.raises(DataError, match="404") as caught:
        fetch(url, tmp_path)
    assert not isinstance(caught.value, ServerError)
    assert len(server.asked) == 1


def test_a_server_that_gives_nothing_is_given_up(server: Server, url: str, tmp_path: Path) -> None:
    server.statuses = [503] * 10
    with pytest.raises(ServerError, match="503"):
        fetch(url, tmp_path, FetchSettings(attempts=3, backoff_s=0.01))
    assert len(server.asked) == 3


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="cannot connect"):
        fetch("http://127.0.0.1:9/a.zip", tmp_path, FetchSettings(attempts=2, backoff_s=0.01))


def test_a_stop_ends_a_pause_and_a_transfer(server: Server, url: str, tmp_path: Path) -> None:
    fetcher = Fetcher(tmp_path, FetchSettings(backoff_s=60))
    server.statuses = [503]
    threading.Timer(0.2, fetcher.stop.set).start()
    with pytest.raises(ServerError, match="stopped"):
        fetcher.fetch(url)
    with pytest.raises(ServerError, match="stopped"):
        fetcher.fetch(url)


def test_no_room_is_said_before_the_first_byte(url: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(_disk, "free_bytes", lambda folder: 1_000_000)
    with pytest.raises(OutputError, match="free"):
        fetch(url, tmp_path)
    assert not (tmp_path / "a.zip").exists()


def test_a_disk_that_fills_up(url: str, tmp_path: Path, monkeypatch) -> None:
    from marsretrieval.datasets.ctx import _fetch

    real = _fetch._Part.write

    def write(self, file, chunk):
        class Full:
            def write(self, data):
                raise OSError(28, "No space left on device")

        real(self, Full() if self.size > 2_000_000 else file, chunk)

    monkeypatch.setattr(_fetch._Part, "write", write)
    with pytest.raises(OutputError, match="No space left"):
        fetch(url, tmp_path)


@contextmanager
def https(body: bytes, chain: Path, key: Path) -> Iterator[str]:
    handler = type(
        "Answering", (Handler,), {"answer": staticmethod(lambda request: request.send(200, body))}
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{server.server_port}/a.zip"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    """A root, an intermediate and a server's certificate."""
    folder = tmp_path_factory.mktemp("tls")
    authority = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
    (folder / "ca.ext").write_text(authority)
    (folder / "leaf.ext").write_text("subjectAltName=IP:127.0.0.1\n")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    try:
        for name in ("root", "middle", "leaf"):
            openssl(
                "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.csr",
            )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no openssl to make certificates with")
    openssl("x509", "-req", "-in", "root.csr", "-signkey", "root.key", "-extfile", "ca.ext",
            "-days", "2", "-out", "root.pem")  # fmt: skip
    for name, issuer, extensions in (("middle", "root", "ca.ext"), ("leaf", "middle", "leaf.ext")):
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", f"{issuer}.pem", "-CAkey",
            f"{issuer}.key", "-CAcreateserial", "-extfile", extensions, "-days", "2",
            "-out", f"{name}.pem",
        )  # fmt: skip
    return folder


def test_an_incomplete_chain_is_refused_with_its_remedy(certificates: Path, tmp_path: Path):
    with https(BODY, certificates / "leaf.pem", certificates / "leaf.key") as url:
        with pytest.raises(ServerError, match="certificate cannot be verified") as caught:
            fetch(url, tmp_path)
        assert "--ca-file" in str(caught.value)
        assert "SSL_CERT_FILE" in str(caught.value)
        assert not list(tmp_path.iterdir())


def test_the_missing_intermediate_completes_it(certificates: Path, tmp_path: Path) -> None:
    with https(BODY, certificates / "leaf.pem", certificates / "leaf.key") as url:
        settings = FetchSettings(ca_file=certificates / "middle.pem")
        path = fetch(url, tmp_path, settings)
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(BODY).digest()


def test_the_environment_may_name_a_bundle(certificates: Path, tmp_path: Path, monkeypatch):
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(
        (certificates / "middle.pem").read_text() + (certificates / "root.pem").read_text()
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    with https(BODY, certificates / "leaf.pem", certificates / "leaf.key") as url:
        assert fetch(url, tmp_path).stat().st_size == len(BODY)


def test_a_certificate_for_another_name_is_refused_all_the_same(
    certificates: Path, tmp_path: Path
) -> None:
    with https(BODY, certificates / "leaf.pem", certificates / "leaf.key") as url:
        settings = FetchSettings(ca_file=certificates / "middle.pem")
        with pytest.raises(ServerError, match="cannot be verified"):
            fetch(url.replace("127.0.0.1", "localhost"), tmp_path, settings)


def test_a_redirect_out_of_tls_is_not_followed(certificates: Path, tmp_path: Path) -> None:
    handler = type(
        "Answering",
        (Handler,),
        {"answer": staticmethod(lambda r: r.send(302, b"", {"Location": "http://127.0.0.1/"}))},
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "leaf.pem", certificates / "leaf.key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = FetchSettings(ca_file=certificates / "middle.pem")
    try:
        with pytest.raises(ServerError, match="not https"):
            fetch(f"https://127.0.0.1:{server.server_port}/a.zip", tmp_path, settings)
    finally:
        server.shutdown()
        server.server_close()


def test_a_file_that_holds_no_certificates(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("nothing")
    for name in ("x.pem", "absent.pem"):
        with pytest.raises(UsageError, match="--ca-file"):
            Fetcher(tmp_path, FetchSettings(ca_file=tmp_path / name))
