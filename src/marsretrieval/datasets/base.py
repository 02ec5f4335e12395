"""Records, shards and the `ImageSource` interface of all image readers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class ItemWarning:
    """A part of an item that was ignored; its image is still used.

    Attributes:
        id: Id of the item.
        source: File or archive member, for messages.
        kind: `position` for contradictory or unreadable positions; `annotation` for captions,
            labels and unreadable annotation files.
        reason: Description of the problem.
    """

    id: str
    source: str
    kind: Literal["annotation", "position"]
    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """One encoded image with its annotations.

    The image is not decoded, so that a record is cheap to send to another process.

    Attributes:
        id: Id, unique in the source.
        data: Encoded image; empty if only annotations were read.
        source: File or archive member ("file.tar:member.png"), for messages.
        caption: Caption; the refined one if the dataset has two.
        original_caption: Caption before refinement, if the dataset has two.
        label: Class name.
        lon: Planetocentric longitude of the tile's centre in degrees, east positive.
        lat: Planetocentric latitude of the tile's centre in degrees.
        width_deg: Extent in longitude, degrees.
        height_deg: Extent in latitude, degrees.
        valid: Fraction of the tile that has data, 0 to 1.
        warnings: Parts of the annotation that were ignored.
    """

    id: str
    data: bytes
    source: str
    caption: str | None = None
    original_caption: str | None = None
    label: str | None = None
    lon: float | None = None
    lat: float | None = None
    width_deg: float | None = None
    height_deg: float | None = None
    valid: float | None = None
    warnings: tuple[ItemWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """An item that was left out. Skipped items are counted, reported and stored.

    Attributes:
        id: Id of the item.
        source: File or archive member, for messages.
        reason: Why the item was left out.
    """

    id: str
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class RepeatedKey(Skipped):
    """An image that was skipped because another image has the same key."""


@dataclass(frozen=True, slots=True)
class UnannotatedImage(Skipped):
    """An image that was skipped only because it has no caption or label."""


@dataclass(frozen=True, slots=True)
class UnusedFile(Skipped):
    """A file of a dataset that no part of a task uses."""


@dataclass(frozen=True, slots=True)
class EncodingFailure(Skipped):
    """A readable image that the model could not preprocess or embed."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A unit of work: one tar, a group of Parquet rows, or several hundred files of a folder.

    Attributes:
        name: Name, unique in the source and safe as a file name.
        fingerprint: Changes if the content may have changed (sizes and modification times of the
            files), so that an embedded shard is embedded again only after a change.
        rows: Number of items; None if counting requires reading the whole shard.
    """

    name: str
    fingerprint: str
    rows: int | None


class ImageSource(Protocol):
    """Interface of the image readers. Instances can be pickled."""

    @property
    def name(self) -> str:
        """The path as the user gave it, for messages."""

    @property
    def kind(self) -> str:
        """Layout: folder, classes, csv, webdataset, parquet or arrow."""

    def shards(self) -> Sequence[Shard]:
        """List the shards in a fixed order.

        Returns:
            All shards of the source.

        Raises:
            DatasetNotFoundError: If there are no images.
            DataError: If the files cannot be listed or read.
        """

    def read(self, shard: Shard, *, images: bool = True) -> Iterator[Record | Skipped]:
        """Stream the items of a shard in a fixed order.

        Args:
            shard: One of `shards()`.
            images: Read the encoded images. If False, only annotations are read: `data` is empty,
                and positions stored inside the image file (GeoTIFF) are missing.

        Yields:
            A Record per item, or a Skipped for a damaged one.

        Raises:
            DataError: If a file of the shard cannot be read.
        """


def content_hash(data: bytes) -> bytes:
    """Hash an encoded image.

    Args:
        data: Encoded image.

    Returns:
        The first 16 bytes of its SHA-256.
    """
    return hashlib.sha256(data).digest()[:16]


def annotated_hash(content: bytes, text: str) -> bytes:
    """Hash an image together with its caption or label.

    Args:
        content: Content hash of the image.
        text: Caption or label.

    Returns:
        The first 16 bytes of the SHA-256 of both.
    """
    return hashlib.sha256(content + text.encode()).digest()[:16]


def set_hash(items: Iterable[tuple[str, bytes]]) -> str:
    """Hash a set of items, independent of their order.

    Args:
        items: Id and content hash of each item.

    Returns:
        SHA-256 in hex over the sorted lines ``id<TAB>content hash in hex``.
    """
    lines = sorted(f"{key}\t{content.hex()}\n" for key, content in items)
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode())
    return digest.hexdigest()


def is_utf8(text: str) -> bool:
    """Check that a string can be encoded as UTF-8, that is, has no lone surrogates.

    Args:
        text: Any string.

    Returns:
        True if `text` can be encoded.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def escape(text: str) -> str:
    r"""Make a string printable: bytes that are not UTF-8 become ``\xff``, surrogates ``\ud800``.

    Args:
        text: Any string, such as a name from the file system or an archive.

    Returns:
        The escaped string; `text` itself if it can be encoded as UTF-8.
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
        item: Item from a reader.

    Returns:
        An item whose strings can be written to stores, results and terminals.
    """
    if isinstance(item, Skipped):
        return replace(
            item, id=escape(item.id), source=escape(item.source), reason=escape(item.reason)
        )
    if is_utf8(item.id) and is_utf8(item.source):
        return item
    reason = "its name is not UTF-8: rename it"
    return Skipped(escape(item.id), escape(item.source), reason)
