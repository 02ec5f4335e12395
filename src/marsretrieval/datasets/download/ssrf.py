"""Protection against server-side request forgery: refuse private addresses.

Links in a dataset must not reach into the user's network, for example through a host name that
resolves to 127.0.0.1, a redirect to a router, or DNS rebinding. So the host of every request and
redirect is resolved here, all its addresses are checked, and the connection uses a checked one.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from urllib.request import getproxies, proxy_bypass

import anyio
import httpx2

from marsretrieval.datasets.download.http import AttemptError
from marsretrieval.errors import DataError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")  # all of IPv6 that is routed on the internet


class RefusedAddressError(AttemptError):
    """The host is, or resolves to, an address that is not public."""

    def __init__(self, host: str) -> None:
        super().__init__(f"refused: not a public address ({host})", retry=False)


class HostNotFoundError(AttemptError):
    """The host name cannot be resolved."""

    def __init__(self) -> None:
        super().__init__("host not found", reached=False)


def is_public(address: str) -> bool:
    """Check whether an IP address is public. IPv4 inside IPv6 is unwrapped.

    Args:
        address: Address as text, with or without a zone.

    Returns:
        True for a unicast address of the public internet.
    """
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(
        address.partition("%")[0]
    )
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is None:
            return ip in _UNICAST and ip.is_global
        ip = inner
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Transport that connects only to checked addresses.

    Connections are not reused, because two hosts with the same address must not share one. With a
    proxy (HTTP_PROXY, HTTPS_PROXY) the proxy connects; host names that can be resolved here are
    checked as well.

    Args:
        allowed: Non-public addresses that are allowed, such as a test server's.

    Raises:
        DataError: If a proxy of the environment cannot be used.
    """

    def __init__(self, allowed: frozenset[str] = frozenset()) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        self._direct = httpx2.AsyncHTTPTransport(limits=limits)
        self._proxies = {
            scheme: _proxy(scheme, url, limits)
            for scheme, url in getproxies().items()
            if scheme in ("http", "https")
        }
        self._allowed = allowed

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request.

        Args:
            request: The request.

        Returns:
            The response.

        Raises:
            RefusedAddressError: If the host has a non-public address.
            HostNotFoundError: If the host name cannot be resolved.
            httpx2.HTTPError: If the request fails.
        """
        url = request.url
        proxy = self._proxies.get(url.scheme)
        if proxy is not None and not proxy_bypass(url.host):
            with suppress(HostNotFoundError):  # the proxy may know names that are unknown here
                await self._addresses(url.host)
            return await proxy.handle_async_request(request)
        addresses = await self._addresses(url.host)
        for address in addresses[:-1]:
            try:
                return await self._direct.handle_async_request(_to_address(request, address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._direct.handle_async_request(_to_address(request, addresses[-1]))

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in (self._direct, *self._proxies.values()):
            await transport.aclose()

    async def _addresses(self, host: str) -> list[str]:
        try:
            answers = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise HostNotFoundError from error
        addresses = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        for address in addresses:
            if address not in self._allowed and not is_public(address):
                raise RefusedAddressError(f"{host} is {address}" if host != address else host)
        return addresses


def _proxy(scheme: str, url: str, limits: httpx2.Limits) -> httpx2.AsyncHTTPTransport:
    try:
        address = url if "://" in url else f"http://{url}"
        return httpx2.AsyncHTTPTransport(proxy=address, limits=limits)
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise DataError(  # without the address: it may hold a password
            f"{scheme.upper()}_PROXY cannot be used ({type(error).__name__})",
            remedy="Set it to an HTTP proxy, such as http://proxy.example:3128.",
        ) from error


def _to_address(request: httpx2.Request, address: str) -> httpx2.Request:
    """Copy a request for a connection to `address`; certificate check and Host use the name."""
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )
