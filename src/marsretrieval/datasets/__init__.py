"""Where images, captions, labels and points come from: every layout through one door."""

from marsretrieval.datasets._annotations import read_annotations
from marsretrieval.datasets._folder import FolderSource
from marsretrieval.datasets._hashing import annotated_hash, content_hash, set_hash
from marsretrieval.datasets._images import decode_rgb
from marsretrieval.datasets._open import open_images
from marsretrieval.datasets._parquet import ParquetSource
from marsretrieval.datasets._points import (
    Points,
    read_ground_truth,
    read_image_queries,
    read_points,
)
from marsretrieval.datasets._protocol import ImageSource, ItemWarning, Record, Shard, Skipped
from marsretrieval.datasets._webdataset import WebDatasetSource

__all__ = [
    "FolderSource",
    "ImageSource",
    "ItemWarning",
    "ParquetSource",
    "Points",
    "Record",
    "Shard",
    "Skipped",
    "WebDatasetSource",
    "annotated_hash",
    "content_hash",
    "decode_rgb",
    "open_images",
    "read_annotations",
    "read_ground_truth",
    "read_image_queries",
    "read_points",
    "set_hash",
]
