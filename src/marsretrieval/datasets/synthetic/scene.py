"""Scenes of one landform: terrain, small craters, and the landform itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets.synthetic.ground import (
    Floats,
    Ground,
    Light,
    Rng,
    Traits,
    expose,
    shade,
    smoothstep,
)
from marsretrieval.datasets.synthetic.landforms_impact_tectonic import bowl
from marsretrieval.datasets.synthetic.registry import Landform, find

TILE_KM = float(np.radians(geo.TILE_DEG)) * geo.MARS_RADIUS_M / 1000
SCALES = (0.8, 1.15)  # a landform's frame in tiles, from the smallest to the largest
REACH = 0.6  # a landform changes nothing farther from its centre than this part of its span
_PARTIAL_SPAN = 1.0


@dataclass(frozen=True, slots=True)
class Setting:
    """Type of terrain. Slopes are root mean square; lengths are in tiles.

    Attributes:
        name: Name in captions.
        broad: Slope of swells and hills.
        rough: Slope of the fine texture.
        knobs: Slope of the relief in between.
        craters: Number of small craters per tile.
        mottle: Standard deviation of the albedo.
        ripples: Slope of wind ripples.
    """

    name: str
    broad: float
    rough: float
    knobs: float
    craters: float
    mottle: float
    ripples: float = 0.0


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


def add_relief(
    ground: Ground,
    rng: Rng,
    *,
    broad: Floats | float,
    rough: Floats | float,
    knobs: Floats | float,
    mottle: Floats | float,
    ripples: Floats | float,
) -> None:
    """Add relief and mottling to a ground whose frame is a tile.

    Args:
        ground: Ground to modify.
        rng: Random generator.
        broad: Slope of swells and hills; this and the others may vary by pixel.
        rough: Slope of the fine texture.
        knobs: Slope of the relief in between.
        mottle: Standard deviation of the albedo.
        ripples: Slope of wind ripples.
    """
    ground.height += _normalize_slope(ground.noise(rng, 2.5, 0.25, 2.2)) * broad
    ground.height += _normalize_slope(ground.noise(rng, 0.6, 0.1, 1.7)) * knobs
    ground.height += _normalize_slope(ground.noise(rng, 0.16, 0.015, 1.3)) * rough
    if np.any(ripples):
        bearing = rng.uniform(0, 180)
        _, across = ground.axes(bearing)
        phase = across / np.float32(0.055) + 0.35 * ground.noise(rng, 0.8, 0.15, 2.0)
        crests = np.cos(np.float32(2 * np.pi) * phase)
        patchy = np.clip(ground.noise(rng, 1.5, 0.3, 2.0) + 0.9, 0, 1)
        ground.height += _normalize_slope(crests) * patchy * ripples
    ground.tint(ground.noise(rng, 1.5, 0.06, 1.4) * mottle)


def add_craters(
    ground: Ground, rng: Rng, density: float, keep: Floats | float = 1.0, *, largest: float = 0.14
) -> None:
    """Add small craters of all ages.

    Args:
        ground: Ground to modify, whose frame is a tile.
        rng: Random generator.
        density: Mean number of craters per tile where `keep` is 1.
        keep: Share of the craters that are drawn (0 to 1), one value or one per pixel.
        largest: Largest radius in tiles.
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
        position = ((x - ground.centre[0]) / ground.frame, (y - ground.centre[1]) / ground.frame)
        spot = ground.crop(*position, radius, 2.4)
        if spot is not None:
            bowl(
                spot,
                depth=0.42 - 0.32 * age,
                rim=0.14 - 0.11 * age,
                floor=0.4 * age,
                wobble=0.02 + 0.03 * age,
                phase=phase,
            )


def _normalize_slope(height: Floats) -> Floats:
    slope = float(np.diff(height, axis=1).std())
    return height / np.float32(slope) if slope > 0 else height


@dataclass(frozen=True, slots=True)
class Attributes:
    """Content of an image, for its caption.

    Attributes:
        landform: Name of the landform.
        size_km: Largest extent; None if it extends beyond the image on all sides.
        count: Number of objects, or None if they cannot be counted.
        bearing: Bearing of the flow or long axis in degrees clockwise from north.
        flows: Whether the bearing has a sense: downslope or downwind.
        detail: Further description.
        offset: Offset (east, south) of its middle from that of the image, in tiles.
        setting: Type of terrain.
        tone: Albedo of the ground, relative to the average.
    """

    landform: str
    size_km: float | None
    count: int | None
    bearing: float | None
    flows: bool
    detail: str
    offset: tuple[float, float] | None
    setting: str
    tone: float


def sample(landform: str, rng: Rng, size_px: int = 64) -> tuple[npt.NDArray[np.uint8], Attributes]:
    """Draw a grey image of a landform, one tile wide.

    Location, size, orientation, number, terrain and light vary.

    Args:
        landform: Name of the landform.
        rng: Random generator.
        size_px: Width and height in pixels.

    Returns:
        uint8 array of shape (size_px, size_px), and what it shows.

    Raises:
        UnknownNameError: If there is no such landform.
    """
    return draw_image(find(landform), rng, (size_px, size_px))


def draw_image(
    landform: Landform, rng: Rng, shape: tuple[int, int]
) -> tuple[npt.NDArray[np.uint8], Attributes]:
    """Draw a grey image of a landform; its smaller side is one tile wide.

    Args:
        landform: The landform.
        rng: Random generator.
        shape: Rows and columns.

    Returns:
        uint8 array of that shape, and what it shows.
    """
    tile = float(min(shape))
    middle = (shape[1] / 2, shape[0] / 2)
    ground = Ground(
        np.zeros(shape, np.float32), np.zeros(shape, np.float32), centre=middle, frame=tile
    )
    setting = SETTINGS[rng.integers(len(SETTINGS))]
    tone = float(np.clip(rng.normal(0, 0.12), -0.25, 0.25))
    strength = rng.uniform(0.75, 1.25)
    add_relief(
        ground,
        rng,
        broad=setting.broad * strength,
        rough=setting.rough * strength,
        knobs=setting.knobs * strength,
        mottle=setting.mottle,
        ripples=setting.ripples,
    )
    ground.tint(tone)
    add_craters(ground, rng, setting.craters)

    scale = float(rng.uniform(*SCALES))
    partial = landform.field and bool(rng.random() < 0.35)
    shift = 0.34 if partial else 0.2
    offset = (float(rng.uniform(-shift, shift)), float(rng.uniform(-shift, shift)))
    centre = (middle[0] + offset[0] * tile, middle[1] + offset[1] * tile)
    span = _PARTIAL_SPAN if partial else None
    traits = plant(landform, ground, rng, centre=centre, frame=scale * tile, span=span)
    add_craters(ground, rng, 0.5)

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
        offset=None if filled else offset,
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
    """Draw a landform into the ground.

    Args:
        landform: The landform.
        ground: Ground to modify.
        rng: Random generator.
        centre: Centre (x, y) in pixels.
        frame: Width of the landform's frame in pixels.
        span: Width in frames within which the landform fades into the ground; it ends within
            `REACH` times that. None lets it extend to the edge of the ground.
        trend: Bearing of wind or faults in degrees, or None.

    Returns:
        Properties of the landform.
    """
    canvas = Ground(
        ground.height.copy(), ground.albedo.copy(), centre=centre, frame=frame, trend=trend
    )
    traits = landform.draw(canvas, rng)
    if span is None:
        ground.height[:], ground.albedo[:] = canvas.height, canvas.albedo
        return traits
    # A field has a ragged edge; a single object fades into the plain around it.
    finest, inner = (0.1, 0.3) if landform.field else (0.3 * span, 0.22)
    ragged = np.clip(canvas.noise(rng, 0.5 * span, finest, 1.8), -2.5, 2.5)
    edge = canvas.radius() + 0.045 * span * ragged
    cover = 1 - smoothstep(edge, inner * span, 0.48 * span)
    ground.height += cover * (canvas.height - ground.height)
    ground.albedo += cover * (canvas.albedo - ground.albedo)
    return traits
