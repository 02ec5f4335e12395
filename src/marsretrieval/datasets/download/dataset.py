"""Download a dataset, or plan a download.

Mars-VL-Pairs is written from its links as WebDataset tars, with tables of the images. The same
images give the same tars, byte for byte.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from marsretrieval.datasets.download.http import check_libraries
from marsretrieval.datasets.download.hub import (
    download_from_hub,
    file_record,
    list_repository,
    resolve_revision,
    sync_files,
)
from marsretrieval.datasets.download.links import (
    FORMATS,
    Failure,
    Fetched,
    LinkCache,
    LinkSettings,
    Pair,
    fetch_links,
    read_pairs,
)
from marsretrieval.datasets.download.report import Missing, Plan, Report, common_fields
from marsretrieval.datasets.download.sources import Source, find_source
from marsretrieval.datasets.images import decode_rgb
from marsretrieval.datasets.listing import check_space, free_bytes
from marsretrieval.datasets.records import CACHE, FileRecord, check_folder, end_record
from marsretrieval.datasets.webdataset import write_tar
from marsretrieval.errors import DataError, TableError
from marsretrieval.io import atomic_path, sha256_file, sha256_json
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.text import confined, pluralize, table_cell

SHARD_ROWS = 250  # rows per tar; fixed, so that an image recovered later changes only one tar
IMAGE_BYTES = 2 * 600_000  # upper estimate for an image in the cache and in its tar
_TABLES = ("missing.csv", "pairs.csv")
_PAIR_COLUMNS = (
    "row", "id", "key", "image_url", "method", "resolved_url", "sha256", "bytes", "width",
    "height", "format", "reason",
)  # fmt: skip
_SIZE = 512
# Behaviour of img2dataset with image_size=512 and resize_mode=center_crop.
_PUBLISHED = {
    "size": _SIZE,
    "resize": "smallest side, up or down",
    "downscale": "area",
    "upscale": "lanczos",
    "crop": "centre",
    "transparency": "over white",
    "format": "JPEG, quality 95",
}
_UNCHANGED = {"bytes": "as fetched"}


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
        return download_pairs(
            source, folder, revision=revision, offline=offline, cache=cache,
            settings=settings or LinkSettings(), progress=progress,
        )  # fmt: skip
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
    try:
        urls = {pair.url for pair in read_pairs(table_folder(folder))}
    except DataError:  # the table is not downloaded yet
        return source.rows or 0, 0
    return len(urls), len(link_cache(folder, cache).find(urls))


def table_folder(folder: Path) -> Path:
    """Return the folder of the table of links.

    Args:
        folder: Folder of the dataset.

    Returns:
        The hidden folder.
    """
    return folder / CACHE / "hub"


def link_cache(folder: Path, cache: Path | None) -> LinkCache:
    """Return the cache of a dataset's linked images.

    Args:
        folder: Folder of the dataset.
        cache: Folder of the cache; None for the default below `folder`.

    Returns:
        The cache.
    """
    return LinkCache(cache if cache is not None else folder / CACHE / "images")


def download_pairs(
    source: Source,
    folder: Path,
    *,
    revision: str | None,
    offline: bool,
    cache: Path | None,
    settings: LinkSettings,
    progress: Progress = NO_PROGRESS,
) -> Report:
    """Download the table and the images; write tars, ``pairs.csv`` and ``missing.csv``.

    Args:
        source: The dataset.
        folder: Folder of the dataset.
        revision: Commit, branch or tag; None for the default.
        offline: Use only images in the cache.
        cache: Folder of the image cache; None for the default below `folder`.
        settings: Limits for linked images.
        progress: Progress display.

    Returns:
        Numbers of images, and the missing ones.

    Raises:
        DataError: If no image is available.
        TableError: If the table is damaged or has an unexpected number of rows.
    """
    record = check_folder(folder, source)
    table = table_folder(folder)
    listing, fetched_bytes = sync_files(
        source, folder, record, record.table if record else (),
        target=table, revision=revision, offline=offline, progress=progress,
    )  # fmt: skip
    pairs = read_pairs(table)
    if source.rows not in (None, len(pairs)) and listing.revision == source.revision:
        raise TableError(
            f"{table}: {pluralize(len(pairs), 'pair')}, {source.rows:,} expected at this revision",
            remedy="Delete this folder and run it again.",
        )
    images = link_cache(folder, cache)
    urls = list(dict.fromkeys(pair.url for pair in pairs))
    results: dict[str, Fetched | Failure] = images.find(urls)
    absent = [url for url in urls if url not in results]
    if offline:
        results |= {url: Failure("not fetched (offline)") for url in absent}
    else:
        check_space(folder, IMAGE_BYTES * len(absent))
        results |= fetch_links(absent, images, settings, progress)
        fetched_bytes += sum(getattr(results[url], "size", 0) for url in absent)
    packed = [(pair, image) for pair in pairs if isinstance(image := results[pair.url], Fetched)]
    missing = [
        Missing(pair.key, pair.row, pair.url, failure.reason)
        for pair in pairs
        if isinstance(failure := results[pair.url], Failure)
    ]
    if not packed:
        raise DataError(
            f"{folder}: none of {pluralize(len(pairs), 'image')} is available (first: "
            f"{missing[0].reason})",
            remedy="Check the network and run it again, or use --variant frozen.",
        )
    parameters = _PUBLISHED if source.variant == "published" else _UNCHANGED
    earlier = record.files if record else ()
    tars = _pack(packed, folder, images, parameters, earlier, progress)
    _write_tables(folder, pairs, results)
    methods = Counter(image.method for _, image in packed)
    counts = {"rows": len(pairs), "pairs": len(packed), "missing": len(missing), **methods}
    end_record(
        folder,
        source,
        listing.revision,
        counts=counts,
        parameters=parameters,
        missing=tuple(row.key for row in missing),
        table=tuple(file_record(table, file.path) for file in listing.files),
        files=(*tars, *(file_record(folder, name) for name in _TABLES)),
    )
    return Report(
        **common_fields(source, folder, listing.revision),
        files=len(tars),
        fetched_bytes=fetched_bytes,
        counts=counts,
        missing=missing,
    )


def _pack(
    pairs: Sequence[tuple[Pair, Fetched]],
    folder: Path,
    images: LinkCache,
    parameters: Mapping[str, Any],
    earlier: Sequence[FileRecord],
    progress: Progress,
) -> list[FileRecord]:
    """Write `<number>.tar` for every SHARD_ROWS rows of the table.

    A tar that `earlier` records with the same content, and that is unchanged, is kept. Tars that no
    longer belong to the dataset are deleted.
    """
    shards: dict[str, list[tuple[Pair, Fetched]]] = {}
    for pair, image in pairs:
        shards.setdefault(f"{pair.row // SHARD_ROWS:05d}.tar", []).append((pair, image))
    earlier_records = {record.path: record for record in earlier}
    records = []
    with progress.start("pack", len(pairs), "images") as bar:
        for name, members in sorted(shards.items()):
            annotations = [_annotation(pair, image) for pair, image in members]
            content = sha256_json([dict(parameters), annotations])
            record = earlier_records.get(name)
            if record is None or record.content != content or _changed(folder, record):
                with atomic_path(folder / name) as temporary:
                    write_tar(temporary, _members(members, images, parameters))
                tar_record = file_record(folder, name)
                record = FileRecord(name, tar_record.size, tar_record.sha256, content, len(members))
            records.append(record)
            bar.advance(len(members))
    for name in earlier_records.keys() - shards.keys():
        if name.endswith(".tar"):
            confined(folder, name, nested=False).unlink(missing_ok=True)
    return records


def _changed(folder: Path, record: FileRecord) -> bool:
    path = confined(folder, record.path)
    return not path.is_file() or sha256_file(path) != record.sha256


def _members(
    pairs: Iterable[tuple[Pair, Fetched]], images: LinkCache, parameters: Mapping[str, Any]
) -> Iterator[tuple[str, bytes]]:
    for pair, image in pairs:
        data, extension = images.read(image), image.extension
        if parameters is _PUBLISHED:
            data, extension = published_crop(data), "jpg"
        text = json.dumps(_annotation(pair, image), sort_keys=True, ensure_ascii=False, indent=1)
        yield f"{pair.name}.{extension}", data
        yield f"{pair.name}.json", text.encode()


def _annotation(pair: Pair, image: Fetched) -> dict[str, Any]:
    """Return the JSON of an image: captions and provenance."""
    return {
        "key": pair.key,
        "row": pair.row,
        "refined_caption": pair.refined_caption,
        "ori_caption": pair.original_caption,
        "image_url": pair.url,
        "resolved_url": image.resolved_url,
        "recovery_method": image.method,
        "content_sha256": image.sha256,
        "image_format": image.format,
        "width": image.width,
        "height": image.height,
        "file_size": image.size,
    }


def _write_tables(
    folder: Path, pairs: Sequence[Pair], results: Mapping[str, Fetched | Failure]
) -> None:
    """Write ``pairs.csv`` (outcome of every row) and ``missing.csv`` (rows without an image)."""
    rows: list[list[object]] = []
    missing: list[list[object]] = []
    for pair in pairs:
        image = results[pair.url]
        if isinstance(image, Fetched):
            outcome = [image.method, image.resolved_url, image.sha256, image.size, image.width,
                       image.height, image.format, ""]  # fmt: skip
        else:
            outcome = ["missing", "", "", "", "", "", "", image.reason]
            missing.append([pair.row, pair.key, pair.url, image.reason])
        rows.append([pair.row, pair.name, pair.key, pair.url, *outcome])
    _write_csv(folder / "pairs.csv", _PAIR_COLUMNS, rows)
    _write_csv(folder / "missing.csv", ("row", "key", "image_url", "reason"), missing)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(
            [table_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows
        )


def published_crop(body: bytes) -> bytes:
    """Crop an image as the published pipeline does, to a JPEG of 512 x 512 pixels.

    It is resampled by Pillow instead of OpenCV: the same filters, but not the same bytes. EXIF
    orientation is ignored, as in the pipeline.

    Args:
        body: Content of the image file.

    Returns:
        Content of the JPEG file.
    """
    with Image.open(io.BytesIO(body), formats=FORMATS) as image:
        image.load()
        opaque = _to_opaque(image, body)
    scale = _SIZE / min(opaque.size)
    resampling = Image.Resampling.BOX if scale < 1 else Image.Resampling.LANCZOS
    (x_min, x_max), (y_min, y_max) = (
        _crop_interval(side, round(side * scale)) for side in opaque.size
    )
    # Resample only the crop: a mosaic may be dozens of times wider than high.
    cropped = opaque.resize((_SIZE, _SIZE), resampling, box=(x_min, y_min, x_max, y_max))
    buffer = io.BytesIO()
    cropped.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _crop_interval(side: int, resized: int) -> tuple[float, float]:
    """Return the interval of the original side that the middle _SIZE resized pixels cover."""
    first = (resized - _SIZE) // 2
    return first * side / resized, min(float(side), (first + _SIZE) * side / resized)


def _to_opaque(image: Image.Image, body: bytes) -> Image.Image:
    """Convert to 8 bits, grey or colour, with transparency over white."""
    if image.mode.startswith(("I", "F")):
        return decode_rgb(body, "image")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")
