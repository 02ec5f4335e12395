"""Only the public internet: addresses out of a dataset must not reach into the user's network.

Anyone can register a name for 127.0.0.1, redirect to a router's page, or answer the second
question of the name service otherwise than the first. So each request, redirects too, is resolved
here, every address is checked, and the connection goes to the very address that was checked.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.request import getproxies, proxy_bypass

import httpx2

from marsretrieval.errors import DataError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")  # all of IPv6 that is routed on the internet


class RefusedAddressError(Exception):
    """The host is, or resolves to, an address that is not public."""


class HostNotFoundError(Exception):
    """The name service knows no such host."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet; IPv4 inside IPv6 is unwrapped."""
    found: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(
        address.partition("%")[0]
    )
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is None:
            return found in _UNICAST and found.is_global
        found = inner
    return found.is_global and not (found.is_multicast or found.is_reserved)


class GuardedTransport(httpx2.BaseTransport):
    """Sends requests to checked addresses only. Connections are not kept: two hosts behind one
    address must not share one. Behind a proxy (HTTP_PROXY, HTTPS_PROXY) the proxy connects; what
    can be resolved here is checked all the same.

    allowed: addresses let through although they are not public (a test's own server).
    """

    def __init__(self, allowed: frozenset[str] = frozenset()) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        self._direct = httpx2.HTTPTransport(limits=limits)
        self._proxies = {
            scheme: _proxy(scheme, url, limits)
            for scheme, url in getproxies().items()
            if scheme in ("http", "https")
        }
        self._allowed = allowed

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises RefusedAddressError, HostNotFoundError, or what httpx2 raises."""
        url = request.url
        proxy = self._proxies.get(url.scheme)
        if proxy is not None and not proxy_bypass(url.host):
            self._check_behind_proxy(url.host)
            return proxy.handle_request(request)
        addresses = self._addresses(url.host)
        for address in addresses[:-1]:
            try:
                return self._direct.handle_request(_to_address(request, address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return self._direct.handle_request(_to_address(request, addresses[-1]))

    def close(self) -> None:
        for transport in (self._direct, *self._proxies.values()):
            transport.close()

    def _addresses(self, host: str) -> list[str]:
        try:
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise HostNotFoundError(host) from error
        addresses = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        for address in addresses:
            if address not in self._allowed and not is_public(address):
                raise RefusedAddressError(f"{host} is {address}" if host != address else host)
        return addresses

    def _check_behind_proxy(self, host: str) -> None:
        try:
            self._addresses(host)
        except HostNotFoundError:
            return  # only the proxy knows names there


def _proxy(scheme: str, url: str, limits: httpx2.Limits) -> httpx2.HTTPTransport:
    try:
        address = url if "://" in url else f"http://{url}"
        return httpx2.HTTPTransport(proxy=address, limits=limits)
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise DataError(  # without the address: it may hold a password
            f"{scheme.upper()}_PROXY cannot be used ({type(error).__name__})",
            remedy="Set it to an HTTP proxy, such as http://proxy.example:3128.",
        ) from error


def _to_address(request: httpx2.Request, address: str) -> httpx2.Request:
    """The same request, connected to `address`; certificate and Host stay those of the name."""
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )
