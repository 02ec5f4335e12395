"""The land before any landform: relief, texture, tone and old small craters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marsretrieval.datasets.synthetic._ground import Floats, Ground, Rng
from marsretrieval.datasets.synthetic._impact import bowl


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
