"""Mars-VL-Pairs from links: images and captions into WebDataset tars, with tables of what came.

Tars are the same, byte for byte, whenever they are made of the same images.
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

from marsretrieval.datasets.download.hub import bring, file_record
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
from marsretrieval.datasets.download.record import CACHE, FileRecord, check_folder, end_record
from marsretrieval.datasets.download.report import Missing, Report, described
from marsretrieval.datasets.download.sources import Source
from marsretrieval.datasets.images import decode_rgb
from marsretrieval.datasets.listing import check_space
from marsretrieval.datasets.webdataset import write_tar
from marsretrieval.errors import DataError, TableError
from marsretrieval.io import atomic_path, confined, sha256_file, sha256_json
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.text import table_cell

SHARD_ROWS = 250  # rows of the table, so that an image that comes later changes one tar only
IMAGE_BYTES = 2 * 600_000  # generous size of an image in the cache and in its tar
_TABLES = ("missing.csv", "pairs.csv")
_PAIR_COLUMNS = (
    "row", "id", "key", "image_url", "method", "resolved_url", "sha256", "bytes", "width",
    "height", "format", "reason",
)  # fmt: skip
_SIZE = 512
# What img2dataset does with image_size=512 and resize_mode=center_crop, its defaults otherwise.
_PUBLISHED = {
    "size": _SIZE,
    "resize": "smallest side, up or down",
    "downscale": "area",
    "upscale": "lanczos",
    "crop": "centre",
    "transparency": "over white",
    "format": "JPEG, quality 95",
}
_WHOLE = {"bytes": "as fetched"}


def table_folder(folder: Path) -> Path:
    """Where the table of links is stored."""
    return folder / CACHE / "hub"


def link_cache(folder: Path, cache: Path | None) -> LinkCache:
    """The downloaded images of a dataset."""
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

    Raises:
        DataError: If there is not a single image.
    """
    record = check_folder(folder, source)
    table = table_folder(folder)
    listing, fetched_bytes = bring(
        source, folder, record, record.table if record else (),
        place=table, revision=revision, offline=offline, progress=progress,
    )  # fmt: skip
    pairs = read_pairs(table)
    if source.rows not in (None, len(pairs)) and listing.revision == source.revision:
        raise TableError(
            f"{table}: {len(pairs):,} pairs, {source.rows:,} expected at this revision",
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
            f"{folder}: not one of {len(pairs):,} images can be had (first: {missing[0].reason})",
            remedy="Check the network and run it again, or use --variant frozen.",
        )
    parameters = _PUBLISHED if source.variant == "published" else _WHOLE
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
        **described(source, folder, listing.revision),
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

    A tar that `earlier` records with the same content, and that is still whole, is kept. Those
    that are no longer part of the dataset are removed.
    """
    shards: dict[str, list[tuple[Pair, Fetched]]] = {}
    for pair, image in pairs:
        shards.setdefault(f"{pair.row // SHARD_ROWS:05d}.tar", []).append((pair, image))
    before = {record.path: record for record in earlier}
    records = []
    with progress.start("pack", len(pairs), "images") as bar:
        for name, members in sorted(shards.items()):
            annotations = [_annotation(pair, image) for pair, image in members]
            content = sha256_json([dict(parameters), annotations])
            record = before.get(name)
            if record is None or record.content != content or _changed(folder, record):
                with atomic_path(folder / name) as temporary:
                    write_tar(temporary, _members(members, images, parameters))
                made = file_record(folder, name)
                record = FileRecord(name, made.size, made.sha256, content, len(members))
            records.append(record)
            bar.advance(len(members))
    for name in before.keys() - shards.keys():
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
    """The JSON beside an image: both captions, and where the image came from."""
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
    """``pairs.csv``: every row with its outcome; ``missing.csv``: those without an image."""
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

    It is resampled by Pillow, not OpenCV: the same filters, not the same bytes. EXIF orientation
    is left alone, as there.
    """
    with Image.open(io.BytesIO(body), formats=FORMATS) as image:
        image.load()
        flat = _flat(image, body)
    scale = _SIZE / min(flat.size)
    resampling = Image.Resampling.BOX if scale < 1 else Image.Resampling.LANCZOS
    (left, right), (top, bottom) = (_middle(side, round(side * scale)) for side in flat.size)
    # Only the part that stays is resampled: a mosaic may be dozens of times wider than high.
    cropped = flat.resize((_SIZE, _SIZE), resampling, box=(left, top, right, bottom))
    buffer = io.BytesIO()
    cropped.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _middle(side: int, resized: int) -> tuple[float, float]:
    """Where the middle _SIZE pixels of a side `resized` pixels long lie on the original."""
    first = (resized - _SIZE) // 2
    return first * side / resized, min(float(side), (first + _SIZE) * side / resized)


def _flat(image: Image.Image, body: bytes) -> Image.Image:
    """8 bits, grey or colour, transparency over white."""
    if image.mode.startswith(("I", "F")):
        return decode_rgb(body, "image")
    if "A" in image.getbands() or "transparency" in image.info:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, over).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")
