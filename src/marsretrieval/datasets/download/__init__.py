"""Downloads of the benchmark's datasets, pinned to a revision and verified.

Folders below `out` are in the layouts that the readers accept: ``Mars-VL-Pairs/`` (Parquet, or
WebDataset tars in the variants from links), ``Mars-Landforms/`` (Parquet) and
``Mars-Global-Geolocalization/`` (ground_truth, image_queries). Each holds a ``download.json`` with
repository, revision, variant, time, counts, missing images and the SHA-256 of every file.
"""

from marsretrieval.datasets.download.dataset import download, plan_download
from marsretrieval.datasets.download.links import LinkSettings
from marsretrieval.datasets.download.record import DownloadRecord, read_record
from marsretrieval.datasets.download.report import KNOWN_GONE, MAX_MISSING, Missing, Plan, Report
from marsretrieval.datasets.download.sources import DATASETS, Source, find_source
from marsretrieval.datasets.listing import readable_bytes

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
