"""Readers of images, captions, labels and points.

`open_images` and `open_sources` choose the reader for a path: a folder of images, WebDataset tars,
Parquet files or a dataset saved in Arrow format. `read_ground_truth` and `read_points` read
catalogues of points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marsretrieval.lazy import lazy_exports

if TYPE_CHECKING:
    from marsretrieval.datasets.arrow import ArrowSource
    from marsretrieval.datasets.base import (
        ImageSource,
        ItemWarning,
        Record,
        RepeatedKey,
        Shard,
        Skipped,
        annotated_hash,
        content_hash,
        set_hash,
    )
    from marsretrieval.datasets.folder import FolderSource
    from marsretrieval.datasets.ground_truth import (
        CatalogueFiles,
        Points,
        catalogue_files,
        read_catalogues,
        read_ground_truth,
        read_image_queries,
        read_points,
    )
    from marsretrieval.datasets.images import (
        MAX_BYTES,
        decode_image,
        decode_rgb,
        make_thumbnail,
        rgb_of,
    )
    from marsretrieval.datasets.listing import read_regular
    from marsretrieval.datasets.open import (
        CombinedSource,
        open_images,
        open_sources,
        read_annotations,
    )
    from marsretrieval.datasets.parquet import ParquetSource
    from marsretrieval.datasets.positions import PositionColumns, TileCoverage, coverage_line
    from marsretrieval.datasets.webdataset import WebDatasetSource, read_members

__all__ = [
    "MAX_BYTES",
    "ArrowSource",
    "CatalogueFiles",
    "CombinedSource",
    "FolderSource",
    "ImageSource",
    "ItemWarning",
    "ParquetSource",
    "Points",
    "PositionColumns",
    "Record",
    "RepeatedKey",
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
    "make_thumbnail",
    "open_images",
    "open_sources",
    "read_annotations",
    "read_catalogues",
    "read_ground_truth",
    "read_image_queries",
    "read_members",
    "read_points",
    "read_regular",
    "rgb_of",
    "set_hash",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "marsretrieval.datasets.arrow": ("ArrowSource",),
        "marsretrieval.datasets.base": (
            "ImageSource",
            "ItemWarning",
            "Record",
            "RepeatedKey",
            "Shard",
            "Skipped",
            "annotated_hash",
            "content_hash",
            "set_hash",
        ),
        "marsretrieval.datasets.folder": ("FolderSource",),
        "marsretrieval.datasets.ground_truth": (
            "CatalogueFiles",
            "Points",
            "catalogue_files",
            "read_catalogues",
            "read_ground_truth",
            "read_image_queries",
            "read_points",
        ),
        "marsretrieval.datasets.images": (
            "MAX_BYTES",
            "decode_image",
            "decode_rgb",
            "make_thumbnail",
            "rgb_of",
        ),
        "marsretrieval.datasets.open": (
            "CombinedSource",
            "open_images",
            "open_sources",
            "read_annotations",
        ),
        "marsretrieval.datasets.parquet": ("ParquetSource",),
        "marsretrieval.datasets.positions": (
            "PositionColumns",
            "TileCoverage",
            "coverage_line",
        ),
        "marsretrieval.datasets.listing": ("read_regular",),
        "marsretrieval.datasets.webdataset": ("WebDatasetSource", "read_members"),
    },
)
