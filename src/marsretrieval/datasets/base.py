"""What every reader gives: shards of records, each an encoded image with what is known of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class ItemWarning:
    """A part of an item that was ignored, while its image is used.

    kind: `annotation` for captions, labels and what cannot be read at all, `position` for positions
    that are contradictory or cannot be read.
    """

    id: str
    source: str
    kind: Literal["annotation", "position"]
    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """One image, still encoded, so that it is cheap to send to the worker that decodes it.

    Longitude and latitude are planetocentric degrees of the tile's centre, east positive.
    """

    id: str
    data: bytes  # b"" when only the annotations were asked for
    source: str  # "file.tar:member.png", for messages
    caption: str | None = None  # the refined caption where the dataset has two
    original_caption: str | None = None
    label: str | None = None
    lon: float | None = None
    lat: float | None = None
    width_deg: float | None = None  # tile extent in longitude
    height_deg: float | None = None  # tile extent in latitude
    valid: float | None = None  # share of the tile with data, 0 to 1
    warnings: tuple[ItemWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """An item that is left out, and why. Never dropped silently: counted, reported, stored."""

    id: str
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Shard:
    """A unit of work: one tar, one group of Parquet rows, or some hundred files of a folder.

    `fingerprint` changes when the content may have changed (size and modification time of the
    files), so that a shard already embedded is not embedded again.
    """

    name: str  # unique in its source, safe as a file name
    fingerprint: str
    rows: int | None  # None where counting would mean reading it all


class ImageSource(Protocol):
    """Images from a folder, WebDataset tars or Parquet files, through one door. Picklable."""

    @property
    def name(self) -> str:
        """For people: the path as it was given."""

    @property
    def kind(self) -> str:
        """folder, classes, webdataset, parquet or arrow."""

    def shards(self) -> Sequence[Shard]:
        """In a fixed order. Raises DatasetNotFoundError or DataError naming the path."""

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        """Stream the shard's items in a fixed order; a damaged one comes as Skipped.

        `images=False` leaves `data` empty and reads no more than the annotations need; positions
        that stand in the image file itself (GeoTIFF) stay unknown.
        """


def content_hash(data: bytes) -> bytes:
    """16 bytes: the first half of the SHA-256 of an encoded image."""
    return hashlib.sha256(data).digest()[:16]


def annotated_hash(content: bytes, text: str) -> bytes:
    """16 bytes for an image (its content hash) together with its caption or label."""
    return hashlib.sha256(content + text.encode()).digest()[:16]


def set_hash(items: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 over the sorted lines ``id<TAB>content hash in hex``: order does not matter."""
    lines = sorted(f"{key}\t{content.hex()}\n" for key, content in items)
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode())
    return digest.hexdigest()


def is_utf8(text: str) -> bool:
    """Return whether a string can be written as UTF-8 (it holds no lone surrogate)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def escape(text: str) -> str:
    r"""Make a string printable: bytes that are not UTF-8 become ``\xff``, surrogates ``\ud800``.

    Args:
        text: A name from the file system or an archive, or any other string.

    Returns:
        The string itself where it is UTF-8.
    """
    if is_utf8(text):
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


def skip_unless_utf8(item: Record | Skipped) -> Record | Skipped:
    """Replace a record whose name is not UTF-8 by a Skipped with the escaped name.

    Args:
        item: What a reader yields.

    Returns:
        An item whose strings can all be written to a store, a result and a terminal.
    """
    if isinstance(item, Skipped):
        return Skipped(escape(item.id), escape(item.source), escape(item.reason))
    if is_utf8(item.id) and is_utf8(item.source):
        return item
    reason = "its name is not UTF-8: rename it"
    return Skipped(escape(item.id), escape(item.source), reason)
