"""Cut quads of the Murray Lab CTX mosaic into tiles in WebDataset tars.

Quads are local files or are downloaded. Each quad becomes ``<quad>.tar`` (grey images and their
positions) and ``<quad>.json``, its manifest. Positions are computed on the sphere, without PROJ.
"""

from __future__ import annotations

from marsretrieval.datasets.ctx.archive import QuadManifest, read_manifest
from marsretrieval.datasets.ctx.grid import FORMATS, Tile, TileSpec, tile_rows
from marsretrieval.datasets.ctx.mosaic import (
    SERVER,
    Input,
    Problem,
    Quad,
    all_quads,
    find_files,
    parse_quads,
    part_outside,
    quads_in,
    select_quads,
)
from marsretrieval.datasets.ctx.runner import (
    FetchSettings,
    JobSettings,
    Plan,
    Report,
    cut_quads,
    plan,
)
from marsretrieval.datasets.download.http import ServerError
from marsretrieval.datasets.listing import readable_bytes

__all__ = [
    "FORMATS",
    "SERVER",
    "FetchSettings",
    "Input",
    "JobSettings",
    "Plan",
    "Problem",
    "Quad",
    "QuadManifest",
    "Report",
    "ServerError",
    "Tile",
    "TileSpec",
    "all_quads",
    "cut_quads",
    "find_files",
    "parse_quads",
    "part_outside",
    "plan",
    "quads_in",
    "read_manifest",
    "readable_bytes",
    "select_quads",
    "tile_rows",
]
