"""Download a dataset, or plan what a download would fetch."""

from __future__ import annotations

from pathlib import Path

from marsretrieval.datasets.download.http import check_libraries
from marsretrieval.datasets.download.links import LinkSettings, read_pairs
from marsretrieval.datasets.download.record import check_folder
from marsretrieval.datasets.download.report import Plan, Report, described
from marsretrieval.datasets.download.sources import Source, find_source
from marsretrieval.datasets.listing import free_bytes
from marsretrieval.errors import DataError
from marsretrieval.progress import NO_PROGRESS, Progress


def download(
    name: str,
    out: Path,
    *,
    variant: str | None = None,
    revision: str | None = None,
    offline: bool = False,
    cache: Path | None = None,
    settings: LinkSettings | None = None,
    progress: Progress = NO_PROGRESS,
) -> Report:
    """Download a dataset into its folder below `out`; files that are whole are kept.

    Args:
        name: `paired`, `landform` or `geolocalization`, or the name of the task or folder.
        out: Folder of the datasets.
        variant: Of paired: `frozen` (default: a copy with the images inside), `whole` (images
            from the published links, as downloaded) or `published` (from the same links, 512 px
            crops as the published pipeline makes them).
        revision: A commit, branch or tag (default: that of an earlier download, else the pinned
            one).
        offline: Use what is in the folder, or in the hub's cache.
        cache: Where linked images are stored (default: hidden in the dataset's folder).
        settings: Limits for linked images.
        progress: Display.

    Returns:
        What came and what is missing.

    Raises:
        UsageError: If the name is unknown, or the folder holds something else.
        DatasetNotFoundError: If the hub has no such dataset or revision.
        DataError: If the network fails or a file is damaged.
        OutputError: If the disk is full or not writable.
        MissingDependencyError: If the extra `download` is not installed.
    """
    source = find_source(name, variant)
    check_libraries("downloading datasets")
    folder = out / source.folder
    if source.links:
        from marsretrieval.datasets.download.pack import download_pairs

        return download_pairs(
            source, folder, revision=revision, offline=offline, cache=cache,
            settings=settings or LinkSettings(), progress=progress,
        )  # fmt: skip
    from marsretrieval.datasets.download.hub import download_hosted

    return download_hosted(source, folder, revision=revision, offline=offline, progress=progress)


def plan_download(
    name: str,
    out: Path,
    *,
    variant: str | None = None,
    revision: str | None = None,
    cache: Path | None = None,
) -> Plan:
    """Ask the hub what `download` would fetch; nothing is written.

    Args:
        name, out, variant, revision, cache: As for `download`.

    Returns:
        Files, links, and the space that they need.

    Raises:
        MarsRetrievalError: As `download` before it fetches.
    """
    source = find_source(name, variant)
    check_libraries("downloading datasets")
    from marsretrieval.datasets.download.hub import list_repository, wanted_revision
    from marsretrieval.datasets.download.pack import IMAGE_BYTES, table_folder

    folder = out / source.folder
    record = check_folder(folder, source)
    listing = list_repository(source.repository, wanted_revision(source, record, revision))
    place = table_folder(folder) if source.links else folder
    missing = listing.missing(place)
    to_fetch = sum(file.size for file in missing)
    links, present = _links(source, folder, cache) if source.links else (0, 0)
    return Plan(
        **described(source, folder, listing.revision),
        files=[
            {"path": file.path, "size": file.size, "present": file not in missing}
            for file in listing.files
        ],
        bytes_to_fetch=to_fetch,
        links=links,
        links_present=present,
        needed_bytes=to_fetch + IMAGE_BYTES * (links - present),
        free_bytes=free_bytes(folder),
    )


def _links(source: Source, folder: Path, cache: Path | None) -> tuple[int, int]:
    """Numbers of links, and of their images that were downloaded before."""
    from marsretrieval.datasets.download.pack import link_cache, table_folder

    try:
        urls = {pair.url for pair in read_pairs(table_folder(folder))}
    except DataError:  # the table is not downloaded yet
        return source.rows or 0, 0
    return len(urls), len(link_cache(folder, cache).find(urls))
