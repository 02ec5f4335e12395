from __future__ import annotations

import hashlib
import os
import signal
import struct
import threading
import time
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from marsretrieval.datasets.download import LinkSettings
from marsretrieval.datasets.download.links import (
    Failure,
    Fetched,
    LinkCache,
    fallback_urls,
    fetch_links,
)
from marsretrieval.errors import DataError, OutputError
from tests.datasets.download.servers import Handler, Web, picture, serve


def fetch(url: str, settings: LinkSettings, folder: Path) -> Fetched | Failure:
    return fetch_links([url], LinkCache(folder), settings)[url]


def failure(url: str, settings: LinkSettings, folder: Path) -> str:
    result = fetch(url, settings, folder)
    assert isinstance(result, Failure)
    assert not list(folder.rglob("*.image"))
    return result.reason


def test_valid_image_is_saved_byte_for_byte(
    web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    body = picture(1, (64, 48), "PNG")
    web.file("/a.png", body)
    result = fetch(f"{base}/a.png", settings, tmp_path)
    assert isinstance(result, Fetched)
    assert (result.method, result.format, result.extension) == ("direct", "PNG", "png")
    assert (result.width, result.height, result.size) == (64, 48, len(body))
    assert result.sha256 == hashlib.sha256(body).hexdigest()
    assert LinkCache(tmp_path).read(result) == body
    assert web.requests == {"/a.png": 1}


def test_dead_link_is_downloaded_from_the_archive(
    web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    url = f"{base}/gone.jpg?size=large&x=1"
    web.captures[url] = ("20190304050607", picture(2))
    result = fetch(url, settings, tmp_path)
    assert isinstance(result, Fetched)
    assert result.method == "wayback"
    assert result.resolved_url == f"{base}/web/20190304050607id_/{url}"
    assert web.requests["/gone.jpg"] == 1, "a 404 is final"


def test_dead_link_without_archive_lists_the_attempts(
    base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    reason = failure(f"{base}/gone.jpg", settings, tmp_path)
    assert reason.startswith("direct: HTTP 404; https: ")
    without = replace(settings, wayback=False)
    tried = "; wayback: HTTP 404; wayback: HTTP 404"
    assert reason == failure(f"{base}/gone.jpg", without, tmp_path) + tried


def test_slow_transfer_is_stopped(
    web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    def trickle(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(60):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    web.routes["/trickle.jpg"] = trickle
    reason = failure(f"{base}/trickle.jpg", replace(settings, total_s=0.2), tmp_path)
    assert reason.startswith("direct: slower than 0.2 s")


@pytest.mark.parametrize(
    "target", ["http://10.0.0.1/x.jpg", "http://169.254.169.254/latest/meta-data", "http://[::1]/"]
)
def test_a_redirect_to_a_private_address_is_refused(
    target: str, web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    web.status("/away.jpg", 302, Location=target)
    reason = failure(f"{base}/away.jpg", settings, tmp_path)
    assert reason.startswith("direct: refused: not a public address")
    assert web.requests["/away.jpg"] == 1


def test_localhost_is_refused_unless_allowed(
    web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    web.file("/a.jpg", picture(1))
    strict = replace(settings, allowed_addresses=frozenset())
    reason = failure(f"{base}/a.jpg", strict, tmp_path)
    assert "refused: not a public address (127.0.0.1)" in reason
    assert not web.requests


def test_other_schemes_and_redirect_loops(
    web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    web.status("/loop.jpg", 302, Location="/loop.jpg")
    web.status("/file.jpg", 302, Location="file:///etc/passwd")
    assert "too many redirects" in failure(f"{base}/loop.jpg", settings, tmp_path)
    assert "not a web address" in failure(f"{base}/file.jpg", settings, tmp_path)
    for url in ("file:///etc/passwd", "ftp://mars.example/a.jpg", "not an address", ""):
        assert failure(url, settings, tmp_path).startswith("direct: not a web address")


def test_a_redirect_is_followed_and_recorded(
    web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    web.status("/old.jpg", 301, Location="/new.jpg")
    web.file("/new.jpg", picture(1))
    result = fetch(f"{base}/old.jpg", settings, tmp_path)
    assert isinstance(result, Fetched)
    assert (result.url, result.resolved_url) == (f"{base}/old.jpg", f"{base}/new.jpg")


def test_too_large_by_header_and_by_body(
    web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    web.file("/says.jpg", b"x" * 100_001)

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"x" * 10_000)
        handler.close_connection = True

    web.routes["/sends.jpg"] = endless
    for name in ("says", "sends"):
        reason = failure(f"{base}/{name}.jpg", settings, tmp_path)
        assert reason.startswith("direct: too large (over 100,000 bytes)")
        assert web.requests[f"/{name}.jpg"] == 1


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    facts = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", facts) + chunk(b"IDAT", b"")


def test_decompression_bomb_is_refused_by_its_header(
    web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    web.file("/bomb.png", png_header(30_000, 20_000))
    reason = failure(f"{base}/bomb.png", settings, tmp_path)
    assert reason.startswith("direct: too large (30000 x 20000 pixels)")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<!DOCTYPE html><html>Not found</html>", "not an image (a web page)"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image (XML or SVG)"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image (starts with"),
    ],
)
def test_non_image_response_is_not_retried(
    body: bytes, said: str, web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    web.file("/page.jpg", body)
    assert failure(f"{base}/page.jpg", settings, tmp_path).startswith(f"direct: {said}")
    assert web.requests["/page.jpg"] == 1


def test_truncated_body_is_reported_with_and_without_length(
    web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    body = picture(5, (300, 200))

    def cut(handler: Handler, length: str | None) -> None:
        handler.send_response(200)
        if length:
            handler.send_header("Content-Length", length)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        handler.close_connection = True

    web.routes["/known.jpg"] = lambda handler: cut(handler, str(len(body)))
    web.routes["/unknown.jpg"] = lambda handler: cut(handler, None)
    assert failure(f"{base}/known.jpg", settings, tmp_path).startswith(
        "direct: connection failed (RemoteProtocolError"
    )
    assert failure(f"{base}/unknown.jpg", settings, tmp_path).startswith("direct: damaged image")
    assert web.requests["/known.jpg"] == web.requests["/unknown.jpg"] == 3


def test_equal_urls_are_downloaded_once_and_hosts_are_rate_limited(
    web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def counted(handler: Handler) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.03)
        with lock:
            now[0] -= 1
        handler.send(200, picture(6))

    urls = [f"{base}/{number}.jpg" for number in range(12)]
    for number in range(12):
        web.routes[f"/{number}.jpg"] = counted
    many = replace(settings, workers=12, per_host=2)
    result = fetch_links(urls + urls, LinkCache(tmp_path), many)
    assert len(result) == 12
    assert set(web.requests.values()) == {1}
    assert most[0] == 2


def test_cache_is_reused_and_checks_for_damage(
    web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    web.file("/a.jpg", picture(1))
    web.file("/b.jpg", picture(2))
    urls = [f"{base}/a.jpg", f"{base}/b.jpg"]
    cache = LinkCache(tmp_path)
    fetch_links(urls, cache, settings)
    assert set(cache.find(urls)) == set(urls)
    image = sorted(tmp_path.rglob("*.image"))[0]
    image.write_bytes(image.read_bytes()[:-1] + b"?")
    assert len(cache.find(urls)) == 1
    sorted(tmp_path.rglob("*.json"))[1].write_text("{")
    assert len(cache.find(urls)) <= 1


def test_missing_network_is_reported_early(settings: LinkSettings, tmp_path: Path) -> None:
    with serve(lambda handler: None) as address:
        closed = address
    urls = [f"{closed}/{number}.jpg" for number in range(60)]
    dead = replace(settings, wayback=False, attempts=1)
    with pytest.raises(DataError, match=r"none of the first 40 images could be reached") as caught:
        fetch_links(urls, LinkCache(tmp_path), dead)
    assert "HTTPS_PROXY" in str(caught.value)


def test_unwritable_cache_stops_the_download(
    web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    web.file("/a.jpg", picture(1))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        fetch_links([f"{base}/a.jpg"], LinkCache(tmp_path / "file"), settings)


def test_fallback_urls_of_an_image(settings: LinkSettings) -> None:
    thumbnail = "http://upload.wikimedia.org/wikipedia/commons/thumb/a/ab/Mars.jpg/800px-Mars.jpg"
    web = settings.wayback_web
    assert fallback_urls(thumbnail, settings) == [
        ("direct", thumbnail),
        ("https", thumbnail.replace("http:", "https:")),
        ("wayback", f"{web}/2030id_/{thumbnail}"),
        ("wayback", f"{web}/20220601id_/{thumbnail}"),
        ("wikimedia", "https://upload.wikimedia.org/wikipedia/commons/a/ab/Mars.jpg"),
    ]
    without = replace(settings, wayback=False)
    for url in (
        "https://upload.wikimedia.org/wikipedia/commons/a/ab/M.jpg",
        "https://mars.example/a/b/thumb/c/d/e/f.jpg",
    ):
        assert fallback_urls(url, without) == [("direct", url)]


def test_ctrl_c_does_not_wait_for_a_silent_server(
    web: Web, base: str, settings: LinkSettings, tmp_path: Path
) -> None:
    over = threading.Event()

    def silent(handler: Handler) -> None:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        over.wait(60)

    web.routes["/silent.jpg"] = silent
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetch_links([f"{base}/silent.jpg"], LinkCache(tmp_path), settings)
    over.set()
    assert time.monotonic() - began < 10
