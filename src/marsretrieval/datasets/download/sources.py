"""Registry of downloadable datasets: repository, pinned revision, licence and size."""

from __future__ import annotations

from dataclasses import dataclass

from marsretrieval.errors import UnknownNameError, UsageError


@dataclass(frozen=True, slots=True)
class Source:
    """Dataset in one variant.

    Attributes:
        dataset: Name of the dataset.
        folder: Name of its folder.
        repository: Repository on the hub.
        revision: Pinned commit; None for the head, which is recorded.
        licence: Licence of the data.
        variant: Name of the variant, if the dataset has several.
        links: Whether the repository holds URLs instead of images.
        rows: Number of rows at that revision.
    """

    dataset: str
    folder: str
    repository: str
    revision: str | None
    licence: str
    variant: str | None = None
    links: bool = False
    rows: int | None = None


_PAIRS = "1cac8885e481256d3752ad0d3a0f8f9681c5f206"
_SOURCES = (
    Source(
        "paired", "Mars-VL-Pairs", "Cerru02/Mars-VL-Pairs-MTEB",
        "f0084ab0ba2f584b15dc72a82502b38ee490f58d",
        "CC BY 4.0 (captions); each image has its own source", "frozen", rows=2247,
    ),
    Source(
        "paired", "Mars-VL-Pairs", "SUSTech/Mars-VL-Pairs", _PAIRS,
        "CC BY 4.0 (captions); each image has its own source", "whole", links=True, rows=2287,
    ),
    Source(
        "paired", "Mars-VL-Pairs", "SUSTech/Mars-VL-Pairs", _PAIRS,
        "CC BY 4.0 (captions); each image has its own source", "published", links=True, rows=2287,
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
    """Look up a dataset.

    Args:
        name: `paired`, `landform` or `geolocalization`, or the name of the task or folder.
        variant: Name of a variant (default: the first one).

    Returns:
        The source.

    Raises:
        UnknownNameError: If there is no such dataset.
        UsageError: If it has no such variant.
    """
    dataset = _ALIASES.get(name.lower(), name.lower())
    sources = [source for source in _SOURCES if source.dataset == dataset]
    if not sources:
        raise UnknownNameError("dataset", name, DATASETS)
    if variant is None:
        return sources[0]
    for source in sources:
        if source.variant == variant:
            return source
    variants = [source.variant for source in sources if source.variant]
    raise UsageError(
        f"{dataset} has no variant '{variant}'",
        remedy=f"Known: {', '.join(variants)}."
        if variants
        else "It has no variants: omit the option.",
    )
