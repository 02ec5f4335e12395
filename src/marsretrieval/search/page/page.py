"""Fill the template of the page of hits and write the HTML file."""

from __future__ import annotations

import hashlib
import json
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from marsretrieval.errors import MissingImagesWarning, UsageError, as_int
from marsretrieval.html import data_uri, image_uri, join_scripts, load_environment, load_styles
from marsretrieval.io import atomic_path
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search.hits import PAGE_IMAGES, describe_known, format_position
from marsretrieval.search.index.find import known_of
from marsretrieval.search.page.chart import HitMap, draw_maps, planet_outline
from marsretrieval.search.page.links import Link, links_at
from marsretrieval.search.provenance import HTML_ID, describe_query, provenance
from marsretrieval.search.thumbnails import Thumbnail, TileImages
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    import jinja2
    from PIL.Image import Image

    from marsretrieval.embeddings.store import EmbeddingStore
    from marsretrieval.search.hits import Hit, Hits

_PACKAGE = "marsretrieval.search.page"
MAX_HITS = 20_000  # a page of more is slow in a browser
_EXAMPLE_SIDE = 192


@dataclass(frozen=True, slots=True)
class QueryImage:
    """An example image of the query.

    Attributes:
        name: File name or tile id.
        image: The image; None if it cannot be read.
        reason: Why it cannot be read.
        negative: Whether it is a negative example.
    """

    name: str
    image: Image | bytes | None
    reason: str = ""
    negative: bool = False

    @property
    def short(self) -> str:
        """Name without folders."""
        return self.name.replace("\\", "/").rpartition("/")[2]

    @property
    def uri(self) -> str | None:
        """Data URI of a small copy."""
        if self.image is None:
            return None
        if isinstance(self.image, bytes):
            return data_uri(self.image, "image/webp")
        small = self.image.convert("RGB")
        small.thumbnail((_EXAMPLE_SIDE, _EXAMPLE_SIDE))
        return image_uri(small)


@dataclass(frozen=True, slots=True)
class PageSummary:
    """Summary of a written page.

    Attributes:
        path: The file.
        size: Its size in bytes.
        images: Number of hits with an image.
        unreadable: Number of hits whose image cannot be read.
        left_out: Number of hits beyond the number of images.
    """

    path: Path
    size: int
    images: int
    unreadable: int
    left_out: int


@dataclass(frozen=True, slots=True)
class _Card:
    hit: Hit
    image: str | None
    reason: str
    position: str
    size: str
    links: Sequence[Link]


def write_page(
    hits: Hits,
    path: str | Path,
    *,
    store: EmbeddingStore | None = None,
    tile_images: TileImages | None = None,
    images: int = PAGE_IMAGES,
    examples: Sequence[QueryImage] = (),
    command: str | None = None,
    progress: Progress = NO_PROGRESS,
) -> PageSummary:
    """Write hits as one self-contained HTML page.

    The page makes no requests. Hits without a readable image show the reason, and a
    `MissingImagesWarning` counts them.

    Args:
        hits: At most `MAX_HITS` hits.
        path: The file.
        store: The store that was searched, for images and the searched area.
        tile_images: Thumbnails that may have been loaded before; by default those of the store.
        images: Number of hits with an image, from the best on; the others are text only.
        examples: Example images of the query.
        command: Command that makes the page again; by default `marsretrieval search` with the
            options of the request.
        progress: Progress display.

    Returns:
        A summary of the file.

    Raises:
        UsageError: If there are too many hits, or `images` is negative.
        OutputError: If the file cannot be written.
    """
    path, images = Path(path), as_int(images, "images")
    check_page(hits, path, images)
    image_count = min(images, len(hits))
    loader = tile_images or TileImages(store)
    thumbnails = loader.load_hits(hits, image_count, progress=progress)
    unreadable = sum(thumbnail.image is None for thumbnail in thumbnails)
    left_out = len(hits) - image_count
    text = _render(hits, thumbnails, store, examples, command or search_command(hits, path))
    encoded = text.encode("utf-8", errors="replace")
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)
    warn_missing(path, thumbnails, hits)
    return PageSummary(path, len(encoded), image_count - unreadable, unreadable, left_out)


def check_page(hits: Hits, path: Path, images: int) -> None:
    """Check that a page can hold these hits.

    Args:
        hits: The hits.
        path: The file, for messages.
        images: Number of hits with an image.

    Raises:
        UsageError: If there are too many hits, or `images` is negative.
    """
    if images < 0:
        raise UsageError(f"a page with {pluralize(images, 'image')}", remedy="Use 0 or more.")
    if len(hits) > MAX_HITS:
        raise UsageError(
            f"{path}: {pluralize(len(hits), 'hit')}, and a page holds at most {MAX_HITS:,}",
            remedy="Limit them with -k (k=...), or write a .csv, .parquet or .gpkg file.",
        )


def warn_missing(path: Path, thumbnails: Sequence[Thumbnail], hits: Hits) -> None:
    """Warn about hits without an image, with their number and the first reason.

    Args:
        path: File that shows the thumbnails.
        thumbnails: Thumbnails of the first hits.
        hits: The hits.
    """
    missing = [index for index, item in enumerate(thumbnails) if item.image is None]
    if missing:
        first = missing[0]
        warnings.warn(
            f"{path}: {len(missing):,} of {pluralize(len(thumbnails), 'image')} cannot be read; "
            f"first: {hits.sources[first]}: {thumbnails[first].reason}",
            MissingImagesWarning,
            stacklevel=3,
        )


def search_command(hits: Hits, path: Path) -> str:
    """Return the command that repeats a search, from the description of the request.

    Args:
        hits: Hits of a search.
        path: Output file.

    Returns:
        A shell command; empty if the request has images, regions or vectors that are not files.
    """
    about = hits.about
    if not about.get("store") or "image" in [
        *(about.get("images") or ()), *(about.get("not_images") or ())
    ] or about.get("region") == "polygons" or about.get("vector") == "array":  # fmt: skip
        return ""
    words = ["marsretrieval", "search"]
    for part in about.get("stores") or [{"path": about["store"]}]:
        words += _option("store", part["path"])
    for option, name in (
        ("text", "texts"),
        ("image", "images"),
        ("similar-to", "like"),
        ("negative-text", "not_text"),
        ("negative-image", "not_images"),
        ("negative", "not_like"),
    ):
        for value in about.get(name) or ():
            words += _option(option, value)
    words += ["--no-templates"] if about.get("raw") else []
    for option, name in (
        ("image-weight", "mix"),
        ("negative-weight", "not_weight"),
        ("vector", "vector"),
        ("bbox", "bbox"),
        ("region", "region"),
        ("region-layer", "region_layer"),
        ("count", "count"),
        ("min-score", "min_score"),
        ("min-valid", "min_valid"),
        ("merge-deg", "merge_deg"),
    ):
        if about.get(name) is not None:
            words += _option(option, about[name])
    against = about.get("against")
    if against is not None:
        if not against.get("file"):
            return ""
        words += [*_option("against", against["file"]), *_option("against-km", against["km"])]
    words += ["--keep-examples"] if about.get("keep_examples") else []
    words += _option("lon", 360) if hits.domain == 360 else []
    return shlex.join([*words, *_option("out", path)])


def _option(name: str, value: Any) -> list[str]:
    text = str(value)
    return [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]


@cache
def _templates() -> jinja2.Environment:
    return load_environment(_PACKAGE)


def _render(
    hits: Hits,
    thumbnails: Sequence[Thumbnail],
    store: EmbeddingStore | None,
    examples: Sequence[QueryImage],
    command: str,
) -> str:
    templates = _templates()
    script = join_scripts(_PACKAGE, "page.js")
    cards = [_card(hit, thumbnails) for hit in hits]
    scores = [round(float(score), 7) for score in hits.scores]
    columns: list[Sequence[Any]] = [hits.ids, hits.lon, hits.lat, scores]
    columns += [] if hits.stores is None else [hits.stores]
    rows = [list(row) for row in zip(*columns, strict=True)]
    about = hits.about
    now = datetime.now(UTC)
    identity = json.dumps([about.get("store"), about.get("model"), rows])
    return templates.get_template("page.html.j2").render(
        title=describe_query(about),
        version=version("marsretrieval"),
        created=f"{now.day} {now:%B %Y, %H:%M} UTC",
        day=f"{now:%Y-%m-%d}",
        style=load_styles(templates, "page.css"),
        script=script.source,
        script_hash=script.hash,
        key=hashlib.sha256(identity.encode()).hexdigest()[:16],
        rows=rows,
        record=provenance(about),
        record_id=HTML_ID,
        about=about,
        facts=_facts(hits, store),
        examples=[example for example in examples if not example.negative],
        negatives=[example for example in examples if example.negative],
        lede=_lede(hits, store),
        hits=hits,
        cards=cards,
        images=sum(card.image is not None for card in cards),
        unreadable=sum(item.image is None for item in thumbnails),
        left_out=len(hits) - len(thumbnails),
        without_position=sum(not card.position for card in cards),
        charts=_charts(hits, store),
        locator_lines=list(planet_outline()),
        sampled=_sampled(about),
        command=command,
    )


def _card(hit: Hit, thumbnails: Sequence[Thumbnail]) -> _Card:
    number = hit.rank - 1
    thumbnail = thumbnails[number] if number < len(thumbnails) else None
    image = None if thumbnail is None else thumbnail.image
    links = [] if hit.lon is None or hit.lat is None else links_at(hit.lon, hit.lat, hit.shape)
    return _Card(
        hit,
        None if image is None else data_uri(image, "image/webp"),
        "" if thumbnail is None else thumbnail.reason,
        format_position(hit.lon, hit.lat),
        _extent(hit),
        links,
    )


def _extent(hit: Hit) -> str:
    """Height and width of a tile in degrees as text."""
    if not isinstance(hit.shape, list):
        return ""
    width = sum(max(x for x, _ in ring) - min(x for x, _ in ring) for ring in hit.shape)
    latitudes = [y for _, y in hit.shape[0]]
    return f"{width:.4g}° x {max(latitudes) - min(latitudes):.4g}°"


def _charts(hits: Hits, store: EmbeddingStore | None) -> list[HitMap]:
    heights = [
        max(y for _, y in shape[0]) - min(y for _, y in shape[0])
        for shape in hits.shapes
        if isinstance(shape, list)
    ]
    return draw_maps(
        hits,
        searched=None if store is None else known_of(store).positions(),
        tile_deg=float(np.median(heights)) if heights else None,
    )


def _lede(hits: Hits, store: EmbeddingStore | None) -> str:
    noun = "hit" if hits.tiles is None else "place"
    line = pluralize(len(hits), noun)
    if store is not None:
        line += f" of {pluralize(store.rows, 'tile')}"
    return f"{line}, ranked by {hits.about['model']}" if hits.about.get("model") else line


def _facts(hits: Hits, store: EmbeddingStore | None) -> list[tuple[str, str]]:
    """Request, store and model as (name, value) pairs, without what is not set."""
    about = hits.about
    dataset: Mapping[str, Any] = about.get("dataset") or {}
    merged = None if hits.tiles is None else f"within {about.get('merge_deg')}°"
    truncated = about.get("truncated") or []
    facts = [
        ("model", about.get("model")),
        ("store", None if about.get("stores") else about.get("store")),
        *(
            ("store", f"{part['path']} ({pluralize(part['rows'], 'tile')})")
            for part in about.get("stores") or ()
        ),
        ("images from", dataset.get("name")),
        ("tiles", None if store is None else f"{store.rows:,}"),
        ("prompts", "as they are, without templates" if about.get("raw") else None),
        ("vector", about.get("vector")),
        ("image weight", about.get("mix")),
        ("negative weight", about.get("not_weight")),
        ("box", about.get("bbox")),
        ("region", about.get("region")),
        ("layer", about.get("region_layer")),
        ("hits", about.get("count")),
        ("least score", about.get("min_score")),
        ("least data", about.get("min_valid")),
        ("without data", f"{about['without_data']:,} left out" if about.get("without_data") else
         None),
        ("merged", merged),
        ("texts too long", ", ".join(truncated) or None),
    ]  # fmt: skip
    if hits.known is not None:
        facts.append(("catalogue", describe_known(hits)))
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def _sampled(about: Mapping[str, Any]) -> int:
    """Number of tiles of the sample that percentiles refer to; 0 for all tiles."""
    scores = about.get("scores") or {}
    tiles, sampled = scores.get("tiles") or 0, scores.get("sampled") or 0
    return int(sampled) if sampled < tiles else 0
