"""Results and plans of downloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from marsretrieval.datasets.download.sources import Source

# Of the 2,287 pairs, 38 (1.7 %) could not be recovered in August 2026; more links die over time.
KNOWN_GONE = 38
# A larger share is not explained by dead links, but by the network, a proxy or a blocked host.
MAX_MISSING = 0.05


def common_fields(source: Source, folder: Path, revision: str) -> dict[str, Any]:
    """Return the fields that a plan and a report share.

    Args:
        source: The dataset.
        folder: Folder of the dataset.
        revision: Commit.

    Returns:
        Keyword arguments of `Plan` and `Report`.
    """
    return {
        "dataset": source.dataset,
        "folder": str(folder),
        "repository": source.repository,
        "revision": revision,
        "variant": source.variant,
        "licence": source.licence,
    }


@dataclass(frozen=True, slots=True)
class Missing:
    """Row of the pairs without an image.

    Attributes:
        key: Key in the table.
        row: Row number.
        url: URL of the image.
        reason: Why it could not be downloaded.
    """

    key: str
    row: int
    url: str
    reason: str


@dataclass(frozen=True, slots=True)
class _CommonFields:
    dataset: str
    folder: str
    repository: str
    revision: str
    variant: str | None
    licence: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Report(_CommonFields):
    """Result of a download.

    Attributes:
        files: Number of files.
        fetched_bytes: Number of bytes downloaded; 0 if nothing was missing.
        counts: Numbers of items.
        missing: Rows without an image.
    """

    files: int
    fetched_bytes: int
    counts: Mapping[str, Any]
    missing: Sequence[Missing] = field(default_factory=tuple)

    def failed(self, *, strict: bool) -> bool:
        """Check whether more images are missing than dead links explain.

        Args:
            strict: Tolerate no missing image.

        Returns:
            Whether the download has failed.
        """
        limit = 0.0 if strict else MAX_MISSING * int(self.counts.get("rows", 0))
        return len(self.missing) > limit


@dataclass(frozen=True, slots=True)
class Plan(_CommonFields):
    """Files and images that a download would fetch.

    Attributes:
        files: Files of the repository: path, size, present.
        bytes_to_fetch: Size of the files to download.
        links: Number of linked images.
        links_present: Number of them that are in the cache.
        needed_bytes: Disk space needed.
        free_bytes: Free disk space.
    """

    files: Sequence[Mapping[str, Any]]
    bytes_to_fetch: int
    links: int
    links_present: int
    needed_bytes: int
    free_bytes: int
