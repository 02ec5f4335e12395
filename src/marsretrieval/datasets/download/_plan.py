"""What a download would fetch, found out without writing a byte."""

from __future__ import annotations

from pathlib import Path

from marsretrieval.datasets._disk import free_bytes
from marsretrieval.datasets.download._cache import LinkCache
from marsretrieval.datasets.download._hosted import wanted_revision
from marsretrieval.datasets.download._hub import list_repository
from marsretrieval.datasets.download._linked import IMAGE_BYTES, link_cache, table_folder
from marsretrieval.datasets.download._links import cached_links
from marsretrieval.datasets.download._pairs import read_pairs
from marsretrieval.datasets.download._record import check_folder
from marsretrieval.datasets.download._report import Plan, described
from marsretrieval.datasets.download._sources import Source
from marsretrieval.errors import DataError


def make_plan(source: Source, folder: Path, *, revision: str | None, cache: Path | None) -> Plan:
    """Asks the hub for the listing; raises what `download` would raise before it fetches."""
    record = check_folder(folder, source)
    listing = list_repository(source.repository, wanted_revision(source, record, revision))
    place = table_folder(folder) if source.links else folder
    files = [
        {"path": file.path, "size": file.size, "present": file.whole(place)}
        for file in listing.files
    ]
    to_fetch = sum(file.size for file in listing.files if not file.whole(place))
    links, present = _links(source, folder, cache) if source.links else (0, 0)
    return Plan(
        **described(source, folder, listing.revision),
        files=files,
        bytes_to_fetch=to_fetch,
        links=links,
        links_present=present,
        needed_bytes=to_fetch + IMAGE_BYTES * (links - present),
        free_bytes=free_bytes(folder),
    )


def _links(source: Source, folder: Path, cache: Path | None) -> tuple[int, int]:
    """How many images there are to fetch one by one, and how many were fetched before."""
    try:
        urls = [pair.url for pair in read_pairs(table_folder(folder))]
    except DataError:  # the table is not there yet
        return source.rows or 0, 0
    unique = set(urls)
    return len(unique), len(cached_links(unique, LinkCache(link_cache(folder, cache))))
