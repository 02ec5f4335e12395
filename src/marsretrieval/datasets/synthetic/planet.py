"""The planet itself: features scattered over regions, regions painted and cut into quads."""

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
    Traits,
    band_noise,
    expose,
    shade,
    smoothstep,
)
from marsretrieval.datasets.synthetic.landforms_impact_tectonic import bowl
from marsretrieval.datasets.synthetic.registry import BENCHMARK, LANDFORMS, Landform, find

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


@dataclass(frozen=True, slots=True)
class Setting:
    """A kind of terrain. Slopes are root mean square; lengths in tiles."""

    name: str  # as captions call it
    broad: float  # slope of swells and hills
    rough: float  # slope of the fine texture
    knobs: float  # slope of the relief in between
    craters: float  # small ones per tile
    mottle: float  # deviation of the albedo
    ripples: float = 0.0  # slope of wind ripples


SETTINGS = (
    Setting("smooth plains", broad=0.025, rough=0.022, knobs=0.012, craters=0.8, mottle=0.02),
    Setting("cratered plains", broad=0.035, rough=0.035, knobs=0.025, craters=7.0, mottle=0.03),
    Setting("rugged highlands", broad=0.11, rough=0.06, knobs=0.06, craters=2.5, mottle=0.03),
    Setting("hummocky ground", broad=0.04, rough=0.04, knobs=0.11, craters=1.0, mottle=0.03),
    Setting("dust-mantled ground", broad=0.06, rough=0.01, knobs=0.01, craters=0.4, mottle=0.05),
    Setting("rippled ground", broad=0.03, rough=0.03, knobs=0.015, craters=0.8, mottle=0.03,
            ripples=0.06),
    Setting("mottled plains", broad=0.03, rough=0.03, knobs=0.02, craters=1.5, mottle=0.1),
)  # fmt: skip


def lay(
    ground: Ground,
    rng: Rng,
    *,
    broad: Floats | float,
    rough: Floats | float,
    knobs: Floats | float,
    mottle: Floats | float,
    ripples: Floats | float,
) -> None:
    """Add relief and mottling to `ground`, whose frame is a tile; strengths may vary by pixel."""
    ground.height += _of_unit_slope(ground.noise(rng, 2.5, 0.25, 2.2)) * broad
    ground.height += _of_unit_slope(ground.noise(rng, 0.6, 0.1, 1.7)) * knobs
    ground.height += _of_unit_slope(ground.noise(rng, 0.16, 0.015, 1.3)) * rough
    if np.any(ripples):
        bearing = rng.uniform(0, 180)
        _, across = ground.axes(bearing)
        phase = across / np.float32(0.055) + 0.35 * ground.noise(rng, 0.8, 0.15, 2.0)
        crests = np.cos(np.float32(2 * np.pi) * phase)
        patchy = np.clip(ground.noise(rng, 1.5, 0.3, 2.0) + 0.9, 0, 1)
        ground.height += _of_unit_slope(crests) * patchy * ripples
    ground.tint(ground.noise(rng, 1.5, 0.06, 1.4) * mottle)


def strew_craters(
    ground: Ground, rng: Rng, density: float, keep: Floats | float = 1.0, *, largest: float = 0.14
) -> None:
    """Small craters of all ages, `density` per tile where `keep` (a share, by pixel) is 1.

    `largest` is a radius in tiles.
    """
    rows, columns = ground.height.shape
    area = rows * columns / ground.frame**2
    for _ in range(int(rng.poisson(density * area))):
        x, y = rng.random() * columns, rng.random() * rows
        radius = min(0.016 * (1 + rng.pareto(1.9)), largest)
        age, phase, chance = rng.random(), rng.uniform(0, 6), rng.random()
        share = keep if isinstance(keep, float) else keep[int(y), int(x)]
        if chance > share:
            continue
        place = ((x - ground.centre[0]) / ground.frame, (y - ground.centre[1]) / ground.frame)
        spot = ground.spot(*place, radius, 2.4)
        if spot is not None:
            bowl(
                spot,
                depth=0.42 - 0.32 * age,
                rim=0.14 - 0.11 * age,
                floor=0.4 * age,
                wobble=0.02 + 0.03 * age,
                phase=phase,
            )


def _of_unit_slope(height: Floats) -> Floats:
    slope = float(np.diff(height, axis=1).std())
    return height / np.float32(slope) if slope > 0 else height


TILE_KM = float(np.radians(geo.TILE_DEG)) * geo.MARS_RADIUS_M / 1000
SCALES = (0.8, 1.15)  # a landform's frame in tiles, from the smallest to the largest

REACH = 0.6  # of a span: further from its place a landform changes nothing

_PARTIAL_SPAN = 1.0


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a picture shows, for its caption."""

    landform: str
    size_km: float | None  # None where it runs beyond the picture on all sides
    count: int | None
    bearing: float | None  # degrees clockwise from north
    flows: bool  # the bearing has a sense: downslope or downwind
    detail: str
    place: tuple[float, float] | None  # its middle: east, south of the picture's, in tiles
    setting: str
    tone: float  # albedo of the ground beside the ordinary one


def sample(landform: str, rng: Rng, size_px: int = 64) -> tuple[npt.NDArray[np.uint8], Attributes]:
    """A grey picture (size_px, size_px) uint8, one tile wide, with that landform in it.

    Place, size, orientation, number, terrain and light vary. Raises UnknownNameError.
    """
    return picture(find(landform), rng, (size_px, size_px))


def picture(
    landform: Landform, rng: Rng, shape: tuple[int, int]
) -> tuple[npt.NDArray[np.uint8], Attributes]:
    """As `sample`, with rows and columns; the smaller of them is the width of a tile."""
    tile = float(min(shape))
    middle = (shape[1] / 2, shape[0] / 2)
    ground = Ground(
        np.zeros(shape, np.float32), np.zeros(shape, np.float32), centre=middle, frame=tile
    )
    setting = SETTINGS[rng.integers(len(SETTINGS))]
    tone = float(np.clip(rng.normal(0, 0.12), -0.25, 0.25))
    strength = rng.uniform(0.75, 1.25)
    lay(
        ground,
        rng,
        broad=setting.broad * strength,
        rough=setting.rough * strength,
        knobs=setting.knobs * strength,
        mottle=setting.mottle,
        ripples=setting.ripples,
    )
    ground.tint(tone)
    strew_craters(ground, rng, setting.craters)

    scale = float(rng.uniform(*SCALES))
    partial = landform.field and bool(rng.random() < 0.35)
    shift = 0.34 if partial else 0.2
    place = (float(rng.uniform(-shift, shift)), float(rng.uniform(-shift, shift)))
    centre = (middle[0] + place[0] * tile, middle[1] + place[1] * tile)
    span = _PARTIAL_SPAN if partial else None
    traits = plant(landform, ground, rng, centre=centre, frame=scale * tile, span=span)
    strew_craters(ground, rng, 0.5)

    light = Light(288 + rng.normal(0, 8), float(np.clip(rng.normal(35, 3), 28, 44)))
    image = expose(shade(ground.height, ground.albedo, light), rng, noise=rng.uniform(0.006, 0.018))
    filled = landform.field and not partial
    size = _PARTIAL_SPAN if partial else traits.size
    return image, Attributes(
        landform=landform.name,
        size_km=None if filled else size * scale * TILE_KM,
        count=None if partial else traits.count or None,
        bearing=traits.bearing,
        flows=traits.flows,
        detail=traits.detail,
        place=None if filled else place,
        setting=setting.name,
        tone=tone,
    )


def plant(
    landform: Landform,
    ground: Ground,
    rng: Rng,
    *,
    centre: tuple[float, float],
    frame: float,
    span: float | None,
    trend: float | None = None,
) -> Traits:
    """Draw a landform at `centre` (x, y) of `ground`, both in pixels, as `frame` pixels wide.

    With a `span` (in frames) it fades into the ground and ends within `REACH` of that; without,
    it may run on to the edge of the ground.
    """
    drawn = Ground(
        ground.height.copy(), ground.albedo.copy(), centre=centre, frame=frame, trend=trend
    )
    traits = landform.draw(drawn, rng)
    if span is None:
        ground.height[:], ground.albedo[:] = drawn.height, drawn.albedo
        return traits
    # A field ends raggedly; one thing with its slopes runs out into the plain around it.
    finest, inner = (0.1, 0.3) if landform.field else (0.3 * span, 0.22)
    ragged = np.clip(drawn.noise(rng, 0.5 * span, finest, 1.8), -2.5, 2.5)
    edge = drawn.radius() + 0.045 * span * ragged
    cover = 1 - smoothstep(edge, inner * span, 0.48 * span)
    ground.height += cover * (drawn.height - ground.height)
    ground.albedo += cover * (drawn.albedo - ground.albedo)
    return traits


_GROUPS_PER_QUAD = 1.4  # groups of each other landform
_STRIP_TILES = 2.6  # width of a strip of pictures in the mosaic


@dataclass(frozen=True, slots=True)
class Feature:
    """A landform planted at a place; `east`, `south` are tiles from the region's north-west."""

    landform: str
    east: float
    south: float
    scale: float  # its frame in tiles
    trend: float  # bearing of wind or faults around it
    seed: int
    lon: float
    lat: float
    size_km: float = 0.0  # known once it is drawn

    @property
    def reach(self) -> float:
        """Half its width in tiles; its last traces reach a little further."""
        return 0.5 * LANDFORMS[self.landform].span * self.scale


def scatter_features(region: Region, rng: Rng) -> list[Feature]:
    """A cluster and a stray of each benchmark landform, and groups of the others, well apart."""
    found: list[Feature] = []
    for landform, count in region.clusters.items():
        # The first cluster lies where quads meet, so that something crosses their seams.
        _cluster(region, rng, found, landform, count, tries=60 * count, middle=not found)
        _cluster(region, rng, found, landform, 1, tries=40)
    quads = region.columns * region.rows
    for landform in region.others:
        for _ in range(max(1, round(_GROUPS_PER_QUAD * quads))):
            _cluster(region, rng, found, landform, int(rng.integers(2, 6)), tries=60)
    return found


def _cluster(
    region: Region,
    rng: Rng,
    found: list[Feature],
    landform: str,
    wanted: int,
    *,
    tries: int,
    middle: bool = False,
) -> None:
    """Grow a group outward from a free place: each new member stands next to an earlier one."""
    width, height = region.columns * TILES * region.squeeze, float(region.rows * TILES)
    trend = float(rng.uniform(0, 360))
    members: list[Feature] = []
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
        feature = Feature(
            landform, float(east), float(south), scale, trend, int(rng.integers(2**62)), lon, lat
        )
        inside = 0.4 < east < width - 0.4 and 0.4 < south < height - 0.4
        if inside and _is_free(feature, found):
            found.append(feature)
            members.append(feature)
            if len(members) == wanted:
                return


def _is_free(feature: Feature, found: list[Feature]) -> bool:
    for other in found:
        # Members of one field may run into each other, as they would in nature.
        share = 0.52 if other.landform == feature.landform else 0.85
        limit = share * (feature.reach + other.reach)
        if (other.east - feature.east) ** 2 + (other.south - feature.south) ** 2 < limit**2:
            return False
    return True


def paint(
    region: Region, features: list[Feature], tile_px: int, rng: Rng
) -> tuple[npt.NDArray[np.uint8], list[Feature]]:
    """The mosaic of a region (rows, columns) uint8, and the features with their sizes.

    0 is "no data". Each feature draws from its own seed: the others do not depend on it.
    """
    rows, columns = region.rows * TILES * tile_px, region.columns * TILES * tile_px
    shape = (rows, round(columns * region.squeeze))
    land = Ground(
        np.zeros(shape, np.float32), np.zeros(shape, np.float32),
        centre=(0.0, 0.0), frame=float(tile_px),
    )  # fmt: skip
    _lay_settings(land, rng)
    drawn = [_plant(land, feature) for feature in features]
    strew_craters(land, rng, 0.4)
    bright = shade(land.height, land.albedo, Light())
    if shape[1] != columns:
        bright = _stretch(bright, columns)
    gain, missing = _strips(bright.shape, tile_px, rng)
    image = expose(bright * gain, rng)
    image[missing] = 0
    return image, drawn


def cut_quads(
    region: Region, image: npt.NDArray[np.uint8]
) -> list[tuple[int, int, npt.NDArray[np.uint8]]]:
    """(west, south, pixels) of each quad of a painted region."""
    edge = image.shape[0] // region.rows
    quads = []
    for index, (west, south) in enumerate(region.quads):
        row, column = divmod(index, region.columns)
        window = image[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge]
        quads.append((west, south, window))
    return quads


def _lay_settings(land: Ground, rng: Rng) -> None:
    """Terrain whose kind changes from place to place over several tiles."""
    shape, tile = land.height.shape, land.frame
    likings = np.stack([band_noise(rng, shape, 12 * tile, 4 * tile, 2.0) for _ in SETTINGS])
    weights = np.exp(3 * (likings - likings.max(axis=0)))
    weights /= weights.sum(axis=0)

    def blend(values: list[float]) -> Floats:
        # Not by a matrix product: its last bits depend on the number of threads.
        total = np.zeros(shape, dtype=np.float32)
        for value, weight in zip(values, weights, strict=True):
            total += np.float32(value) * weight
        return total

    lay(
        land,
        rng,
        broad=blend([each.broad for each in SETTINGS]),
        rough=blend([each.rough for each in SETTINGS]),
        knobs=blend([each.knobs for each in SETTINGS]),
        mottle=blend([each.mottle for each in SETTINGS]),
        ripples=blend([each.ripples for each in SETTINGS]),
    )
    land.tint(0.1 * band_noise(rng, shape, 10 * tile, 3 * tile, 2.0))
    most = max(each.craters for each in SETTINGS)
    keep = blend([each.craters / most for each in SETTINGS])
    strew_craters(land, rng, most, keep, largest=0.4)


def _plant(land: Ground, feature: Feature) -> Feature:
    """Draw a feature into the land around it."""
    landform = LANDFORMS[feature.landform]
    window = land.spot(feature.east, feature.south, feature.scale, REACH * landform.span)
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


def _strips(shape: tuple[int, ...], tile_px: int, rng: Rng) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Brightness of the strips that a mosaic is made of, and the gores left between them.

    Strips lean as the tracks of a polar orbit do.
    """
    y, x = np.ogrid[: shape[0], : shape[1]]
    place = (x + 0.12 * y) / (_STRIP_TILES * tile_px) + rng.random()
    strip = place.astype(np.int64)
    gains = rng.normal(1, 0.035, int(strip.max()) + 1).astype(np.float32)
    missing = np.zeros(shape, dtype=np.bool_)
    for number in range(1, int(strip.max()) + 1):
        if rng.random() < 0.35:
            middle, half = rng.uniform(0, shape[0]), rng.uniform(2, 5) * tile_px
            width = rng.uniform(0.02, 0.07) * np.clip(1 - np.abs(y - middle) / half, 0, 1)
            missing |= np.abs(place - number) < width
    return gains[strip], missing
