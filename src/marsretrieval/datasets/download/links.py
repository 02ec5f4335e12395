"""Images of Mars-VL-Pairs from the addresses that its table lists, or from an archive."""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image, UnidentifiedImageError

from marsretrieval import __version__
from marsretrieval.datasets.download.http import AttemptError, HttpClient, read_body, with_retries
from marsretrieval.datasets.images import MAX_PIXELS
from marsretrieval.errors import DataError, TableError
from marsretrieval.io import Int64, atomic_path, from_json, read_json, write_json
from marsretrieval.progress import NO_PROGRESS, Progress

# Formats that the readers take. Pillow knows more, some of which call other programs.
_EXTENSIONS = {
    "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp", "TIFF": "tif",
    "BMP": "bmp", "JPEG2000": "jp2",
}  # fmt: skip
FORMATS = tuple(name for name in _EXTENSIONS if name != "MPO")  # MPO is opened as JPEG
_ONE_AT_A_TIME = threading.Lock()
_FIRST = 40  # if none of so many is even reached, the network is down
_CAPTURES = ("2030", "20220601")  # the newest capture, then one of the years of the web crawls
_COLUMNS = ("key", "image_url", "ori_caption", "refined_caption")
_SAFE_KEY = re.compile(r"[A-Za-z0-9_-]{1,90}")


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """How linked images are downloaded. Times in seconds; `total_s` bounds one attempt."""

    workers: int = 16
    per_host: int = 4
    timeout_s: float = 20.0  # longest silence while connecting or reading
    total_s: float = 180.0
    max_bytes: int = 128 * 2**20
    attempts: int = 3
    backoff_s: float = 1.0  # before the second attempt; doubled before every further one
    max_pause_s: float = 60.0
    wayback: bool = True
    wayback_web: str = "https://web.archive.org/web"
    allowed_addresses: frozenset[str] = frozenset()  # not public, yet allowed: for tests


@dataclass(frozen=True, slots=True)
class Pair:
    """A row of the table; `name` is that of its members in a tar."""

    row: int
    key: str
    name: str
    url: str
    original_caption: str
    refined_caption: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """A downloaded image. `method`: direct, https, wayback or wikimedia."""

    url: str
    resolved_url: str
    method: str
    sha256: str
    size: Int64
    format: str
    extension: str
    width: Int64
    height: Int64


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no image: one reason per address that was tried."""

    reason: str
    reached: bool = True


def read_pairs(folder: Path) -> list[Pair]:
    """Read all rows of the table, in the Parquet files of a folder at any depth.

    The key is the name if every key may be a file name.

    Raises:
        DataError: If there is no Parquet file.
        TableError: If a file is damaged or a column is missing.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    files = sorted(
        path
        for path in folder.rglob("*.parquet")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise DataError(
            f"{folder}: no Parquet table of pairs in the repository",
            remedy="Try another --revision, such as refs/convert/parquet.",
        )
    try:
        dataset = ds.dataset([str(path) for path in files], format="parquet")
        names = dataset.schema.names
        absent = [name for name in _COLUMNS if name not in names]
        if absent:
            raise TableError(f"{folder}: no column '{absent[0]}' (there are {', '.join(names)})")
        rows = dataset.to_table(columns=list(_COLUMNS)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{folder}: not a readable Parquet table ({error})") from error
    texts = [[str(row[name] or "").strip() for name in _COLUMNS] for row in rows]
    keys = [text[0] for text in texts]
    safe = all(map(_SAFE_KEY.fullmatch, keys)) and len(set(map(str.lower, keys))) == len(keys)
    return [
        Pair(number, key, key if safe else f"{number:06d}", url, original, refined)
        for number, (key, url, original, refined) in enumerate(texts)
    ]


class LinkCache:
    """A folder of `<hash of the address>.json` and `.image`.

    The .json is written last: with it, the image is whole.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, url: str) -> Fetched | None:
        """The image of an address, or None if there is none or its bytes have changed."""
        path = self._path(url, "json")
        try:
            fetched = from_json(Fetched, read_json(path), source=path)
            data = self.read(fetched)
        except (OSError, DataError):
            return None  # missing or damaged: downloaded again
        whole = hashlib.sha256(data).hexdigest() == fetched.sha256
        return fetched if whole and fetched.url == url else None

    def find(self, urls: Iterable[str]) -> dict[str, Fetched | Failure]:
        """Images by address, of those that were downloaded before and are still whole."""
        return {url: image for url in urls if (image := self.get(url)) is not None}

    def put(self, fetched: Fetched, data: bytes) -> None:
        """Store an image. Raises OutputError when it cannot be written."""
        with atomic_path(self._path(fetched.url, "image")) as temporary:
            temporary.write_bytes(data)
        write_json(self._path(fetched.url, "json"), asdict(fetched))

    def read(self, fetched: Fetched) -> bytes:
        """The bytes of an image."""
        return self._path(fetched.url, "image").read_bytes()

    def _path(self, url: str, kind: str) -> Path:
        name = hashlib.sha256(url.encode()).hexdigest()[:32]
        return self._folder / name[:2] / f"{name}.{kind}"


def fetch_links(
    urls: Iterable[str],
    cache: LinkCache,
    settings: LinkSettings,
    progress: Progress = NO_PROGRESS,
) -> dict[str, Fetched | Failure]:
    """Download images, equal addresses once; return the image of every address, or the failure.

    An image is in the cache as soon as it is whole, so that the next run downloads the rest.

    Raises:
        DataError: If none of the first addresses can be reached.
        OutputError: If the cache cannot be written.
    """
    from anyio.from_thread import start_blocking_portal

    with start_blocking_portal() as portal:
        return portal.call(_fetch_all, list(dict.fromkeys(urls)), cache, settings, progress)


async def _fetch_all(
    urls: list[str], cache: LinkCache, settings: LinkSettings, progress: Progress
) -> dict[str, Fetched | Failure]:
    from marsretrieval.datasets.download.ssrf import GuardedTransport

    workers = asyncio.Semaphore(settings.workers)
    # Few requests at once to one host: politeness, and fewer refusals.
    hosts: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(settings.per_host))
    results: dict[str, Fetched | Failure] = {}
    counts: Counter[str] = Counter()
    client = HttpClient(
        timeout_s=settings.timeout_s,
        same_security=False,
        transport=GuardedTransport(settings.allowed_addresses),
        headers={
            "User-Agent": f"marsretrieval/{__version__} (research data set, one request an image)",
            "Accept": "image/jpeg,image/png,image/*;q=0.8,*/*;q=0.5",
        },
    )

    async def fetch(url: str) -> tuple[str, Fetched | Failure]:
        async with workers:
            return url, await _fetch(url, client, cache, settings, hosts)

    async with client:
        tasks = [asyncio.create_task(fetch(url)) for url in urls]
        try:
            with progress.start("fetch", len(urls), "images") as bar:
                for done, task in enumerate(asyncio.as_completed(tasks), 1):
                    url, result = await task
                    results[url] = result
                    counts[result.method if isinstance(result, Fetched) else "missing"] += 1
                    bar.advance()
                    bar.note(", ".join(f"{count} {name}" for name, count in counts.most_common()))
                    if done == min(_FIRST, len(urls)):
                        _check_network(list(results.values()))
        finally:
            for pending in tasks:
                pending.cancel()
    return results


def _check_network(results: list[Fetched | Failure]) -> None:
    failures = [result for result in results if isinstance(result, Failure) and not result.reached]
    if len(failures) == len(results):
        raise DataError(
            f"none of the first {len(results)} images could be reached ({failures[0].reason})",
            remedy="Check the network, or set HTTP_PROXY and HTTPS_PROXY, then run it again.",
        )


def fallback_urls(url: str, settings: LinkSettings) -> list[tuple[str, str]]:
    """(method, address) of an image, in the order of attempts.

    As it is, over https, captures of the Wayback Machine, and for a Wikimedia thumbnail its
    original.
    """
    urls = [("direct", url)]
    if url.lower().startswith("http://"):
        urls.append(("https", f"https://{url[len('http://') :]}"))
    if settings.wayback:  # redirects to the closest capture; `id_`: the bytes as they were served
        urls += [("wayback", f"{settings.wayback_web}/{near}id_/{url}") for near in _CAPTURES]
    # .../commons/thumb/a/ab/F.jpg/800px-F.jpg -> .../commons/a/ab/F.jpg
    thumbnail = re.fullmatch(
        r"https?://upload\.wikimedia\.org(/[^/]+/[^/]+)/thumb((?:/[^/]+){3})/[^/]+", url
    )
    if thumbnail:
        urls.append(("wikimedia", f"https://upload.wikimedia.org{thumbnail[1]}{thumbnail[2]}"))
    return urls


async def _fetch(
    url: str,
    client: HttpClient,
    cache: LinkCache,
    settings: LinkSettings,
    hosts: dict[str, asyncio.Semaphore],
) -> Fetched | Failure:
    reasons, reached = [], False
    for method, address in fallback_urls(url, settings):

        async def attempt(address: str = address, method: str = method) -> Fetched:
            limit = asyncio.timeout(settings.total_s)
            try:
                async with hosts[urlsplit(address).netloc], limit, client.get(address) as response:
                    body = await read_body(response, settings.max_bytes)
            except TimeoutError as error:
                reason = f"slower than {settings.total_s:g} s"
                raise AttemptError(reason, retry=False) from error
            except ValueError as error:  # of urlsplit
                raise AttemptError(f"not a web address ({error})", retry=False) from error
            format, width, height = await asyncio.to_thread(check_image, body)
            image = Fetched(
                url, str(response.url), method, hashlib.sha256(body).hexdigest(), len(body),
                format, _EXTENSIONS[format], width, height,
            )  # fmt: skip
            cache.put(image, body)
            return image

        try:
            return await with_retries(
                attempt,
                attempts=settings.attempts,
                backoff_s=settings.backoff_s,
                max_pause_s=settings.max_pause_s,
            )
        except AttemptError as error:
            reasons.append(f"{method}: {error}")
            reached = reached or error.reached
    return Failure("; ".join(reasons), reached)


def check_image(body: bytes) -> tuple[str, int, int]:
    """Decode an image to its last byte; return Pillow's name of the format, width and height.

    Raises AttemptError if it is not an image (final), too large (final) or damaged.
    """
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise AttemptError(f"too large ({width} x {height} pixels)", retry=False)
            with _ONE_AT_A_TIME:  # large ones take a gigabyte
                image.load()
            return str(image.format), width, height
    except UnidentifiedImageError as error:
        raise AttemptError(f"not an image ({_looks_like(body)})", retry=False) from error
    except Image.DecompressionBombError as error:
        raise AttemptError("too large (pixels)", retry=False) from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError) as error:
        # Pillow's decoders raise any of these on damaged bytes.
        raise AttemptError(f"damaged image ({error})") from error


def _looks_like(body: bytes) -> str:
    head = body[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if head.startswith((b"<?xml", b"<svg")):
        return "XML or SVG"
    return f"starts with {body[:8]!r}"
