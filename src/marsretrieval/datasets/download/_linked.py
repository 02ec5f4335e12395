"""Mars-VL-Pairs: captions from the hub, images from wherever the web still has them."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from marsretrieval._words import table_cell
from marsretrieval.datasets._disk import check_space
from marsretrieval.datasets.download._cache import Fetched, LinkCache
from marsretrieval.datasets.download._hosted import bring, file_records
from marsretrieval.datasets.download._hub import HubFile, Listing
from marsretrieval.datasets.download._links import Failure, cached_links, fetch_links
from marsretrieval.datasets.download._pack import PackedPair, pack
from marsretrieval.datasets.download._pairs import Pair, read_pairs
from marsretrieval.datasets.download._pictures import PUBLISHED, published_crop
from marsretrieval.datasets.download._record import CACHE, check_folder, end_record
from marsretrieval.datasets.download._report import Missing, Report, described
from marsretrieval.datasets.download._settings import FetchSettings
from marsretrieval.datasets.download._sources import Source
from marsretrieval.errors import DataError, TableError
from marsretrieval.files import atomic_path
from marsretrieval.progress import NO_PROGRESS, Progress

# Of one image in the cache and in its tar, generously: has the disk room for those to come?
IMAGE_BYTES = 2 * 600_000
_TABLES = ("missing.csv", "pairs.csv")
_PAIR_COLUMNS = (
    "row", "id", "key", "image_url", "method", "resolved_url", "sha256", "bytes", "width",
    "height", "format", "reason",
)  # fmt: skip


def table_folder(folder: Path) -> Path:
    return folder / CACHE / "hub"


def link_cache(folder: Path, cache: Path | None) -> Path:
    return cache if cache is not None else folder / CACHE / "images"


def download_linked(
    source: Source,
    folder: Path,
    *,
    revision: str | None,
    offline: bool,
    cache: Path | None,
    settings: FetchSettings,
    progress: Progress = NO_PROGRESS,
) -> Report:
    """Fetch the table and the images; write tars, ``pairs.csv`` and ``missing.csv``.

    Raises DataError when not a single image can be had.
    """
    record = check_folder(folder, source)
    table = table_folder(folder)
    listing, fetched_bytes = bring(
        source, folder, record, "table",
        place=table, revision=revision, offline=offline, progress=progress,
    )  # fmt: skip
    pairs = _pairs(source, listing, table)
    images = LinkCache(link_cache(folder, cache))
    urls = [pair.url for pair in pairs]
    found: dict[str, Fetched | Failure] = {**cached_links(urls, images, progress)}
    absent = [url for url in dict.fromkeys(urls) if url not in found]
    if offline:
        found |= {url: Failure("not fetched (offline)") for url in absent}
    else:
        check_space(folder, IMAGE_BYTES * len(absent))
        found |= fetch_links(absent, images, settings, progress)
        fetched_bytes += sum(_size(found[url]) for url in absent)
    packed, missing = _sort_out(pairs, found)
    if not packed:
        raise DataError(
            f"{folder}: not one of {len(pairs):,} images can be had (first: {missing[0].reason})",
            remedy="Check the network and run it again, or take --variant frozen.",
        )
    render, parameters = _form(source, images)
    tars = pack(
        packed, folder, render=render, parameters=parameters,
        earlier=(record or {}).get("files", ()), progress=progress,
    )  # fmt: skip
    _write_tables(folder, pairs, found)
    methods = Counter(each.fetched.method for each in packed)
    counts = {"rows": len(pairs), "pairs": len(packed), "missing": len(missing), **methods}
    tables = [HubFile(name, (folder / name).stat().st_size, None) for name in _TABLES]
    body = {
        "counts": counts,
        "parameters": dict(parameters),
        "missing": [each.key for each in missing],
        "table": file_records(table, listing.files),
        "files": [*tars, *file_records(folder, tables)],
    }
    end_record(folder, source, listing.revision, body)
    return Report(
        **described(source, folder, listing.revision),
        files=len(tars),
        fetched_bytes=fetched_bytes,
        counts=counts,
        missing=missing,
    )


def _pairs(source: Source, listing: Listing, table: Path) -> list[Pair]:
    pairs = read_pairs(table)
    if source.rows not in (None, len(pairs)) and listing.revision == source.revision:
        raise TableError(
            f"{table}: {len(pairs):,} pairs, {source.rows:,} expected at this revision",
            remedy="Delete this folder and run it again.",
        )
    return pairs


def _sort_out(
    pairs: Iterable[Pair], found: Mapping[str, Fetched | Failure]
) -> tuple[list[PackedPair], list[Missing]]:
    packed, missing = [], []
    for pair in pairs:
        image = found[pair.url]
        if isinstance(image, Fetched):
            packed.append(PackedPair(pair, image))
        else:
            missing.append(Missing(pair.key, pair.row, pair.url, image.reason))
    return packed, missing


def _form(
    source: Source, images: LinkCache
) -> tuple[Callable[[Fetched], tuple[str, bytes]], Mapping[str, Any]]:
    """How an image is stored in this variant, and the words for it."""
    if source.variant == "published":
        return lambda fetched: ("jpg", published_crop(images.read(fetched))), PUBLISHED
    return lambda fetched: (fetched.extension, images.read(fetched)), {"bytes": "as fetched"}


def _write_tables(
    folder: Path, pairs: Sequence[Pair], found: Mapping[str, Fetched | Failure]
) -> None:
    """``pairs.csv``: every row with its outcome; ``missing.csv``: those without an image."""
    have, lack = [], []
    for pair in pairs:
        image = found[pair.url]
        if isinstance(image, Fetched):
            outcome = [image.method, image.resolved_url, image.sha256, image.size, image.width,
                       image.height, image.format, ""]  # fmt: skip
        else:
            outcome = ["missing", "", "", "", "", "", "", image.reason]
            lack.append([pair.row, pair.key, pair.url, image.reason])
        have.append([pair.row, pair.name, pair.key, pair.url, *outcome])
    _write_csv(folder / "pairs.csv", _PAIR_COLUMNS, have)
    _write_csv(folder / "missing.csv", ["row", "key", "image_url", "reason"], lack)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(
            [table_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows
        )


def _size(image: Fetched | Failure) -> int:
    return image.size if isinstance(image, Fetched) else 0
