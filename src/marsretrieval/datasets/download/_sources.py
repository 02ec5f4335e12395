"""What can be downloaded, and from where: repository, pinned revision, licence, size."""

from __future__ import annotations

from dataclasses import dataclass

from marsretrieval.errors import UnknownNameError, UsageError


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset in one variant.

    `revision` is the commit that was looked at when this was written; None: not known, so that
    the head is taken and recorded. `links`: the repository holds addresses, not images.
    """

    dataset: str
    folder: str
    repository: str
    revision: str | None
    licence: str
    variant: str | None = None
    links: bool = False
    rows: int | None = None  # how many there are at that revision


_PAIRS = "1cac8885e481256d3752ad0d3a0f8f9681c5f206"
_SOURCES = (
    Source(
        "paired", "Mars-VL-Pairs", "SUSTech/Mars-VL-Pairs", _PAIRS,
        "CC BY 4.0 (captions); each image has its own source", "whole", links=True, rows=2287,
    ),
    Source(
        "paired", "Mars-VL-Pairs", "SUSTech/Mars-VL-Pairs", _PAIRS,
        "CC BY 4.0 (captions); each image has its own source", "published", links=True, rows=2287,
    ),
    Source(
        "paired", "Mars-VL-Pairs", "Cerru02/Mars-VL-Pairs-MTEB",
        "f0084ab0ba2f584b15dc72a82502b38ee490f58d",
        "CC BY 4.0 (captions); each image has its own source", "frozen", rows=2247,
    ),
    Source("landform", "Mars-Landforms", "SUSTech/Mars-Landforms", None, "Creative Commons (cc)"),
    Source(
        "geolocalization", "Mars-Global-Geolocalization", "SUSTech/Mars-Global-Geolocalization",
        "9a8bc845d73ff33e683ee467b220c87e43d330dc", "Creative Commons (cc)",
    ),
)  # fmt: skip

DATASETS = tuple(dict.fromkeys(source.dataset for source in _SOURCES))

_ALIASES = {
    "paired-image-text": "paired",
    "paired_image_text_retrieval": "paired",
    "landform_retrieval": "landform",
    "global_geolocalization": "geolocalization",
    "geo": "geolocalization",
} | {source.folder.lower(): source.dataset for source in _SOURCES}


def find_source(name: str, variant: str | None = None) -> Source:
    """By dataset (`paired`, `landform`, `geolocalization`), task or folder name; the first
    variant by default. Raises UnknownNameError, or UsageError for a variant it does not have."""
    dataset = _ALIASES.get(name.lower(), name.lower())
    found = [source for source in _SOURCES if source.dataset == dataset]
    if not found:
        raise UnknownNameError("dataset", name, DATASETS)
    if variant is None:
        return found[0]
    for source in found:
        if source.variant == variant:
            return source
    known = [source.variant for source in found if source.variant]
    raise UsageError(
        f"{dataset} has no variant '{variant}'",
        remedy=f"Known: {', '.join(known)}." if known else "It has no variants: leave it out.",
    )
