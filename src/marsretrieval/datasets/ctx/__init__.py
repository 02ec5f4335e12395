"""Tiles of the Murray Lab CTX mosaic: quads, local or fetched, cut into WebDataset tars.

Every quad becomes ``<quad>.tar`` (grey images and their positions) and ``<quad>.json``, the
manifest. Positions come from the formula of the sphere, never from PROJ.
"""

from __future__ import annotations

from marsretrieval.datasets._disk import readable_bytes
from marsretrieval.datasets.ctx._fetch import FetchSettings
from marsretrieval.datasets.ctx._grid import FORMATS, Tile, TileSpec, tile_rows
from marsretrieval.datasets.ctx._inputs import Input, Problem, find_files, select_quads
from marsretrieval.datasets.ctx._job import JobSettings, cut_quads, plan
from marsretrieval.datasets.ctx._mosaic import (
    SERVER,
    Quad,
    all_quads,
    parse_quads,
    part_outside,
    quads_in,
)
from marsretrieval.datasets.ctx._pack import QuadManifest, read_manifest
from marsretrieval.datasets.ctx._report import Plan, Report
from marsretrieval.datasets.download.http import ServerError

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
