"""Servers on 127.0.0.1 that simulate the web, the Wayback Machine and the Hugging Face hub."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import numpy as np
from PIL import Image

__all__ = ["Handler", "Hub", "Web", "picture", "serve"]


def picture(
    seed: int = 0, size: tuple[int, int] = (40, 30), format: str = "JPEG", mode: str = "RGB"
) -> bytes:
    """Create a small image without repeated parts, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).convert(mode).save(buffer, format)
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer: Callable[[Handler], None]

    def do_GET(self) -> None:
        self.answer(self)

    do_HEAD = do_GET

    def send(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serve(answer: Callable[[Handler], None]) -> Iterator[str]:
    """Run a server for the block; yields its address."""
    handler = type("Answering", (Handler,), {"answer": staticmethod(answer)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Web:
    """Routes by path.

    `asked` counts the requests per path; `captures` is the archive: URL to (time stamp, body).
    """

    def __init__(self) -> None:
        self.routes: dict[str, Callable[[Handler], None]] = {}
        self.captures: dict[str, tuple[str, bytes]] = {}
        self.requests: Counter[str] = Counter()

    def file(self, path: str, body: bytes, **headers: str) -> None:
        self.routes[path] = lambda handler: handler.send(200, body, headers)

    def status(self, path: str, status: int, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.routes[path] = lambda handler: handler.send(status, b"", named)

    def __call__(self, handler: Handler) -> None:
        parts = urlsplit(handler.path)
        self.requests[parts.path] += 1
        if parts.path.startswith("/web/"):
            self._capture(handler)
        elif parts.path in self.routes:
            self.routes[parts.path](handler)
        else:
            handler.send(404)

    def _capture(self, handler: Handler) -> None:
        """Answer any time stamp with the existing capture, as the real archive does."""
        stamp, _, url = handler.path.removeprefix("/web/").partition("id_/")
        if url not in self.captures:
            handler.send(404)
        elif self.captures[url][0] != stamp:
            handler.send(302, b"", {"Location": f"/web/{self.captures[url][0]}id_/{url}"})
        else:
            handler.send(200, self.captures[url][1])


class Hub:
    """As much of the hub as is asked for: listings, and files with their hashes and ranges.

    cdn: where large files are redirected to, as the real hub does: another server with the same
    `answer`.
    silent_after: so many bytes of each large file, then no more until `over`.
    """

    def __init__(self, repository: str, revision: str, files: Mapping[str, bytes]) -> None:
        self.repository = repository
        self.revision = revision
        self.files = dict(files)
        self.requests: Counter[str] = Counter()
        self.tokens: set[str | None] = set()
        self.cdn: str | None = None
        self.cdn_tokens: set[str | None] = set()
        self.silent_after: int | None = None
        self.over = threading.Event()
        self.ranges: list[str | None] = []  # of the large files that were sent
        self.served: dict[str, bytes] = {}  # what is sent in place of a file: damage
        self.statuses: dict[str, int] = {}  # of files that are refused

    def __call__(self, handler: Handler) -> None:
        path = unquote(urlsplit(handler.path).path)
        self.requests[f"{handler.command} {path}"] += 1
        if path.startswith("/cdn/"):
            self.cdn_tokens.add(handler.headers.get("Authorization"))
            self._file(handler, path.removeprefix("/cdn/"))
            return
        self.tokens.add(handler.headers.get("Authorization"))
        api = f"/api/datasets/{self.repository}"
        resolve = f"/datasets/{self.repository}/resolve/{self.revision}/"
        cache = f"/api/resolve-cache/{self.revision}/"
        name = path.removeprefix(resolve)
        if path in (api, f"{api}/revision/main", f"{api}/revision/{self.revision}"):
            siblings = [self._sibling(name) for name in self.files]
            answer = {"id": self.repository, "sha": self.revision, "siblings": siblings}
            self._json(handler, answer)
        elif path == f"{api}/tree/{self.revision}":
            self._json(handler, [self._entry(name) for name in self.files])
        elif path.startswith(resolve) and name in self.statuses:
            handler.send(self.statuses[name], b"{}")
        elif path.startswith(resolve) and name in self.files:
            large = self._large(name)
            if large is None:
                handler.send(307, b"", {"Location": quote(f"{cache}{name}")})
            elif self.cdn is not None:
                headers = {"Location": quote(f"{self.cdn}/cdn/{name}", safe=":/"),
                           "X-Repo-Commit": self.revision,
                           "X-Linked-Etag": f'"{large["sha256"]}"',
                           "X-Linked-Size": str(large["size"])}  # fmt: skip
                handler.send(302, b"", headers)
            else:
                self._file(handler, name)
        elif path.startswith(cache):
            self._file(handler, path.removeprefix(cache))
        elif path.startswith(f"{api}/revision/"):
            handler.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            handler.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _json(self, handler: Handler, value: Any) -> None:
        handler.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _large(self, name: str) -> dict[str, Any] | None:
        if not name.endswith((".parquet", ".png", ".jpg")):
            return None
        body = self.files[name]
        return {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 130}

    def _blob(self, name: str) -> str:
        body = self.files[name]
        return hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()

    def _sibling(self, name: str) -> dict[str, Any]:
        sibling: dict[str, Any] = {"rfilename": name, "size": len(self.files[name]),
                                "blobId": self._blob(name)}  # fmt: skip
        large = self._large(name)
        return sibling | ({"lfs": large} if large else {})

    def _entry(self, name: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(self.files[name]),
                                "oid": self._blob(name)}  # fmt: skip
        large = self._large(name)
        if large:
            entry["lfs"] = {"oid": large["sha256"], "size": large["size"], "pointerSize": 130}
        return entry

    def _file(self, handler: Handler, name: str) -> None:
        body = self.served.get(name, self.files[name])
        large = self._large(name)
        headers = {
            # Not the hash: servers behind one name may each have tags of their own.
            "ETag": f'"{sum(self.requests.values())}"' if large else f'"{self._blob(name)}"',
            "X-Repo-Commit": self.revision,
            "Accept-Ranges": "bytes",
        }
        status, first = 200, 0
        byte_range = handler.headers.get("Range")
        if byte_range:
            first = int(byte_range.removeprefix("bytes=").split("-")[0])
            status = 206
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        part = body[first:]
        if handler.command == "GET" and large:
            self.ranges.append(byte_range)
        if self.silent_after is not None and handler.command == "GET" and large:
            headers["Content-Length"] = str(len(part))
            handler.send(status, part[: self.silent_after], headers)
            self.over.wait(60)
            handler.close_connection = True
        else:
            handler.send(status, part, headers)
