"""The planet itself: features scattered over regions, regions painted and cut into quads."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets.synthetic._ground import Floats, Ground, Rng, band_noise
from marsretrieval.datasets.synthetic._light import Light, expose, shade
from marsretrieval.datasets.synthetic._regions import TILES, Region
from marsretrieval.datasets.synthetic._registry import LANDFORMS
from marsretrieval.datasets.synthetic._scene import REACH, SCALES, TILE_KM, plant
from marsretrieval.datasets.synthetic._terrain import SETTINGS, lay, strew_craters

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
