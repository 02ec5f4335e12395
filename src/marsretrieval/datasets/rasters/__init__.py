"""Cut rasters of Mars (GeoTIFF, VRT, JPEG 2000) in any projection into tiles in WebDataset tars.

Each raster becomes ``<name>.tar`` (images and their positions) and ``<name>.json``, its manifest.
Positions are planetocentric degrees, as those of the tiles of the CTX mosaic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marsretrieval.lazy import lazy_exports

if TYPE_CHECKING:
    from marsretrieval.datasets.rasters.archive import (
        RasterManifest,
        list_manifests,
        read_raster_manifest,
    )
    from marsretrieval.datasets.rasters.products import Product, find_product
    from marsretrieval.datasets.rasters.runner import (
        RasterPlan,
        RasterProblem,
        RastersPlan,
        RastersReport,
        cut_rasters,
        plan_rasters,
        split_sources,
    )
    from marsretrieval.datasets.rasters.source import SUFFIXES, Raster, open_raster
    from marsretrieval.datasets.rasters.spec import RasterSpec, parse_bands
    from marsretrieval.datasets.rasters.stretch import METHODS, Stretch, compute_stretch
    from marsretrieval.datasets.rasters.tiling import RasterTile, TilePixels, list_tiles, read_tile

__all__ = [
    "METHODS",
    "SUFFIXES",
    "Product",
    "Raster",
    "RasterManifest",
    "RasterPlan",
    "RasterProblem",
    "RasterSpec",
    "RasterTile",
    "RastersPlan",
    "RastersReport",
    "Stretch",
    "TilePixels",
    "compute_stretch",
    "cut_rasters",
    "find_product",
    "list_manifests",
    "list_tiles",
    "open_raster",
    "parse_bands",
    "plan_rasters",
    "read_raster_manifest",
    "read_tile",
    "split_sources",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "marsretrieval.datasets.rasters.archive": (
            "RasterManifest",
            "list_manifests",
            "read_raster_manifest",
        ),
        "marsretrieval.datasets.rasters.products": (
            "Product",
            "find_product",
        ),
        "marsretrieval.datasets.rasters.runner": (
            "RasterPlan",
            "RasterProblem",
            "RastersPlan",
            "RastersReport",
            "cut_rasters",
            "plan_rasters",
            "split_sources",
        ),
        "marsretrieval.datasets.rasters.source": (
            "SUFFIXES",
            "Raster",
            "open_raster",
        ),
        "marsretrieval.datasets.rasters.spec": (
            "RasterSpec",
            "parse_bands",
        ),
        "marsretrieval.datasets.rasters.stretch": (
            "METHODS",
            "Stretch",
            "compute_stretch",
        ),
        "marsretrieval.datasets.rasters.tiling": (
            "RasterTile",
            "TilePixels",
            "list_tiles",
            "read_tile",
        ),
    },
)
