"""Images of Mars-VL-Pairs from the URLs in its table, or from web archives."""

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

# Formats that the readers support. Others are excluded: for some, Pillow calls other programs.
_EXTENSIONS = {
    "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp", "TIFF": "tif",
    "BMP": "bmp", "JPEG2000": "jp2",
}  # fmt: skip
FORMATS = tuple(name for name in _EXTENSIONS if name != "MPO")  # MPO is opened as JPEG
_DECODE_LOCK = threading.Lock()
_NETWORK_CHECK_AFTER = 40  # if none of the first 40 can be reached, the network is down
_CAPTURES = ("2030", "20220601")  # the newest capture, then one of the years of the web crawls
_COLUMNS = ("key", "image_url", "ori_caption", "refined_caption")
_SAFE_KEY = re.compile(r"[A-Za-z0-9_-]{1,90}")


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Settings of image downloads. Times are in seconds.

    Attributes:
        workers: Maximum number of parallel downloads.
        per_host: The same, per host.
        timeout_s: Maximum silence while connecting or reading.
        total_s: Time limit of one attempt.
        max_bytes: Maximum size of an image file.
        attempts: Maximum number of attempts per URL.
        backoff_s: Pause before the second attempt; doubled before each further one.
        max_pause_s: Maximum pause.
        wayback: Whether to try the Wayback Machine.
        wayback_web: Base URL of the Wayback Machine.
        allowed_addresses: Non-public IP addresses that are allowed; for tests.
    """

    workers: int = 16
    per_host: int = 4
    timeout_s: float = 20.0
    total_s: float = 180.0
    max_bytes: int = 128 * 2**20
    attempts: int = 3
    backoff_s: float = 1.0
    max_pause_s: float = 60.0
    wayback: bool = True
    wayback_web: str = "https://web.archive.org/web"
    allowed_addresses: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Pair:
    """Row of the table.

    Attributes:
        row: Row number.
        key: Key in the table.
        name: Name of its members in a tar.
        url: URL of the image.
        original_caption: Original caption.
        refined_caption: Refined caption.
    """

    row: int
    key: str
    name: str
    url: str
    original_caption: str
    refined_caption: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """Downloaded image.

    Attributes:
        url: URL in the table.
        resolved_url: URL that the image was downloaded from.
        method: `direct`, `https`, `wayback` or `wikimedia`.
        sha256: Checksum of the file.
        size: Size of the file in bytes.
        format: Pillow's name of the format.
        extension: File name extension.
        width: Width in pixels.
        height: Height in pixels.
    """

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
    """Failed download of an image.

    Attributes:
        reason: One reason per URL that was tried.
        reached: Whether any server answered.
    """

    reason: str
    reached: bool = True


def read_pairs(folder: Path) -> list[Pair]:
    """Read all rows of the table from the Parquet files in a folder, at any depth.

    A row is named by its key if all keys are valid file names.

    Args:
        folder: Folder of the table.

    Returns:
        The rows.

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
            raise TableError(f"{folder}: no column '{absent[0]}' (columns: {', '.join(names)})")
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
    """Folder of images, stored as `<hash of the URL>.json` and `.image`.

    The .json is written last and marks the image as complete.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, url: str) -> Fetched | None:
        """Look up an image.

        Args:
            url: URL of the image.

        Returns:
            The image; None if it is missing or its bytes have changed.
        """
        path = self._path(url, "json")
        try:
            fetched = from_json(Fetched, read_json(path), source=path)
            data = self.read(fetched)
        except (OSError, DataError):
            return None  # missing or damaged: downloaded again
        unchanged = hashlib.sha256(data).hexdigest() == fetched.sha256
        return fetched if unchanged and fetched.url == url else None

    def find(self, urls: Iterable[str]) -> dict[str, Fetched | Failure]:
        """Look up several images.

        Args:
            urls: URLs of the images.

        Returns:
            Images by URL, without those that are missing or damaged.
        """
        return {url: image for url in urls if (image := self.get(url)) is not None}

    def put(self, fetched: Fetched, data: bytes) -> None:
        """Store an image.

        Args:
            fetched: Description of the image.
            data: Content of the file.

        Raises:
            OutputError: If it cannot be written.
        """
        with atomic_path(self._path(fetched.url, "image")) as temporary:
            temporary.write_bytes(data)
        write_json(self._path(fetched.url, "json"), asdict(fetched))

    def read(self, fetched: Fetched) -> bytes:
        """Read the file of an image.

        Args:
            fetched: Description of the image.

        Returns:
            Content of the file.
        """
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
    """Download images; each distinct URL is requested once.

    An image is stored in the cache as soon as it is complete, so the next run downloads only the
    rest.

    Args:
        urls: URLs of the images.
        cache: Cache for the images.
        settings: Limits.
        progress: Progress display.

    Returns:
        Image or failure of every URL.

    Raises:
        DataError: If none of the first URLs can be reached.
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
    # Limit parallel requests per host: hosts refuse clients that send many.
    hosts: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(settings.per_host))
    results: dict[str, Fetched | Failure] = {}
    counts: Counter[str] = Counter()
    client = HttpClient(
        timeout_s=settings.timeout_s,
        same_security=False,
        transport=GuardedTransport(settings.allowed_addresses),
        headers={
            "User-Agent": f"marsretrieval/{__version__} (research data set, one request per image)",
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
                for number, task in enumerate(asyncio.as_completed(tasks), 1):
                    url, result = await task
                    results[url] = result
                    counts[result.method if isinstance(result, Fetched) else "missing"] += 1
                    bar.advance()
                    bar.note(", ".join(f"{count} {name}" for name, count in counts.most_common()))
                    if number == min(_NETWORK_CHECK_AFTER, len(urls)):
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
    """List the URLs to try for an image, in order.

    These are the URL itself, the same over https, captures of the Wayback Machine, and the original
    of a Wikimedia thumbnail.

    Args:
        url: URL of the image.
        settings: Whether and where to use the Wayback Machine.

    Returns:
        Pairs of method and URL.
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
            image_format, width, height = await asyncio.to_thread(check_image, body)
            image = Fetched(
                url, str(response.url), method, hashlib.sha256(body).hexdigest(), len(body),
                image_format, _EXTENSIONS[image_format], width, height,
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
    """Decode an image completely.

    Args:
        body: Content of the file.

    Returns:
        Pillow's name of the format, width and height in pixels.

    Raises:
        AttemptError: If it is not an image, too large (both without retry), or damaged.
    """
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise AttemptError(f"too large ({width} x {height} pixels)", retry=False)
            with _DECODE_LOCK:  # a large image needs a gigabyte
                image.load()
            return str(image.format), width, height
    except UnidentifiedImageError as error:
        raise AttemptError(f"not an image ({_describe_content(body)})", retry=False) from error
    except Image.DecompressionBombError as error:
        raise AttemptError("too large (pixels)", retry=False) from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError) as error:
        # Pillow's decoders raise any of these on damaged bytes.
        raise AttemptError(f"damaged image ({error})") from error


def _describe_content(body: bytes) -> str:
    head = body[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if head.startswith((b"<?xml", b"<svg")):
        return "XML or SVG"
    return f"starts with {body[:8]!r}"
