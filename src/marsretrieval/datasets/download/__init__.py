"""Downloads of the benchmark's datasets, pinned to a revision and verified.

Folders below `out` are in the layouts that the readers accept: ``Mars-VL-Pairs/`` (Parquet, or
WebDataset tars in the variants from links), ``Mars-Landforms/`` (Parquet) and
``Mars-Global-Geolocalization/`` (ground_truth, image_queries). Each holds a ``download.json`` with
repository, revision, variant, time, counts, missing images and the SHA-256 of every file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marsretrieval.lazy import lazy_exports

if TYPE_CHECKING:
    from marsretrieval.datasets.download.dataset import download, plan_download
    from marsretrieval.datasets.download.links import LinkSettings
    from marsretrieval.datasets.download.report import (
        KNOWN_GONE,
        MAX_MISSING,
        Missing,
        Plan,
        Report,
    )
    from marsretrieval.datasets.download.sources import DATASETS, Source, find_source
    from marsretrieval.datasets.listing import readable_bytes
    from marsretrieval.datasets.records import DownloadRecord, read_record

__all__ = [
    "DATASETS",
    "KNOWN_GONE",
    "MAX_MISSING",
    "DownloadRecord",
    "LinkSettings",
    "Missing",
    "Plan",
    "Report",
    "Source",
    "download",
    "find_source",
    "plan_download",
    "read_record",
    "readable_bytes",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "marsretrieval.datasets.download.dataset": (
            "download",
            "plan_download",
        ),
        "marsretrieval.datasets.download.links": ("LinkSettings",),
        "marsretrieval.datasets.records": (
            "DownloadRecord",
            "read_record",
        ),
        "marsretrieval.datasets.download.report": (
            "KNOWN_GONE",
            "MAX_MISSING",
            "Missing",
            "Plan",
            "Report",
        ),
        "marsretrieval.datasets.download.sources": (
            "DATASETS",
            "Source",
            "find_source",
        ),
        "marsretrieval.datasets.listing": ("readable_bytes",),
    },
)
