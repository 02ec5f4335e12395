"""Generated planet: features scattered over regions, and regions rendered and cut into quads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets.synthetic.ground import (
    Floats,
    Ground,
    Light,
    Rng,
    band_noise,
    expose,
    shade,
)
from marsretrieval.datasets.synthetic.registry import BENCHMARK, LANDFORMS
from marsretrieval.datasets.synthetic.scene import (
    REACH,
    SCALES,
    SETTINGS,
    TILE_KM,
    add_craters,
    add_relief,
    plant,
)

TILES = round(geo.QUAD_DEG / geo.TILE_DEG)  # tiles along the edge of a quad
_GROUPS_PER_QUAD = 1.4  # groups of each landform that is not in the benchmark
_STRIP_TILES = 2.6  # width of an image strip in the mosaic


@dataclass(frozen=True, slots=True)
class TerrainRegion:
    """Neighbouring quads, drawn in one piece so that no seams are visible.

    Attributes:
        west: Longitude of the south-west corner in degrees.
        south: Latitude of the south-west corner in degrees.
        columns: Number of quads from west to east.
        rows: Number of quads from south to north.
        clusters: Number of features in the cluster of each benchmark landform.
        others: Other landforms that are scattered over the region.
    """

    west: int
    south: int
    columns: int
    rows: int
    clusters: Mapping[str, int]
    others: tuple[str, ...]

    @property
    def quads(self) -> list[tuple[int, int]]:
        """South-west corners (west, south) of the quads, from the north-west; west in -180..176."""
        return [
            (int(geo.wrap_lon(self.west + geo.QUAD_DEG * column)), self.south + geo.QUAD_DEG * row)
            for row in reversed(range(self.rows))
            for column in range(self.columns)
        ]

    @property
    def squeeze(self) -> float:
        """Size on the ground of a degree of longitude, relative to one of latitude.

        The mosaic stretches the land away from the equator, so it is drawn narrower at first.
        """
        middle = self.south + geo.QUAD_DEG * self.rows / 2
        return float(np.cos(np.radians(middle)))

    def position(self, east: float, south: float) -> tuple[float, float]:
        """Convert a position in tiles to longitude and latitude.

        Args:
            east: Tiles (0.2 degrees of latitude) east of the north-west corner.
            south: Tiles south of the north-west corner.

        Returns:
            Longitude and latitude in degrees.
        """
        lon = self.west + east * geo.TILE_DEG / self.squeeze
        lat = self.south + geo.QUAD_DEG * self.rows - south * geo.TILE_DEG
        return float(geo.wrap_lon(lon)), lat


@dataclass(frozen=True, slots=True)
class PlanetSize:
    """Amount of data to generate.

    Attributes:
        pairs: Number of images with captions.
        landform_images: Number of images with classes.
        landform_px: Smallest and largest width of those images in pixels.
        classes: Landforms among the classes; None for all.
        tile_px: Width of a tile in pixels.
        regions: Regions with quads and tiles.
        examples: Number of image queries per benchmark landform.
        version: Version of the content: the same version and seed give the same planet.
    """

    pairs: int
    landform_images: int
    landform_px: tuple[int, int]
    classes: tuple[str, ...] | None
    tile_px: int
    regions: tuple[TerrainRegion, ...]
    examples: int = 5
    version: int = 1


_EQUATOR = TerrainRegion(
    176, -4, 2, 2,
    {"yardangs": 36, "pitted_cones": 30, "alluvial_fans": 18},
    ("lava_flow", "wrinkle_ridge", "graben", "impact_crater", "rampart_crater", "crater_cluster",
     "wind_streaks", "slope_streaks", "linear_dunes", "mounds", "pit_chain"),
)  # fmt: skip
_CANYONS = TerrainRegion(
    -72, -12, 2, 1,
    {"landslides": 30, "alluvial_fans": 18, "yardangs": 20},
    ("layered_deposits", "chaos_terrain", "valley_network", "streamlined_islands", "gullies",
     "impact_crater", "barchan_dunes", "wind_streaks", "graben"),
)  # fmt: skip
_MIDDLE = TerrainRegion(
    20, 36, 1, 1,
    {"glacier-like_form": 34, "pitted_cones": 24, "landslides": 14},
    ("polygonal_terrain", "mounds", "rampart_crater", "gullies", "dust_devil_tracks",
     "crater_cluster"),
)  # fmt: skip
_POLAR = TerrainRegion(
    -60, 76, 1, 1,
    {"glacier-like_form": 6},
    ("polygonal_terrain", "barchan_dunes", "linear_dunes", "swiss_cheese_terrain",
     "araneiform_terrain", "impact_crater"),
)  # fmt: skip
_TINY = TerrainRegion(
    176, -4, 2, 1,
    dict.fromkeys(BENCHMARK, 16),
    ("impact_crater", "mounds", "linear_dunes", "lava_flow", "wrinkle_ridge"),
)  # fmt: skip

SIZES: Mapping[str, PlanetSize] = {
    "default": PlanetSize(320, 600, (96, 144), None, 64, (_EQUATOR, _CANYONS, _MIDDLE, _POLAR)),
    "small": PlanetSize(120, 260, (64, 96), None, 64, (_CANYONS, _MIDDLE, _POLAR)),
    "tiny": PlanetSize(40, 48, (64, 80), (*BENCHMARK, "impact_crater"), 64, (_TINY,), version=2),
}


@dataclass(frozen=True, slots=True)
class PlantedFeature:
    """Landform at a location of a region.

    Attributes:
        landform: Name of the landform.
        east: Tiles east of the region's north-west corner.
        south: Tiles south of the region's north-west corner.
        scale: Width of its frame in tiles.
        trend: Bearing of wind or faults around it in degrees.
        seed: Seed of its random generator.
        lon: Longitude in degrees.
        lat: Latitude in degrees.
        size_km: Largest extent; set when it is drawn.
    """

    landform: str
    east: float
    south: float
    scale: float
    trend: float
    seed: int
    lon: float
    lat: float
    size_km: float = 0.0

    @property
    def reach(self) -> float:
        """Half its width in tiles; faint traces extend a little further."""
        return 0.5 * LANDFORMS[self.landform].span * self.scale


def scatter_features(region: TerrainRegion, rng: Rng) -> list[PlantedFeature]:
    """Distribute features over a region without overlap.

    Each benchmark landform gets a cluster and a single feature, each other landform a few groups.

    Args:
        region: The region.
        rng: Random generator.

    Returns:
        The features.
    """
    features: list[PlantedFeature] = []
    for landform, count in region.clusters.items():
        # The first cluster lies where quads meet, so that features cross their seams.
        _grow_cluster(region, rng, features, landform, count, tries=60 * count, middle=not features)
        _grow_cluster(region, rng, features, landform, 1, tries=40)
    quads = region.columns * region.rows
    for landform in region.others:
        for _ in range(max(1, round(_GROUPS_PER_QUAD * quads))):
            _grow_cluster(region, rng, features, landform, int(rng.integers(2, 6)), tries=60)
    return features


def _grow_cluster(
    region: TerrainRegion,
    rng: Rng,
    features: list[PlantedFeature],
    landform: str,
    target: int,
    *,
    tries: int,
    middle: bool = False,
) -> None:
    """Grow a group from a free location: each new member is next to an earlier one."""
    width, height = region.columns * TILES * region.squeeze, float(region.rows * TILES)
    trend = float(rng.uniform(0, 360))
    members: list[PlantedFeature] = []
    for _ in range(tries):
        scale = float(rng.uniform(*SCALES))
        if members:
            origin = members[rng.integers(len(members))]
            angle = rng.uniform(0, 2 * np.pi)
            away = (0.8 * origin.reach + 0.35 * scale) * rng.uniform(0.9, 1.25)
            east, south = origin.east + away * np.cos(angle), origin.south + away * np.sin(angle)
        elif middle:
            east, south = width / 2 + rng.uniform(-0.4, 0.4), height / 2 + rng.uniform(-0.4, 0.4)
        else:
            east, south = rng.uniform(0, width), rng.uniform(0, height)
        lon, lat = region.position(float(east), float(south))
        feature = PlantedFeature(
            landform, float(east), float(south), scale, trend, int(rng.integers(2**62)), lon, lat
        )
        inside = 0.4 < east < width - 0.4 and 0.4 < south < height - 0.4
        if inside and _is_free(feature, features):
            features.append(feature)
            members.append(feature)
            if len(members) == target:
                return


def _is_free(feature: PlantedFeature, features: list[PlantedFeature]) -> bool:
    for other in features:
        # Features of the same landform may overlap a little, as in nature.
        share = 0.52 if other.landform == feature.landform else 0.85
        limit = share * (feature.reach + other.reach)
        if (other.east - feature.east) ** 2 + (other.south - feature.south) ** 2 < limit**2:
            return False
    return True


def paint(
    region: TerrainRegion, features: list[PlantedFeature], tile_px: int, rng: Rng
) -> tuple[npt.NDArray[np.uint8], list[PlantedFeature]]:
    """Render the mosaic of a region.

    Each feature uses its own seed, so the others do not depend on it.

    Args:
        region: The region.
        features: Features to draw.
        tile_px: Width of a tile in pixels.
        rng: Random generator.

    Returns:
        uint8 array of shape (rows, columns), 0 for "no data", and the features with their sizes.
    """
    rows, columns = region.rows * TILES * tile_px, region.columns * TILES * tile_px
    shape = (rows, round(columns * region.squeeze))
    land = Ground(
        np.zeros(shape, np.float32), np.zeros(shape, np.float32),
        centre=(0.0, 0.0), frame=float(tile_px),
    )  # fmt: skip
    _add_terrain(land, rng)
    rendered = [_draw_feature(land, feature) for feature in features]
    add_craters(land, rng, 0.4)
    bright = shade(land.height, land.albedo, Light())
    if shape[1] != columns:
        bright = _stretch(bright, columns)
    gain, missing = _image_strips(bright.shape, tile_px, rng)
    image = expose(bright * gain, rng)
    image[missing] = 0
    return image, rendered


def cut_quads(
    region: TerrainRegion, image: npt.NDArray[np.uint8]
) -> list[tuple[int, int, npt.NDArray[np.uint8]]]:
    """Cut the mosaic of a region into quads.

    Args:
        region: The region.
        image: Mosaic that `paint` returned.

    Returns:
        Tuples (west, south, pixels), one per quad.
    """
    edge = image.shape[0] // region.rows
    quads = []
    for index, (west, south) in enumerate(region.quads):
        row, column = divmod(index, region.columns)
        window = image[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge]
        quads.append((west, south, window))
    return quads


def _add_terrain(land: Ground, rng: Rng) -> None:
    """Add terrain whose type varies over several tiles."""
    shape, tile = land.height.shape, land.frame
    affinities = np.stack([band_noise(rng, shape, 12 * tile, 4 * tile, 2.0) for _ in SETTINGS])
    weights = np.exp(3 * (affinities - affinities.max(axis=0)))
    weights /= weights.sum(axis=0)

    def blend(values: list[float]) -> Floats:
        # No matrix product: its last bits depend on the number of threads.
        total = np.zeros(shape, dtype=np.float32)
        for value, weight in zip(values, weights, strict=True):
            total += np.float32(value) * weight
        return total

    add_relief(
        land,
        rng,
        broad=blend([kind.broad for kind in SETTINGS]),
        rough=blend([kind.rough for kind in SETTINGS]),
        knobs=blend([kind.knobs for kind in SETTINGS]),
        mottle=blend([kind.mottle for kind in SETTINGS]),
        ripples=blend([kind.ripples for kind in SETTINGS]),
    )
    land.tint(0.1 * band_noise(rng, shape, 10 * tile, 3 * tile, 2.0))
    most = max(kind.craters for kind in SETTINGS)
    keep = blend([kind.craters / most for kind in SETTINGS])
    add_craters(land, rng, most, keep, largest=0.4)


def _draw_feature(land: Ground, feature: PlantedFeature) -> PlantedFeature:
    """Draw a feature into the surrounding land."""
    landform = LANDFORMS[feature.landform]
    window = land.crop(feature.east, feature.south, feature.scale, REACH * landform.span)
    if window is None:
        return feature
    traits = plant(
        landform,
        window,
        np.random.default_rng(feature.seed),
        centre=window.centre,
        frame=window.frame,
        span=landform.span,
        trend=feature.trend,
    )
    size = landform.span if landform.field else traits.size
    return replace(feature, size_km=size * feature.scale * TILE_KM)


def _stretch(bright: Floats, columns: int) -> Floats:
    from PIL import Image

    image = Image.fromarray(bright).resize((columns, bright.shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _image_strips(
    shape: tuple[int, ...], tile_px: int, rng: Rng
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return the brightness of the mosaic's image strips, and a mask of the gaps between them.

    Strips are inclined like the tracks of a polar orbit.
    """
    y, x = np.ogrid[: shape[0], : shape[1]]
    position = (x + 0.12 * y) / (_STRIP_TILES * tile_px) + rng.random()
    strip = position.astype(np.int64)
    gains = rng.normal(1, 0.035, int(strip.max()) + 1).astype(np.float32)
    missing = np.zeros(shape, dtype=np.bool_)
    for number in range(1, int(strip.max()) + 1):
        if rng.random() < 0.35:
            middle, half = rng.uniform(0, shape[0]), rng.uniform(2, 5) * tile_px
            width = rng.uniform(0.02, 0.07) * np.clip(1 - np.abs(y - middle) / half, 0, 1)
            missing |= np.abs(position - number) < width
    return gains[strip], missing
