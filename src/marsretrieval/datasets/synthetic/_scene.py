"""One picture of one landform, as a tile of the mosaic would show it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets.synthetic._ground import Ground, Rng, smoothstep
from marsretrieval.datasets.synthetic._light import Light, expose, shade
from marsretrieval.datasets.synthetic._registry import Landform, find
from marsretrieval.datasets.synthetic._terrain import SETTINGS, lay, strew_craters
from marsretrieval.datasets.synthetic._traits import Traits

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
