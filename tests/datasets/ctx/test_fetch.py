"""Downloads of mosaic zips from trusted and untrusted servers."""

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

from marsretrieval.datasets import listing
from marsretrieval.datasets.ctx import FetchSettings, ServerError
from marsretrieval.datasets.ctx.runner import background_fetch
from marsretrieval.errors import DataError, OutputError, UsageError
from tests.datasets.download.servers import Handler, serve

BODY = bytes(range(256)) * 2_000
FAST = FetchSettings(backoff_s=0.01, timeout_s=5)


def fetch(url: str, folder: Path, settings: FetchSettings = FAST) -> Path:
    with background_fetch(folder, settings) as start:
        return start(url, None).result()


def test_existing_zip_is_not_downloaded_again(tmp_path: Path) -> None:
    with serve(lambda request: request.send(200, BODY)) as address:
        path = fetch(f"{address}/tiles/a.zip", tmp_path)
    assert path.read_bytes() == BODY
    assert fetch(f"{address}/tiles/a.zip", tmp_path) == path, "the server is gone"


def test_errors_name_the_remedy(tmp_path: Path, monkeypatch) -> None:
    with serve(lambda request: request.send(404)) as address:
        with pytest.raises(DataError, match="404") as caught:
            fetch(f"{address}/a.zip", tmp_path)
        assert not isinstance(caught.value, ServerError)
        assert "--server" in str(caught.value)
    monkeypatch.setattr(listing, "free_bytes", lambda folder: 1_000)
    full = pytest.raises(OutputError, match="1 kB free")
    with serve(lambda request: request.send(200, BODY)) as address, full:
        fetch(f"{address}/a.zip", tmp_path)


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
    """Create a root, an intermediate and a server certificate."""
    folder = tmp_path_factory.mktemp("tls")
    authority = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
    (folder / "ca.ext").write_text(authority)
    (folder / "leaf.ext").write_text("subjectAltName=IP:127.0.0.1\n")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    try:
        for name in ("root", "middle", "leaf"):
            openssl(
                "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr",
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


def test_missing_intermediate_certificate_can_be_added(certificates: Path, tmp_path: Path) -> None:
    with https(BODY, certificates / "leaf.pem", certificates / "leaf.key") as url:
        settings = FetchSettings(ca_file=certificates / "middle.pem")
        path = fetch(url, tmp_path, settings)
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(BODY).digest()


def test_environment_may_name_a_certificate_bundle(certificates: Path, tmp_path: Path, monkeypatch):
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(
        (certificates / "middle.pem").read_text() + (certificates / "root.pem").read_text()
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    with https(BODY, certificates / "leaf.pem", certificates / "leaf.key") as url:
        assert fetch(url, tmp_path).stat().st_size == len(BODY)


def test_certificate_for_another_name_is_refused(certificates: Path, tmp_path: Path) -> None:
    with https(BODY, certificates / "leaf.pem", certificates / "leaf.key") as url:
        settings = FetchSettings(ca_file=certificates / "middle.pem")
        with pytest.raises(ServerError, match="cannot be verified"):
            fetch(url.replace("127.0.0.1", "localhost"), tmp_path, settings)


def test_redirect_from_https_to_http_is_not_followed(certificates: Path, tmp_path: Path) -> None:
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


def test_ca_file_without_certificates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("nothing")
    for name in ("x.pem", "absent.pem"):
        with pytest.raises(UsageError, match="--ca-file"):
            fetch("https://127.0.0.1/", tmp_path, FetchSettings(ca_file=tmp_path / name))
