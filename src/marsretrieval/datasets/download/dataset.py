"""Download a dataset, or plan a download."""

from __future__ import annotations

from pathlib import Path

from marsretrieval.datasets.download.http import check_libraries
from marsretrieval.datasets.download.links import LinkSettings, read_pairs
from marsretrieval.datasets.download.report import Plan, Report, common_fields
from marsretrieval.datasets.download.sources import Source, find_source
from marsretrieval.datasets.listing import free_bytes
from marsretrieval.datasets.records import check_folder
from marsretrieval.errors import DataError
from marsretrieval.progress import NO_PROGRESS, Progress


def download(
    name: str,
    out: str | Path,
    *,
    variant: str | None = None,
    revision: str | None = None,
    offline: bool = False,
    cache: str | Path | None = None,
    settings: LinkSettings | None = None,
    progress: Progress = NO_PROGRESS,
) -> Report:
    """Download a dataset into its folder below `out`. Complete files are not downloaded again.

    Args:
        name: `paired`, `landform` or `geolocalization`, or the name of the task or folder.
        out: Folder of the datasets.
        variant: Of paired: `frozen` (default: a copy with the images inside), `whole` (images
            from the published links, as downloaded) or `published` (from the same links, 512 px
            crops as the published pipeline makes them).
        revision: A commit, branch or tag (default: that of an earlier download, else the pinned
            one).
        offline: Use only the files in the folder and in the hub's cache.
        cache: Folder for linked images (default: hidden in the dataset's folder).
        settings: Limits for linked images.
        progress: Progress display.

    Returns:
        Numbers of files and images, and the missing images.

    Raises:
        UsageError: If the name is unknown, or the folder holds something else.
        DatasetNotFoundError: If the hub has no such dataset or revision.
        DataError: If the network fails or a file is damaged.
        OutputError: If the disk is full or not writable.
        MissingDependencyError: If the extra `download` is not installed.
    """
    out = Path(out)
    cache = None if cache is None else Path(cache)
    source = find_source(name, variant)
    check_libraries("downloading datasets")
    folder = out / source.folder
    if source.links:
        from marsretrieval.datasets.download.pack import download_pairs

        return download_pairs(
            source, folder, revision=revision, offline=offline, cache=cache,
            settings=settings or LinkSettings(), progress=progress,
        )  # fmt: skip
    from marsretrieval.datasets.download.hub import download_from_hub

    return download_from_hub(source, folder, revision=revision, offline=offline, progress=progress)


def plan_download(
    name: str,
    out: str | Path,
    *,
    variant: str | None = None,
    revision: str | None = None,
    cache: str | Path | None = None,
) -> Plan:
    """List what `download` would fetch, without writing anything.

    Args:
        name: As for `download`.
        out: As for `download`.
        variant: As for `download`.
        revision: As for `download`.
        cache: As for `download`.

    Returns:
        Files, links, and the disk space that they need.

    Raises:
        MarsRetrievalError: Any error that `download` raises before it starts to download.
    """
    out = Path(out)
    cache = None if cache is None else Path(cache)
    source = find_source(name, variant)
    check_libraries("downloading datasets")
    from marsretrieval.datasets.download.hub import list_repository, resolve_revision
    from marsretrieval.datasets.download.pack import IMAGE_BYTES, table_folder

    folder = out / source.folder
    record = check_folder(folder, source)
    listing = list_repository(source.repository, resolve_revision(source, record, revision))
    target = table_folder(folder) if source.links else folder
    missing = listing.missing(target)
    to_fetch = sum(file.size for file in missing)
    links, present = _links(source, folder, cache) if source.links else (0, 0)
    return Plan(
        **common_fields(source, folder, listing.revision),
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
    """Count the links, and those whose image is in the cache."""
    from marsretrieval.datasets.download.pack import link_cache, table_folder

    try:
        urls = {pair.url for pair in read_pairs(table_folder(folder))}
    except DataError:  # the table is not downloaded yet
        return source.rows or 0, 0
    return len(urls), len(link_cache(folder, cache).find(urls))
