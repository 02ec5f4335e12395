"""Where images, captions, labels and points come from: every layout through one door."""

from marsretrieval.datasets._annotations import read_annotations
from marsretrieval.datasets._combined import CombinedSource, open_sources
from marsretrieval.datasets._folder import FolderSource
from marsretrieval.datasets._hashing import annotated_hash, content_hash, set_hash
from marsretrieval.datasets._images import MAX_BYTES, decode_image, decode_rgb
from marsretrieval.datasets._open import open_images
from marsretrieval.datasets._parquet import ParquetSource
from marsretrieval.datasets._pixels import rgb_of
from marsretrieval.datasets._points import (
    CatalogueFiles,
    Points,
    catalogue_files,
    read_catalogues,
    read_ground_truth,
    read_image_queries,
    read_points,
)
from marsretrieval.datasets._protocol import ImageSource, ItemWarning, Record, Shard, Skipped
from marsretrieval.datasets._source_file import read_regular
from marsretrieval.datasets._webdataset import WebDatasetSource
from marsretrieval.datasets.positions import PositionColumns, TileCoverage, coverage_line

__all__ = [
    "MAX_BYTES",
    "CatalogueFiles",
    "CombinedSource",
    "FolderSource",
    "ImageSource",
    "ItemWarning",
    "ParquetSource",
    "Points",
    "PositionColumns",
    "Record",
    "Shard",
    "Skipped",
    "TileCoverage",
    "WebDatasetSource",
    "annotated_hash",
    "catalogue_files",
    "content_hash",
    "coverage_line",
    "decode_image",
    "decode_rgb",
    "open_images",
    "open_sources",
    "read_annotations",
    "read_catalogues",
    "read_ground_truth",
    "read_image_queries",
    "read_points",
    "read_regular",
    "rgb_of",
    "set_hash",
]
