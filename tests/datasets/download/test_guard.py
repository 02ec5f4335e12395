from __future__ import annotations

import socket
from typing import Any

import anyio
import httpx2
import pytest

from marsretrieval.datasets.download.ssrf import (
    GuardedTransport,
    HostNotFoundError,
    RefusedAddressError,
    is_public,
)
from marsretrieval.errors import DataError


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::6810:85e5", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1",
        "169.254.169.254",  # the metadata service of clouds
        "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


def send(transport: GuardedTransport, url: str) -> httpx2.Response:
    return anyio.run(transport.handle_async_request, httpx2.Request("GET", url))


def resolves_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def answer(host: str, port: Any, *_: Any, **__: Any) -> list[Any]:
        if not addresses:
            raise socket.gaierror("no such name")
        family = socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "0x7f.1", "2130706433", "localhost"])
def test_every_spelling_of_localhost_is_refused(host: str) -> None:
    with pytest.raises((RefusedAddressError, HostNotFoundError)):
        send(GuardedTransport(), f"http://{host}/")


def test_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves_to(monkeypatch, "8.8.8.8", "10.0.0.7")
    with pytest.raises(RefusedAddressError, match=r"rebound\.example is 10\.0\.0\.7"):
        send(GuardedTransport(), "http://rebound.example/")


def test_an_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves_to(monkeypatch)
    with pytest.raises(HostNotFoundError):
        send(GuardedTransport(), "http://gone.example/")


def test_the_connection_goes_to_the_address_that_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolves_to(monkeypatch, "192.0.2.1", "8.8.8.8")
    sent: list[httpx2.Request] = []

    async def record(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        if len(sent) == 1:
            raise httpx2.ConnectError("no route")
        return httpx2.Response(200)

    transport = GuardedTransport(allowed=frozenset({"192.0.2.1"}))
    monkeypatch.setattr(transport._direct, "handle_async_request", record)
    assert send(transport, "https://mars.example/a.jpg?b=1").status_code == 200
    assert [str(item.url) for item in sent] == [
        "https://192.0.2.1/a.jpg?b=1",
        "https://8.8.8.8/a.jpg?b=1",
    ]
    assert sent[1].headers["host"] == "mars.example"
    assert sent[1].extensions["sni_hostname"] == "mars.example"


def test_proxy_is_used_and_private_names_are_still_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    transport = GuardedTransport()
    requests: list[str] = []

    async def record(request: httpx2.Request) -> httpx2.Response:
        requests.append(str(request.url))
        return httpx2.Response(200)

    monkeypatch.setattr(transport._proxies["http"], "handle_async_request", record)
    resolves_to(monkeypatch)  # behind a proxy, names may be unknown here
    send(transport, "http://mars.example/")
    assert requests == ["http://mars.example/"]
    resolves_to(monkeypatch, "192.168.0.1")
    with pytest.raises(RefusedAddressError):
        send(transport, "http://router.example/")


@pytest.mark.parametrize(
    "proxy", ["socks5://secret@proxy.example:1080", "gopher://secret@proxy.example"]
)
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(DataError, match="HTTPS_PROXY cannot be used") as caught:
        GuardedTransport()
    assert "secret" not in str(caught.value)


def test_a_proxy_without_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    assert "https" in GuardedTransport()._proxies
