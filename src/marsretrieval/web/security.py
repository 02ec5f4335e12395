"""Protection of a local server: checks of host, origin, token and size, and response headers.

A page of any site can send requests to 127.0.0.1, under its own name by DNS rebinding. Requests are
therefore accepted only for the host names of this server, and only from its own page.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 16 * 2**20  # bytes of a JSON request: regions
MAX_UPLOAD = 160 * 2**20  # bytes of all uploaded images of a request
LOOPBACK = ("127.0.0.1", "localhost", "::1")
API = "/api/"
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class SecurityMiddleware:
    """Refuse requests that do not come from the page of this server.

    Args:
        app: The application.
        hosts: Host names, without port, under which the server is reached.
        token: Required in the header `authorization: Bearer TOKEN` of API requests; None without.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], token: str | None = None) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check an HTTP request and add the headers to its response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, _limited(scope, receive), send_with_headers)
        else:
            status, body = refusal
            await JSONResponse(body, status)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, dict[str, Any]] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = _host_name(host)
        if name not in self._hosts:
            return 421, _problem(
                f"this server is not named '{name[:100]}'",
                "Start it with --allow-host NAME to reach it under another name.",
                "host",
            )
        if not scope["path"].startswith(API):
            return None
        site = headers.get("sec-fetch-site")
        origin = headers.get("origin")
        if site not in (None, "same-origin", "none") or (
            origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        ):
            return 403, _problem("requests of other sites are refused", "", "origin")
        if self._token is not None:
            token = headers.get("authorization", "").removeprefix("Bearer ")
            # Images and event streams cannot send a header.
            token = token or _query_token(scope)
            if not hmac.compare_digest(token.encode(), self._token.encode()):
                return 401, _problem(
                    "the token is missing or wrong", "Open the URL that the server printed.",
                    "token",
                )  # fmt: skip
        return None


def _limited(scope: Scope, receive: Receive) -> Receive:
    """Return a receiver that refuses a body while it is read, as soon as it is too large."""
    headers = Headers(scope=scope)
    is_upload = headers.get("content-type", "").startswith("multipart/")
    most = MAX_UPLOAD if is_upload else MAX_BODY
    declared = headers.get("content-length", "")
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > most or (declared.isdigit() and int(declared) > most):
                detail: Any = _problem(
                    f"the request is larger than {most // 2**20} MiB",
                    "Send fewer or smaller images." if is_upload else "Simplify the region.",
                    "too-large",
                )
                raise HTTPException(413, detail)
        return message

    return receive_limited


def _host_name(host: str) -> str:
    """The host without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _query_token(scope: Scope) -> str:
    from urllib.parse import parse_qs

    values = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
    return values[0] if values else ""


def _problem(error: str, remedy: str, code: str) -> dict[str, Any]:
    return {"error": error, "remedy": remedy, "code": code}
