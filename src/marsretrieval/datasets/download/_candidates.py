"""Where else an image may be found when its own address is dead."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote, urlsplit

from marsretrieval.datasets.download._fetch import Fetcher, FetchError
from marsretrieval.datasets.download._settings import FetchSettings
from marsretrieval.errors import DataError
from marsretrieval.files import parse_json

_LATE, _EARLY = "2030", "20220601"  # the newest capture, then one of the years of the web crawls


def candidates(url: str, fetcher: Fetcher) -> Iterator[tuple[str, str]]:
    """(method, address) one after the other: as it stands, over https, captures of the Wayback
    Machine, and for a Wikimedia thumbnail its original. Lazy: the archive is asked only when it
    comes to that. Raises FetchError, "interrupted", when the fetcher was stopped."""
    yield "direct", url
    if url.lower().startswith("http://"):
        yield "https", f"https://{url[len('http://') :]}"
    if fetcher.settings.wayback:
        for address in _captures(url, fetcher):
            yield "wayback", address
    original = wikimedia_original(url)
    if original is not None:
        yield "wikimedia", original


def wikimedia_original(url: str) -> str | None:
    """The file behind a thumbnail: .../commons/thumb/a/ab/F.jpg/800px-F.jpg to
    .../commons/a/ab/F.jpg; None where `url` is no such thumbnail."""
    parts = urlsplit(url)
    path = parts.path.split("/")
    if parts.hostname != "upload.wikimedia.org" or len(path) != 8 or path[3] != "thumb":
        return None
    return f"https://upload.wikimedia.org{'/'.join([*path[:3], *path[4:7]])}"


def _captures(url: str, fetcher: Fetcher) -> Iterator[str]:
    """Addresses of captures: `id_` behind the time stamp gives the bytes as they were served."""
    settings = fetcher.settings
    seen: set[str] = set()
    for near in (_LATE, _EARLY):
        try:
            stamp = _closest(url, near, fetcher)
        except FetchError as error:
            if error.reason == "interrupted":
                raise
            stamp = near  # the index is down or refuses: the archive itself finds the closest
        if stamp is not None and stamp not in seen:
            seen.add(stamp)
            yield _capture(settings, stamp, url)


def _closest(url: str, near: str, fetcher: Fetcher) -> str | None:
    query = f"{fetcher.settings.wayback_api}?url={quote(url, safe='')}&timestamp={near}"
    return fetcher.get(query, _stamp).value


def _stamp(body: bytes) -> str | None:
    """The time stamp out of the availability API's answer; None: never captured."""
    try:
        answer = parse_json(body, source="the archive's index", strict=False)
        closest = answer["archived_snapshots"].get("closest")
        if closest is None or not closest.get("available"):
            return None
        stamp = str(closest["timestamp"])
    except (DataError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FetchError("the archive's index gives no JSON", final=False) from error
    return stamp if stamp.isdecimal() else None


def _capture(settings: FetchSettings, stamp: str, url: str) -> str:
    return f"{settings.wayback_web}/{stamp}id_/{url}"
