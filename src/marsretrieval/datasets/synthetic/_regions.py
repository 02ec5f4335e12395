"""Where on the planet there is land, and what grows where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from marsretrieval import geo
from marsretrieval.datasets.synthetic._registry import BENCHMARK

TILES = round(geo.QUAD_DEG / geo.TILE_DEG)  # tiles along the edge of a quad


@dataclass(frozen=True, slots=True)
class Region:
    """Neighbouring quads, drawn in one piece so that nothing shows where they meet.

    `west`, `south` are degrees of the south-west corner; `clusters` says how many of each
    benchmark landform stand together, `others` what else is scattered about.
    """

    west: int
    south: int
    columns: int
    rows: int
    clusters: Mapping[str, int]
    others: tuple[str, ...]

    @property
    def quads(self) -> list[tuple[int, int]]:
        """(west, south) of the quads, west in -180..176, from the north-west on."""
        return [
            (int(geo.wrap_lon(self.west + geo.QUAD_DEG * column)), self.south + geo.QUAD_DEG * row)
            for row in reversed(range(self.rows))
            for column in range(self.columns)
        ]

    @property
    def squeeze(self) -> float:
        """East-west size on the ground of a degree, relative to north-south.

        Away from the equator the mosaic stretches the land, so it is drawn narrower at first.
        """
        middle = self.south + geo.QUAD_DEG * self.rows / 2
        return float(np.cos(np.radians(middle)))

    def position(self, east: float, south: float) -> tuple[float, float]:
        """(lon, lat) of a point so many tiles (0.2 degrees of latitude) from the north-west."""
        lon = self.west + east * geo.TILE_DEG / self.squeeze
        lat = self.south + geo.QUAD_DEG * self.rows - south * geo.TILE_DEG
        return float(geo.wrap_lon(lon)), lat


@dataclass(frozen=True, slots=True)
class PlanetSize:
    """How much is made."""

    pairs: int
    landform_images: int
    landform_px: tuple[int, int]  # smallest and largest edge
    classes: tuple[str, ...] | None  # None: all
    tile_px: int
    regions: tuple[Region, ...]
    examples: int = 5  # image queries of each benchmark landform
    version: int = 1  # the same version and seed give the same planet


_EQUATOR = Region(
    176, -4, 2, 2,
    {"yardangs": 36, "pitted_cones": 30, "alluvial_fans": 18},
    ("lava_flow", "wrinkle_ridge", "graben", "impact_crater", "rampart_crater", "crater_cluster",
     "wind_streaks", "slope_streaks", "linear_dunes", "mounds", "pit_chain"),
)  # fmt: skip
_CANYONS = Region(
    -72, -12, 2, 1,
    {"landslides": 30, "alluvial_fans": 18, "yardangs": 20},
    ("layered_deposits", "chaos_terrain", "valley_network", "streamlined_islands", "gullies",
     "impact_crater", "barchan_dunes", "wind_streaks", "graben"),
)  # fmt: skip
_MIDDLE = Region(
    20, 36, 1, 1,
    {"glacier-like_form": 34, "pitted_cones": 24, "landslides": 14},
    ("polygonal_terrain", "mounds", "rampart_crater", "gullies", "dust_devil_tracks",
     "crater_cluster"),
)  # fmt: skip
_POLAR = Region(
    -60, 76, 1, 1,
    {"glacier-like_form": 6},
    ("polygonal_terrain", "barchan_dunes", "linear_dunes", "swiss_cheese_terrain",
     "araneiform_terrain", "impact_crater"),
)  # fmt: skip
_TINY = Region(
    176, -4, 2, 1,
    dict.fromkeys(BENCHMARK, 16),
    ("impact_crater", "mounds", "linear_dunes", "lava_flow", "wrinkle_ridge"),
)  # fmt: skip

SIZES: Mapping[str, PlanetSize] = {
    "default": PlanetSize(320, 600, (96, 144), None, 64, (_EQUATOR, _CANYONS, _MIDDLE, _POLAR)),
    "small": PlanetSize(120, 260, (64, 96), None, 64, (_CANYONS, _MIDDLE, _POLAR)),
    "tiny": PlanetSize(40, 48, (64, 80), (*BENCHMARK, "impact_crater"), 64, (_TINY,), version=2),
}
