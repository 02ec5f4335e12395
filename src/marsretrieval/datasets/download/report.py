"""Results and plans of downloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from marsretrieval.datasets.download.sources import Source

# Of the 2,287 pairs, 38 (1.7 %) were beyond recovery in August 2026, and links go on rotting.
KNOWN_GONE = 38
# Beyond this share it is not rot: the network, a proxy or a blocked host. The download has failed.
MAX_MISSING = 0.05


def described(source: Source, folder: Path, revision: str) -> dict[str, Any]:
    """The fields that a plan and a report share."""
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
    """A row of paired without an image."""

    key: str
    row: int
    url: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Described:
    dataset: str
    folder: str
    repository: str
    revision: str
    variant: str | None
    licence: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Report(_Described):
    """Result of a download; `fetched_bytes` is 0 if nothing was missing."""

    files: int
    fetched_bytes: int
    counts: Mapping[str, Any]
    missing: Sequence[Missing] = field(default_factory=tuple)

    def failed(self, *, strict: bool) -> bool:
        """Whether more is missing than links rot; with `strict`, anything at all."""
        limit = 0.0 if strict else MAX_MISSING * int(self.counts.get("rows", 0))
        return len(self.missing) > limit


@dataclass(frozen=True, slots=True)
class Plan(_Described):
    """What a download would fetch; `links` are images to be fetched one by one."""

    files: Sequence[Mapping[str, Any]]  # path, size, present
    bytes_to_fetch: int
    links: int
    links_present: int
    needed_bytes: int
    free_bytes: int
