"""Downloads of the benchmark's datasets: pinned, checked, resumable, with a record of what came.

Folders below `out` are in the layouts that the readers take: ``Mars-VL-Pairs/`` (WebDataset tars,
or Parquet in the frozen variant), ``Mars-Landforms/`` (Parquet), ``Mars-Global-Geolocalization/``
(ground_truth, image_queries). Each holds a ``download.json``: repository, revision, variant, time,
counts, what is missing, and the SHA-256 of every file.
"""

from marsretrieval.datasets._disk import readable_bytes
from marsretrieval.datasets.download._download import download, plan_download
from marsretrieval.datasets.download._record import read_record
from marsretrieval.datasets.download._report import KNOWN_GONE, MAX_MISSING, Missing, Plan, Report
from marsretrieval.datasets.download._settings import FetchSettings
from marsretrieval.datasets.download._sources import DATASETS, Source, find_source

__all__ = [
    "DATASETS",
    "KNOWN_GONE",
    "MAX_MISSING",
    "FetchSettings",
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
