"""Many addresses at once, each to an image in the cache or to the reason why there is none."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from marsretrieval.datasets.download._cache import Fetched, LinkCache
from marsretrieval.datasets.download._candidates import candidates
from marsretrieval.datasets.download._fetch import Fetcher, FetchError
from marsretrieval.datasets.download._pictures import inspect
from marsretrieval.datasets.download._settings import FetchSettings
from marsretrieval.errors import DataError
from marsretrieval.progress import NO_PROGRESS, Progress, ProgressTask

_FIRST = 40  # when none of so many is even reached, the network is down


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no image: one reason for each address that was tried."""

    reason: str
    reached: bool = True


def cached_links(
    urls: Iterable[str], cache: LinkCache, progress: Progress = NO_PROGRESS
) -> dict[str, Fetched]:
    """What was fetched before and is still whole; nobody is asked."""
    wanted = list(dict.fromkeys(urls))
    found = {}
    with progress.start("look up", len(wanted), "images") as bar:
        for url in wanted:
            fetched = cache.get(url)
            if fetched is not None:
                found[url] = fetched
            bar.advance()
    return found


def fetch_links(
    urls: Iterable[str],
    cache: LinkCache,
    settings: FetchSettings,
    progress: Progress = NO_PROGRESS,
) -> dict[str, Fetched | Failure]:
    """Fetch each address, equal ones once.

    An image is in the cache as soon as it is whole, so that a rerun after a kill fetches the
    rest. Raises DataError when nothing at all answers, OutputError when the cache cannot be
    written.
    """
    wanted = list(dict.fromkeys(urls))
    results: dict[str, Fetched | Failure] = {}
    with (
        Fetcher(settings) as fetcher,
        progress.start("fetch", len(wanted), "images") as bar,
        ThreadPoolExecutor(settings.workers) as pool,
    ):
        futures = {pool.submit(_fetch, url, fetcher, cache): url for url in wanted}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                results[futures[future]] = future.result()
                _show(bar, results)
                if done == min(_FIRST, len(wanted)):
                    _check_network(list(results.values()))
        except BaseException:
            fetcher.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def _fetch(url: str, fetcher: Fetcher, cache: LinkCache) -> Fetched | Failure:
    reasons: list[str] = []
    reached, archived = False, False
    try:
        for method, address in candidates(url, fetcher):
            archived = archived or method == "wayback"
            try:
                got = fetcher.get(address, inspect)
            except FetchError as error:
                reasons.append(f"{method}: {error.reason}")
                reached = reached or error.reached
                continue
            fetched = Fetched(
                url=url,
                resolved_url=got.url,
                method=method,
                sha256=hashlib.sha256(got.body).hexdigest(),
                size=len(got.body),
                format=got.value.format,
                extension=got.value.extension,
                width=got.value.width,
                height=got.value.height,
            )
            cache.put(fetched, got.body)
            return fetched
    except FetchError as error:
        reasons.append(error.reason)
    else:
        if fetcher.settings.wayback and not archived:
            reasons.append("wayback: no capture")
    return Failure("; ".join(reasons), reached)


def _show(bar: ProgressTask, results: dict[str, Fetched | Failure]) -> None:
    bar.advance()
    counts = Counter(
        "missing" if isinstance(each, Failure) else each.method for each in results.values()
    )
    bar.note(", ".join(f"{count} {name}" for name, count in counts.most_common()))


def _check_network(results: list[Fetched | Failure]) -> None:
    failures = [each for each in results if isinstance(each, Failure) and not each.reached]
    if len(failures) == len(results):
        raise DataError(
            f"none of the first {len(results)} images could be reached ({failures[0].reason})",
            remedy="Check the network, or set HTTP_PROXY and HTTPS_PROXY, then run it again.",
        )
